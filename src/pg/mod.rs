//! PostgreSQL: its files, programs, processes and sessions. No decisions.
pub mod bounded;
pub mod checkpointer;
pub mod commands;
pub mod conf;
pub mod connect;
pub mod control;
pub mod debian;
pub mod files;
pub mod follow;
pub mod hba;
mod membership;
pub mod place;
pub mod process;
pub mod queries;
pub mod slots;
pub mod tls;
pub mod version;
pub mod wal;

pub use place::Place;
