//! The log level, to be seen and to be changed for a while.
use crate::server::connection::Peer;
use crate::{
    config::{is_log_filter, parse_duration},
    http::{Problem, extract::Json},
    runtime::level::LogLevel,
};
use axum::extract::{ConnectInfo, State};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
pub struct Level {
    level: String,
    /// When the one from the settings comes back, RFC 3339 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    level: String,
    #[serde(default = "five_minutes")]
    ttl: String,
}

fn five_minutes() -> String {
    "5m".to_owned()
}

/// `GET /log-level`: 200.
pub async fn show(State(log): State<LogLevel>) -> axum::Json<Level> {
    let (level, until) = log.get();
    axum::Json(Level { level, until })
}

/// `PUT /log-level`: 200 with what is in force now; 422 when the level or its time to live is none.
pub async fn change(
    State(log): State<LogLevel>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(change): Json<Change>,
) -> Result<axum::Json<Level>, Problem> {
    if !is_log_filter(&change.level) {
        return Err(Problem::invalid("level", "must be a log filter, for example debug or warn,app=debug"));
    }
    let ttl = parse_duration(&change.ttl).filter(|ttl| !ttl.is_zero());
    let ttl = ttl.ok_or_else(|| Problem::invalid("ttl", "must be a duration above zero, for example 5m"))?;
    log.change(&change.level, ttl, &peer.text).map_err(Problem::internal)?;
    Ok(show(State(log)).await)
}
