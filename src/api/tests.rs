//! What every route has in common: limits, refusals, headers, and what works while something is down.
mod limits;
pub mod outages;
mod protection;
