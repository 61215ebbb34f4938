//! Mirroring Controller: keeps a pair of PostgreSQL servers serving through the death of either.
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
//! # Code map
//!
//! - [`fsm`]: the decision core. Pure.
pub mod cli;
pub mod config;
pub mod daemon;
pub mod error;
pub mod fsm;
pub mod messages;
pub mod pg;
pub mod status;
pub mod wire;
