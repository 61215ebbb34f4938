//! What a node reports of itself: the material of `mc_ctl status`, of the health endpoint and of `start -w`.
//!
//! Plain values, made by [`super::node::Node::report`]; rendering is `status.rs`'s.

use super::event::{OnSilence, Rebuild};
use super::types::{Lsn, Server, Time, Timeline, View};
use serde::{Deserialize, Serialize};

/// The status word: the third line of `mc_ctl status` (mc_ctl(8), STATUS).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// Mirrored and healthy.
    Switchable,
    /// A switch or disconnection is under way.
    Switching,
    /// Degraded after a switch.
    Switched,
    /// Degraded after a disconnection, or not healthy enough to switch.
    NotSwitchable,
    /// Mirrored and healthy, automatic switch and disconnection off.
    FailoverDisabled,
    /// Both run alone.
    SplitBrain,
    /// No view yet, or nothing known.
    Unknown,
}

impl Word {
    /// As it is shown.
    pub fn text(self) -> &'static str {
        match self {
            Word::Switchable => "switchable",
            Word::Switching => "switching",
            Word::Switched => "switched",
            Word::NotSwitchable => "not-switchable",
            Word::FailoverDisabled => "failover-disabled",
            Word::SplitBrain => "split-brain",
            Word::Unknown => "unknown",
        }
    }
}

/// The `host_role` column.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum HostRole {
    /// `primary`
    Primary,
    /// `standby`
    Standby,
    /// `none(inactivated primary)`
    InactivatedPrimary,
    /// `none(inactivated standby)`
    InactivatedStandby,
    /// `none(unknown)`
    Unknown,
}

/// The `host_status` column.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostStatus {
    /// Its controller talks.
    Normal,
    /// It does not, past the retries.
    Abnormal,
    /// Nothing received yet.
    Unknown,
}

/// How [`ServerReport::processes`] names a postmaster that does not run or respond.
pub const POSTMASTER: &str = "postmaster";

/// One row of the table.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ServerReport {
    /// Which server.
    pub server: Server,
    /// Its role.
    pub role: HostRole,
    /// Its host.
    pub host: HostStatus,
    /// `None`: unknown. Else what is abnormal of `postmaster`, `wal_sender`, `wal_receiver`; empty: normal.
    pub processes: Option<Vec<String>>,
    /// `None`: unknown. Else what has failed (`data`, `tran_log`, `tablespace NAME`); empty: normal.
    pub disk: Option<String>,
    /// Which of its directories have no free space; empty for none.
    #[serde(default)]
    pub full: String,
    /// Primary: flushed. Standby: received.
    pub lsn: Option<Lsn>,
    /// Standby: replayed.
    pub replayed: Option<Lsn>,
    /// Its timeline.
    pub timeline: Option<Timeline>,
}

impl ServerReport {
    /// Whether its postmaster runs and responds; `None` if that is not known.
    pub fn postmaster_runs(&self) -> Option<bool> {
        Some(self.processes.as_ref()?.iter().all(|failed| failed != POSTMASTER))
    }
}

impl ServerReport {
    /// Of a server of which nothing is known.
    pub fn blank(server: Server) -> ServerReport {
        ServerReport {
            server,
            role: HostRole::Unknown,
            host: HostStatus::Unknown,
            processes: None,
            disk: None,
            full: String::new(),
            lsn: None,
            replayed: None,
            timeline: None,
        }
    }
}

/// What the arbiter reports of the file system of its directory; all empty if it has enough space.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ArbiterDisk {
    /// Which of its directories are full.
    pub full: String,
    /// The space of a file system that is full or nearly full, in a sentence.
    pub space: String,
    /// Why its ledger cannot be written, so that it cannot consent to a change.
    pub failure: String,
}

/// How far the start of this server has come, for `mc_ctl start -w`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Progress {
    /// Not there yet, and what is waited for.
    Waiting(String),
    /// The instance runs and its role is known; on a standby the pair is not mirrored yet (what is waited for). A
    /// primary's start is done here.
    Running(String),
    /// Mirrored, or whatever this start could lead to: nothing more is waited for.
    Settled,
    /// The instance will not be started, and why.
    Refused(String),
}

/// Why the standby of a pair that was mirrored is disconnected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Disconnected {
    /// `mc_ctl detach`, or `mc_ctl stop` on the standby. It stays disconnected until an operator starts it.
    ByOperator,
    /// The primary disconnected it because of a failure. It is attached as soon as it streams.
    ByFailure,
}

/// Where a rebuild of this server's data directory stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Rebuilding {
    /// None was asked for.
    #[default]
    Idle,
    /// It is ordered, and waits for this.
    Waiting(String),
    /// The data directory is being made.
    Copying,
    /// It is made; the instance starts and catches up.
    Starting,
    /// It has failed, and why.
    Failed(String),
}

/// All that a node reports.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Report {
    /// This server.
    pub me: Server,
    /// The status word.
    pub word: Word,
    /// Both servers, in the order of `network.conf`.
    pub servers: [ServerReport; 2],
    /// The durable view.
    pub view: Option<View>,
    /// It is this server's right to run alone, taken by force, and replaces a right that the other server keeps.
    #[serde(default)]
    pub replaces_right: bool,
    /// Since when this process has seen that view (`None`: since before its start).
    pub since: Option<Time>,
    /// Why it was entered, in a sentence; empty where this process did not see it.
    pub reason: String,
    /// Automatic switch and disconnection are on.
    pub failover: bool,
    /// `heartbeat_error_action`; `None` if the controller is of a version that does not report it.
    #[serde(default)]
    pub on_silence: Option<OnSilence>,
    /// Why the standby is disconnected; `None` while the pair is mirrored or switched, or if it never was mirrored.
    #[serde(default)]
    pub disconnected: Option<Disconnected>,
    /// The arbiter's heartbeats arrive; `None` without one.
    pub arbiter: Option<bool>,
    /// Its disk, while its heartbeats arrive.
    #[serde(default)]
    pub arbiter_disk: ArbiterDisk,
    /// WAL that the standby has not flushed yet, bytes; `None` where that is not known.
    pub lag_bytes: Option<u64>,
    /// For how long it has not caught up, ms; `None` where that is not known.
    pub lag_ms: Option<u64>,
    /// Commits wait for the standby.
    pub waiting: bool,
    /// While commits wait: how long ago the standby last flushed what it had to, ms.
    #[serde(default)]
    pub waits_ms: Option<u64>,
    /// What makes commits less durable on this server, a sentence each.
    #[serde(default)]
    pub weakened: Vec<String>,
    /// The other server has responded since this process started and is not silent past the retries, or its instance or WAL
    /// from it still shows that it lives.
    #[serde(default)]
    pub peer_lives: bool,
    /// What an operator should know or do, in sentences; empty for nothing.
    pub advice: Vec<String>,
    /// The advice is nothing but a reference to `mc_ctl check`.
    #[serde(default)]
    pub refers_to_check: bool,
    /// How far this server's start has come.
    pub progress: Progress,
    /// In how many seconds this standby, which has received nothing from the primary, asks the arbiter for the right to run.
    #[serde(default)]
    pub asks_arbiter_in: Option<u64>,
    /// The controller is being stopped.
    #[serde(default)]
    pub stopping: bool,
    /// Where a rebuild stands.
    #[serde(default)]
    pub rebuilding: Rebuilding,
    /// What a rebuild would be made from if it were ordered now, or why there can be none (R10).
    #[serde(default = "unknown_source")]
    pub rebuild_from: Result<Rebuild, String>,
}

impl Report {
    /// The command that starts a server and leaves automatic switch and disconnection as they are.
    pub fn start_command(&self) -> &'static str {
        if self.failover { "mc_ctl start -f" } else { "mc_ctl start" }
    }

    /// Of a server that knows nothing.
    pub fn blank(me: Server) -> Report {
        Report {
            me,
            word: Word::Unknown,
            servers: Server::BOTH.map(ServerReport::blank),
            view: None,
            replaces_right: false,
            since: None,
            reason: String::new(),
            failover: false,
            on_silence: None,
            disconnected: None,
            arbiter: None,
            arbiter_disk: ArbiterDisk::default(),
            lag_bytes: None,
            lag_ms: None,
            waiting: false,
            waits_ms: None,
            weakened: Vec::new(),
            peer_lives: false,
            advice: Vec::new(),
            refers_to_check: false,
            progress: Progress::Waiting(String::new()),
            asks_arbiter_in: None,
            stopping: false,
            rebuilding: Rebuilding::Idle,
            rebuild_from: unknown_source(),
        }
    }
}

fn unknown_source() -> Result<Rebuild, String> {
    Err("the controller does not report the reason".to_owned())
}
