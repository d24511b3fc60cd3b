//! The service, room by room.
//!
//! - [`backing`]: the database, Redis and upstreams, behind handles that answer or fail in bounded time
//! - [`config`]: every setting, its unit and default
//! - [`telemetry`]: logs, metrics, traces, and what is known of the request being served
pub mod backing;
pub mod config;
pub mod telemetry;
