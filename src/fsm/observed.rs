//! What is known of the own instance and disks, of the other server, and of the arbiter.
//!
//! Plain records with the questions that can be answered from one of them alone. [`super::observe`] fills them from events.

use super::event::{ControlState, DataDir, Heartbeat, Instance, StandbyRow};
use super::report::ArbiterDisk;
use super::types::{DataId, Ledger, LedgerId, Lsn, SystemId, Term, Time, Timeline, View};
use std::collections::BTreeSet;

/// How often a host must have refused before that counts as a cause.
const REFUSALS: u32 = 3;

/// How the instance has failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Failure {
    /// Its postmaster has ended.
    Dead,
    /// It is silent past the retries.
    Silent,
}

/// Whether the instance runs, as far as jobs and notices show; readings only add its role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Running {
    /// Not known: the data directory has to be read.
    #[default]
    Unknown,
    /// No process of it is left.
    Down,
    /// The postmaster lives.
    Up,
    /// The postmaster is gone; its processes may not be.
    Dead,
}

/// Why an instance that is wanted is kept down.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum DownReason {
    /// It was started several times and did not stay up.
    DidNotStayUp,
    /// It failed while failover was disabled, and is left as it is.
    FailoverDisabled,
    /// It is a standby, and is disconnected (`shutdown_detached_synchronous_standby`).
    Disconnected,
    /// It is the primary, and was cut off (`isolated_primary_action = stop`).
    Isolated,
}

/// The reasons that apply. Each ends by itself, and several may apply at the same time.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct DownReasons(BTreeSet<DownReason>);

impl DownReasons {
    pub fn has(&self, reason: DownReason) -> bool {
        self.0.contains(&reason)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn begin(&mut self, reason: DownReason) {
        self.0.insert(reason);
    }

    pub fn end(&mut self, reason: DownReason) {
        self.0.remove(&reason);
    }

    /// Begins or ends.
    pub fn set(&mut self, reason: DownReason, applies: bool) {
        if applies { self.begin(reason) } else { self.end(reason) }
    }
}

/// What is known of the own instance and disks.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct OwnSide {
    pub data: Option<DataDir>,
    pub data_at: Time,
    /// When the job that read `data` began: the directory may have changed since.
    pub read_since: Time,
    pub running: Running,
    /// The last reading with a role since the last start.
    pub role: Option<Instance>,
    /// Last time that it answered anything.
    pub answered_at: Time,
    /// It was started on order and has not answered in a role since.
    pub starting: bool,
    /// How it failed, until it is started again.
    pub failed: Option<Failure>,
    /// The signal that terminated the postmaster, if that is how it failed and the signal is known.
    pub signal: Option<u8>,
    /// It does not respond, and that has been reported.
    pub silent: bool,
    pub closed: bool,
    pub disk_good_at: Time,
    pub disk_bad: String,
    pub disk_full: String,
    /// What makes commits less durable.
    pub weakened: Vec<String>,
    /// The starts that no order ended, since it last stayed up.
    pub starts: Vec<Time>,
    /// Why it is kept down.
    pub down_reasons: DownReasons,
    /// A promotion was ordered since the last start.
    pub promoting: bool,
    /// It is down, and `synchronous_standby_names` was set in its file since.
    pub named_while_down: bool,
    /// `synchronous_standby_names` is commented out in a standby's file.
    pub freed: bool,
    /// The data directory belongs to another cluster.
    pub alien: bool,
    /// An operator's start asked for a first ledger.
    pub founding: bool,
    /// The controller was started for a rebuild.
    pub for_rebuild: bool,
    pub data_id: Option<DataId>,
    /// Last time that the standby flushed what it had to, or, on a standby, that WAL streamed.
    pub flow_at: Time,
    /// Since when it is being started.
    pub starting_at: Time,
    /// When it first answered in a role after a start.
    pub serving_at: Time,
    /// Last time that the standby had all that the primary had flushed, as far as this server knew.
    pub caught_up_at: Time,
    pub flushed: Lsn,
    pub row_flushed: Lsn,
    /// It is down and its data directory shows that it was not shut down cleanly.
    pub crashed: bool,
    /// A start was ordered, or a postmaster ended, since it was last found down, so that it may have served clients since.
    pub may_have_run: bool,
    /// No member has responded since that was found.
    pub unheard: bool,
    /// The last position that the standby has confirmed under the present view, as far as it is known.
    pub confirmed: Option<Lsn>,
}

impl OwnSide {
    pub fn boot(&mut self, now: Time) {
        self.forget(now);
        self.starting = true;
        self.starting_at = now;
    }

    pub fn forget(&mut self, now: Time) {
        self.answered_at = now;
        self.disk_good_at = now;
        self.flow_at = now;
        self.caught_up_at = now;
    }

    /// Notes whether it is down after a crash.
    pub fn note_crash(&mut self, data: &DataDir) {
        let clean = matches!(data.state, ControlState::ShutDown | ControlState::ShutDownInRecovery);
        let crashed = !data.running && !clean;
        let ran = !data.running && std::mem::take(&mut self.may_have_run);
        self.unheard = crashed && (self.unheard || !self.crashed || ran);
        self.crashed = crashed;
    }

    /// Whether an instance started from the data directory comes up as a standby.
    pub fn is_standby_dir(&self) -> bool {
        self.data.is_some_and(|data| data.is_standby())
    }

    pub fn is_primary(&self) -> bool {
        matches!(self.role, Some(Instance::Primary { .. }))
    }

    pub fn started(&mut self, now: Time) {
        self.running = Running::Up;
        self.named_while_down = false;
        self.role = None;
        self.starting = true;
        self.starting_at = now;
        self.failed = None;
        self.silent = false;
        self.promoting = false;
        self.answered_at = now;
        self.flow_at = now;
    }

    /// Ends what prevented a start: an operator or a rebuild orders one.
    pub fn revive(&mut self) {
        for reason in [DownReason::DidNotStayUp, DownReason::FailoverDisabled, DownReason::Disconnected] {
            self.down_reasons.end(reason);
        }
        self.failed = None;
        self.starts.clear();
    }

    pub fn down(&mut self) {
        self.running = Running::Down;
        self.role = None;
        self.starting = false;
        self.promoting = false;
        self.freed = false;
        self.closed = false;
        self.silent = false;
    }

    /// Nothing runs, and the data directory cannot be read any more.
    pub fn lost_sight(&mut self) {
        if let Some(data) = self.data.as_mut() {
            data.state = ControlState::Other;
            data.running = false;
        }
    }

    pub fn timeline(&self) -> Timeline {
        match (self.running, self.role, self.data) {
            (Running::Up, Some(Instance::Primary { timeline, .. } | Instance::Standby { timeline, .. }), _) => timeline,
            (_, _, Some(data)) => data.checkpoint_timeline.max(data.min_recovery_timeline),
            (_, _, None) => Timeline::default(),
        }
    }

    pub fn received(&self) -> Lsn {
        match self.role {
            Some(Instance::Standby { received, .. }) => received,
            _ => Lsn::default(),
        }
    }

    /// Whether the standby streams from this primary.
    pub fn is_followed(&self) -> bool {
        self.standby_row().is_some_and(|row| row.streaming)
    }

    pub fn standby_row(&self) -> Option<StandbyRow> {
        match self.role {
            Some(Instance::Primary { standby, .. }) => standby,
            _ => None,
        }
    }
}

/// The newest that is known of a member's ledger; ledgers never go back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Best {
    pub id: Option<LedgerId>,
    pub promised: Term,
    pub term: Term,
}

impl Best {
    /// Takes a ledger in; false where it is older than one already seen.
    pub fn take(&mut self, ledger: &Ledger) -> bool {
        if self.id == Some(ledger.id) && (ledger.promised < self.promised || ledger.view.term < self.term) {
            return false;
        }
        *self = Best { id: Some(ledger.id), promised: ledger.promised, term: ledger.view.term };
        true
    }
}

/// What is known of the other server.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct PeerSide {
    pub heartbeat: Option<Box<Heartbeat>>,
    /// The system identifier of its data directory, if that belongs to another cluster.
    pub foreign: Option<SystemId>,
    /// The system identifier of its ledger.
    pub recorded: Option<SystemId>,
    pub heard_at: Option<Time>,
    pub two_way_at: Option<Time>,
    pub echo: u64,
    pub best: Best,
    pub refused: u32,
    pub refused_at: Time,
    pub instance_refused: u32,
    pub answered_at: Option<Time>,
    pub wal_at: Option<Time>,
    /// When its instance last answered while it followed this primary.
    pub followed_at: Option<Time>,
    pub contact: u64,
    /// When something arrived on the WAL connection that had not before.
    pub contact_at: Time,
    pub watching: bool,
    /// Since when it reports, without a break, that its instance or a disk has failed.
    pub ill_since: Option<Time>,
}

impl PeerSide {
    pub fn forget(&mut self, now: Time) {
        self.heard_at = self.heard_at.map(|_| now);
        self.two_way_at = self.two_way_at.map(|_| now);
        self.refused = 0;
        self.instance_refused = 0;
        self.ill_since = self.ill_since.map(|_| now);
    }

    /// Whether a heartbeat contains the newest echo. One that arrives late, or was sent by or to an earlier process, does not.
    pub fn is_of_now(&self, told: &Heartbeat) -> bool {
        told.echo == self.echo
    }

    /// The last time at which anything of its host's was seen to live.
    pub fn seen_at(&self) -> Option<Time> {
        self.heard_at.max(self.answered_at).max(self.wal_at)
    }

    /// The last time at which both directions were known to work.
    pub fn up_at(&self) -> Option<Time> {
        Some(self.heard_at?.min(self.two_way_at?))
    }

    /// Its ledger, if both directions have worked within `ms`.
    pub fn fresh_ledger(&self, now: Time, ms: u64) -> Option<Ledger> {
        if now.since(self.up_at()?) >= ms { None } else { self.heartbeat.as_ref()?.ledger }
    }

    pub fn refuses_both(&self, now: Time, ms: u64) -> bool {
        self.refused >= REFUSALS && self.instance_refused >= REFUSALS && now.since(self.refused_at) < ms
    }

    pub fn shows_life(&self, now: Time, ms: u64) -> bool {
        [self.answered_at, self.wal_at].into_iter().flatten().any(|at| now.since(at) < ms)
    }
}

/// What is known of the arbiter.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct ArbiterSide {
    /// The system identifier of the pair that it records, if that is another cluster's.
    pub foreign: Option<SystemId>,
    pub heard_at: Option<Time>,
    pub best: Best,
    pub refused: u32,
    pub seq: u64,
    /// The view that it reported last.
    pub view: Option<View>,
    /// It would consent if it were asked now.
    pub would_grant: bool,
    /// What it reports of its disk, for people.
    pub disk: ArbiterDisk,
    /// Its heartbeats are missing, and that has been reported.
    pub lost: bool,
}

impl ArbiterSide {
    pub fn forget(&mut self, now: Time) {
        self.heard_at = self.heard_at.map(|_| now);
    }
}
