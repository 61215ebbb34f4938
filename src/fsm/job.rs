//! The jobs on the instance, which the runner does, and what comes of them.

use super::reading::{DataDir, WalFound};
use super::types::{LedgerId, Lsn, RebuildOrder, SystemId, Timeline, WalPoint};
use serde::{Deserialize, Serialize};

/// Names a job in its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub u64);

/// One piece of work on the instance, done by the runner.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Job {
    /// Read the data directory. Answers [`Outcome::Data`].
    Inspect,
    /// Compare the WAL of an instance that is down (PROTOCOL R13). Answers [`Outcome::Wal`].
    CompareWal(CompareWal),
    /// Put the mark that names this ledger into the data directory, durably. Answers [`Outcome::Data`].
    Mark(LedgerId),
    /// Start the instance: first write and sync `synchronous_standby_names` as ordered (`None`: commented out; `Some`: set to
    /// exactly this name), then start it, then answer [`Outcome::Started`] once its postmaster lives (it may still be in
    /// recovery), or [`Outcome::Failed`].
    Start {
        /// `Some(name)`: set; `None`: commented out.
        names: Option<String>,
        /// `Some(host:port)`: before the start, make the directory a standby's of the instance there (`standby.signal`,
        /// `primary_conninfo`). `None`: leave it what it is.
        follow: Option<String>,
    },
    /// Stop the instance with all its processes: fast, and where that takes longer than `fast_ms`, immediate, then
    /// SIGKILL. With `names`, set and sync `synchronous_standby_names` in the file to this name as well (no reload; a
    /// failure to write is reported by [`Outcome::Failed`] only if the file can be read and differs). Interrupts any other
    /// job. Answers [`Outcome::Stopped`] when no process is left, [`Outcome::Failed`] when some cannot be ended.
    Stop {
        /// How long a fast shutdown may take, ms; 0: immediate at once.
        fast_ms: u64,
        /// The name to set in the file.
        names: Option<String>,
    },
    /// Set `synchronous_standby_names` to exactly this name, sync the file, reload. Answers [`Outcome::Applied`] when a new
    /// session shows it.
    NamesOn(String),
    /// Comment `synchronous_standby_names` out, sync, reload, and verify by effect: a new session shows it empty and no
    /// backend waits for the standby any more. On a standby: a new session shows it empty. Answers [`Outcome::Applied`], or
    /// [`Outcome::Failed`] with what prevents it, with file and line.
    NamesOff,
    /// Promote. Answers [`Outcome::Promoted`] when it takes writes.
    Promote,
    /// PROTOCOL R9, steps 2 to 5, for the standby of this name. Answers [`Outcome::Proved`].
    Prove(String),
    /// `CHECKPOINT`. Answers [`Outcome::Applied`].
    Checkpoint,
    /// Make the data directory a standby's copy of the other server's, or continue that. The instance is down. Until the
    /// answer nothing can be started from it; after [`Outcome::Rebuilt`] only a standby. After [`Outcome::Failed`] it is
    /// what it was before, or incomplete. Cancelled by [`super::event::Action::Nudge`].
    Rebuild(Box<Rebuild>),
    /// Undo a rebuild that was interrupted, as far as that can be. Answers [`Outcome::Data`].
    Abandon,
}

/// What is compared with the WAL in a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CompareWal {
    /// The point that the data directory must contain.
    pub own: Option<WalPoint>,
    /// The other server's point.
    pub peer: Option<WalPoint>,
    /// Find the end of the WAL as well.
    pub find_end: bool,
}

/// A rebuild, as it is ordered.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Rebuild {
    /// How.
    pub order: RebuildOrder,
    /// `host:port` of the other server's instance.
    pub source: String,
    /// Its system identifier.
    pub system: SystemId,
    /// What `synchronous_standby_names` is set to: the other server's `application_name`.
    pub names: String,
    /// Why WAL that only this server has may hold acknowledged commits.
    pub doubt: Doubt,
}

/// Why WAL that only this server has may hold acknowledged commits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Doubt {
    /// No reason is known.
    #[default]
    None,
    /// A view was forced.
    Forced,
    /// `synchronous_standby_names` was found changed while this server was the mirrored primary.
    NamesChanged,
    /// This server has no ledger, so what happened on it is not known.
    NotKnown,
}

/// What came of a job.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// The data directory was read.
    Data(DataDir),
    /// The WAL was compared.
    Wal(WalFound),
    /// The postmaster lives. The data directory as it was just before.
    Started(DataDir),
    /// The data directory is a standby's of the other server.
    Rebuilt {
        /// As it is now.
        data: DataDir,
        /// `host:port` under which the other instance reaches this one, by its configuration.
        address: String,
    },
    /// No process is left. The data directory, if it can be read and the file contains the names that the job was to write.
    Stopped(Option<DataDir>),
    /// It is in effect.
    Applied,
    /// The instance takes writes on this timeline.
    Promoted(Timeline),
    /// The standby is synchronous and has flushed past this position, read after the setting was in effect.
    Proved(Lsn),
    /// It did not succeed, or was cancelled; how far it came is not known. In PostgreSQL style, with a hint.
    Failed(String),
}
