//! What the process leans on: each service behind a handle that answers or fails in bounded time and recovers by itself.
//!
//! - [`postgres`]: connections, bounded waits, transactions
//! - [`redis`]: one shared connection, rebuilt when it stops answering
//! - [`outbound`]: the only maker of HTTP clients; [`breaker`] spares an upstream that keeps failing
//! - [`migrate`]: brings the schema up to date
pub mod idempotency;
pub mod migrate;
pub mod outbound;
pub mod passwords;
pub mod postgres;
pub mod redis;
