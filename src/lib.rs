//! Mirroring Controller: keeps a pair of PostgreSQL servers available when either one fails.
//!
//! # Bird's-eye view
//!
//! Blocking threads, one inbox, one decision thread.
//!
//! ```text
//!  links     ─┐                                  ┌─ store    (ledger: write, fsync, rename, fsync dir)
//!  db probe  ─┤                                  │
//!  disk probe ┼─► inbox ─► decision thread ──────┼─ runner   (pg_ctl, postgresql.conf, signals)
//!  control   ─┤   (bounded   step(event)→actions └─ links    (send to peer, arbiter, control clients)
//!  signals   ─┘    crossbeam)
//! ```
//!
//! A ledger on each server says who may acknowledge commits. The decision core is a value that is stepped: it takes an
//! event and the time, and returns actions. Whatever it orders that leans on the ledger waits until the ledger is
//! durable; acting is reconciling the instance with the ledger, so a controller that was killed anywhere finishes the
//! work when it is started again.
//!
//! # Code map
//!
//! - [`fsm`]: the decision core, all of the safety protocol, which [`fsm::protocol`] specifies. Pure: no I/O, no clock, no thread, no randomness, no log.
//! - [`daemon`]: the controller process: the decision thread, and the threads that observe and act for it; the watcher
//!   that starts a dead or hung controller again; the callers of the operator's commands; the health
//!   endpoint. [`daemon::arbiter`] is `mc_arb`: one loop over the connections of all pairs, which steps one core for each.
//! - [`pg`]: what is known of PostgreSQL: its files (text in, text out), programs, processes, sessions, versions.
//! - [`rebuild`]: a data directory becomes a copy of the other server's: what would be done, and doing it.
//! - [`backup`]: backups and the WAL archive: making, verifying, listing and removing them with PostgreSQL's own tools.
//! - [`recover`]: a data directory becomes what a backup and the WAL archives lead to.
//! - [`config`]: `network.conf`, `ID.conf`, `arbitration.conf` and `mc.key` into one checked value; who may read them.
//! - [`wire`]: messages between members as bytes; total and versioned.
//! - [`messages`]: the catalogue: number, type, text, cause, remedy; syslog and the log file.
//! - [`random`]: random bytes of the kernel.
//! - [`shared`]: a value that one thread publishes and others read.
//! - [`optional_text`]: an optional text in JSON, where an empty text stands for none.
//! - [`status`]: one model, rendered as text, JSON, a monitoring line and metrics.
//! - [`cli`]: what was typed, and one file per verb that is more than a request to the controller.
//! - [`check`]: the doctor: what a server is like, and what is wrong with that.
//! - [`init`]: the files of a management directory, from what a host tells of itself; what PostgreSQL's own files lack.
//! - [`what_if`]: the cores of all members, stepped from the present state through a fault. Pure.
//! - [`web`]: the web console, `mc_web`: users, sessions, the JSON interface, and `mc_ctl` as its only means.
//! - [`error`]: the one error type.
//!
//! Arrows: `cli → web, daemon, recover, backup, rebuild, pg, wire, config, status, messages`; `daemon → fsm, wire, recover, backup, rebuild, pg, config, messages, status`; `web → daemon, check, config, messages, status, wire`; `status →
//! backup, fsm, messages, rebuild`; `recover → backup, rebuild, pg, fsm::types, fsm::event`; `backup → rebuild, pg, fsm::types`; `rebuild → pg, fsm::types, fsm::event`; `backup, check, status → optional_text`; `daemon, init, web → random`; `wire, pg, config → fsm::types, fsm::event`; `fsm →` nothing of ours. `tests/tidy.rs` holds them, and the purity of `fsm`.
//!
//! # What is absent, and why
//!
//! - No lease and no clock in the safety argument: timeouts only decide when to ask.
//! - No waiting on a thread: a disk or an instance that hangs is judged by its silence.
//! - No third server, no second standby: the decision table stays on two screens because there are two.
//! - No shared mutable state between threads but the inbox, the snapshot that `mc_ctl status` is answered from, and what is
//!   measured for `mc_ctl check`, which nothing is decided by.
//!
//! # Contributing
//!
//! - "Development" in `README.md` describes how to build, run the quick tests, replay a seed of the simulator and read the
//!   tables.
//! - Text for people is plain technical English, as in PostgreSQL's documentation. Messages follow PostgreSQL's Error Message
//!   Style Guide: a short primary message without a full stop; the catalogue adds cause, action and remedy. The remedy is an
//!   imperative with the command to run. `tests/tidy.rs` rejects the words that `tests/vocabulary.txt` lists, with what to use
//!   instead; add a word there when a review finds one.
//! - The guide's own words never change: messages below MCA01000, status words and parameter names.
//! - A commit has one subject: an imperative of at most 60 characters that names the thing. Its body gives the reason.

pub mod backup;
pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod error;
pub mod fsm;
pub mod init;
pub mod messages;
pub mod optional_text;
pub mod pg;
pub mod random;
pub mod rebuild;
pub mod recover;
pub mod shared;
pub mod status;
pub mod web;
pub mod what_if;
pub mod wire;
