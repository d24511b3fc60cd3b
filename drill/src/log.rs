//! What every line of the service's log must be.

use serde_json::Value;

/// In each line.
const FIELDS: [&str; 10] =
    ["v", "name", "hostname", "pid", "level", "time", "msg", "service", "region", "version"];
/// Besides, in the one that tells of a request.
const OF_A_REQUEST: [&str; 10] = [
    "request_id",
    "method",
    "route",
    "status",
    "latency_ms",
    "client",
    "queue_ms",
    "db_ms",
    "redis_ms",
    "outbound_ms",
];

/// The line, if it is one object with every field that each line has, and no key twice.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn sound(text: &str) -> Result<Value, String> {
    let line: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}: {text}"))?;
    // A parsed line has each key once.
    if line.to_string().len() != text.len() {
        return Err(format!("a key twice, or not compact: {text}"));
    }
    let of_a_request = if is_of_a_request(&line) { &OF_A_REQUEST[..] } else { &[] };
    if let Some(missing) = FIELDS.iter().chain(of_a_request).find(|name| line[**name].is_null()) {
        return Err(format!("{missing} is missing: {text}"));
    }
    let time = line["time"].as_str().unwrap_or_default();
    if time.len() != 24 || time.as_bytes()[19] != b'.' || !time.ends_with('Z') {
        return Err(format!("not a time in UTC with milliseconds: {text}"));
    }
    Ok(line)
}

/// Whether it tells of a request that is over.
pub fn is_of_a_request(line: &Value) -> bool {
    line["status"].is_u64() && line["msg"].as_str().is_some_and(|msg| msg.starts_with("request "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"v":0,"name":"a","hostname":"b","pid":1,"level":30,"time":"2026-11-22T15:04:05.123Z","msg":"up","service":"a","region":"local","version":"0.1.0"}"#;

    #[test]
    fn a_line_is_one_object_with_each_of_its_fields_once() {
        assert_eq!(sound(LINE).unwrap()["msg"], "up");
        for (right, wrong, fault) in [
            ("{", "", "not JSON"),
            (r#""v":0"#, r#""v":0,"v":0"#, "twice"),
            (r#""region":"local","#, "", "region is missing"),
            (".123Z", "Z", "not a time"),
            (r#""msg":"up""#, r#""msg":"request completed","status":200"#, "request_id is missing"),
        ] {
            let line = LINE.replacen(right, wrong, 1);
            assert!(sound(&line).unwrap_err().contains(fault), "{line}");
        }
    }
}
