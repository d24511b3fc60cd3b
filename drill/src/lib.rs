//! What runs the built service from outside, and stands in for what it talks to. Knows it as a binary and a contract only.
//!
//! - [`process`]: starts the binary, reads its log, signals it and waits for its end
//! - [`proxy`]: stands between two processes and misbehaves on demand
//! - [`upstream`]: a stub of the preview upstream, obedient to tests

pub mod process;
pub mod proxy;
pub mod upstream;
