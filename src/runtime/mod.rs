//! The running process, watched and adjusted: how late the async runtime is, which request holds one of its workers, and
//! how much the log tells.
pub mod lag;
pub mod level;
pub mod polls;
pub mod stalls;
#[cfg(test)]
mod tests;
