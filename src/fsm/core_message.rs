//! What the cores report to the operator. [`super::event`] contains it among the actions.

use super::cause::Cause;
use super::reason::Reason;
use super::types::{DataIdentity, Lsn, Server, SystemId, Term, Timeline, View, WalPoint};
use super::user_command::UserCommand;

/// How it is known that WAL is missing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Witness {
    /// This server noted it durably, or has seen it in this run.
    Own,
    /// The other server holds it, or remembers it.
    Peer,
    /// The arbiter remembers it.
    Arbiter,
}

/// What is reported to the operator; the catalogue (`messages.rs`) gives each a number, a type and a text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CoreMessage {
    /// The view changed.
    View {
        /// The view before.
        from: Option<View>,
        /// The view now.
        to: View,
        /// Why.
        why: Reason,
    },
    /// No heartbeat past the retries, and nothing else to be seen of the other server. MCA00019.
    HeartbeatLost {
        /// What is done about it.
        done: &'static str,
    },
    /// Heartbeats come again.
    HeartbeatBack,
    /// Heartbeats are lost, but the other's instance lives: no switch.
    PeerAlive,
    /// The own instance has failed.
    InstanceFailed {
        /// What is wrong, after "has failed: ".
        how: &'static str,
    },
    /// The own instance answers again.
    InstanceWell,
    /// The own instance answers, but does not let the controller in.
    InstanceClosed,
    /// A disk has failed.
    DiskFailed(String),
    /// The disks are well again.
    DiskWell,
    /// The standby is connected but does not flush, or does not stream.
    StandbyStalled,
    /// Automatic switch and disconnection are off: this would have been done.
    WouldHave {
        /// What.
        what: &'static str,
        /// Why.
        why: Cause,
    },
    /// A decision was made: what, and why.
    Decided {
        /// What.
        what: &'static str,
        /// Why.
        why: Cause,
    },
    /// The promotion begins.
    PromotionStarted,
    /// MCA00062.
    PromotionCompleted,
    /// The standby was disconnected, in effect.
    Disconnected,
    /// The pair is mirrored.
    Mirrored,
    /// The standby did not take over in time; the primary continues.
    HandOverFailed(String),
    /// A job failed.
    JobFailed {
        /// Which.
        job: &'static str,
        /// Why.
        why: String,
    },
    /// The instance was stopped because the other server has the right to run.
    Inactivated {
        /// It may come back without a rebuild.
        clean: bool,
    },
    /// A primary's data directory without the right to run: a rebuild is needed.
    RebuildNeeded,
    /// A rebuild of the data directory begins.
    RebuildBegun(super::types::RebuildOrder),
    /// The data directory is the other server's standby's; the instance is started.
    RebuildEnded,
    /// The rebuild failed, and why.
    RebuildFailed(String),
    /// The rebuild that failed is tried again by itself.
    RebuildRetried {
        /// The number of the next attempt.
        attempt: u32,
        /// How many there are at most.
        of: u32,
        /// After how many seconds at the latest.
        seconds: u64,
    },
    /// A rebuild that was interrupted could not continue; what could be undone is undone.
    RebuildAbandoned,
    /// This server's data directory is not the one that the view names.
    NotEligible(Cause),
    /// The instance was started several times and did not stay up.
    LeftDown,
    /// An instance that was left down is started again after some time.
    StartRetried,
    /// The controller does not start the instance, and why.
    WillNotStart(String),
    /// Commits wait for the standby, and nothing can be done without an operator. Each minute.
    CommitsWait,
    /// `synchronous_standby_names` was found changed, and is set back.
    NamesChanged,
    /// Both servers run alone. PANIC.
    Split {
        /// This server's position.
        mine: (Timeline, Lsn),
        /// The other's.
        theirs: (Timeline, Lsn),
        /// This server is the one that is stopped.
        stopped: bool,
    },
    /// The arbiter reports that the other server runs alone too, by force. The servers do not communicate. PANIC.
    SplitElsewhere {
        /// This server's view.
        mine: View,
        /// The other's.
        theirs: View,
    },
    /// The controller was paused; its failure counters are reset.
    Paused {
        /// How long, ms.
        ms: u64,
    },
    /// Failover was switched on or off.
    FailoverSet(bool),
    /// The ledger could not be written.
    StoreFailed(String),
    /// A server belongs to another cluster.
    OtherSystem {
        /// Which server.
        server: Server,
        /// Ours.
        mine: SystemId,
        /// Theirs.
        theirs: SystemId,
    },
    /// The arbiter records a pair of another cluster.
    ArbiterOfOtherSystem {
        /// Ours.
        mine: SystemId,
        /// The arbiter's.
        theirs: SystemId,
    },
    /// A data directory was recognised as exchanged or restored, and has a new name.
    DataReplaced {
        /// What differs.
        why: &'static str,
        /// Its new name.
        data: DataIdentity,
    },
    /// The data directory lacks WAL that it has contained, or that its standby holds (PROTOCOL R13); it has a new name.
    WentBack {
        /// How that is known.
        witness: Witness,
        /// The point that it must contain.
        had: WalPoint,
        /// How far its WAL goes, at least.
        has: Lsn,
        /// Its new name.
        data: DataIdentity,
    },
    /// The primary's WAL does not contain this standby's: it must be rebuilt.
    NotContained {
        /// The standby's point.
        mine: WalPoint,
    },
    /// Neither server is known to hold everything: an operator must decide. PANIC.
    NoneHoldsAll {
        /// What this server's data directory had contained.
        had: WalPoint,
        /// How far the other server's WAL goes; `None` if that is not known.
        theirs: Option<WalPoint>,
    },
    /// The data directory of the mirrored primary was exchanged, and commits may not have waited for the standby: an operator
    /// must decide. PANIC.
    CannotHandOver,
    /// The standby was detached by an operator, or attached again.
    Detached(bool),
    /// The primary has been cut off and stops its instance (`isolated_primary_action`).
    Isolated,
    /// The instance of the mirrored primary crashed, and is not started before a member responds (`isolated_restart`).
    AwaitsMember,
    /// The standby has received nothing from the primary since its start, and asks the arbiter if that continues.
    AsksArbiterLater {
        /// In how many seconds.
        seconds: u64,
    },
    /// What makes commits less durable has changed; empty where nothing does.
    Weakened(Vec<String>),
    /// A command of the operator's is called, before something is done.
    Calling(Box<UserCommand>),
    /// It has ended with exit status 0.
    Called(Box<UserCommand>),
    /// It has ended otherwise; what it was for is not done.
    CallFailed {
        /// Which.
        command: Box<UserCommand>,
        /// How it ended.
        why: String,
    },
    /// A hook is called.
    HookCalled(Box<UserCommand>),
    /// A hook has ended with exit status 0.
    HookDone(Box<UserCommand>),
    /// A hook was ended, because the change that it reports is past.
    HookCalledOff(Box<UserCommand>),
    /// A hook has ended otherwise. Nothing depends on it.
    HookFailed {
        /// Which.
        command: Box<UserCommand>,
        /// How it ended.
        why: String,
    },
    /// Heartbeats of the arbiter are missing. MCA00157.
    ArbiterLost,
    /// Heartbeats of the arbiter arrive (again).
    ArbiterBack,
    /// The arbiter's: a server has received a promise from it that its ledger lacks. The ledger was restored from a copy. The arbiter
    /// continues under a new id.
    Renamed {
        /// What the server has received.
        was: Term,
        /// What the ledger knows.
        now: Term,
    },
    /// The arbiter did not give this server the right to run alone.
    NotConsented,
    /// The arbiter did not consent to a server's running alone, and why.
    NotGranted {
        /// Who asked.
        server: Server,
        /// Why not.
        why: Cause,
    },
    /// The arbiter receives heartbeats of a server again, or no longer.
    ServerHeard {
        /// Which.
        server: Server,
        /// They arrive.
        heard: bool,
    },
}
