//! What the process leans on: each behind a handle that answers or fails in bounded time, and recovers by itself.
//!
//! - [`postgres`]: connections, transactions
//! - [`redis`]: one connection for all
//! - [`outbound`]: other services over HTTP; [`breaker`] spares one that keeps failing
//! - [`migrate`]: brings the schema up to date
pub mod breaker;
pub mod migrate;
pub mod outbound;
pub mod postgres;
#[cfg(test)]
mod proxy;
pub mod redis;
