//! Alert rules and dashboard: every name in their queries is one that the server really emits. {%- capture file %}{% raw %}
use crate::service::{client, server, sign_up};
use serde_json::Value;
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Labels of each metric. Those that Prometheus adds are left out.
type Metrics = BTreeMap<String, BTreeSet<String>>;

/// What Prometheus itself knows.
const ADDED_LABELS: [&str; 3] = ["job", "instance", "alertstate"];
const ADDED_METRICS: [&str; 2] = ["up", "ALERTS"];
const WORDS: [&str; 14] = [
    "absent",
    "and",
    "avg",
    "by",
    "changes",
    "count",
    "histogram_quantile",
    "increase",
    "max",
    "or",
    "rate",
    "round",
    "sum",
    "vector",
];

/// What is wrong with a query, in words.
fn faults(query: &str, metrics: &Metrics) -> Vec<String> {
    let (labels, names): (Vec<_>, Vec<_>) =
        words(query).into_iter().partition(|(_, place)| *place == Place::Label);
    let names: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
    let ours = names
        .iter()
        .filter(|name| !WORDS.contains(&name.as_str()) && !ADDED_METRICS.contains(&name.as_str()));
    let ours: Vec<&String> = ours.collect();
    // Nothing may call an upstream; the panels for it are there all the same.
    if ours.iter().any(|name| name.starts_with("http_client_") && !metrics.contains_key(*name)) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut known: BTreeSet<&str> = ADDED_LABELS.into();
    for name in ours {
        match metrics.get(name) {
            Some(labels) => known.extend(labels.iter().map(String::as_str)),
            None => faults.push(format!("no metric {name} in {query}")),
        }
    }
    let strange = labels.iter().filter(|(label, _)| !known.contains(label.as_str()));
    faults.extend(strange.map(|(label, _)| format!("no label {label} in {query}")));
    faults
}

#[derive(PartialEq)]
enum Place {
    /// A metric or a word of the language.
    Name,
    /// Within `{…}` or `by (…)`.
    Label,
}

/// The words of a query outside of quotes, numbers and durations.
fn words(query: &str) -> Vec<(String, Place)> {
    let (mut words, mut rest) = (Vec::new(), query);
    let (mut braces, mut grouping) = (false, false);
    while let Some(c) = rest.chars().next() {
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
        let step = match c {
            '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            _ if c.is_alphabetic() || c == '_' => {
                let word = &rest[..length];
                let label = braces || grouping;
                words.push((word.to_owned(), if label { Place::Label } else { Place::Name }));
                grouping |= matches!(word, "by" | "without") && !label;
                length
            }
            _ if c.is_alphanumeric() => length.max(1),
            _ => {
                braces = (braces || c == '{') && c != '}';
                grouping &= c != ')';
                c.len_utf8()
            }
        };
        rest = &rest[step..];
    }
    words
}

/// The queries of the dashboard and of the rules, and the metrics that the rules record.
fn queries() -> (Vec<String>, Metrics) {
    let dashboard = fs::read_to_string("deploy/monitoring/dashboard.json").unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array());
    let mut queries: Vec<String> =
        targets.flatten().map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    let rules = fs::read_to_string("deploy/monitoring/rules.yaml").unwrap();
    let rules: Value = serde_saphyr::from_str(&rules).unwrap();
    let mut recorded = Metrics::new();
    for rule in
        rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap())
    {
        queries.push(rule["expr"].as_str().unwrap().to_owned());
        if let Some(name) = rule["record"].as_str() {
            recorded.insert(name.to_owned(), BTreeSet::new());
        }
    }
    (queries, recorded)
}

/// The series of a scrape: `name{label="value",…} 1`.
fn series(scrape: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in scrape.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        let labels = rest
            .split(['{', ','])
            .filter_map(|pair| pair.split_once("=\""))
            .map(|(label, _)| label.to_owned());
        metrics.entry(name.to_owned()).or_default().extend(labels);
    }
    metrics
}

#[sqlx::test]
async fn every_query_asks_for_metrics_that_the_server_emits(pool: PgPool) {
    let stub = drill::upstream::Stub::start().await.unwrap(); // example
    let server = server(&pool, "monitoring").env("RATE_LIMIT", "5/1m");
    let server = server.env("PREVIEW_URL", stub.url()); // example
    let server = server.start().await.unwrap();
    server.ready().await.unwrap();
    let cookie = sign_up(&server, "ada@example.org").await;
    let signed_in = |request: reqwest::RequestBuilder| request.header("cookie", &cookie).send();
    let page = serde_json::json!({"url": "https://example.org/"}); // example
    let bookmark = signed_in(client().post(server.url("/v1/bookmarks")).json(&page)).await.unwrap(); // example
    let preview = format!("{}/preview", bookmark.headers()["location"].to_str().unwrap()); // example
    assert_eq!(signed_in(client().get(server.url(&preview))).await.unwrap().status(), 200); // example
    let mut status = 0;
    for _ in 0..20 {
        status = signed_in(client().get(server.url("/v1/session"))).await.unwrap().status().as_u16();
    }
    assert_eq!(status, 429, "a refusal is counted too");

    let scrape = client().get(server.ops_url("/metrics")).send().await.unwrap().text().await.unwrap();
    let (queries, mut metrics) = queries();
    metrics.extend(series(&scrape));
    let faults: Vec<String> = queries.iter().flat_map(|query| faults(query, &metrics)).collect();
    assert_eq!(faults, [""; 0]);
    assert!(queries.len() > 40, "only {} queries were found", queries.len());
}

#[test]
fn a_query_for_what_is_not_emitted_is_found() {
    let metrics = series("requests_total{route=\"/\",status=\"200\"} 1\nup_bucket{le=\"1\"} 1\nplain 3");
    for good in [
        "sum by (route) (rate(requests_total{job=\"x\", status=~\"5..\"}[5m])) / 2 > 0.5",
        "histogram_quantile(0.9, sum by (le) (rate(up_bucket[1h])))",
        "plain and requests_total{route=\"nothing_total\"}",
    ] {
        assert_eq!(faults(good, &metrics), [""; 0], "{good}");
    }
    for bad in [
        "rate(request_total[5m])",
        "requests_total{code=\"200\"}",
        "sum by (code) (requests_total)",
        "nothing",
    ] {
        assert!(!faults(bad, &metrics).is_empty(), "{bad}");
    }
}
// cargo-generate {% endraw %}{% endcapture %}{% assign lines = file | split: "// cargo-generate" | first | newline_to_br | split: "<br />" %}{% for line in lines %}{% unless example == false and line contains "// example" %}{{ line }}{% endunless %}{% endfor -%}
