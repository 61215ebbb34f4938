//! PostgreSQL: its files, programs, processes and sessions. No decisions.
pub mod commands;
pub mod conf;
pub mod connect;
pub mod control;
pub mod process;
pub mod queries;
pub mod version;
