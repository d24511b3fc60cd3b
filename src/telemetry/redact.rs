//! What must never be printed: the values of keys that name a secret, at any depth, also in JSON inside of text.
use serde_json::Value;

pub const MASK: &str = "[REDACTED]";

/// Plain words; `set-cookie` ends in one of them. `api_key` is two words and handled apart.
const SECRETS: [&[u8]; 6] = [b"authorization", b"cookie", b"password", b"token", b"secret", b"apikey"];

/// The letters of each of them.
const LETTERS: [u32; SECRETS.len()] = {
    let mut all = [0; SECRETS.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = letters(SECRETS[at]);
        at += 1;
    }
    all
};

/// One bit per letter, whatever its case.
const fn letters(mut text: &[u8]) -> u32 {
    let mut set = 0;
    while let [first, rest @ ..] = text {
        set |= 1 << (*first & 31);
        text = rest;
    }
    set
}

/// Whether a word of `key` names a secret: `user_password`, `passwordHash`, `X-Api-Key` and `ACCESSTOKEN` do,
/// `tokenizer` and `secretary` do not.
pub fn is_secret(key: &[u8]) -> bool {
    // Most keys lack a letter or two of every secret, and need no closer look.
    let given = letters(key);
    if LETTERS.iter().all(|needed| needed & !given != 0) {
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

/// Masks the secrets in `value`. Answers whether there were any.
pub fn value(value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter_mut().fold(false, |found, (key, field)| {
            let secret = is_secret(key.as_bytes());
            if secret {
                *field = MASK.into();
            }
            found | (secret || self::value(field))
        }),
        Value::Array(items) => items.iter_mut().fold(false, |found, item| found | self::value(item)),
        Value::String(inner) => text(inner).map(|clean| *inner = clean).is_some(),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The text without the secrets in it, `None` when it may stay as it is. JSON keeps its shape; what only looks like
/// it (a `Debug` form, a truncated body) is masked whole.
pub fn text(text: &str) -> Option<String> {
    if text.trim_start().starts_with(['{', '[', '"'])
        && let Ok(mut json) = serde_json::from_str::<Value>(text)
    {
        return value(&mut json).then(|| json.to_string());
    }
    assigns_secret(text).then(|| MASK.to_owned())
}

/// Whether `text` holds something like `password: …` or `"token" = …`.
fn assigns_secret(text: &str) -> bool {
    text.match_indices([':', '=']).any(|(at, _)| {
        let before = text[..at].trim_end_matches(['"', '\'', '\\', ' ']);
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || "_-.".contains(c)));
        is_secret(&before.as_bytes()[start.map_or(0, |start| start + 1)..])
    })
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

    #[test]
    fn json_in_text_keeps_its_shape_and_loses_its_secrets() {
        let clean = |given: &str| text(given).unwrap_or_else(|| given.to_owned());
        assert_eq!(
            clean(r#"{"a":{"Password":[1,{"x":2}]},"b":1}"#),
            r#"{"a":{"Password":"[REDACTED]"},"b":1}"#
        );
        assert_eq!(clean(r#"[{"token":null}]"#), r#"[{"token":"[REDACTED]"}]"#);
        assert_eq!(clean(r#"{"body":"{\"secret\":1}"}"#), r#"{"body":"{\"secret\":\"[REDACTED]\"}"}"#);
        assert_eq!(clean(r#""{\"api_key\":7}""#), r#""{\"api_key\":\"[REDACTED]\"}""#);
        assert_eq!(clean(r#"{"a": 1}"#), r#"{"a": 1}"#, "untouched, spaces and all");
    }

    #[test]
    fn what_only_looks_like_json_is_masked_whole() {
        for leak in [
            r#"{"password":"canary","cut"#,
            r#"Login { email: "a@b.c", password: "canary" }"#,
            r#"{"authorization": Sensitive, "x": b"canary"}"#,
            r#"Some(Login { user_token: Some("canary") })"#,
        ] {
            assert_eq!(text(leak).as_deref(), Some(MASK), "{leak}");
        }
        for harmless in
            ["{id}", "[redis] token refreshed", "{ tokenizer: 1 }", "a = {b}", "", "{", "\u{e9}: {x}"]
        {
            assert_eq!(text(harmless), None, "{harmless}");
        }
    }
}
