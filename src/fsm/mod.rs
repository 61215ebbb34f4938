//! The decision core: the safety protocol as values that are stepped.
//!
//! Nothing in here does I/O, reads a clock, starts a thread, draws a random number or logs. [`node::Node`] is one
//! server's side, [`arbiter::Arbiter`] the third member's. The daemon, the simulator, the scenarios and the model check
//! all run exactly this code.
//!
//! - [`types`]: ids, terms, positions, views, ledgers.
//! - [`event`]: what goes in ([`event::Event`]) and what comes out ([`event::Action`]), with the contract of each. Their parts are
//!   [`reading`], [`message`], [`job`], [`user_command`] and [`core_message`]; [`settings`] are given at the start.
//! - [`facts`]: the small enums that decisions are made of; [`decide`] and [`reconcile`]: the tables over them, with
//!   [`cause`], the reasons for which the core acts.
//! - [`node`]: one server's state and the order of a step; its parts are `observe` (events into what is `observed`), `classify`
//!   (that into facts), `consent` (proposals, R1 to R7), `pursue` (what the decision table orders), `calls` and
//!   `hooks` (commands of the operator's), `work` (jobs, reconciling), `hand_over`, `rebuild` (R10), `operator` (requests; the commands are in `switch`, `detach`, `force` and
//!   `stop`), `store` (the ledger), `heartbeat`, `node_report` (the
//!   report) and `advice` (its hints). `wal` compares positions (R13).
//! - [`rules`]: the protocol's rules, as functions of plain values; what the model check explores.
//! - [`report`]: what a node reports of itself; [`present`]: a copy of it to continue from, for `mc_ctl what-if`.
//!
//! [`protocol`] specifies what this code does, and why that is safe.

mod advice;
pub mod arbiter;
mod calls;
pub mod cause;
mod classify;
mod consent;
pub mod core_message;
pub mod decide;
mod detach;
pub mod event;
pub mod facts;
mod force;
mod hand_over;
mod heartbeat;
mod hooks;
pub mod job;
pub mod message;
pub mod node;
mod node_report;
mod observe;
mod observed;
mod operator;
pub mod present;
#[doc = include_str!("PROTOCOL.md")]
pub mod protocol {}
mod pursue;
pub mod reading;
pub mod reason;
mod rebuild;
pub mod reconcile;
pub mod report;
pub mod rules;
pub mod settings;
mod stop;
mod store;
mod switch;
pub mod types;
pub mod user_command;
mod wal;
mod work;
