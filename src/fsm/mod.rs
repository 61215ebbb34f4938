//! The decision core: the safety protocol as values that are stepped.
//!
//! Nothing in here does I/O, reads a clock, starts a thread, draws a random number or logs. [`node::Node`] is one
//! server's side, [`arbiter::Arbiter`] the third member's. The daemon, the simulator, the scenarios and the model check
//! all run exactly this code.
//!
//! - [`report`]: what a node tells of itself.
//! - [`types`]: ids, terms, positions, views, ledgers.
//! - [`event`]: what goes in ([`event::Event`]) and what comes out ([`event::Action`]), with the contract of each.

pub mod arbiter;
pub mod event;
pub mod node;
pub mod report;
pub mod types;
