//! The service, room by room.
//!
//! - [`config`]: every setting, its unit and default
//! - [`telemetry`]: logs, metrics, traces, and what is known of the request being served
pub mod config;
pub mod telemetry;
