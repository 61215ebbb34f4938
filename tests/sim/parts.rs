//! What a world is made of: processes, machines, instances and their data directories, links.

use crate::wal::Pos;
use mirroring_controller::fsm::arbiter::Arbiter;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::node::Node;
use mirroring_controller::fsm::types::*;
use std::collections::VecDeque;

/// What a process runs.
pub enum Core {
    /// It does not run.
    None,
    /// A server's.
    Node(Box<Node>),
    /// The arbiter's.
    Arbiter(Box<Arbiter>),
}

/// A controller process, and its management directory's content.
pub struct Process {
    pub core: Core,
    pub epoch: u32,
    pub start_id: u64,
    /// The ledger file's content.
    pub disk: Option<Durable>,
    /// How far its WAL was noted to go.
    pub high_water: Option<HighWater>,
    /// The contents before (for the broken worlds).
    pub past: Vec<Durable>,
    /// The ledger as it was ordered last, durable or not.
    pub ordered: Option<Ledger>,
    /// Writes ordered, the first one under way.
    pub writes: VecDeque<(u64, Durable)>,
    pub writing: bool,
    pub job: Option<crate::jobs::Running>,
    pub script: Option<crate::scripts::Script>,
    /// The hook that runs.
    pub hook: Option<crate::scripts::Script>,
    pub answered: Option<(JobId, Outcome)>,
    pub answer_lost: bool,
    /// The last write that was ordered contains that commits may not have waited.
    pub orders_unmirrored: bool,
    /// No answer comes before this time.
    pub answer_at: u64,
    /// The reading that was ordered last comes at this time.
    pub look_at: u64,
    /// No reading of the instance comes before this time.
    pub reading_at: u64,
    pub paused: bool,
    pub held: Vec<Event>,
    pub watch: bool,
    pub exited: bool,
    pub clock: Clock,
    pub ticking: bool,
}

impl Process {
    /// Whether its runner is stopping the instance.
    pub fn stops(&self) -> bool {
        self.job.as_ref().is_some_and(|running| matches!(running.job, Job::Stop { .. }))
    }
}

/// A member's `CLOCK_BOOTTIME`.
#[derive(Clone, Copy)]
pub struct Clock {
    pub base: u64,
    pub since: u64,
    pub permille: u64,
}

impl Clock {
    pub fn now(&self, t: u64) -> Time {
        Time(self.base + (t - self.since) * self.permille / 1000)
    }
}

/// What a data directory holds.
#[derive(Clone, Debug)]
pub struct Dir {
    pub fingerprint: u64,
    pub checkpoint: (u64, u32),
    pub min_recovery: u32,
    pub state: ControlState,
    pub standby_signal: bool,
    pub backup_label: bool,
    pub mark: Option<LedgerId>,
    /// `synchronous_standby_names` in the file.
    pub names: Names,
    /// The name in that line, commented out or not.
    pub line: &'static str,
    /// `primary_conninfo` points to the other server.
    pub follows: bool,
    pub pos: Pos,
    /// Put back from a copy that lacks acknowledged commits, by the operator.
    pub exchanged: bool,
    /// It went back to an older state, and nothing of it shows that.
    pub went_back: bool,
    /// A rebuild has begun in it and not ended: `PG_VERSION` keeps everybody from starting it.
    pub incomplete: bool,
    /// It is half overwritten, or deleted: what its position says means nothing.
    pub torn: bool,
    /// There is no file in it.
    pub missing: bool,
    /// Its position says that it holds what was never copied (in a broken world).
    pub hollow: bool,
}

/// The journal of a rebuild. It counts only while the directory is incomplete, or none is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Journal {
    None,
    /// The directory is as it was, but for the guard; or deleted.
    Copying,
    /// It is half rewound.
    Rewinding,
    /// The copy is whole, and takes the directory's place.
    Swapping,
}

/// What an instance does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    Down,
    Starting,
    Primary,
    Standby,
    Promoting,
    /// A fast shutdown; true: the shutdown checkpoint is written and waits for the standby.
    Stopping(bool),
}

/// The machine on which a member runs.
pub struct Machine {
    pub up: bool,
    /// Its kernel answers (refuses) while no process does.
    pub kernel: bool,
    pub ledger: LedgerDisk,
    pub fenced: Option<Fenced>,
}

/// A host was taken down by a command: it stays down until the member that called it has done what that was for.
#[derive(Clone, Copy)]
pub struct Fenced {
    pub by: usize,
    /// Its process.
    pub epoch: u32,
    pub at: u64,
}

impl Machine {
    /// Whether something there answers a connection, if only by refusing it.
    pub fn answers(&self) -> bool {
        self.up || self.kernel
    }
}

/// How the disk behaves that holds a member's ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LedgerDisk {
    Well,
    /// A write takes seconds.
    Slow,
    /// A write does not end, or ends in an error, done or not.
    Dead,
    /// Every write ends in an error at once, done or not.
    Fails,
}

/// A server's instance, and what it stands on.
pub struct Host {
    pub dir: Dir,
    pub backup: Option<Dir>,
    /// What the data directory was before the last start.
    pub cold: Option<Dir>,
    /// How far the rebuild came that is not ended.
    pub journal: Journal,
    /// The copy that a base backup has made beside the data directory.
    pub staged: Option<Dir>,
    pub run: Run,
    pub epoch: u32,
    /// Names this postmaster; 0: none.
    pub life: u32,
    pub loaded: Names,
    pub effect: Names,
    pub last_commit: u64,
    pub released: u64,
    /// A DBA has taken the names off.
    pub unnamed: bool,
    /// What was acknowledged since without waiting, and whether the controller has seen the change.
    pub unmirrored: Option<Pos>,
    pub noticed: bool,
    /// It ran as a primary and crashed, and its controller has heard no other member since.
    pub unheard: bool,
    /// Its controller has started it in that state.
    pub restarted_unheard: bool,
    pub frozen: bool,
    pub frozen_postmaster: bool,
    pub frozen_receiver: bool,
    pub stuck_checkpointer: bool,
    pub full: bool,
    pub disk_failed: bool,
    pub contacts: u64,
}

/// A walreceiver's connection, of the server by whose number it is filed.
pub struct Session {
    pub id: u32,
    /// Of the primary's postmaster.
    pub life: u32,
    pub flushed: u64,
    pub replies: u64,
    pub streaming: bool,
    pub catchup_until: u64,
    /// Since when nothing comes through, for the time limits of both ends.
    pub cut_since: Option<u64>,
    /// Both ends have not noticed yet that it is broken, until then.
    pub broken_until: Option<u64>,
}

/// How a direction of the network behaves.
#[derive(Clone, Copy, Default)]
pub struct Link {
    pub cut: bool,
    pub loss: u64,
    pub repeat: u64,
    pub slow: u64,
    /// In how many of a thousand cases a message comes very late.
    pub stale: u64,
}

impl Link {
    /// Whether messages arrive, once and soon.
    pub fn is_well(&self) -> bool {
        !self.cut && [self.loss, self.repeat, self.slow, self.stale] == [0; 4]
    }
}

/// Two members are healed; this one is not.
#[derive(Clone, Copy)]
pub struct Two {
    pub missing: usize,
    pub since: u64,
}

/// The last heartbeat of a server that reached the arbiter's host.
#[derive(Clone, Copy, Default)]
pub struct Beat {
    pub at: u64,
    pub seq: u64,
    /// The sender's process.
    pub epoch: u32,
    /// It reported a failure, or asked to be taken over.
    pub ill: bool,
}

/// Where a member is to be killed: at this write of its ledger, before it is durable or after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashAt {
    pub m: usize,
    pub write: u64,
    pub durable: bool,
}

/// What was broken, and how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub what: String,
}
