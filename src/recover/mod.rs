//! The recovery of a pair from a backup and the WAL archives.
//!
//! A backup is restored beside the data directory, and an instance that no client can reach recovers it to the target there.
//! Only then does the copy replace the data directory, which is kept. [`Journal`] records how far that has come, in the
//! run-time directory, so that it can be killed anywhere.
//!
//! Nothing here talks to a controller or decides who is the primary. Called by `mc_ctl recover`, which orders what concerns the
//! pair, and by what reports that a recovery is in progress.

mod candidates;
mod journal;
mod loss;
mod replay;
mod stage;
mod target;
mod wal;

pub use candidates::{Candidate, Refused, candidates};
pub use journal::{Journal, NEWEST, Phase};
pub use loss::{Discarded, End, Loss, Question, loss};
pub use replay::{Reached, Replay};
pub use stage::{accept, needs, shortages, stage};
pub use target::Target;
pub use wal::{add_histories, carry_over, name_for_timeline, next_timeline, promote_end};
