//! One pass over what an event says that makes it fit to print: no secret, no key twice, errors and settings as objects.
use super::redact;
use serde_json::{Map, Value};
use std::{iter, ops::Range};

/// Fields whose text, when it is a JSON object, becomes part of the line instead of a quoted string.
const SPLICED: [&[u8]; 3] = [b"err", b"routes", b"settings"];

/// What bunyan wants in every line.
const CORE: [&[u8]; 7] = [b"v", b"name", b"msg", b"level", b"hostname", b"pid", b"time"];

/// What all lines of one place in the code have in common.
pub struct Frame {
    /// From the line's start to its time.
    head: Vec<u8>,
    /// Where in it the level is.
    level: usize,
    /// Keys, and whole fields, for what the event does not say itself.
    defaults: Vec<(Vec<u8>, Vec<u8>)>,
    /// The defaults in one piece, when none of its fields is ever changed for its name's sake.
    tail: Option<Vec<u8>>,
}

impl Frame {
    /// From the formatter's line for an event without fields, and the names that fields can have.
    pub fn new(line: &[u8], names: &[&str]) -> Self {
        let mut frame = Self { head: b"{".to_vec(), level: 0, defaults: Vec::new(), tail: None };
        let mut scan = Scan(line.get(1..).unwrap_or_default());
        while let Some(Given { key, whole, .. }) = scan.field() {
            match key {
                b"time" | b"line" | b"file" => {}
                _ if key == b"msg" || !CORE.contains(&key) => frame.defaults.push((key.into(), whole.into())),
                _ => {
                    frame.head.extend_from_slice(whole);
                    frame.level = if key == b"level" { frame.head.len() - 2 } else { frame.level };
                    frame.head.push(b',');
                }
            }
        }
        frame.head.extend_from_slice(br#""time":""#);
        let tail = frame.defaults.iter().filter(|(key, _)| key != b"msg");
        let tail = tail.flat_map(|(_, whole)| [whole, &b","[..]].concat()).collect::<Vec<u8>>();
        let as_given = ["true", r#""{}""#].iter().all(|value| frame.leaves(names, value, &tail));
        frame.tail = as_given.then_some(tail);
        frame
    }

    /// Whether fields of these names are printed as they are.
    fn leaves(&self, names: &[&str], value: &str, tail: &[u8]) -> bool {
        let fields = names.iter().map(|name| format!("{}:{value}", Value::from(*name)));
        let fields = fields.collect::<Vec<_>>().join(",") + "}";
        let Some(rest) = fields.as_bytes().strip_prefix(MESSAGE) else { return false };
        let (mut guarded, mut given) = (Guard::default(), Guard::default());
        guarded.one_by_one(self, fields.as_bytes());
        given.as_given(rest, tail);
        guarded.out == given.out
    }
}

/// How nearly every event begins.
const MESSAGE: &[u8] = br#""message":"#;

/// Makes lines, and keeps them until they are printed.
#[derive(Default)]
pub struct Guard {
    /// The lines that are fit to print.
    pub out: Vec<u8>,
    /// Where the last line's level is in `out`.
    level: usize,
    /// Where its keys are.
    keys: Vec<Range<usize>>,
    /// One bit per hash of a key: a new key need not be compared with all the others.
    seen: u128,
}

impl Guard {
    /// Appends what may be printed of `fields`, which end in a brace: one compact JSON object, flat but for what was
    /// logged as text.
    pub fn line(&mut self, frame: &Frame, time: &str, fields: &[u8]) {
        self.keys.clear();
        self.seen = 0;
        self.level = self.out.len() + frame.level;
        self.out.extend_from_slice(&frame.head);
        self.out.extend_from_slice(time.as_bytes());
        self.out.extend_from_slice(b"\",");
        match (fields.strip_prefix(MESSAGE), &frame.tail) {
            (Some(rest), Some(tail)) if !redact::may_hide_fields(rest) => self.as_given(rest, tail),
            _ => self.one_by_one(frame, fields),
        }
        self.out.pop();
        self.out.extend_from_slice(b"}\n");
    }

    /// Takes the fields as they are, from the value of the message on.
    fn as_given(&mut self, rest: &[u8], tail: &[u8]) {
        self.out.extend_from_slice(br#""msg":"#);
        self.out.extend_from_slice(&rest[..rest.len() - 1]);
        self.out.push(b',');
        self.out.extend_from_slice(tail);
    }

    /// Takes a closer look at each field.
    fn one_by_one(&mut self, frame: &Frame, fields: &[u8]) {
        let mut scan = Scan(fields);
        iter::from_fn(|| scan.field()).for_each(|field| self.field(&field));
        for (key, whole) in &frame.defaults {
            if !self.has(key) {
                self.copy(key, whole);
            }
        }
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
        let given = self.0.strip_prefix(b",").unwrap_or(self.0);
        let key_end = redact::string_end(given)?;
        let value = key_end + 1;
        let (whole, rest) = given.split_at(value + redact::value_end(given.get(value..)?)?);
        self.0 = rest;
        Some(Given { key: &whole[1..key_end - 1], value: &whole[value..], whole })
    }
}
