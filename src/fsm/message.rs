//! The messages between the members, and the requests of operators.
//!
//! Their encoding is the wire format: a field is never renamed.

use super::settings::OnSilence;
use super::types::{
    Failover, HighWater, Ledger, LedgerId, Lsn, RebuildOrder, SystemId, Term, Timeline, View, WalPoint, zero,
};
use serde::{Deserialize, Serialize};

/// The state of an instance in one word, as reported to the peer and shown by `mc_ctl status`.
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

/// The regular message from member to member. Level-triggered: each contains the whole state of the sender.
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
    /// What it has received of the arbiter's ledger: the id, if there is one, and the highest term promised.
    #[serde(rename = "arbiter_heard", with = "zero::known")]
    pub arbiter: (Option<LedgerId>, Term),
    /// Its `application_name`.
    pub name: String,
    /// `host:port` under which the peer's instance reaches its instance.
    pub address: String,
    /// `host:port` under which its instance is reached by clients. The core leaves it empty, and the sender adds it.
    pub client_address: String,
    /// The arbiter's: it would give the receiver the right to run alone if it were asked now.
    pub would_grant: bool,
    /// Why its view is what it is, for people; empty where that is not known any more.
    pub why: String,
}

impl Heartbeat {
    /// One that reports nothing: what the absence of a field in an older version means.
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

/// What members send to each other.
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
        /// What the sender has received of the receiver's ledger: its id, and the highest term promised.
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
    /// It was tried and did not succeed; the text describes the present state.
    Failed(String),
    /// It did not end in time; the text describes the present state.
    TimedOut(String),
}
