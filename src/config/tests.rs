use super::*;
use std::collections::HashMap;

const REQUIRED: [(&str, &str); 2] =
    [("DATABASE_URL", "postgres://u:pg-canary@h/d"), ("REDIS_URL", "redis://:redis-canary@h")];

fn read(more: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let vars: HashMap<_, _> = REQUIRED.iter().chain(more).copied().collect();
    Config::from_lookup(|name| Ok(vars.get(name).map(|v| (*v).to_owned())))
}

#[test]
fn every_default_is_legal() {
    // What the defaults are is yours to choose; the README lists them.
    let config = read(&[]).expect("defaults are a valid configuration");
    assert!(config.worker_threads >= 2);
    assert_eq!(config.telemetry.collector, None);
}

#[test]
fn a_setting_has_the_unit_it_is_given_in() {
    let config = read(&[("SESSION_MAX", "36h"), ("RATE_LIMIT", "7/2s")]).expect("valid");
    assert_eq!(config.session_max, Duration::from_secs(36 * 3600));
    assert_eq!(config.rate_limit, Rate { count: 7, window: Duration::from_secs(2) });
}

#[test]
fn all_bad_variables_are_named_at_once() {
    let errors = read(&[
        ("PORT", "http"),
        ("REQUEST_TIMEOUT", "10"),
        ("RATE_LIMIT", "0/1m"),
        ("DATABASE_URL", "mysql://x"),
    ])
    .expect_err("four bad values");
    for name in ["PORT", "REQUEST_TIMEOUT", "RATE_LIMIT", "DATABASE_URL"] {
        assert!(errors.iter().any(|e| e.starts_with(name)), "{name} is missing in {errors:?}");
    }
    assert_eq!(errors.len(), 4);
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let port = read(&[]).expect("valid").port.to_string();
    for (name, value) in [
        ("SHUTDOWN_LAME_DUCK", "21s"),
        ("SHUTDOWN_DRAIN", "26s"),
        ("SESSION_IDLE", "13h"),
        ("OPS_PORT", &*port),
        ("SHUTDOWN_BUDGET", "0s"),
        ("MAX_CONNECTIONS", "0"),
    ] {
        assert_eq!(read(&[(name, value)]).expect_err(name).len(), 1, "{name}={value}");
    }
    assert!(read(&[("SHUTDOWN_LAME_DUCK", "0s")]).is_ok(), "no lame duck is legal");
}

#[test]
fn no_secret_is_printed() {
    let config =
        read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:otlp-canary@up/?password=query-canary&a=b")])
            .expect("valid");
    let shown = format!("{}{config:?}", config.to_lines());
    assert!(!shown.contains("-canary"), "{shown}");
    assert!(shown.contains("DATABASE_URL=postgres://u:[REDACTED]@h/d"), "{shown}");

    let errors = read(&[("DATABASE_URL", "oracle://u:pg-canary@h"), ("REDIS_URL", "redis-canary")])
        .expect_err("bad URLs");
    assert!(!errors.concat().contains("canary"), "{errors:?}");
}

#[test]
fn a_secret_may_come_from_a_file() {
    let file = std::env::temp_dir().join(format!("database-url-{}", std::process::id()));
    std::fs::write(&file, "postgres://u:p@elsewhere/d\n").expect("writable");
    let path = file.display().to_string();
    let config = read(&[("DATABASE_URL", ""), ("DATABASE_URL_FILE", &path)]).expect("valid");
    assert_eq!(config.database_url.expose(), "postgres://u:p@elsewhere/d");
    assert!(read(&[("DATABASE_URL_FILE", &path)]).is_err(), "given twice");

    assert_eq!(config.database_url.renewed().expect("readable"), None);
    std::fs::write(&file, "postgres://u:new@elsewhere/d").expect("writable");
    let renewed = config.database_url.renewed().expect("readable").expect("changed");
    assert_eq!(renewed.expose(), "postgres://u:new@elsewhere/d");
    assert_eq!(renewed.renewed().expect("readable"), None);
    std::fs::remove_file(file).expect("removable");
    assert!(renewed.renewed().is_err());
    assert_eq!(config.redis_url.renewed().expect("no file to read"), None);
}

#[test]
fn tracing_is_on_only_with_an_endpoint_and_unless_switched_off() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
    let collector = |more: &[_]| {
        let collector = read(more).expect("valid").telemetry.collector;
        collector.map_or_else(String::new, |address| address.expose().to_owned())
    };
    assert_eq!(collector(&[endpoint]), "http://collector:4318/v1/traces");
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/in");
    assert_eq!(collector(&[endpoint, own]), "http://traces/in");
    assert_eq!(collector(&[endpoint, ("OTEL_SDK_DISABLED", "true")]), "");
    assert_eq!(collector(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), "");
}

#[test]
fn a_protocol_that_is_not_spoken_is_refused() {
    for name in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] {
        assert!(read(&[(name, "http/protobuf")]).is_ok());
        assert!(read(&[(name, "grpc")]).expect_err(name)[0].contains("for example http/protobuf"));
    }
}

#[test]
fn durations_have_a_unit() {
    assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
    assert_eq!(parse_duration("12h"), Some(Duration::from_secs(43_200)));
    for bad in ["", "5", "s", "-1s", "1.5s", "5 s", "1d", "99999999999999999999s", "9999999h"] {
        assert_eq!(parse_duration(bad), None, "{bad:?}");
    }
}

#[test]
fn a_misspelt_level_is_refused() {
    for good in ["info", "warn,app=debug", "app::http=trace,off"] {
        assert!(read(&[("LOG_LEVEL", good)]).is_ok(), "{good}");
    }
    for bad in ["inof", "warn,debgu", "app=loud"] {
        assert!(read(&[("LOG_LEVEL", bad)]).is_err(), "{bad}");
    }
}
