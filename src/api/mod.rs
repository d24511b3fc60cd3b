//! The public surface: every resource, and what stands around all of them. {%- capture file %}{% raw %}
mod accounts;
#[cfg(test)]
mod actors;
mod bookmarks; // example
mod docs;
mod sessions;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod tests;

use crate::{
    app::App,
    config::Config,
    http::{Problem, admission::Admission, observe::Observe, session},
    server::drain::Drain,
};
use axum::{Json, Router, http::Uri, routing::Route};
use serde::Serialize;
use std::sync::Arc;
use tower::{layer::layer_fn, service_fn};
use utoipa::{ToSchema, openapi::OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes under the rate limit.
fn resources() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(docs::openapi())
        // A resource is two lines: its module above, its routes here.
        .merge(accounts::routes())
        .merge(sessions::routes())
        .merge(bookmarks::routes()) // example
}

/// The public router.
pub fn router(app: App, config: &Config, drain: Drain) -> Router {
    let admission = Admission::new(config.max_in_flight, config.queue_wait);
    let observe = Observe::new(config.request_timeout, config.trusted_proxies, admission, drain);
    let identity = Arc::new((app.sessions.clone(), app.limiter.clone()));
    let limits = layer_fn(move |route: Route| {
        let identity = Arc::clone(&identity);
        service_fn(move |request| session::identify(Arc::clone(&identity), request, route.clone()))
    });

    let (resources, document) = resources().route_layer(limits).routes(routes!(root)).split_for_parts();
    let routes = resources
        .merge(docs::routes(&docs::complete(document)))
        .fallback(not_found)
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .with_state(app);
    // A layer of your own goes onto these: what reaches it has its body and its place.
    observe.around(routes)
}

/// The OpenAPI document of the whole surface.
pub fn document() -> OpenApi {
    docs::complete(resources().routes(routes!(root)).into_openapi())
}

/// What this is, for whoever opens the address in a browser.
#[derive(Serialize, ToSchema)]
struct Root {
    service: &'static str,
    version: &'static str,
    docs: &'static str,
}

/// What this is. Needs no session and no dependency.
#[utoipa::path(get, path = "/", tag = "service", responses((status = 200, description = "Name and version", body = Root)))]
async fn root() -> Json<Root> {
    Json(Root { service: crate::config::PACKAGE, version: env!("CARGO_PKG_VERSION"), docs: "/docs" })
}

async fn not_found(_: Uri) -> Problem {
    Problem::not_found()
}
// cargo-generate {% endraw %}{% endcapture %}{% assign lines = file | split: "// cargo-generate" | first | newline_to_br | split: "<br />" %}{% for line in lines %}{% unless example == false and line contains "// example" %}{{ line }}{% endunless %}{% endfor -%}
