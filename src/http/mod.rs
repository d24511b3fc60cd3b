//! What a request meets on its way in, and how a refusal looks.
pub mod admission;
pub mod body;
pub mod extract;
pub mod idempotency;
pub mod observe;
pub mod problem;
pub mod rate_limit;
mod report;
pub mod request_id;
pub mod security;
pub mod session;
pub mod text;

pub use problem::Problem;
