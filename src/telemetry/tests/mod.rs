//! The room as the others see it: lines, spans, and a whole process that logs, traces and panics.
mod any_event;
mod careless;
pub mod lines;
mod process;
mod spans;
