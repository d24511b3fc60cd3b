//! What the process leans on: each behind a handle that answers or fails in bounded time, and recovers by itself.
//!
//! - [`postgres`]: connections, transactions; [`idempotency`] keeps answers beside their effects
//! - [`redis`]: one connection for all
//! - [`outbound`]: another service over HTTP; [`breaker`] spares one that keeps failing
//! - [`passwords`]: hashing, off the runtime's threads
//! - [`migrate`]: brings the schema up to date
//! - [`rotation`]: follows secrets that change
pub mod breaker;
pub mod idempotency;
pub mod migrate;
pub mod outbound;
pub mod passwords;
pub mod postgres;
#[cfg(test)]
mod proxy;
pub mod redis;
pub mod rotation;
