//! The controller process: its threads and the loop of the decision thread.
pub mod control;
pub mod db_probe;
pub mod disk_probe;
pub mod links;
pub mod peer_probe;
pub mod runner;
pub mod store;
pub mod watcher;
