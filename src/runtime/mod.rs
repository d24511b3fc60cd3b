//! The running process: the threads that serve, how late they are, which request holds one of them, and how much the log
//! tells.
pub mod lag;
pub mod level;
pub mod polls;
pub mod stalls;
#[cfg(test)]
mod tests;
pub mod workers;
