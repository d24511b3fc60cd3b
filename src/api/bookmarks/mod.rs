//! Bookmarks, the example resource: `make delete-example` takes it out whole.
mod input;
mod preview;
mod store;

use crate::{
    app::App,
    backing::{idempotency::Stored, outbound::Outbound, postgres::Postgres, redis::Redis},
    http::{
        Problem,
        extract::{Json, Path, Query},
        idempotency::{self, IdempotencyKey},
        session::SignedIn,
    },
};
use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use input::{NewBookmark, Page};
use preview::{Preview, Previews};
use serde::Serialize;
use store::Bookmark;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(show, replace, delete))
        .merge(OpenApiRouter::new().routes(routes!(show_preview)).layer(Extension(Previews::default())))
}

#[derive(Serialize, ToSchema)]
pub struct BookmarkList {
    items: Vec<Bookmark>,
    /// Give it as `cursor` for the next page; null on the last.
    next_cursor: Option<Uuid>,
}

/// Keeps a bookmark. The same URL may be kept twice.
#[utoipa::path(post, path = "/v1/bookmarks", operation_id = "create_bookmark", tag = "bookmarks",
    request_body = NewBookmark,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[ -~]+$",
        description = "The same key and body replays the first answer")),
    responses(
        (status = 201, description = "Kept; `Location` and `ETag` are set", body = Bookmark),
        (status = 401, description = "`no_session`"),
        (status = 409, description = "`idempotency_in_progress`: the first request with this key still runs"),
        (status = 422, description = "`invalid`, or `idempotency_mismatch`: the key came with another body"),
    ))]
pub async fn create(
    State(db): State<Postgres>,
    SignedIn { session, .. }: SignedIn,
    key: IdempotencyKey,
    Json(new): Json<NewBookmark>,
) -> Result<Response, Problem> {
    let account = session.account_id;
    idempotency::once(&db, account, key, &("POST /v1/bookmarks", &new), async |conn| {
        let bookmark = store::insert(conn, account, &new).await?;
        Ok(Stored {
            status: 201,
            location: Some(format!("/v1/bookmarks/{}", bookmark.id)),
            etag: Some(bookmark.etag()),
            body: serde_json::to_vec(&bookmark).map_err(|error| sqlx::Error::Encode(error.into()))?,
        })
    })
    .await
}

/// The account's bookmarks, newest first.
#[utoipa::path(get, path = "/v1/bookmarks", operation_id = "list_bookmarks", tag = "bookmarks",
    params(Page), responses(
    (status = 200, description = "One page", body = BookmarkList),
    (status = 401, description = "`no_session`"),
    (status = 422, description = "`invalid`"),
))]
pub async fn list(
    State(db): State<Postgres>,
    SignedIn { session, .. }: SignedIn,
    Query(page): Query<Page>,
) -> Result<axum::Json<BookmarkList>, Problem> {
    let limit = page.limit();
    // One more than asked for tells whether there is a next page.
    let mut items = store::list(&db, session.account_id, limit + 1, page.cursor, page.tag.as_deref()).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id);
    Ok(axum::Json(BookmarkList { items, next_cursor }))
}

/// One bookmark.
#[utoipa::path(get, path = "/v1/bookmarks/{id}", operation_id = "show_bookmark", tag = "bookmarks",
    params(("id" = Uuid, Path), ("If-None-Match" = Option<String>, Header)),
    responses(
        (status = 200, description = "The bookmark; `ETag` is set", body = Bookmark),
        (status = 304, description = "Not changed since `If-None-Match`"),
        (status = 401, description = "`no_session`"),
        (status = 404, description = "`not_found`: none of the account's"),
    ))]
pub async fn show(
    State(db): State<Postgres>,
    SignedIn { session, .. }: SignedIn,
    Path(id): Path<Uuid>,
    request: Request,
) -> Result<Response, Problem> {
    let bookmark = store::find(&db, session.account_id, id).await?.ok_or_else(Problem::not_found)?;
    let unchanged = names(request.headers(), header::IF_NONE_MATCH, &bookmark.etag()).unwrap_or(false);
    Ok(if unchanged {
        (StatusCode::NOT_MODIFIED, etag(&bookmark)).into_response()
    } else {
        bookmark.into_response()
    })
}

/// Replaces a bookmark that has not changed since it was read.
#[utoipa::path(put, path = "/v1/bookmarks/{id}", operation_id = "replace_bookmark", tag = "bookmarks",
    request_body = NewBookmark,
    params(("id" = Uuid, Path), ("If-Match" = String, Header)),
    responses(
        (status = 200, description = "Replaced; the new `ETag` is set", body = Bookmark),
        (status = 401, description = "`no_session`"),
        (status = 404, description = "`not_found`"),
        (status = 412, description = "`stale`: it changed in the meantime"),
        (status = 422, description = "`invalid`"),
        (status = 428, description = "`if_match_required`"),
    ))]
pub async fn replace(
    State(db): State<Postgres>,
    SignedIn { session, .. }: SignedIn,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(new): Json<NewBookmark>,
) -> Result<Response, Problem> {
    let old = unchanged(&db, session.account_id, id, &headers).await?;
    let replaced = store::replace(&db, session.account_id, id, old.version, &new).await?;
    Ok(replaced.ok_or_else(stale)?.into_response())
}

/// Deletes a bookmark that has not changed since it was read.
#[utoipa::path(delete, path = "/v1/bookmarks/{id}", operation_id = "delete_bookmark", tag = "bookmarks",
    params(("id" = Uuid, Path), ("If-Match" = String, Header)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 401, description = "`no_session`"),
        (status = 404, description = "`not_found`"),
        (status = 412, description = "`stale`: it changed in the meantime"),
        (status = 428, description = "`if_match_required`"),
    ))]
pub async fn delete(
    State(db): State<Postgres>,
    SignedIn { session, .. }: SignedIn,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let old = unchanged(&db, session.account_id, id, &headers).await?;
    if store::delete(&db, session.account_id, id, old.version).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(stale())
    }
}

/// What the bookmarked page says of itself; asked of the upstream at most once an hour.
#[utoipa::path(get, path = "/v1/bookmarks/{id}/preview", tag = "bookmarks", params(("id" = Uuid, Path)), responses(
    (status = 200, description = "The preview", body = Preview),
    (status = 401, description = "`no_session`"),
    (status = 404, description = "`not_found`"),
    (status = 501, description = "`preview_disabled`: no upstream is configured"),
    (status = 502, description = "`upstream_failed`: the upstream gave no usable answer"),
    (status = 503, description = "`upstream_unavailable`: it failed too often; `Retry-After` says when to try"),
    (status = 504, description = "`upstream_timeout`"),
))]
pub async fn show_preview(
    State(db): State<Postgres>,
    State(redis): State<Redis>,
    State(upstream): State<Option<Outbound>>,
    Extension(previews): Extension<Previews>,
    SignedIn { session, .. }: SignedIn,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<Preview>, Problem> {
    let bookmark = store::find(&db, session.account_id, id).await?.ok_or_else(Problem::not_found)?;
    let upstream = upstream.ok_or_else(|| {
        Problem::new(StatusCode::NOT_IMPLEMENTED, "preview_disabled", "No preview upstream is configured.")
    })?;
    Ok(axum::Json(previews.get(&redis, &upstream, &bookmark).await?))
}

impl IntoResponse for Bookmark {
    fn into_response(self) -> Response {
        (etag(&self), axum::Json(self)).into_response()
    }
}

fn etag(bookmark: &Bookmark) -> [(header::HeaderName, HeaderValue); 1] {
    [(header::ETAG, HeaderValue::try_from(bookmark.etag()).expect("digits in quotes are legal in a header"))]
}

/// The bookmark, if it is still as `If-Match` says.
async fn unchanged(db: &Postgres, account: Uuid, id: Uuid, headers: &HeaderMap) -> Result<Bookmark, Problem> {
    let bookmark = store::find(db, account, id).await?.ok_or_else(Problem::not_found)?;
    match names(headers, header::IF_MATCH, &bookmark.etag()) {
        Some(true) => Ok(bookmark),
        Some(false) => Err(stale()),
        None => {
            let detail = "Send the bookmark's ETag as If-Match.";
            Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, "if_match_required", detail))
        }
    }
}

fn stale() -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "stale", "It changed since you read it; read it again.")
}

/// Whether a conditional header names this tag, or any; `None` without the header.
fn names(headers: &HeaderMap, name: header::HeaderName, etag: &str) -> Option<bool> {
    // A weak tag is good enough to keep a copy, not to overwrite what it stands for.
    let weak = if name == header::IF_NONE_MATCH { "W/" } else { "" };
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let tags = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    Some(tags.map(str::trim).any(|tag| tag == "*" || tag.strip_prefix(weak).unwrap_or(tag) == etag))
}

#[cfg(test)]
mod tests;
