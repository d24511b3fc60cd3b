//! The built server as a process, with real Postgres and Redis: how it starts, stops, shares and refuses.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod bad_input;
mod boot;
mod hostile;
mod logs;
mod monitoring;
mod operations;
mod service;
mod shared;
mod stop;
mod supervised;
mod walk;
mod wire;
