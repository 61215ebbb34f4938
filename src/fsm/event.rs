//! What goes into the core and what comes out of it.
//!
//! The contract of the program that runs a [`super::node::Node`]:
//!
//! - Exactly one [`Event::Boot`] first. Then [`Event::Tick`] at least every [`TICK_MS`], late or not.
//! - Events carry the time at which they were received; the times given to `step` never go down.
//! - Actions are performed in the order in which they were returned. [`Action::Send`] may be lost, delayed, repeated or
//!   reordered. [`Action::Store`] answers with [`Event::Stored`] only when the bytes are durable, in order.
//! - One [`Job`] at a time: the core never orders a second one while one is out, but for [`Job::Stop`], which cancels
//!   what runs (whose own answer is then [`Outcome::Failed`], and comes first). Every job answers with [`Event::Done`]
//!   once nothing of it runs any more; an answer may be late. [`Action::Nudge`] asks for a lost one again.
//! - Input from a peer, a disk or PostgreSQL is validated, never asserted.

pub use super::core_message::{CoreMessage, Witness};
pub use super::job::*;
pub use super::message::*;
pub use super::reading::*;
use super::reason::Reason;
pub use super::settings::*;
use super::types::{Durable, HighWater, Member, WalPoint};
pub use super::user_command::*;

/// The longest time between two [`Event::Tick`]s that the daemon asks for, in milliseconds.
pub const TICK_MS: u64 = 50;

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
    /// none, the other's identifier. Used until the other server reports its name.
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
