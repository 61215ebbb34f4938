//! What was read of the own instance, its data directory, its WAL and its disks.

use super::types::{DataId, DataIdentity, LedgerId, Lsn, SystemId, Timeline, WalPoint, zero};
use serde::{Deserialize, Serialize};

/// The state in `pg_control`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ControlState {
    /// A primary, shut down cleanly.
    ShutDown,
    /// A standby, shut down.
    ShutDownInRecovery,
    /// A primary that runs, or crashed.
    InProduction,
    /// A standby that runs, or crashed.
    InArchiveRecovery,
    /// Anything else: starting, shutting down, crash recovery.
    Other,
}

/// What lies in the data directory, read without a connection. Present in answers of jobs that end with the instance
/// down, and of [`super::job::Job::Inspect`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct DataDir {
    /// System identifier.
    pub system: SystemId,
    /// Inode and birth time of `global/pg_control`, folded into one number, never 0.
    pub fingerprint: u64,
    /// The fingerprint without the birth time: what it is where the kernel or the file system reports none.
    pub inode_print: u64,
    /// Position of the latest checkpoint record.
    pub checkpoint: Lsn,
    /// Its timeline.
    pub checkpoint_timeline: Timeline,
    /// Timeline of the minimum recovery point; 0 in `pg_control` where there is none.
    pub min_recovery_timeline: Timeline,
    /// The cluster state.
    pub state: ControlState,
    /// `standby.signal` is there.
    pub standby_signal: bool,
    /// `backup_label` is there.
    pub backup_label: bool,
    /// The ledger that the mark names, if there is a mark.
    #[serde(with = "zero")]
    pub mark: Option<LedgerId>,
    /// A rebuild has begun and not ended: nothing can be started from it (its `PG_VERSION` shows that).
    pub incomplete: bool,
    /// Its configuration files set no `synchronous_standby_names`: commits of an instance started from it wait for no standby.
    pub unnamed: bool,
    /// The postmaster, or one of its processes, runs.
    pub running: bool,
}

impl DataDir {
    /// Whether its `pg_control` is the file that is known. The birth time counts only if both sides have one: another kernel or
    /// file system can report one that was missing, or report none any more.
    pub fn has_fingerprint(&self, known: &DataIdentity) -> bool {
        let without_birth = !self.has_birth() && known.inode_print == self.inode_print && self.inode_print != 0;
        known.fingerprint == self.fingerprint || known.fingerprint == self.inode_print || without_birth
    }

    fn has_birth(&self) -> bool {
        self.fingerprint != self.inode_print
    }

    /// What it is recognised by later under this name.
    pub fn identity(&self, id: DataId) -> DataIdentity {
        let checkpoint = self.noted_checkpoint();
        DataIdentity { id, fingerprint: self.fingerprint, inode_print: self.inode_print, checkpoint }
    }

    /// The same where it has been recognised. A birth time that was known stays known while none is reported.
    pub fn confirmed_identity(&self, known: &DataIdentity) -> DataIdentity {
        let fingerprint = if self.has_birth() { self.fingerprint } else { known.fingerprint };
        DataIdentity { fingerprint, ..self.identity(known.id) }
    }

    /// The checkpoint by which it is recognised later. While a `backup_label` lies in it, the start goes back to the one that
    /// is named there.
    pub fn noted_checkpoint(&self) -> Lsn {
        if self.backup_label { Lsn::default() } else { self.checkpoint }
    }

    /// Whether an instance started from it comes up as a standby.
    pub fn is_standby(&self) -> bool {
        self.standby_signal
    }
}

/// What `synchronous_standby_names` is, as a new session sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Names {
    /// Empty: commits do not wait.
    Unset,
    /// Exactly the peer's name, from the line that the controller owns.
    Peer,
    /// Anything else, or from another file or a later line.
    Other,
}

/// The standby's row in `pg_stat_replication`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct StandbyRow {
    /// `state` is `streaming`.
    pub streaming: bool,
    /// `sync_state` is `sync`.
    pub sync: bool,
    /// `flush_lsn`.
    pub flushed: Lsn,
    /// Changes whenever a reply has arrived (`reply_time`, folded).
    pub reply: u64,
}

/// One look at the own instance. The probe sends one at least every interval; silence is a reading of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Instance {
    /// There is no postmaster and none of its processes.
    Down,
    /// It refuses sessions for now: starting up, shutting down, in crash recovery.
    Starting,
    /// It answers, but lets the controller not in: too many clients, a wrong password, a missing role or database.
    Closed,
    /// No answer within the time limit, on the persistent or on a fresh connection.
    Silent,
    /// A primary.
    Primary {
        /// Its timeline.
        timeline: Timeline,
        /// `pg_current_wal_flush_lsn()`.
        flushed: Lsn,
        /// `synchronous_standby_names`.
        names: Names,
        /// Some backend waits for the standby (`SyncRep`).
        waiting: bool,
        /// The row of the peer's name; `None` if there is none, or more than one.
        standby: Option<StandbyRow>,
    },
    /// A standby.
    Standby {
        /// The timeline that it receives or replays.
        timeline: Timeline,
        /// `pg_last_wal_receive_lsn()`, else what it has replayed.
        received: Lsn,
        /// `pg_last_wal_replay_lsn()`.
        replayed: Lsn,
        /// The WAL receiver streams.
        streaming: bool,
        /// Changes whenever a message has arrived (`last_msg_receipt_time`, folded).
        contact: u64,
    },
}

/// Which WAL the own instance has, as far as it is safe on disk. Reported just before the reading of the instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WalReading {
    /// Names this run of a primary's instance: another one after each start of its postmaster. `None` for a standby.
    pub incarnation: Option<u64>,
    /// A standby's: what its WAL receiver has flushed. A primary's: what its synchronous standby has confirmed, or, if commits
    /// do not wait for one, what it has flushed itself. `None` if that is not known now.
    pub point: Option<WalPoint>,
    /// A primary's synchronous standby has confirmed it.
    pub confirmed: bool,
}

/// Whether a data directory contains a point of the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Contains {
    /// The same bytes lie there.
    Yes,
    /// The WAL ends before it, or differs there.
    No,
    /// The segment was removed after a later checkpoint.
    Unknown,
}

/// What [`super::job::Job::CompareWal`] found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WalFound {
    /// Whether the data directory contains the point that it must contain; `Unknown` if none was given.
    pub own: Contains,
    /// The same of the other server's point.
    pub peer: Contains,
    /// The end of the WAL, if it was asked for and could be found.
    pub end: Option<WalPoint>,
}

/// What a disk probe found in one round over the data directory, `pg_wal` and the tablespaces.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Disk {
    /// Written, synced and read back.
    Good,
    /// An error, or no answer within the limit: `data`, `tran_log` or `tablespace NAME`.
    Failed(String),
}

/// What came of an attempt to connect to the other's instance (made only while [`super::event::Action::WatchPeer`] orders it).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerInstance {
    /// Something there answered in PostgreSQL's protocol.
    Answered,
    /// The host's kernel refused the connection.
    Refused,
    /// Nothing.
    Silent,
}
