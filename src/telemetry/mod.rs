//! What the process tells about itself: log lines, metrics, traces.
pub mod request;
