//! What must never be printed: the values of keys that name a secret, at any depth, also in JSON inside of text.
use memchr::{memchr, memchr2};
use serde::de::IgnoredAny;

pub const MASK: &[u8] = br#""[REDACTED]""#;

/// Plain words; `set-cookie` ends in one of them. `api_key` is two words and handled apart.
const SECRETS: [&[u8]; 6] = [b"authorization", b"cookie", b"password", b"token", b"secret", b"apikey"];

/// Whether a word of `key` names a secret: `user_password`, `passwordHash`, `X-Api-Key` and `ACCESSTOKEN` do,
/// `tokenizer` and `secretary` do not.
pub fn is_secret(key: &[u8]) -> bool {
    // Each secret has one of these in it; most keys have none, and need no closer look.
    let hint = |pair: &[u8]| matches!([pair[0] | 32, pair[1] | 32], [b'k' | b'w' | b'z', _] | [b'c', b'r']);
    if !key.windows(2).any(hint) {
        return false;
    }
    let mut before: &[u8] = b"";
    words(key).any(|word| {
        let word = word.strip_suffix(b"s").or(word.strip_suffix(b"S")).unwrap_or(word);
        let api_key = ends_in(before, b"api") && word.eq_ignore_ascii_case(b"key");
        before = word;
        api_key || SECRETS.iter().any(|secret| ends_in(word, secret))
    })
}

fn ends_in(word: &[u8], end: &[u8]) -> bool {
    word.len() >= end.len() && word[word.len() - end.len()..].eq_ignore_ascii_case(end)
}

/// Runs of letters, parted where the case says so: `HTTPToken` is `HTTP` and `Token`.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = key;
    std::iter::from_fn(move || {
        let start = rest.iter().position(u8::is_ascii_alphabetic)?;
        let end = (start + 1..rest.len()).find(|&at| is_border(rest, at)).unwrap_or(rest.len());
        let word = &rest[start..end];
        rest = &rest[end..];
        Some(word)
    })
}

fn is_border(key: &[u8], at: usize) -> bool {
    let lower = |at: usize| key.get(at).is_some_and(u8::is_ascii_lowercase);
    !key[at].is_ascii_alphabetic() || key[at].is_ascii_uppercase() && (lower(at - 1) || lower(at + 1))
}

/// Whether a JSON string may hold the fields of something: text such as `a: b`, `a=b`, a URL, or one with quotes or
/// line ends in it, as JSON has.
pub fn may_hide_fields(quoted: &[u8]) -> bool {
    // Without a branch, so that a register takes sixteen bytes at a time.
    let hides = |c, next| (c == b'\\') | (c == b'=') | (c == b':') & ((next == b' ') | (next == b'/'));
    (1..quoted.len()).fold(false, |found, at| found | hides(quoted[at - 1], quoted[at]))
}

fn quote(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing text to memory cannot fail");
}

/// Copies valid JSON without the secrets in it.
pub fn json(mut given: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr(b'"', given) {
        let (plain, rest) = given.split_at(at);
        let (quoted, rest) = rest.split_at(string_end(rest).unwrap_or(rest.len()));
        out.extend_from_slice(plain);
        given = rest;
        match rest.trim_ascii_start().strip_prefix(b":") {
            None if may_hide_fields(quoted) => string(quoted, out),
            Some(value) if names_secret(quoted) => {
                out.extend_from_slice(quoted);
                out.push(b':');
                out.extend_from_slice(MASK);
                given = &value[value_end(value).unwrap_or(value.len())..];
            }
            None | Some(_) => out.extend_from_slice(quoted),
        }
    }
    out.extend_from_slice(given);
}

fn names_secret(quoted: &[u8]) -> bool {
    let unescaped = || unquote(quoted).unwrap_or_default();
    is_secret(quoted) || quoted.contains(&b'\\') && is_secret(unescaped().as_bytes())
}

/// JSON in the text keeps its shape. In what only looks like it, a `Debug` form or a truncated body, nobody can say
/// where a secret ends: the rest is left out.
pub fn string(quoted: &[u8], out: &mut Vec<u8>) {
    let Some(text) = unquote(quoted) else { return out.extend_from_slice(quoted) };
    if text.trim_start().starts_with(['{', '[', '"']) && serde_json::from_str::<IgnoredAny>(&text).is_ok() {
        let mut clean = Vec::with_capacity(text.len());
        json(text.as_bytes(), &mut clean);
        return quote(str::from_utf8(&clean).unwrap_or_default(), out);
    }
    match secret_at(&text) {
        Some(at) => quote(&format!("{}[REDACTED]", &text[..at]), out),
        None => out.extend_from_slice(quoted),
    }
}

/// The text of a JSON string. Mostly all that is escaped in it are quotes, which is no work for a whole parser.
pub fn unquote(quoted: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut rest = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    while let Some(at) = memchr(b'\\', rest) {
        let Some(escaped @ (b'"' | b'\\')) = rest.get(at + 1) else {
            return serde_json::from_slice(quoted).ok();
        };
        text.extend_from_slice(&rest[..at]);
        text.push(*escaped);
        rest = &rest[at + 2..];
    }
    text.extend_from_slice(rest);
    String::from_utf8(text).ok()
}

/// Where the secret starts in something like `password: …`, `"token" = …` or `scheme://user:…@host`. A path such as
/// `token::parse` has none.
fn secret_at(text: &str) -> Option<usize> {
    let mut signs = text.match_indices([':', '=']).map(|(at, _)| at);
    let assigns = |at: &usize| {
        let before = text[..*at].trim_end_matches(['"', '\'', '\\', ' ']);
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || "_-.".contains(c)));
        let after = &text[at + 1..];
        let in_url = before.rfind(['/', ' ', '@', ':']).is_some_and(|at| before[..=at].ends_with("://"));
        in_url
            && !after.starts_with("[REDACTED]")
            && after.split(['/', ' ']).next().is_some_and(|rest| rest.contains('@'))
            || !after.starts_with(':') && is_secret(&before.as_bytes()[start.map_or(0, |start| start + 1)..])
    };
    signs.find(assigns).map(|at| at + 1)
}

/// The length of the string that `bytes` starts with, quotes included.
pub fn string_end(bytes: &[u8]) -> Option<usize> {
    bytes.first().filter(|first| **first == b'"')?;
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The length of the JSON value that `bytes` starts with.
pub fn value_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0_usize, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => at += string_end(&bytes[at..])?,
            b'}' | b']' | b',' if depth == 0 => return Some(at),
            b'{' | b'[' => (at, depth) = (at + 1, depth + 1),
            b'}' | b']' => (at, depth) = (at + 1, depth - 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_secret_when_one_of_its_words_is() {
        let secret = "authorization Authorization cookie set-cookie Set-Cookie password PASSWORD user_password \
            passwordHash password_hash token access_token token_type accessToken XToken secret client.secret \
            clientSecret api_key apiKey apikey API_KEY X-Api-Key APIKey api-key-id tokens password2 PGPASSWORD \
            HTTPTokenValue session_token_id proxy-authorization";
        for key in secret.split_whitespace() {
            assert!(is_secret(key.as_bytes()), "{key}");
        }
        let open = "tokenizer secretary cookiecutter passwordless key api idempotency_key method route authorized \
            monkey author apiary_key account_id v";
        for key in open.split_whitespace() {
            assert!(!is_secret(key.as_bytes()), "{key}");
        }
    }

    /// What is printed of a text.
    fn clean(text: &str) -> String {
        let (mut quoted, mut out) = (Vec::new(), Vec::new());
        quote(text, &mut quoted);
        json(&quoted, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn json_in_text_keeps_its_shape_and_loses_its_secrets() {
        for (given, printed) in [
            (r#"{"a":{"Password":[1,{"x":2}]},"b":1}"#, r#"{"a":{"Password":"[REDACTED]"},"b":1}"#),
            (r#"[{"token" : null}, 1]"#, r#"[{"token":"[REDACTED]"}, 1]"#),
            (r#"{"pass\u0077ord":"x"}"#, r#"{"pass\u0077ord":"[REDACTED]"}"#),
            (r#"{"body":"{\"secret\":1}"}"#, r#"{"body":"{\"secret\":\"[REDACTED]\"}"}"#),
            (r#""{\"api_key\":7}""#, r#""{\"api_key\":\"[REDACTED]\"}""#),
            ("{\"a\": 1,\n\"b\": 1.50}", "{\"a\": 1,\n\"b\": 1.50}"),
        ] {
            assert_eq!(clean(given), printed);
        }
    }

    #[test]
    fn what_only_looks_like_json_ends_at_its_first_secret() {
        for (leak, printed) in [
            (r#"{"password":"canary","cut"#, r#"{"password":[REDACTED]"#),
            (r#"at "x", "password":"canary"}"#, r#"at "x", "password":[REDACTED]"#),
            (
                r#"Login { email: "a@b.c", password: "canary" }"#,
                r#"Login { email: "a@b.c", password:[REDACTED]"#,
            ),
            (r#"Some(Login { user_token: Some("canary") })"#, "Some(Login { user_token:[REDACTED]"),
            ("https://example.com/?a=b&token=canary&c=d", "https://example.com/?a=b&token=[REDACTED]"),
            ("Authorization: Bearer canary", "Authorization:[REDACTED]"),
            ("no route to postgres://app:canary@db/app", "no route to postgres://app:[REDACTED]"),
        ] {
            assert_eq!(clean(leak), printed);
        }
        for harmless in
            ["{id}", "[redis] token refreshed", "{ tokenizer: 1 }", "a = {b}", "", "{", "\u{e9}: {x}\n"]
        {
            assert_eq!(clean(harmless), harmless);
        }
        let masked = "postgres://app:[REDACTED]@db/app, http://h:80/a:b@c and redis://h:1";
        assert_eq!(clean(masked), masked);
        let stack = "0: app::http::session::token::Token::parse\n 1: { main }";
        assert_eq!(clean(stack), stack);
    }
}
