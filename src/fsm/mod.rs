//! The decision core: the safety protocol as values that are stepped.
//!
//! Nothing in here does I/O, reads a clock, starts a thread, draws a random number or logs. [`node::Node`] is one
//! server's side, [`arbiter::Arbiter`] the third member's. The daemon, the simulator, the scenarios and the model check
//! all run exactly this code.
//!
//! - [`types`]: ids, terms, positions, views, ledgers.
//! - [`event`]: what goes in ([`event::Event`]) and what comes out ([`event::Action`]), with the contract of each.
//! - [`facts`]: the small enums that decisions are made of; [`decide`] and [`act`]: the two tables over them.
//! - [`node`]: one server's state and the order of a step; its parts are `observe` (events into what is `known`), `fold`
//!   (that into facts), `consent` (proposals, R1 to R7), `pursue` (what the decision table says), `calls` and
//!   `hooks` (commands of the operator's), `work` (jobs, reconciling), `hand_over`, `rebuild` (R10), `operator` (requests), `tell` (heartbeats,
//!   the report) and `advice` (its hints). `wal` compares positions (R13).
//! - [`rules`]: the protocol's rules, as functions of plain values; what the model check explores.
//! - [`report`]: what a node tells of itself; [`present`]: a copy of it to continue from, for `mc_ctl what-if`.
//!
//! # Where this goes beyond the text of the protocol, and why
//!
//! - *An arbiter that was put back* (R8). A member tells the arbiter, with every heartbeat and proposal, what it has heard
//!   from it. An arbiter that is told of a promise that its ledger does not know has been put back from a copy; it takes a
//!   new id, under which no view leans on it, and so grants nothing until R9 has named it. It only ever grants less.
//! - *Fencing* (section 4). A server fences the other one before it asks the arbiter only while the arbiter says that it
//!   would consent: else a cut between the two servers alone would take down a primary that serves. The arbiter fences
//!   only whom it does not hear: whoever it hears learns of the new view from it, and gives way by itself. A command's
//!   success counts for one view, and until its target is heard again.
//! - *Hooks* (section 4). The pre-detach command goes before the proposal where an operator detaches the standby: commits flow
//!   meanwhile, and the operator waits. Where the standby has failed, commits wait already, and whether it will be disconnected
//!   is not known before somebody has consented: there the command is called with the right to run alone durable, just before
//!   the names come off, and nothing waits for it. The same on the standby, when it has consented, or learns of it.
//! - *Positions* (R13). What a member remembers is bound to the data directory's id, not to the view: a directory that keeps its
//!   id never goes back, under any view. A digest of the last page before a position stands for the WAL up to it, so that every
//!   comparison is one of contents. The note of the furthest point is a file of its own that nothing waits for: a ledger write
//!   every 10 s would let a full management disk silence a primary that serves. A primary reports what its standby has
//!   confirmed, not what it has flushed: a point that it alone had would forbid a safe switch.
//! - *Not eligible* (section 5, last row). A server that holds the right to run alone, or is the mirrored primary, is not
//!   started from another data directory, not even as a standby: it would satisfy the synchronous wait of an old primary
//!   whose commits the directory that the view names must hold. A mirrored primary whose directory was exchanged hands over.
//! - *The exception of R7* holds only while the server is eligible, so that the loser of a split can be rebuilt.
//! - *`start --adopt-data` without a ledger* begins at a random term above 2^40: above every term that a lost ledger can
//!   have known, and not that of another lost one. With a ledger, the command skips a thousand terms: the primary may write
//!   `Mirrored` at this moment, under a term that this server does not know, and must adopt the operator's view.
//! - *A standby that has lost its ledger* receives the present view, and skips at least a thousand terms: under force, the lost
//!   ledger may have held a view that no other member has seen.
//! - *A data directory of another cluster* (section 2). Without a ledger, a server belongs to no cluster while its peer holds the
//!   ledger of another one, and when it was started for a rebuild. It founds no pair, does not stop what runs there, and is
//!   rebuilt as if its directory were empty.
//! - *A write that hangs*. A member whose ledger has not become durable for its detection time sends nothing: it could
//!   neither consent nor act, and silence lets the others do what silence allows. A server that durably holds the right to
//!   run alone continues to send: its silence would only let the other server act without consent, or prolong a split.
//! - *A rebuild* (R10) is ordered durably, with a new name for the data directory, before anything is touched, and continued
//!   after a restart only while the other server still allows it. The loser of a split may be rebuilt though its own ledger
//!   says `Degraded(self)`: it has given that up, and under its new name is not eligible any more.
//! - *The safe halves* need a view that names no arbiter, which might still grant the right.

pub mod act;
mod advice;
pub mod arbiter;
mod calls;
mod consent;
pub mod decide;
pub mod event;
pub mod facts;
mod fold;
mod hand_over;
mod hooks;
mod known;
pub mod node;
mod observe;
mod operator;
pub mod present;
mod pursue;
mod rebuild;
pub mod report;
pub mod rules;
pub mod say;
mod tell;
pub mod types;
mod wal;
mod work;

pub use tell::without_source;
