//! What goes into the core and what comes out of it.
//!
//! The contract of whoever runs a [`super::node::Node`]:
//!
//! - Exactly one [`Event::Boot`] first. Then [`Event::Tick`] at least every [`TICK_MS`], late or not.
//! - Events carry the time at which they were received; the times given to `step` never go down.
//! - Actions are performed in the order in which they were returned. [`Action::Send`] may be lost, delayed, repeated or
//!   reordered. [`Action::Store`] answers with [`Event::Stored`] only when the bytes are durable, in order.
//! - One [`Job`] at a time: the core never orders a second one while one is out, but for [`Job::Stop`], which cancels
//!   what runs (whose own answer is then [`Outcome::Failed`], and comes first). Every job answers with [`Event::Done`]
//!   once nothing of it runs any more; an answer may be late. [`Action::Nudge`] asks for a lost one again.
//! - Nothing is asserted on what a peer, a disk or PostgreSQL says.

pub use super::core_message::{CoreMessage, Witness};
use super::reason::Reason;
use super::types::{
    DataId, DataIdentity, Durable, Failover, HighWater, Ledger, LedgerId, Lsn, Member, RebuildOrder, SystemId, Term,
    Timeline, View, WalPoint, zero,
};
use serde::{Deserialize, Serialize};

/// The longest time between two [`Event::Tick`]s that the daemon asks for, in milliseconds.
pub const TICK_MS: u64 = 50;

// ---------------------------------------------------------------------------------------------------------- settings

/// What a server does when heartbeats are lost (`heartbeat_error_action`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OnSilence {
    /// Asks the arbiter.
    Arbitration,
    /// Asks the operator's script; its consent makes a forced view.
    Command,
    /// Reports only.
    Message,
    /// Acts alone, without a safety argument (PROTOCOL section 6).
    Fallback,
    /// Safe half: only the standby acts.
    Switch,
    /// Safe half: only the primary acts.
    Disconnect,
}

impl OnSilence {
    /// As `heartbeat_error_action` is written.
    pub fn text(self) -> &'static str {
        match self {
            OnSilence::Arbitration => "arbitration",
            OnSilence::Command => "command",
            OnSilence::Message => "message",
            OnSilence::Fallback => "fallback",
            OnSilence::Switch => "switch",
            OnSilence::Disconnect => "disconnect",
        }
    }
}

/// What a server does when its own instance does not answer (`db_instance_timeout_action`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OnInstanceSilence {
    /// Nothing.
    None,
    /// Reports only.
    Message,
    /// As a dead instance.
    Failover,
}

/// One server's settings, fixed for the life of a controller process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// This server.
    pub me: super::types::Server,
    /// `network.conf` names an arbiter.
    pub arbiter: bool,
    /// Time between two heartbeats, ms.
    pub heartbeat_interval_ms: u64,
    /// `heartbeat_timeout`, ms.
    pub heartbeat_timeout_ms: u64,
    /// (timeout + interval) x (retry + 1) of the heartbeats, ms.
    pub heartbeat_detection_ms: u64,
    /// The same of the instance probe, ms.
    pub instance_detection_ms: u64,
    /// The same of the disk probe, ms.
    pub disk_detection_ms: u64,
    /// `heartbeat_error_action`.
    pub on_silence: OnSilence,
    /// `db_instance_timeout_action`.
    pub on_instance_silence: OnInstanceSilence,
    /// `isolated_primary_action = stop`.
    pub isolated_primary_stops: bool,
    /// `isolated_restart = on`.
    pub isolated_restart: bool,
    /// `startup_wait`, ms.
    pub startup_wait_ms: u64,
    /// `rebuild_action = auto`.
    pub rebuild_auto: bool,
    /// `shutdown_detached_synchronous_standby = on`.
    pub stop_detached_standby: bool,
    /// A `fencing_command` is configured.
    pub fencing: bool,
    /// Which of the commands that follow a change are configured.
    pub hooks: Hooks,
    /// Random; new for every controller process. The core makes its ids from it.
    pub seed: u64,
}

// ----------------------------------------------------------------------------------------------------------- readings

/// The state that `pg_control` tells.
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
/// down, and of [`Job::Inspect`].
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
    /// A rebuild has begun and not ended: nothing can be started from it (its `PG_VERSION` says so).
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
    /// Empty: commits wait for nobody.
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

/// What [`Job::CompareWal`] found.
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

/// What came of an attempt to connect to the other's instance (made only while [`Action::WatchPeer`] says so).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerInstance {
    /// Something there answered in PostgreSQL's protocol.
    Answered,
    /// The host's kernel refused the connection.
    Refused,
    /// Nothing.
    Silent,
}

// ----------------------------------------------------------------------------------------------------------- messages

/// The state of an instance in one word, as told to the peer and shown by `mc_ctl status`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Health {
    /// Not known yet.
    Unknown,
    /// Stopped on the controller's order, or not started yet.
    Stopped,
    /// Starting, or stopping, on the controller's order.
    Starting,
    /// It answers.
    Well,
    /// Dead, or silent past the retries.
    Failed,
}

/// The role in which an instance runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It is in recovery.
    Standby,
    /// Not running, or not known.
    None,
}

/// A primary's verdict on the WAL of the standby to which it sends it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The run of the primary's instance that was compared.
    pub incarnation: u64,
    /// The standby's point.
    pub point: WalPoint,
    /// The primary's WAL contains it.
    pub contained: bool,
}

/// What a heartbeat reports about WAL (PROTOCOL R13). An older version reports nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WalReport {
    /// The sender compares WAL. An older version does not.
    pub compares: bool,
    /// Names the run of the sender's instance while that runs as a primary.
    #[serde(with = "zero")]
    pub incarnation: Option<u64>,
    /// The furthest point that the sender's data directory is known to contain.
    pub point: Option<WalPoint>,
    /// The sender is about to find out where its WAL ends.
    pub pending: bool,
    /// A primary's: its verdict on the receiver's WAL.
    pub verdict: Option<Verdict>,
    /// A standby's: it waits for such a verdict.
    pub verify: bool,
    /// The furthest point that the receiver has reported to the sender.
    pub remembered: Option<HighWater>,
}

/// The regular message from member to member. Level: it says all that the sender is, every time.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts the sender's heartbeats since its start.
    pub seq: u64,
    /// `seq` of the last heartbeat that it received from the receiver since its own start; 0 for none.
    pub echo: u64,
    /// Random; names the operator's start (kept by the watcher when it restarts a controller).
    pub start_id: u64,
    /// System identifier of its data directory, as soon as it is known.
    #[serde(with = "zero")]
    pub system: Option<SystemId>,
    /// Its durable ledger.
    pub ledger: Option<Ledger>,
    /// Role of its instance.
    pub role: Role,
    /// Health of its instance.
    pub instance: Health,
    /// What has failed of its disks; empty for nothing.
    pub disk: String,
    /// How its instance, data directory or disk has failed, or why it hands over, for people; empty if there is nothing to report.
    #[serde(default)]
    pub failure: String,
    /// Which of its directories have no free space; empty for none. For people: no decision depends on it.
    #[serde(default)]
    pub full: String,
    /// The arbiter's: how much space the file system of its directory has, if that is little. For people, as `full` and `failure`,
    /// and not from the core: the process that sends this adds it.
    #[serde(default)]
    pub space: String,
    /// Its WAL receiver streams.
    pub streaming: bool,
    /// Timeline of its instance.
    pub timeline: Timeline,
    /// Primary: flushed. Standby: received.
    pub lsn: Lsn,
    /// Standby: replayed.
    pub replayed: Lsn,
    /// The primary has stopped its instance and asks the standby to take over.
    pub take_over: bool,
    /// Which WAL it has.
    pub wal: WalReport,
    /// The primary prepares a planned switch: the standby reports whether its instance answers now.
    #[serde(default)]
    pub confirm: bool,
    /// How long ago the sender's instance has answered, ms.
    #[serde(default)]
    pub answered_ms: u64,
    /// With `take_over`: the position that the standby must have received past, if there is one.
    #[serde(with = "zero")]
    pub shutdown_checkpoint: Option<Lsn>,
    /// Commits may not have waited for the standby under this view (see `Notes::unmirrored`).
    pub unmirrored: bool,
    /// The sender's proof of the standby (R9) is in progress, for longer than a heartbeat may take.
    #[serde(default)]
    pub proving: bool,
    /// A rebuild of the data directory is ordered, which replaces its contents.
    #[serde(default)]
    pub rebuilds: bool,
    /// The sender is the primary and an operator detached its standby, the receiver.
    #[serde(default)]
    pub detached: bool,
    /// Automatic switch and disconnection.
    pub failover: Failover,
    /// `heartbeat_error_action`.
    pub on_silence: OnSilence,
    /// The sender's heartbeat detection time, ms.
    pub detection_ms: u64,
    /// It was promoted under the present right to run alone, and its data directory can still be started.
    pub promoted: bool,
    /// The arbiter's ledger, as it has heard it: its id, if it has heard one, and the highest term promised.
    #[serde(rename = "arbiter_heard", with = "zero::known")]
    pub arbiter: (Option<LedgerId>, Term),
    /// Its `application_name`.
    pub name: String,
    /// `host:port` under which its instance is reached by the other one.
    pub address: String,
    /// `host:port` under which its instance is reached by clients. The core says nothing of it: whoever sends this does.
    pub client_address: String,
    /// The arbiter's: it would give the receiver the right to run alone if it were asked now.
    pub would_grant: bool,
    /// Why its view is what it is, for people; empty where that is not known any more.
    pub why: String,
}

impl Heartbeat {
    /// One that says nothing: what is meant where an older version does not say it.
    pub fn blank() -> Heartbeat {
        Heartbeat {
            seq: 0,
            echo: 0,
            start_id: 0,
            system: None,
            ledger: None,
            role: Role::None,
            instance: Health::Unknown,
            disk: String::new(),
            failure: String::new(),
            full: String::new(),
            space: String::new(),
            streaming: false,
            timeline: Timeline::default(),
            lsn: Lsn::default(),
            replayed: Lsn::default(),
            take_over: false,
            wal: WalReport::default(),
            confirm: false,
            answered_ms: 0,
            shutdown_checkpoint: None,
            unmirrored: false,
            proving: false,
            rebuilds: false,
            detached: false,
            failover: Failover::default(),
            on_silence: OnSilence::Message,
            detection_ms: 0,
            promoted: false,
            arbiter: (None, Term::default()),
            name: String::new(),
            address: String::new(),
            client_address: String::new(),
            would_grant: false,
            why: String::new(),
        }
    }
}

/// What members say to each other.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Message {
    /// See [`Heartbeat`].
    Heartbeat(Box<Heartbeat>),
    /// Asks for consent to `view` (PROTOCOL R1 to R4).
    Propose {
        /// The sender's durable ledger.
        base: Ledger,
        /// The view proposed.
        view: View,
        /// The position up to which the sender's instance has received WAL (a standby's), else 0.
        received: Lsn,
        /// The furthest point that the sender's data directory is known to contain (R13).
        #[serde(default)]
        point: Option<WalPoint>,
        /// The receiver's ledger, as the sender has heard it: its id, and the highest term promised.
        #[serde(default, with = "zero::known")]
        known: (Option<LedgerId>, Term),
        /// Why it is asked for, for people.
        #[serde(default)]
        why: String,
    },
    /// The answer to a proposal, accepted or not: the answerer's durable ledger.
    Answer {
        /// `None` for a member that holds none.
        ledger: Option<Ledger>,
    },
    /// An operator's request, passed on to the server that can do it.
    Ask {
        /// Names the request in the answer.
        id: u64,
        /// What is asked.
        request: Request,
        /// How long the asker waits for the answer, ms.
        limit_ms: u64,
    },
    /// The answer to [`Message::Ask`].
    Told {
        /// The request's id.
        id: u64,
        /// What came of it.
        reply: Reply,
    },
}

// ----------------------------------------------------------------------------------------------------------- requests

/// What an operator asks of a running controller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Start the instance (`mc_ctl start` where only the controller runs).
    Start {
        /// `-f`, `-F` or neither.
        failover: Option<bool>,
    },
    /// End this controller, after what belongs to it.
    Stop {
        /// Stop the instance too (not `--mc-only`).
        instance: bool,
        /// Both servers (`-a`).
        all: bool,
    },
    /// Planned switch.
    Switch,
    /// Disconnect the standby.
    Detach,
    /// `switch --force`, on the standby: take the right to run alone without consent (PROTOCOL section 6).
    ForceSwitch {
        /// Run the `fencing_command` first, where there is one (not `--no-fencing`).
        fencing: bool,
    },
    /// `detach --force`, on the primary: the same.
    ForceDetach {
        /// As with `ForceSwitch`.
        fencing: bool,
    },
    /// `start --adopt-data`: take it with the present data directory, whatever it is, and with a new ledger where it was
    /// lost (PROTOCOL section 6).
    AdoptData,
    /// Switch on or off the automatic switch and disconnection.
    Failover(bool),
    /// `rebuild`: make the data directory a copy of the other server's (PROTOCOL R10). Answered as soon as it is durably
    /// ordered; how it goes is in the report.
    Rebuild(RebuildOrder),
}

/// Why a request is refused for a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transient {
    /// The ledger is just being written, or a hand-over is under way.
    UnderWay,
    /// The controller stops: a start succeeds once it has ended.
    Stopping,
}

impl Transient {
    /// The text in [`Reply::Refused`].
    pub fn text(self) -> &'static str {
        match self {
            Transient::UnderWay => "another change is in progress",
            Transient::Stopping => "the controller is being stopped",
        }
    }

    /// What the text of [`Reply::Refused`] means. The control socket transmits nothing else.
    pub fn of(text: &str) -> Option<Transient> {
        [Transient::UnderWay, Transient::Stopping].into_iter().find(|transient| transient.text() == text)
    }
}

/// What came of a request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// The present state does not allow it; nothing was changed.
    Refused(String),
    /// It was tried and did not succeed; the text says how things stand.
    Failed(String),
    /// It did not end in time; the text says how things stand.
    TimedOut(String),
}

// --------------------------------------------------------------------------------------------------------------- jobs

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
    /// Start the instance: first write and sync `synchronous_standby_names` as told (`None`: commented out; `Some`: set to
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
    /// [`Outcome::Failed`] saying what is in the way, with file and line.
    NamesOff,
    /// Promote. Answers [`Outcome::Promoted`] when it takes writes.
    Promote,
    /// PROTOCOL R9, steps 2 to 5, for the standby of this name. Answers [`Outcome::Proved`].
    Prove(String),
    /// `CHECKPOINT`. Answers [`Outcome::Applied`].
    Checkpoint,
    /// Make the data directory a standby's copy of the other server's, or continue that. The instance is down. Until the
    /// answer nothing can be started from it; after [`Outcome::Rebuilt`] only a standby. After [`Outcome::Failed`] it is
    /// what it was before, or incomplete. Cancelled by [`Action::Nudge`].
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

// ------------------------------------------------------------------------------------------------------ user commands

/// What a command of the operator's is for (mc_hooks(5)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// `fencing_command`: makes sure that the target acknowledges nothing any more.
    Fencing,
    /// `arbitration_command`: says whether the target is dead.
    Arbitration,
    /// Is told of a change of the pair's state, and decides nothing.
    Hook(Hook),
}

impl Purpose {
    /// The parameter that names the command.
    pub fn parameter(self) -> &'static str {
        match self {
            Purpose::Fencing => "fencing_command",
            Purpose::Arbitration => "arbitration_command",
            Purpose::Hook(Hook::PostSwitch) => "post_switch_command",
            Purpose::Hook(Hook::PreDetach) => "pre_detach_command",
            Purpose::Hook(Hook::PostAttach) => "post_attach_command",
        }
    }
}

/// A command that is told of a change of the pair's state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hook {
    /// `post_switch_command`: this server has become the primary, and takes writes.
    PostSwitch,
    /// `pre_detach_command`: the standby is about to be disconnected; on both servers.
    PreDetach,
    /// `post_attach_command`: the pair is mirrored; on both servers.
    PostAttach,
}

/// Which hooks are configured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Hooks {
    /// `post_switch_command`.
    pub post_switch: bool,
    /// `pre_detach_command`.
    pub pre_detach: bool,
    /// `post_attach_command`.
    pub post_attach: bool,
}

/// What is about to be done; of a hook's: what it is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Aim {
    /// The standby is to be promoted.
    Switch,
    /// The standby is to be disconnected.
    Detach,
    /// The standby is connected again; of a hook's alone.
    Attach,
}

/// One call of a command of the operator's. The caller is the member that runs it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UserCommand {
    /// Which.
    pub purpose: Purpose,
    /// An operator's command led to it (`command`), not what was observed (`monitor`).
    pub by_operator: bool,
    /// What is about to be done.
    pub aim: Aim,
    /// The server that it is done to: who is fenced, promoted, disconnected or connected.
    pub target: super::types::Server,
    /// The term of the present view; of a hook's that of the view that it is told of: `MC_TERM`.
    pub term: Term,
    /// Why: `MC_REASON`.
    pub reason: String,
}

// ------------------------------------------------------------------------------------------------------------- events

/// How the controller came to be started.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StartedBy {
    /// `mc_ctl start`.
    Operator {
        /// Start the instance too (not `--mc-only`).
        instance: bool,
        /// `-f`, `-F` or neither.
        failover: Option<bool>,
    },
    /// `mc_ctl rebuild`: this controller founds no pair, and its data directory is only what the rebuild replaces.
    Rebuild,
    /// The watcher, after a crash or a hang of the controller.
    Watcher,
}

impl StartedBy {
    /// Whether an operator's command asks for the instance too, and its setting of failover; `None` for the watcher.
    pub fn ordered(self) -> Option<(bool, Option<bool>)> {
        match self {
            StartedBy::Operator { instance, failover } => Some((instance, failover)),
            StartedBy::Rebuild => Some((false, None)),
            StartedBy::Watcher => None,
        }
    }
}

/// The first event.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Boot {
    /// How it was started.
    pub by: StartedBy,
    /// What the ledger file held; `None` where there is no such file.
    pub durable: Option<Durable>,
    /// The data directory; `None` where it could not be read (a failed disk).
    pub data: Option<DataDir>,
    /// This server's `application_name`.
    pub name: String,
    /// `host:port` under which the other instance reaches this one.
    pub address: String,
    /// The other server's `application_name` as `synchronous_standby_names` has it, commented out or not; where it has
    /// none, the other's identifier. Used until the other tells its name.
    pub peer_name: String,
    /// See [`Heartbeat::start_id`].
    pub start_id: u64,
    /// What the last [`Action::NoteHighWater`] noted; `None` if that cannot be read.
    pub high_water: Option<HighWater>,
}

/// What happens to a server's core.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The first one.
    Boot(Box<Boot>),
    /// Time goes by.
    Tick,
    /// A message, authenticated and decoded.
    Heard(Member, Message),
    /// The member's host refused a connection to its controller's port (each attempt is one event). To the arbiter: both
    /// that port and the instance's.
    Refused(Member),
    /// The other's instance was looked at.
    PeerInstance(PeerInstance),
    /// The own instance was looked at.
    Instance(Instance),
    /// Which WAL it has; comes before the reading itself.
    Wal(WalReading),
    /// The answer to [`Action::CompareWal`].
    WalCompared(WalPoint, Contains),
    /// The postmaster has ended (process-death notice, not a probe).
    Died {
        /// The signal that terminated it, if the kernel still reported that.
        signal: Option<u8>,
    },
    /// What makes commits less durable, a sentence each, as the own instance is configured.
    Weakened(Vec<String>),
    /// The disks were looked at.
    Disk(Disk),
    /// These directories have no free space, from now on; empty for none. Not a failure: no decision depends on it.
    DiskFull(String),
    /// The write with this number, and all before it, are durable.
    Stored(u64),
    /// The write failed; whether it will be found after a restart is not known.
    StoreFailed(u64, String),
    /// A job has ended.
    Done(JobId, Outcome),
    /// A command of the operator's has ended: exit status 0, or what else came of it.
    CommandDone(JobId, Result<(), String>),
    /// An operator asks.
    Request {
        /// Names the request in the reply.
        id: u64,
        /// What is asked.
        request: Request,
        /// The time limit, ms.
        limit_ms: u64,
    },
}

// ------------------------------------------------------------------------------------------------------------ actions

/// What the core orders.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Send a message.
    Send(Member, Message),
    /// Write this durably and answer [`Event::Stored`] with the number. If the view changes, its reason is for the history.
    Store(u64, Box<Durable>, Option<Reason>),
    /// Do a job.
    Run(JobId, Job),
    /// Call a command of the operator's, beside whatever job is out. One at a time, and one hook at a time beside it; it
    /// answers [`Event::CommandDone`] when nothing of it runs any more, soon after its time limit at the latest.
    Call(JobId, Box<UserCommand>),
    /// End this command, if it still runs. It answers as always.
    CallOff(JobId),
    /// The answer to this job is overdue: cancel what can be cancelled, and answer (again).
    Nudge(JobId),
    /// Look at the other's instance (or stop looking).
    WatchPeer(bool),
    /// Look at the own instance now, not only at the next interval.
    Look,
    /// Compare the WAL of the own instance, which runs, with this point; answers [`Event::WalCompared`], or not at all.
    CompareWal(WalPoint),
    /// Note this durably, as far as that can be done: nothing waits for it.
    NoteHighWater(HighWater),
    /// Answer an operator.
    Reply(u64, Reply),
    /// Write a message for the operator.
    Log(CoreMessage),
    /// End this controller process and its watcher.
    Exit,
}
