//! One pass over a line of tracing-bunyan-formatter that makes it fit to print: no secret, no key twice, time to the
//! millisecond, errors and settings as objects.
use super::redact;
use serde_json::{Map, Value};
use std::{mem, ops::Range};

/// Fields whose text, when it is a JSON object, becomes part of the line instead of a quoted string.
const SPLICED: [&[u8]; 3] = [b"err", b"routes", b"settings"];

/// What the formatter puts in front of `line` and `file`: `v name msg level hostname pid time target`.
const CORE_FIELDS: usize = 8;
const LINE_AND_FILE: Range<usize> = CORE_FIELDS..CORE_FIELDS + 2;

/// Rewrites lines, and keeps them until they are printed.
#[derive(Default)]
pub struct Guard {
    /// The lines that are fit to print.
    pub out: Vec<u8>,
    /// What each line says that does not say it itself: names, and values as JSON.
    base: Vec<(&'static str, String)>,
    /// Of the last line.
    fields: Vec<Field>,
    /// One bit per hash of a key: a new key need not be compared with all the others.
    seen: u128,
}

/// Where a field starts in `out`, and the length of its key.
struct Field {
    start: usize,
    key: usize,
}

impl Guard {
    pub fn new(base: Vec<(&'static str, String)>) -> Self {
        Self { base, ..Self::default() }
    }

    /// Appends what may be printed of `line`: one compact JSON object, flat but for what was logged as text.
    pub fn rewrite(&mut self, line: &[u8]) {
        self.fields.clear();
        self.seen = 0;
        self.out.push(b'{');
        let mut scan = Scan(line.get(1..).unwrap_or_default());
        for at in 0.. {
            match scan.field() {
                // Where the event stands in the source. Its own fields of these names come later.
                Some(_) if LINE_AND_FILE.contains(&at) => {}
                Some(field) => self.field(&field),
                None => break,
            }
        }
        let base = mem::take(&mut self.base);
        for (key, value) in &base {
            if !self.has(key.as_bytes()) {
                self.put(key.as_bytes(), |out| out.extend_from_slice(value.as_bytes()));
            }
        }
        self.base = base;
        self.out.pop_if(|last| *last == b',');
        self.out.extend_from_slice(b"}\n");
    }

    fn field(&mut self, field: &Given<'_>) {
        let Given { key, value, .. } = *field;
        match key {
            b"time" => self.put(key, |out| millis(value, out)),
            // The formatter's own.
            _ if self.fields.len() < CORE_FIELDS && key != b"msg" => self.copy(field),
            b"fatal" if value == b"true" => self.raise_level(),
            // The same of a record of the `log` crate.
            b"log.file" | b"log.line" | b"log.module_path" => {}
            b"log.target" => self.put(b"target", |out| redact::json(value, out)),
            // What the event itself says of these has come before.
            b"request_id" | b"trace_id" | b"span_id" if self.has(key) => {}
            _ if redact::is_secret(key) => self.put(key, redact::mask),
            _ if SPLICED.contains(&key) => self.put(key, |out| splice(value, out)),
            _ if redact::may_hide_fields(value) => self.put(key, |out| redact::json(value, out)),
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

    /// Bunyan's level for what ends the process, which tracing lacks.
    fn raise_level(&mut self) {
        if let Some(at) = self.find(b"level") {
            let value = self.fields[at].start + br#""level":"#.len();
            self.out[value..value + 2].copy_from_slice(b"60");
        }
    }
}

fn bit(key: &[u8]) -> u128 {
    let (first, last) = (key.first().copied().unwrap_or(0), key.last().copied().unwrap_or(0));
    1 << ((usize::from(first) * 7 + usize::from(last) * 3 + key.len()) % 128)
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

/// The JSON object that the string `value` holds, else the string.
fn splice(value: &[u8], out: &mut Vec<u8>) {
    let text = redact::unquote(value);
    match text.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok()) {
        // Built anew, so on one line and without a key twice.
        Some(object) => redact::json(Value::Object(object).to_string().as_bytes(), out),
        None => redact::json(value, out),
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
        let key_end = redact::string_end(self.0)?;
        let value_start = key_end + 1;
        let end = value_start + redact::value_end(self.0.get(value_start..)?)?;
        let (whole, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.strip_prefix(b",").unwrap_or_default();
        Some(Given { whole, key: &whole[1..key_end - 1], value: &whole[value_start..] })
    }
}
