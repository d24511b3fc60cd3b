//! One pass over a line of tracing-bunyan-formatter that makes it fit to print: no secret, no key twice, time to the
//! millisecond, errors and settings as objects.
use super::redact;
use serde_json::{Map, Value};
use std::{mem, ops::Range};

/// Fields whose text, when it is a JSON object, becomes part of the line instead of a quoted string.
const SPLICED: [&[u8]; 3] = [b"err", b"routes", b"settings"];

/// What the formatter begins a line with, in this order. Then come `target line file`.
const CORE: [&[u8]; 7] = [b"v", b"name", b"msg", b"level", b"hostname", b"pid", b"time"];

/// Rewrites lines, and keeps them until they are printed.
#[derive(Default)]
pub struct Guard {
    /// The lines that are fit to print.
    pub out: Vec<u8>,
    /// What each line says that does not say it itself: names, and whole fields.
    base: Vec<(&'static str, String)>,
    /// Where the last line's level is in `out`.
    level: usize,
    /// Where its keys are.
    keys: Vec<Range<usize>>,
    /// One bit per hash of a key: a new key need not be compared with all the others.
    seen: u128,
}

impl Guard {
    /// `base` is names, and values as JSON.
    pub fn new(base: &[(&'static str, String)]) -> Self {
        let whole = |(key, value): &(_, String)| (*key, format!(r#""{key}":{value}"#));
        Self { base: base.iter().map(whole).collect(), ..Self::default() }
    }

    /// Appends what may be printed of `line`: one compact JSON object, flat but for what was logged as text.
    pub fn rewrite(&mut self, line: &[u8]) {
        self.keys.clear();
        self.seen = 0;
        self.out.push(b'{');
        let mut scan = Scan(line.get(1..).unwrap_or_default());
        let core = CORE.map(|_| scan.field());
        core.iter().flatten().for_each(|field| self.core(field));
        let [target, _line, _file] = [(); 3].map(|()| scan.field());
        while let Some(field) = scan.field() {
            self.field(&field);
        }
        // What the formatter says is good enough when the event says nothing.
        for field in [core[2], target].iter().flatten() {
            if !self.has(field.key) {
                self.guarded(field);
            }
        }
        let base = mem::take(&mut self.base);
        for (key, whole) in base.iter().map(|(key, whole)| (key.as_bytes(), whole.as_bytes())) {
            if !self.has(key) {
                self.copy(key, whole);
            }
        }
        self.base = base;
        self.out.pop_if(|last| *last == b',');
        self.out.extend_from_slice(b"}\n");
    }

    fn core(&mut self, field: &Given<'_>) {
        match field.key {
            b"msg" => return,
            b"time" => return self.put(b"time", |out| millis(field.value, out)),
            b"level" => self.level = self.out.len() + br#""level":"#.len(),
            _ => {}
        }
        self.copy(field.key, field.whole);
    }

    /// Of two fields with the same key the first stays: what an event says itself comes before what is said of it.
    fn field(&mut self, field: &Given<'_>) {
        let Given { key, value, .. } = *field;
        match key {
            b"message" => self.renamed(b"msg", value),
            _ if CORE.contains(&key) => self.renamed(&[b"event_", key].concat(), value),
            _ if self.has(key) => {}
            // Bunyan's level for what ends the process, which tracing lacks.
            b"fatal" if value == b"true" => self.out[self.level..self.level + 2].copy_from_slice(b"60"),
            // Where a record of the `log` crate comes from.
            b"log.target" => self.renamed(b"target", value),
            b"log.file" | b"log.line" | b"log.module_path" => {}
            _ if redact::is_secret(key) => self.put(key, |out| out.extend_from_slice(redact::MASK)),
            _ if SPLICED.contains(&key) => self.put(key, |out| splice(value, out)),
            [b'r', b'#', key @ ..] => self.renamed(key, value),
            _ => self.guarded(field),
        }
    }

    fn renamed(&mut self, key: &[u8], value: &[u8]) {
        if !self.has(key) {
            self.put(key, |out| redact::json(value, out));
        }
    }

    fn guarded(&mut self, field: &Given<'_>) {
        let Given { key, value, whole } = *field;
        match value {
            [b'"', ..] if !redact::may_hide_fields(value) => self.copy(key, whole),
            [b'"', ..] => self.put(key, |out| redact::string(value, out)),
            [b'{' | b'[', ..] => self.put(key, |out| redact::json(value, out)),
            _ => self.copy(key, whole),
        }
    }

    fn put(&mut self, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        self.note(key);
        self.out.push(b'"');
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(b"\":");
        value(&mut self.out);
        self.out.push(b',');
    }

    /// Puts a field that is fit to print as it is.
    fn copy(&mut self, key: &[u8], whole: &[u8]) {
        self.note(key);
        self.out.extend_from_slice(whole);
        self.out.push(b',');
    }

    fn note(&mut self, key: &[u8]) {
        let start = self.out.len() + 1;
        self.keys.push(start..start + key.len());
        self.seen |= bit(key);
    }

    fn has(&self, key: &[u8]) -> bool {
        self.seen & bit(key) != 0 && self.keys.iter().any(|seen| &self.out[seen.clone()] == key)
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

#[derive(Clone, Copy)]
struct Given<'a> {
    /// Without its quotes.
    key: &'a [u8],
    value: &'a [u8],
    /// Both, with what is between.
    whole: &'a [u8],
}

/// The fields that are still to be read.
struct Scan<'a>(&'a [u8]);

impl<'a> Scan<'a> {
    /// `None` at the end, or where this is not the compact JSON that it should be: the rest is then left out.
    fn field(&mut self) -> Option<Given<'a>> {
        let key_end = redact::string_end(self.0)?;
        let value = key_end + 1;
        let (whole, rest) = self.0.split_at(value + redact::value_end(self.0.get(value..)?)?);
        self.0 = rest.strip_prefix(b",").unwrap_or_default();
        Some(Given { key: &whole[1..key_end - 1], value: &whole[value..], whole })
    }
}
