//! Whatever is logged, the guard makes one sound line of it, without a key twice and without a secret.
#![no_main]
// The two files alone, so that a fuzzer's build takes seconds.
#[path = "../../src/telemetry/line.rs"]
mod line;
#[path = "../../src/telemetry/redact.rs"]
mod redact;

use serde_json::{Value, json};

const CORE: &[u8] = br#"{"v":0,"name":"n","msg":"m","level":30,"hostname":"h","pid":1,"time":"2026-11-22T15:04:05.1Z","target":"t","line":1,"file":"f","service":"s"}"#;

libfuzzer_sys::fuzz_target!(|fields: Vec<(String, String)>| {
    if fields.iter().any(|(key, text)| key.contains("canary") || text.contains("canary")) {
        return;
    }
    let mut given = "\"message\":\"m\"".to_owned();
    for (key, text) in &fields {
        let hidden = json!({ key: text, "b": [{ "user_password": "canary" }], "c": text }).to_string();
        let cut: String = hidden.chars().take(text.len() * 2).collect();
        let values = [text, &hidden, &cut, &format!("{text} {hidden:?}"), &format!("{:#?}", json!({ "token": "canary" }))];
        let value = values[key.len() % values.len()];
        given += &format!(",{}:{}", json!(key), json!(value));
    }
    let mut names: Vec<&str> = ["message"].into_iter().chain(fields.iter().map(|(key, _)| &**key)).collect();
    if names.len() % 2 == 0 {
        given += ",\"secret\":\"canary\"";
        names.push("secret");
    }
    given.push('}');
    let mut guard = line::Guard::default();
    let frame = line::Frame::new(CORE, &names);
    guard.line(&frame, "2026-11-22T15:04:05.100Z", given.as_bytes());
    let text = str::from_utf8(&guard.out).expect("a line is text");
    let line: Value = serde_json::from_str(text).expect("a line is JSON");
    assert_eq!(line.to_string().len() + 1, text.len(), "a key stands twice, or a line end is missing: {text}");
    assert!(!text.contains("canary"), "{text}");
});
