//! One pass over a line of tracing-bunyan-formatter that makes it fit to print: no secret, no key twice, time to the
//! millisecond, and the request it belongs to.
use super::{redact, request};
use opentelemetry::{Context, trace::TraceContextExt};
use serde_json::Value;

/// Fields whose text, when it is a JSON object, becomes part of the line instead of a quoted string.
const SPLICED: [&[u8]; 3] = [b"err", b"routes", b"settings"];

/// What the formatter puts in front of `line` and `file`: `v name msg level hostname pid time target`.
const CORE_FIELDS: usize = 8;

/// The line being built, with room that is used again for the next one.
#[derive(Default)]
pub struct Line {
    out: Vec<u8>,
    fields: Vec<Field>,
    /// One bit per hash of a key: a new key need not be compared with all the others.
    seen: u64,
    level_at: usize,
}

/// Where a field starts in `out`, and the length of its key.
struct Field {
    start: usize,
    key: usize,
}

impl Line {
    /// Rewrites one compact JSON object, flat but for what was logged as text. Answers with the line to print.
    pub fn rewrite(&mut self, given: &[u8]) -> &[u8] {
        self.out.clear();
        self.fields.clear();
        self.seen = 0;
        self.out.push(b'{');
        let mut scan = Scan(given.get(1..).unwrap_or_default());
        while let Some(field) = scan.field() {
            self.field(&field);
        }
        self.context();
        self.out.pop_if(|last| *last == b',');
        self.out.extend_from_slice(b"}\n");
        &self.out
    }

    /// Gives memory back after an unusually long line.
    pub fn shrink(&mut self) {
        self.out.shrink_to(16 << 10);
    }

    fn field(&mut self, field: &Given<'_>) {
        let Given { key, value, .. } = *field;
        match key {
            b"time" => self.put(key, |out| millis(value, out)),
            b"level" => {
                self.copy(field);
                self.level_at = self.out.len() - value.len() - 1;
            }
            b"fatal" if value == b"true" => {
                if let Some(level) = self.out.get_mut(self.level_at..self.level_at + 2) {
                    level.copy_from_slice(b"60");
                }
            }
            // Where the event stands in the source. An event's own field of that name comes later.
            b"line" | b"file" if self.fields.len() == CORE_FIELDS => {}
            _ if redact::is_secret(key) => self.put(key, |out| json(redact::MASK, out)),
            _ if SPLICED.contains(&key) || may_hide_fields(value) => match clean(key, value) {
                Some(text) => self.put(key, |out| out.extend_from_slice(text.as_bytes())),
                None => self.copy(field),
            },
            _ => self.copy(field),
        }
    }

    fn copy(&mut self, field: &Given<'_>) {
        self.enter(field.key);
        self.out.extend_from_slice(field.whole);
        self.out.push(b',');
    }

    fn put(&mut self, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        self.enter(key);
        self.out.push(b'"');
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(b"\":");
        value(&mut self.out);
        self.out.push(b',');
    }

    /// Notes that a field follows; of two with the same key the later one stays.
    fn enter(&mut self, key: &[u8]) {
        if self.has(key) {
            self.remove(key);
        }
        self.seen |= bit(key);
        self.fields.push(Field { start: self.out.len(), key: key.len() });
    }

    fn has(&self, key: &[u8]) -> bool {
        self.seen & bit(key) != 0 && self.find(key).is_some()
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        let same = |field: &Field| field.key == key.len() && &self.out[field.start + 1..][..field.key] == key;
        self.fields.iter().position(same)
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(at) = self.find(key) else { return };
        let start = self.fields.remove(at).start;
        let end = self.fields.get(at).map_or(self.out.len(), |next| next.start);
        self.out.drain(start..end);
        self.fields[at..].iter_mut().for_each(|field| field.start -= end - start);
    }

    /// Adds the ids of the request that the caller serves, where the event does not give its own.
    fn context(&mut self) {
        request::with_current(|request| {
            if !self.has(b"request_id") {
                self.put(b"request_id", |out| json(&request.id, out));
            }
            // The innermost span; without one entered, as in a destructor, the request's own.
            if !Context::map_current(|context| self.span(context)) {
                self.span(&request.otel);
            }
        });
    }

    fn span(&mut self, context: &Context) -> bool {
        let span = context.span();
        let ids = span.span_context();
        if ids.is_valid() {
            self.id(b"trace_id", &ids.trace_id().to_bytes());
            self.id(b"span_id", &ids.span_id().to_bytes());
        }
        ids.is_valid()
    }

    fn id(&mut self, key: &[u8], id: &[u8]) {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
        if !self.has(key) {
            self.put(key, |out| {
                out.push(b'"');
                out.extend(id.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]));
                out.push(b'"');
            });
        }
    }
}

fn bit(key: &[u8]) -> u64 {
    let (first, last) = (key.first().copied().unwrap_or(0), key.last().copied().unwrap_or(0));
    1 << ((usize::from(first) * 7 + usize::from(last) * 3 + key.len()) % 64)
}

/// The text as a JSON string.
fn json(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing text to memory cannot fail");
}

/// `"2026-11-22T15:04:05.1234Z"`, with none to nine digits, to exactly three.
fn millis(value: &[u8], out: &mut Vec<u8>) {
    let Some((second, rest)) = value.split_at_checked(b"\"2026-11-22T15:04:05".len()) else {
        return out.extend_from_slice(value);
    };
    let digits = rest.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).copied();
    out.extend_from_slice(second);
    out.push(b'.');
    out.extend(digits.chain(*b"000").take(3));
    out.extend_from_slice(b"Z\"");
}

/// Whether a value may hold the fields of something: JSON, also quoted or truncated, or the `Debug` form of a struct.
/// In text, their brace is followed by a space or an escape; that of a route's `{id}` is not.
fn may_hide_fields(value: &[u8]) -> bool {
    match value {
        [b'"', ..] => value.contains(&b'{') && value.windows(2).any(|pair| pair == b"{ " || pair == b"{\\"),
        [first, ..] => matches!(first, b'{' | b'['),
        [] => false,
    }
}

/// The value to print where it differs from the given one.
fn clean(key: &[u8], value: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(value).ok()? {
        Value::String(text) => {
            if SPLICED.contains(&key)
                && let Ok(mut object @ Value::Object(_)) = serde_json::from_str(&text)
            {
                redact::value(&mut object);
                return Some(object.to_string());
            }
            redact::text(&text).map(|clean| Value::from(clean).to_string())
        }
        mut nested => redact::value(&mut nested).then(|| nested.to_string()),
    }
}

/// A field as it was written.
struct Given<'a> {
    whole: &'a [u8],
    /// Without its quotes.
    key: &'a [u8],
    value: &'a [u8],
}

/// The fields that are still to be read.
struct Scan<'a>(&'a [u8]);

impl<'a> Scan<'a> {
    /// `None` at the end, or where this is not the compact JSON that it should be: the rest is then left out.
    fn field(&mut self) -> Option<Given<'a>> {
        let key_end = string_end(self.0)?;
        let value_start = key_end + 1;
        let end = value_start + value_end(self.0.get(value_start..)?)?;
        let (whole, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.strip_prefix(b",").unwrap_or_default();
        Some(Given { whole, key: &whole[1..key_end - 1], value: &whole[value_start..] })
    }
}

/// The length of the string that `bytes` starts with, quotes included.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    if bytes.first() != Some(&b'"') {
        return None;
    }
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The length of the JSON value that `bytes` starts with.
fn value_end(bytes: &[u8]) -> Option<usize> {
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
