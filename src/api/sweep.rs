//! Every operation of the OpenAPI document, with everything that may be wrong with a request.
use super::{
    actors::{Actor, Answer, PASSWORD, Service},
    document,
};
use axum::http::Method;
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use std::{collections::HashSet, iter::repeat_n};
use uuid::Uuid;

/// One operation of the document.
struct Operation {
    method: Method,
    path: String,
    spec: Value,
}

impl Operation {
    fn documents(&self, status: &str) -> bool {
        self.spec["responses"].get(status).is_some()
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, spec) in item.as_object().expect("operations") {
            let method = method.to_uppercase().parse().expect("a method");
            operations.push(Operation { method, path: path.clone(), spec: spec.clone() });
        }
    }
    operations
}

fn described() -> Value {
    serde_json::to_value(document()).expect("the document is JSON")
}

#[test]
fn every_operation_is_described() {
    let document = described();
    let operations = operations(&document);
    assert!(operations.len() >= 9, "the document is nearly empty: {}", operations.len());
    let mut ids = HashSet::new();
    for Operation { method, path, spec } in &operations {
        let name = format!("{method} {path}");
        assert!(spec["operationId"].as_str().is_some_and(|id| ids.insert(id)), "{name}: no id of its own");
        assert!(spec["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}: no summary");
        let responses = spec["responses"].as_object().expect("responses");
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}: no success");
        assert!(responses.contains_key("default"), "{name}: no word on other refusals");
        for (status, response) in responses {
            let described = response["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{name} {status}: no description");
            if !status.starts_with(['2', '3']) {
                let schema = &response["content"]["application/problem+json"]["schema"];
                assert_eq!(resolve(&document, schema)["type"], "object", "{name} {status}: no problem");
            }
        }
        for parameter in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let known = spec["parameters"].as_array().is_some_and(|parameters| {
                parameters.iter().any(|known| known["name"] == parameter && known["in"] == "path")
            });
            assert!(known, "{name}: {parameter} is not described");
        }
    }
}

/// What a `$ref` points at.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect("references lead somewhere"),
        None => schema,
    }
}

/// A body with NUL in every text that the operation takes.
fn with_nul(document: &Value, operation: &Operation) -> Value {
    let schema = resolve(document, &operation.spec["requestBody"]["content"]["application/json"]["schema"]);
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let nul = |property: &Value| match resolve(document, property)["type"].as_str() {
        Some("array") => json!(["a\0"]),
        _ => json!("a\0"),
    };
    properties.iter().map(|(name, property)| (name.clone(), nul(property))).collect()
}

/// The id of something of the actor's that the operation is about. Where the document gives an example of a new one,
/// that is made first.
async fn existing(actor: &Actor<'_>, operation: &Operation, document: &Value) -> Option<String> {
    let (collection, _) = operation.path.split_once("/{id}")?;
    let methods = &document["paths"][collection];
    let new = resolve(document, &methods["post"]["requestBody"]["content"]["application/json"]["schema"]);
    if let Some(example) = new.get("example") {
        assert_eq!(actor.post(collection, example).await.status, 201, "{collection}: a bad example");
    }
    let listed = actor.get(collection).await;
    Some(listed.body["items"][0]["id"].as_str()?.to_owned())
}

const WRONGS: [&str; 9] = [
    "no body",
    "wrong content type",
    "wrong JSON type",
    "broken JSON",
    "unknown field",
    "NUL in text",
    "2 MiB declared",
    "2 MiB declared and sent",
    "2 MiB in chunks",
];

async fn send(actor: &Actor<'_>, operation: &Operation, path: &str, wrong: &str, document: &Value) -> Answer {
    let cookie = actor.cookie.borrow().clone().unwrap_or_default();
    let raw = async |extra: &str, body: Vec<u8>| {
        let head = format!(
            "{} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncookie: {cookie}\r\n\
             content-type: application/json\r\n{extra}\r\n\r\n",
            operation.method
        );
        actor.service.raw([head.into_bytes(), body].concat()).await
    };
    let spaces = |count: usize| repeat_n(b' ', count).collect::<Vec<u8>>();
    let declared = "content-length: 2097152";
    let request = actor.request(operation.method.clone(), path);
    let typed = |body: &str| request.try_clone().expect("no stream").body(body.to_owned());
    let request = match wrong {
        "no body" => request,
        "wrong content type" => typed("a=b").header("content-type", "text/plain"),
        "wrong JSON type" => request.json(&json!([1])),
        "broken JSON" => typed("{").header("content-type", "application/json"),
        "unknown field" => request.json(&json!({"surprise": 1})),
        "NUL in text" => request.json(&with_nul(document, operation)),
        "2 MiB declared" => return raw(declared, Vec::new()).await,
        "2 MiB declared and sent" => return raw(declared, spaces(2 << 20)).await,
        "2 MiB in chunks" => {
            let chunk = [b"10000\r\n".to_vec(), spaces(0x1_0000), b"\r\n".to_vec()].concat();
            let body = [chunk.repeat(32), b"0\r\n\r\n".to_vec()].concat();
            return raw("transfer-encoding: chunked", body).await;
        }
        other => panic!("no such wrong: {other}"),
    };
    actor.answer(request).await
}

#[track_caller]
fn is_as_documented(name: &str, operation: &Operation, answer: &Answer) {
    let status = answer.status;
    let documented = operation.documents(status.as_str());
    if status.is_success() || status.is_redirection() {
        assert!(documented, "{name}: {status} is not in the document");
        return;
    }
    let disabled = status == 501 && documented;
    assert!(status.is_client_error() || disabled, "{name}: {answer:?}");
    assert_ne!(status, 405, "{name}: not routed");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{name}: {answer:?}");
    let code = answer.body["code"].as_str().unwrap_or_else(|| panic!("{name}: no code in {answer:?}"));
    answer.is_problem(status.as_u16(), code);
    for leak in ["serde", "app::", "struct ", "sqlx", "hyper", "axum"] {
        assert!(!answer.text.contains(leak), "{name}: {answer:?}");
    }
}

#[sqlx::test]
async fn nothing_that_is_wrong_with_a_request_breaks_an_operation(pool: PgPool) {
    let service = Service::start(&pool).await;
    let (alice, anonymous) = (service.sign_up("alice").await, service.anonymous());
    let document = described();
    for operation in operations(&document) {
        for wrong in WRONGS {
            let name = format!("{} {}, {wrong}", operation.method, operation.path);
            if alice.cookie.borrow().is_none() {
                let answer = alice.sign_in("alice@example.com", PASSWORD).await;
                assert_eq!(answer.status, 201, "{name}: {answer:?}");
            }
            let id = existing(&alice, &operation, &document).await;
            let known = operation.path.replace("{id}", id.as_deref().unwrap_or("none"));
            let unknown = operation.path.replace("{id}", &Uuid::now_v7().to_string());

            let answer = send(&alice, &operation, &known, wrong, &document).await;
            is_as_documented(&format!("signed in, {name}"), &operation, &answer);
            if answer.header("set-cookie").starts_with("__Host-session=;") {
                alice.cookie.take();
            }
            assert_ne!(answer.status, 401, "signed in, {name}");
            if id.is_some() {
                assert_ne!(answer.status, 404, "signed in, {name}: not routed");
            }
            let answer = send(&anonymous, &operation, &unknown, wrong, &document).await;
            is_as_documented(&format!("anonymous, {name}"), &operation, &answer);
            let open = operation.spec.get("requestBody").is_none() && !operation.documents("401");
            assert!(answer.status.is_client_error() || open, "anonymous, {name}: {answer:?}");
            assert_ne!(answer.status, 404, "anonymous, {name}: not routed");
            if wrong == "no body" {
                let secured = operation.spec["security"] == json!([{ "session": [] }]);
                assert_eq!(answer.body["code"] == "no_session", secured, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_that_is_served_is_the_codes_own() {
    let service = Service::without_postgres(|_| {}).await;
    let served = service.anonymous().get("/openapi.json").await;
    assert_eq!(served.header("content-type"), "application/json");
    assert_eq!(served.body, described());
}

#[tokio::test]
async fn nothing_of_the_operations_port_is_public() {
    let service = Service::without_postgres(|_| {}).await;
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/version",
        "/log-level",
        "/debug",
        "/debug/stalls",
        "/debug/profile/cpu",
        "/debug/profile/heap",
    ] {
        service.anonymous().get(path).await.is_problem(404, "not_found");
        service.anonymous().put(path, &json!({})).await.is_problem(404, "not_found");
    }
}
