//! The OpenAPI document, and a page to read and try it that needs nothing from the internet.
use crate::http::{Problem, extract::Path, problem::ProblemBody, session};
use axum::{
    Extension, Router,
    body::Body,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use std::sync::Arc;
use utoipa::{
    OpenApi,
    openapi::{
        self, Content, PathItem, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_swagger_ui::Config;

#[derive(OpenApi)]
#[openapi(
    components(schemas(ProblemBody)),
    info(
        description = "Errors are `application/problem+json`. Sign up or in first: the session is a cookie."
    )
)]
struct Document;

/// The document before the resources add theirs.
pub fn openapi() -> openapi::OpenApi {
    Document::openapi()
}

/// `GET /openapi.json` and `GET /docs`.
pub fn routes<S: Clone + Send + Sync + 'static>(document: &openapi::OpenApi) -> Router<S> {
    let json = document.to_json().expect("a document of strings and numbers is JSON");
    let config = Arc::new(Config::from("/openapi.json").validator_url("none").use_base_layout());
    let page = get(async || ([(header::CONTENT_SECURITY_POLICY, CSP)], Html(PAGE)));
    Router::new()
        .route("/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], json)))
        .route("/docs", page.clone())
        .route("/docs/", page)
        .route("/docs/{file}", get(asset).layer(Extension(config)))
}

/// The page's own files only; its styles are set from script, hence `unsafe-inline` for those.
const CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>API</title>
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/swagger-ui-standalone-preset.js"></script>
<script src="/docs/swagger-initializer.js"></script>
</html>
"#;

async fn asset(
    Extension(config): Extension<Arc<Config<'static>>>,
    Path(file): Path<String>,
) -> Result<Response, Problem> {
    let found = utoipa_swagger_ui::serve(&file, config)
        .map_err(|error| Problem::internal(anyhow::anyhow!("{error}")))?;
    let file = found.ok_or_else(Problem::not_found)?;
    // The files change with the binary only.
    let headers =
        [(header::CONTENT_TYPE, file.content_type), (header::CACHE_CONTROL, "max-age=3600".to_owned())];
    // Compressed in the binary, and every browser reads that.
    let encoding = file.gzpipped.then_some([(header::CONTENT_ENCODING, "gzip")]);
    Ok((headers, encoding, Body::from(file.bytes.into_owned())).into_response())
}

/// Every operation may be refused, and those with a `no_session` want the session's cookie: the document says so once,
/// here, instead of in each handler.
pub fn complete(mut document: openapi::OpenApi) -> openapi::OpenApi {
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(session::COOKIE)));
    document.components.get_or_insert_default().add_security_scheme("session", cookie);
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for (status, answer) in &mut operation.responses.responses {
                if let RefOr::T(answer) = answer
                    && status.starts_with(['4', '5'])
                {
                    answer.content.insert("application/problem+json".to_owned(), problem().into());
                    if answer.description == "`no_session`" {
                        let session = SecurityRequirement::new("session", [""; 0]);
                        operation.security = Some(vec![session]);
                    }
                }
            }
            let other = ResponseBuilder::new()
                .description("Any other refusal")
                .content("application/problem+json", problem());
            operation.responses.responses.insert("default".to_owned(), other.build().into());
        }
    }
    document
}

fn problem() -> Content {
    Content::new(Some(Ref::from_schema_name("Problem")))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}
