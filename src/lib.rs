//! The service, room by room.
//!
//! - [`config`]: every setting, its unit and default
//! - [`telemetry`]: logs, metrics, traces, and what is known of the request being served
//! - [`backing`]: what the process leans on: Postgres, Redis, the upstream
//! - [`runtime`]: the running process, watched and adjusted: lag, stalls, the log level
//! - [`http`]: what a request meets on its way in, and how a refusal looks
//! - [`app`](mod@app): what a handler may ask for
//! - [`api`]: the public surface; yours, all the rest came with the house
//! - [`ops`]: the second port: probes, metrics, the log level, profiles
//! - [`server`]: sockets and the stop
pub mod api;
pub mod app;
pub mod backing;
pub mod config;
pub mod http;
pub mod ops;
pub mod runtime;
pub mod server;
pub mod telemetry;
