//! As much of a PostgreSQL instance as a prediction needs: a data directory, a role, where its log ends, and what jobs do to
//! it when nothing goes wrong but what was asked about.
//!
//! The stories of the tests have one of their own, which their scripts bend, and the simulator a third, with a real log:
//! what the core is tested against must not change because an estimate here does.

use crate::fsm::event::{
    Contains, ControlState, DataDir, Health, Heartbeat, Instance, Job, Names, Outcome, Role, StandbyRow, WalFound,
    WalReading,
};
use crate::fsm::present::OwnPresent;
use crate::fsm::report::HostRole;
use crate::fsm::types::{Ledger, Lsn, SystemId, Time, Timeline, WalPoint};

/// How much WAL clients write between two looks, bytes.
const WRITTEN: u64 = 0x30;

/// What usual jobs take on a machine that is not busy, ms.
mod typical {
    pub const LOOK: u64 = 5;
    pub const START: u64 = 150;
    pub const RECOVERY: u64 = 300;
    pub const STOP: u64 = 120;
    pub const END: u64 = 25;
    pub const RELOAD: u64 = 15;
    pub const PROMOTE: u64 = 50;
    pub const PROVE: u64 = 60;
    pub const CHECKPOINT: u64 = 300;
    pub const REBUILD: u64 = 5_000;
    /// What cannot succeed on a disk or an instance that does not answer.
    pub const IN_VAIN: u64 = 2_000;
}

/// An instance and its data directory.
#[derive(Clone, Debug)]
pub(super) struct Postgres {
    pub dir: DataDir,
    pub names: Names,
    pub lsn: Lsn,
    /// It runs and does not answer.
    pub silent: bool,
    /// It answers, but does not let the controller in.
    pub closed: bool,
    /// It does not start.
    pub broken: bool,
    /// What has failed of its disks; empty for nothing.
    pub disk: String,
    /// Names its run.
    pub incarnation: u64,
    /// When it has recovered after its start.
    pub ready_at: Time,
    /// Changes with every message on the WAL connection.
    pub contact: u64,
}

impl Postgres {
    /// This server's, as its controller knows it.
    pub fn own(own: &OwnPresent, ledger: Option<&Ledger>, at: Lsn, timeline: Timeline) -> Postgres {
        let standby = match own.role {
            Some(Instance::Standby { .. }) => true,
            Some(_) => false,
            None => own.data.is_some_and(|data| data.standby_signal),
        };
        let mut dir = own.data.unwrap_or_else(|| directory(SystemId::default(), ledger, standby));
        // Its timeline is that of the last look at it; the directory was read when it was started.
        dir.running = own.runs;
        dir.standby_signal = standby;
        place(&mut dir, ledger, timeline);
        // The files were read at the start, and a prediction contains no change by hand.
        dir.unnamed = false;
        Postgres {
            names: match own.role {
                Some(Instance::Primary { names, .. }) => names,
                _ if own.freed => Names::Unset,
                _ => Names::Peer,
            },
            lsn: at,
            silent: own.silent,
            closed: own.closed,
            broken: own.left_down,
            disk: own.disk.clone(),
            contact: 1,
            incarnation: own.incarnation.unwrap_or(1),
            ready_at: Time(0),
            dir,
        }
    }

    /// The other server's, as its last heartbeat and the status show it; else `is_standby` decides.
    pub fn told(told: &Heartbeat, shown: HostRole, is_standby: bool) -> Postgres {
        let ledger = told.ledger.as_ref();
        let standby = match shown {
            _ if told.role != Role::None => told.role == Role::Standby,
            HostRole::Standby | HostRole::InactivatedStandby => true,
            HostRole::Primary | HostRole::InactivatedPrimary => false,
            HostRole::Unknown => is_standby,
        };
        let closed = told.role == Role::None && told.instance == Health::Well;
        let mut dir = directory(told.system.unwrap_or_default(), ledger, standby);
        dir.running = told.role != Role::None || matches!(told.instance, Health::Well | Health::Starting);
        place(&mut dir, ledger, told.timeline);
        let alone = ledger.is_some_and(|ledger| ledger.view.mode == crate::fsm::types::Mode::Degraded);
        Postgres {
            names: if told.role == Role::Primary && alone { Names::Unset } else { Names::Peer },
            lsn: told.lsn,
            silent: false,
            closed,
            broken: told.instance == Health::Failed && told.role == Role::None && told.disk.is_empty(),
            disk: told.disk.clone(),
            contact: 1,
            incarnation: told.wal.incarnation.unwrap_or(1),
            ready_at: Time(0),
            dir,
        }
    }

    pub fn is_primary(&self) -> bool {
        self.dir.running && !self.dir.standby_signal
    }

    pub fn is_standby(&self) -> bool {
        self.dir.running && self.dir.standby_signal
    }

    pub fn timeline(&self) -> Timeline {
        self.dir.checkpoint_timeline.max(self.dir.min_recovery_timeline)
    }

    /// Whether it runs, has recovered, and can write and flush.
    pub fn works(&self, now: Time) -> bool {
        self.dir.running && !self.silent && self.disk.is_empty() && now >= self.ready_at
    }

    /// The postmaster and all its processes are gone; `pg_control` stays as it was.
    pub fn crash(&mut self) {
        self.dir.running = false;
        self.silent = false;
        self.closed = false;
    }

    /// What a look at it shows. `flows`: the standby gets what the primary writes; `attached`: the connection stands, as far
    /// as either end can tell.
    pub fn reading(&mut self, now: Time, flows: bool, attached: bool, theirs: Lsn) -> Instance {
        if !self.dir.running {
            return Instance::Down;
        }
        if self.silent {
            return Instance::Silent;
        }
        if self.closed {
            return Instance::Closed;
        }
        if now < self.ready_at {
            return Instance::Starting;
        }
        self.contact += u64::from(flows);
        let timeline = self.timeline();
        if self.is_standby() {
            let (received, contact) = (self.lsn, self.contact);
            return Instance::Standby { timeline, received, replayed: received, streaming: attached, contact };
        }
        if self.disk.is_empty() {
            self.lsn.0 = self.lsn.0.saturating_add(WRITTEN);
        }
        let row = StandbyRow {
            streaming: true,
            sync: self.names == Names::Peer,
            flushed: if flows { self.lsn } else { theirs.min(self.lsn) },
            reply: self.contact,
        };
        Instance::Primary {
            timeline,
            flushed: self.lsn,
            names: self.names,
            waiting: self.names != Names::Unset && !flows,
            standby: attached.then_some(row),
        }
    }

    /// Which WAL it has by this reading. `theirs`: how far the other instance's goes.
    pub fn wal(&self, reading: Instance, theirs: Lsn) -> Option<WalReading> {
        let (lsn, incarnation, confirmed) = match reading {
            Instance::Primary { names: Names::Peer, standby, .. } => {
                (standby.map(|_| theirs.min(self.lsn)), Some(self.incarnation), standby.is_some())
            }
            Instance::Primary { flushed, .. } => (Some(flushed), Some(self.incarnation), false),
            Instance::Standby { received, streaming, .. } => (streaming.then_some(received), None, false),
            Instance::Down | Instance::Starting | Instance::Closed | Instance::Silent => return None,
        };
        let point = lsn.map(|lsn| WalPoint { timeline: self.timeline(), lsn, length: 1, hash: 0 });
        Some(WalReading { incarnation, point, confirmed })
    }

    /// A standby takes what the primary has.
    pub fn receive(&mut self, lsn: Lsn, timeline: Timeline) {
        self.lsn = self.lsn.max(lsn);
        self.dir.min_recovery_timeline = timeline;
    }

    /// How long a job usually takes, ms.
    pub fn takes_ms(&self, job: &Job) -> u64 {
        match job {
            Job::Stop { fast_ms: 0, .. } => typical::END,
            Job::Stop { fast_ms, .. } if self.silent || !self.disk.is_empty() => *fast_ms,
            Job::Stop { .. } => typical::STOP,
            _ if self.hinders(job) => typical::IN_VAIN,
            Job::Inspect | Job::CompareWal(_) | Job::Mark(_) | Job::Abandon => typical::LOOK,
            Job::Start { .. } => typical::START,
            Job::NamesOn(_) | Job::NamesOff => typical::RELOAD,
            Job::Promote => typical::PROMOTE,
            Job::Prove(_) => typical::PROVE,
            Job::Checkpoint => typical::CHECKPOINT,
            Job::Rebuild(_) => typical::REBUILD,
        }
    }

    /// A failed disk, or an instance that does not answer, is in the way.
    fn hinders(&self, job: &Job) -> bool {
        let asks_it = matches!(job, Job::NamesOn(_) | Job::NamesOff | Job::Promote | Job::Prove(_) | Job::Checkpoint);
        !self.disk.is_empty() || asks_it && (self.silent || self.closed)
    }

    /// Does a job. `flows`: the other instance, which is `source`, streams.
    pub fn perform(&mut self, now: Time, job: &Job, flows: bool, source: &Postgres) -> Outcome {
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        match job {
            Job::Stop { fast_ms, names } => {
                self.stop(*fast_ms > 0);
                if !self.disk.is_empty() {
                    return Outcome::Stopped(None);
                }
                if names.is_some() {
                    self.names = Names::Peer;
                }
                return Outcome::Stopped(Some(self.dir));
            }
            _ if self.hinders(job) => return failed("no response in time"),
            Job::Inspect | Job::Abandon => return Outcome::Data(self.dir),
            // No data directory loses anything in a prediction.
            Job::CompareWal(_) => {
                return Outcome::Wal(WalFound { own: Contains::Yes, peer: Contains::Yes, end: None });
            }
            Job::Mark(id) => {
                self.dir.mark = Some(*id);
                return Outcome::Data(self.dir);
            }
            Job::Start { .. } if self.broken || self.dir.incomplete => return failed("it does not start"),
            Job::Start { names, follow } => {
                self.names = if names.is_some() { Names::Peer } else { Names::Unset };
                let before = self.dir;
                self.start(now, follow.is_some());
                return Outcome::Started(before);
            }
            Job::Rebuild(_) if self.dir.running || !source.is_primary() => {
                return failed("the other server's instance is not available");
            }
            Job::Rebuild(_) => {
                self.become_copy(source);
                return Outcome::Rebuilt { data: self.dir, address: String::new() };
            }
            _ if !self.dir.running => return failed("the instance is not running"),
            Job::NamesOn(_) => self.names = Names::Peer,
            Job::NamesOff => self.names = Names::Unset,
            Job::Checkpoint => self.checkpoint(),
            Job::Promote => {
                self.dir.standby_signal = false;
                self.dir.state = ControlState::InProduction;
                self.dir.checkpoint_timeline = Timeline(self.timeline().0.saturating_add(1));
                self.dir.min_recovery_timeline = Timeline(0);
                self.checkpoint();
                return Outcome::Promoted(self.timeline());
            }
            Job::Prove(_) => {
                self.names = Names::Peer;
                return if flows { Outcome::Proved(self.lsn) } else { failed("the standby does not stream") };
            }
        }
        Outcome::Applied
    }

    fn become_copy(&mut self, source: &Postgres) {
        self.dir = DataDir {
            fingerprint: self.dir.fingerprint,
            inode_print: self.dir.inode_print,
            state: ControlState::InArchiveRecovery,
            min_recovery_timeline: source.timeline(),
            standby_signal: true,
            backup_label: true,
            running: false,
            ..source.dir
        };
        self.lsn = source.lsn;
        self.names = Names::Peer;
        self.broken = false;
    }

    fn start(&mut self, now: Time, follow: bool) {
        let crashed = matches!(self.dir.state, ControlState::InProduction | ControlState::InArchiveRecovery);
        self.ready_at = now.plus(if crashed { typical::RECOVERY } else { typical::LOOK });
        self.incarnation = self.incarnation.wrapping_add(1).max(1);
        self.dir.standby_signal |= follow;
        self.dir.running = true;
        self.dir.backup_label = false;
        if self.dir.state == ControlState::InProduction {
            self.checkpoint();
        }
        self.dir.state =
            if self.dir.standby_signal { ControlState::InArchiveRecovery } else { ControlState::InProduction };
    }

    fn stop(&mut self, fast: bool) {
        if self.dir.running && fast && !self.silent && self.disk.is_empty() {
            self.checkpoint();
            self.dir.state =
                if self.dir.standby_signal { ControlState::ShutDownInRecovery } else { ControlState::ShutDown };
        }
        self.crash();
    }

    /// A primary's checkpoint record begins where the log ended; a standby writes none.
    fn checkpoint(&mut self) {
        if !self.dir.standby_signal {
            self.dir.checkpoint = self.lsn;
            self.lsn.0 = self.lsn.0.saturating_add(0x80);
        }
    }
}

/// A data directory of which no more is known than its ledger tells.
fn directory(system: SystemId, ledger: Option<&Ledger>, standby: bool) -> DataDir {
    DataDir {
        system: ledger.map_or(system, |ledger| ledger.system),
        fingerprint: ledger.map_or(1, |ledger| ledger.data.fingerprint),
        inode_print: 0,
        checkpoint: ledger.map_or(Lsn(1), |ledger| ledger.data.checkpoint),
        checkpoint_timeline: Timeline(0),
        min_recovery_timeline: Timeline(0),
        state: if standby { ControlState::ShutDownInRecovery } else { ControlState::ShutDown },
        standby_signal: standby,
        backup_label: false,
        mark: ledger.map(|ledger| ledger.id),
        incomplete: false,
        unnamed: false,
        running: false,
    }
}

/// What runs is where it was last seen, and no directory is older than its ledger says.
fn place(dir: &mut DataDir, ledger: Option<&Ledger>, timeline: Timeline) {
    if let Some(ledger) = ledger
        && dir.has_fingerprint(&ledger.data)
    {
        dir.checkpoint = dir.checkpoint.max(ledger.data.checkpoint);
    }
    if timeline != Timeline(0) {
        dir.checkpoint_timeline = timeline;
        dir.min_recovery_timeline = if dir.standby_signal { timeline } else { Timeline(0) };
    }
    if dir.running {
        // It was removed when the instance had read it.
        dir.backup_label = false;
        dir.state = if dir.standby_signal { ControlState::InArchiveRecovery } else { ControlState::InProduction };
    }
}
