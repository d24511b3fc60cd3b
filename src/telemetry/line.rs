//! One pass over a line of tracing-bunyan-formatter that makes it fit to print: no secret, no key twice, time to the
//! millisecond, errors and settings as objects.
use super::redact;
use serde_json::{Map, Value};
use std::mem;

/// Fields whose text, when it is a JSON object, becomes part of the line instead of a quoted string.
const SPLICED: [&[u8]; 3] = [b"err", b"routes", b"settings"];

/// How many fields the formatter begins a line with: `v name msg level hostname pid time`. Then come `target line file`.
const CORE_FIELDS: usize = 7;

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
        (0..CORE_FIELDS).map_while(|_| scan.field()).for_each(|field| self.core(&field));
        let [target, _line, _file] = [(); 3].map(|()| scan.field().map_or(&b"null"[..], |field| field.value));
        while let Some(field) = scan.field() {
            self.field(&field);
        }
        self.add(b"target", target);
        let base = mem::take(&mut self.base);
        for (key, value) in &base {
            self.add(key.as_bytes(), value.as_bytes());
        }
        self.base = base;
        self.out.pop_if(|last| *last == b',');
        self.out.extend_from_slice(b"}\n");
    }

    fn core(&mut self, field: &Given<'_>) {
        match field.key {
            b"time" => self.put(b"time", |out| millis(field.value, out)),
            b"msg" => self.field(field),
            key => self.add(key, field.value),
        }
    }

    /// Of two fields with the same key the first stays: what an event says itself comes before what is said of it.
    fn field(&mut self, field: &Given<'_>) {
        let Given { key, value } = *field;
        match key {
            _ if self.has(key) => {}
            b"fatal" if value == b"true" => self.raise_level(),
            // Where a record of the `log` crate comes from.
            b"log.file" | b"log.line" | b"log.module_path" => {}
            b"log.target" => self.field(&Given { key: b"target", value }),
            _ if redact::is_secret(key) => self.add(key, redact::MASK),
            _ if SPLICED.contains(&key) => self.put(key, |out| splice(value, out)),
            _ if redact::may_hide_fields(value) => self.put(key, |out| redact::json(value, out)),
            _ => self.add(key, value),
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        if !self.has(key) {
            self.put(key, |out| out.extend_from_slice(value));
        }
    }

    fn put(&mut self, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        self.seen |= bit(key);
        self.fields.push(Field { start: self.out.len(), key: key.len() });
        self.out.push(b'"');
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(b"\":");
        value(&mut self.out);
        self.out.push(b',');
    }

    fn has(&self, key: &[u8]) -> bool {
        self.seen & bit(key) != 0 && self.find(key).is_some()
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        let same = |field: &Field| field.key == key.len() && &self.out[field.start + 1..][..field.key] == key;
        self.fields.iter().position(same)
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

struct Given<'a> {
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
        let value = self.0.get(key_end + 1..)?;
        let (value, rest) = value.split_at(redact::value_end(value)?);
        let key = &self.0[1..key_end - 1];
        self.0 = rest.strip_prefix(b",").unwrap_or_default();
        Some(Given { key, value })
    }
}
