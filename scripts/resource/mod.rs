//! Notes, each of which belongs to one account.
mod store;

use crate::{
    app::App,
    backing::postgres::Postgres,
    http::{
        Problem,
        extract::{Json, Path, Query},
        session::SignedIn,
        text::Text,
    },
};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use store::Note;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

/// The most notes in one answer.
const PAGE: usize = 50;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(show, delete))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"text": "Something to remember"}))]
struct NewNote {
    text: Text<1, 1000>,
}

#[derive(Serialize, ToSchema)]
struct NoteList {
    items: Vec<Note>,
    /// Give it as `cursor` for the next page; null on the last.
    next_cursor: Option<Uuid>,
}

/// Which notes.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Uuid>,
}

/// Makes a note.
#[utoipa::path(post, path = "/v1/notes", operation_id = "create_note", tag = "notes", request_body = NewNote,
    responses(
        (status = 201, description = "Made; `Location` is set", body = Note),
        (status = 401, description = "`no_session`"),
        (status = 422, description = "`invalid`"),
    ))]
async fn create(
    State(db): State<Postgres>,
    SignedIn { session, .. }: SignedIn,
    Json(new): Json<NewNote>,
) -> Result<impl IntoResponse, Problem> {
    let note = store::insert(&db, session.account_id, &new.text).await?;
    let location = [(header::LOCATION, format!("/v1/notes/{}", note.id))];
    Ok((StatusCode::CREATED, location, axum::Json(note)))
}

/// The account's notes, newest first.
#[utoipa::path(get, path = "/v1/notes", operation_id = "list_notes", tag = "notes", params(Page),
    responses(
        (status = 200, description = "At most 50", body = NoteList),
        (status = 401, description = "`no_session`"),
        (status = 422, description = "`invalid`"),
    ))]
async fn list(
    State(db): State<Postgres>,
    SignedIn { session, .. }: SignedIn,
    Query(page): Query<Page>,
) -> Result<axum::Json<NoteList>, Problem> {
    // One more than is shown tells whether there is a next page.
    let mut items = store::list(&db, session.account_id, PAGE + 1, page.cursor).await?;
    let more = items.len() > PAGE;
    items.truncate(PAGE);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id);
    Ok(axum::Json(NoteList { items, next_cursor }))
}

/// One note.
#[utoipa::path(get, path = "/v1/notes/{id}", operation_id = "show_note", tag = "notes",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The note", body = Note),
        (status = 401, description = "`no_session`"),
        (status = 404, description = "`not_found`: none of the account's"),
    ))]
async fn show(
    State(db): State<Postgres>,
    SignedIn { session, .. }: SignedIn,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<Note>, Problem> {
    let note = store::find(&db, session.account_id, id).await?;
    note.map(axum::Json).ok_or_else(Problem::not_found)
}

/// Deletes a note.
#[utoipa::path(delete, path = "/v1/notes/{id}", operation_id = "delete_note", tag = "notes",
    params(("id" = Uuid, Path)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 401, description = "`no_session`"),
        (status = 404, description = "`not_found`"),
    ))]
async fn delete(
    State(db): State<Postgres>,
    SignedIn { session, .. }: SignedIn,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let deleted = store::delete(&db, session.account_id, id).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found()) }
}

#[cfg(test)]
mod tests;
