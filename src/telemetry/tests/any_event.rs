//! Whatever an event holds, its line is one line of JSON, without a key twice and without a secret.
use super::lines::raw_lines;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use std::slice::from_ref;
use tracing::{
    Event, Metadata, Value as Loggable,
    callsite::{Callsite, Identifier},
    field::{FieldSet, display},
    level_filters::LevelFilter,
    metadata::Kind,
    subscriber::Interest,
};

/// In place of a secret: none may be printed.
const CANARY: &str = "canary\"{: }\\";
const SECRET: [&str; 9] = [
    "password",
    "Authorization",
    "set-cookie",
    "accessToken",
    "X-Api-Key",
    "client_secret",
    "tokens",
    "PGPASSWORD",
    "apikey",
];
/// Ordinary names, and such as the formatter, bunyan and we ourselves have a use for.
const OTHERS: [&str; 25] = [
    "a",
    "b",
    "v",
    "name",
    "msg",
    "level",
    "hostname",
    "pid",
    "time",
    "target",
    "line",
    "file",
    "service",
    "region",
    "version",
    "fatal",
    "err",
    "settings",
    "routes",
    "request_id",
    "trace_id",
    "span_id",
    "r#type",
    "log.target",
    "log.line",
];

/// An event like those that the macros make, with fields that no macro could know.
fn emit(names: Vec<String>, values: &[Box<dyn Loggable>]) {
    struct Here;
    static HERE: Here = Here;
    impl Callsite for Here {
        fn set_interest(&self, _: Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("it is not registered")
        }
    }
    let names: &'static [&'static str] =
        names.into_iter().map(|name| &*name.leak()).collect::<Vec<_>>().leak();
    let fields = FieldSet::new(names, Identifier(&HERE));
    let level = LevelFilter::INFO.into_level().unwrap();
    let metadata =
        Metadata::new("event", "here", level, Some("f.rs"), Some(1), Some("here"), fields, Kind::EVENT);
    let metadata: &'static Metadata<'static> = Box::leak(Box::new(metadata));
    let fields: Vec<_> = metadata.fields().iter().collect();
    let given: [_; 6] = std::array::from_fn(|at| (&fields[at], Some(&*values[at])));
    Event::dispatch(metadata, &metadata.fields().value_set(&given));
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![3 => select(&OTHERS[..]).prop_map(str::to_owned), 1 => ".{0,6}"]
}

fn secret_field() -> impl Strategy<Value = (String, Value)> {
    let value = select(vec![json!(CANARY), json!([CANARY]), json!({ "x": [{ "y": CANARY }] })]);
    (select(&SECRET[..]).prop_map(str::to_owned), value)
}

/// JSON of any shape, with canaries where secrets are.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let field = prop_oneof![2 => (key(), inner.clone()), 1 => secret_field()];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec(field, 0..4).prop_map(|fields| Value::Object(Map::from_iter(fields))),
            inner.prop_map(|inner| inner.to_string().into()),
        ]
    })
}

/// Such JSON as it gets into a log: whole, cut, in other text, in one `Debug` form or another.
fn any_text() -> impl Strategy<Value = String> {
    let cut = |(json, at): (Value, prop::sample::Index)| {
        let text = json.to_string();
        let at = at.index(text.len() + 1);
        text.char_indices()
            .take_while(|(start, c)| start + c.len_utf8() <= at)
            .map(|(_, c)| c)
            .collect::<String>()
    };
    prop_oneof![
        any_json().prop_map(|json| json.to_string()),
        any_json().prop_map(|json| format!("{json:#}")),
        any_json().prop_map(|json| format!("{json:?}")),
        any_json().prop_map(|json| format!("{json:#?}")),
        any_json().prop_map(|json| format!("{:?}", json.to_string())),
        any_json().prop_map(|json| format!("got {json} from b: c")),
        (any_json(), any::<prop::sample::Index>()).prop_map(cut),
        ".{0,40}",
    ]
}

/// A field's value, in each way that there is to give one.
#[derive(Clone, Debug)]
enum Given {
    Text(String),
    Shown(String),
    Integer(i64),
    Float(f64),
    Flag(bool),
}

impl Given {
    fn into_loggable(self) -> Box<dyn Loggable> {
        match self {
            Self::Text(text) => Box::new(text),
            Self::Shown(text) => Box::new(display(text)),
            Self::Integer(number) => Box::new(number),
            Self::Float(number) => Box::new(number),
            Self::Flag(flag) => Box::new(flag),
        }
    }
}

fn any_field() -> impl Strategy<Value = (String, Given)> {
    let value = prop_oneof![
        3 => any_text().prop_map(Given::Text),
        1 => any_text().prop_map(Given::Shown),
        1 => any::<i64>().prop_map(Given::Integer),
        1 => any::<i32>().prop_map(|number| Given::Float(f64::from(number) / 8.0)),
        1 => select(vec![Given::Float(f64::NAN), Given::Flag(true), Given::Flag(false)]),
    ];
    let secret = select(&SECRET[..]).prop_map(|key| (key.to_owned(), Given::Text(CANARY.to_owned())));
    prop_oneof![5 => (key(), value), 1 => secret]
}

/// Mostly one that needs no closer look.
fn calm_field() -> impl Strategy<Value = (String, Given)> {
    let value = prop_oneof![
        ".{0,9}".prop_map(Given::Text),
        "[a-z=: ]{0,9}".prop_map(Given::Shown),
        any::<i64>().prop_map(Given::Integer),
        any::<bool>().prop_map(Given::Flag),
    ];
    ("[a-f]{1,3}", value)
}

/// The one line of an event with these fields.
fn line_of(fields: Vec<(String, Given)>) -> String {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let values: Vec<_> = values.into_iter().map(Given::into_loggable).collect();
    let mut lines = raw_lines(|| emit(names, &values));
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_event_is_one_sound_line(
        fields in prop_oneof![vec(any_field(), 5), vec(calm_field(), 5)],
        message in prop_oneof![any_text(), "[a-z ]*"],
    ) {
        let message = ("message".to_owned(), Given::Shown(message));
        let text = line_of([from_ref(&message), &fields[..]].concat());
        let mut line: Value = serde_json::from_str(&text).expect(&text);
        // A key that stands twice would be one key less in the parsed line.
        prop_assert_eq!(line.to_string().len(), text.len(), "{}", &text);
        prop_assert!(!text.contains("canary"), "{}", &text);
        for (name, value) in [("v", json!(0)), ("name", json!("orders")), ("pid", json!(std::process::id()))] {
            prop_assert_eq!(&line[name], &value);
        }
        prop_assert!(matches!(line["level"].as_u64(), Some(30 | 60)));
        prop_assert_eq!(line["time"].as_str().map(str::len), Some(24));

        // No macro puts the message last: each of these fields gets a closer look.
        let careful = line_of([&fields[..], &[message]].concat());
        let mut careful: Value = serde_json::from_str(&careful).expect(&careful);
        (line["time"], careful["time"]) = (Value::Null, Value::Null);
        prop_assert_eq!(line, careful);
    }
}
