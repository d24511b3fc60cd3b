//! The async runtime, watched: how late it runs what is due, and which request holds one of its workers.
pub mod lag;
pub mod polls;
pub mod stalls;
#[cfg(test)]
mod tests;
