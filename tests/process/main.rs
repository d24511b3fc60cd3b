//! The built server as a process, with real Postgres and Redis: how it starts, stops, shares and refuses.
mod boot;
mod logs;
mod service;
mod shared;
mod stop;
mod walk;
