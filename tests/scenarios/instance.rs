//! As much of a PostgreSQL instance as the stories need: a data directory, a role, and where its log ends.

use mirroring_controller::fsm::event::{
    Contains, ControlState, DataDir, Disk, Instance, Job, Names, Outcome, Rebuild, StandbyRow, WalFound, WalReading,
};
use mirroring_controller::fsm::types::{Lsn, Method, SystemId, Timeline, WalPoint};

/// A host's instance.
#[derive(Clone)]
pub struct Postgres {
    pub dir: DataDir,
    pub names: Names,
    pub lsn: Lsn,
    /// It runs but does not answer.
    pub silent: bool,
    /// It rejects the controller's sessions.
    pub closed: bool,
    /// WAL past this position was written after a restore, and differs from what was there before.
    pub fork: u64,
    /// It does not start.
    pub broken: bool,
    /// The data directory is empty.
    pub missing: bool,
    /// It is half overwritten.
    pub torn: bool,
    pub disk: Disk,
    /// How often it was started.
    runs: u64,
    /// Changes with every message on the WAL connection.
    contact: u64,
}

/// The other instance, as far as the WAL connection shows it.
#[derive(Clone, Copy)]
pub struct Wire {
    pub streams: bool,
    pub lsn: Lsn,
    pub timeline: Timeline,
    pub fork: u64,
}

impl Postgres {
    /// A primary's data directory, shut down; or its copy, made into a standby's.
    pub fn new(fingerprint: u64, standby: bool) -> Postgres {
        let dir = DataDir {
            system: SystemId(7_000),
            fingerprint,
            inode_print: 0,
            checkpoint: Lsn(0x0300_0000),
            checkpoint_timeline: Timeline(1),
            min_recovery_timeline: Timeline(u32::from(standby)),
            state: if standby { ControlState::ShutDownInRecovery } else { ControlState::ShutDown },
            standby_signal: standby,
            backup_label: false,
            mark: None,
            incomplete: false,
            unnamed: true,
            running: false,
        };
        Postgres {
            dir,
            names: Names::Unset,
            lsn: Lsn(0x0300_0100),
            silent: false,
            closed: false,
            fork: u64::MAX,
            broken: false,
            missing: false,
            torn: false,
            disk: Disk::Good,
            runs: 0,
            contact: 0,
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

    /// The postmaster and all its processes are gone; `pg_control` stays as it was.
    pub fn crash(&mut self) {
        self.dir.running = false;
        self.silent = false;
    }

    /// What one look at it shows. A client commits a little between two looks.
    pub fn reading(&mut self, wire: Wire) -> Instance {
        if !self.dir.running {
            return Instance::Down;
        }
        if self.silent {
            return Instance::Silent;
        }
        if self.closed {
            if self.is_standby() {
                self.receive(wire);
            }
            return Instance::Closed;
        }
        self.contact += u64::from(wire.streams);
        if self.is_standby() {
            self.receive(wire);
            return Instance::Standby {
                timeline: self.timeline(),
                received: self.lsn,
                replayed: self.lsn,
                streaming: wire.streams,
                contact: self.contact,
            };
        }
        self.lsn.0 += 0x30;
        let row = StandbyRow {
            streaming: true,
            sync: self.names == Names::Peer,
            flushed: if wire.streams { self.lsn } else { wire.lsn },
            reply: self.contact,
        };
        Instance::Primary {
            timeline: self.timeline(),
            flushed: self.lsn,
            names: self.names,
            waiting: self.names == Names::Peer && !wire.streams,
            standby: wire.streams.then_some(row),
        }
    }

    /// Which WAL it has by this reading.
    pub fn wal(&self, reading: Instance, wire: Wire) -> Option<WalReading> {
        let (lsn, confirmed) = match reading {
            Instance::Primary { names: Names::Peer, .. } => (wire.streams.then_some(wire.lsn), wire.streams),
            Instance::Primary { flushed, .. } => (Some(flushed), false),
            Instance::Standby { received, streaming, .. } => (streaming.then_some(received), false),
            _ => return None,
        };
        let incarnation = matches!(reading, Instance::Primary { .. }).then_some(self.runs).filter(|run| *run != 0);
        Some(WalReading { incarnation, point: lsn.map(|lsn| self.point(lsn)), confirmed })
    }

    /// The point at this position. Its digest tells whether it was written before or after a restore.
    fn point(&self, lsn: Lsn) -> WalPoint {
        WalPoint { timeline: self.timeline(), lsn, length: 1, hash: u64::from(lsn.0 > self.fork) }
    }

    /// Whether its WAL contains a point.
    pub fn contains(&self, point: Option<WalPoint>) -> Contains {
        match point {
            Some(point) if (point.timeline, point.lsn) > (self.timeline(), self.lsn) => Contains::No,
            Some(point) if point.hash != u64::from(point.lsn.0 > self.fork) => Contains::No,
            Some(_) => Contains::Yes,
            None => Contains::Unknown,
        }
    }

    /// A standby takes what the primary has, and overwrites what it had of another history.
    pub fn receive(&mut self, wire: Wire) {
        if wire.streams && wire.lsn >= self.lsn {
            self.lsn = wire.lsn;
            self.fork = wire.fork;
            self.dir.min_recovery_timeline = wire.timeline;
        }
    }

    /// Does a job; with the other instance's place on the wire.
    pub fn perform(&mut self, job: &Job, wire: Wire) -> Outcome {
        let named = |names: &Option<String>| if names.is_some() { Names::Peer } else { Names::Unset };
        match job {
            _ if self.missing && !matches!(job, Job::Rebuild(_) | Job::Stop { .. }) => {
                return Outcome::Failed("the data directory is empty".to_owned());
            }
            Job::Inspect => return Outcome::Data(self.dir),
            Job::CompareWal(asked) => {
                let (own, peer) = (self.contains(asked.own), self.contains(asked.peer));
                return Outcome::Wal(WalFound { own, peer, end: asked.find_end.then(|| self.point(self.lsn)) });
            }
            Job::Mark(id) => {
                self.dir.mark = Some(*id);
                return Outcome::Data(self.dir);
            }
            Job::Start { .. } if self.broken || self.dir.incomplete => {
                return Outcome::Failed("could not start server".to_owned());
            }
            Job::Start { names, follow } => {
                self.set_names(named(names));
                let before = self.dir;
                self.start(follow.is_some());
                return Outcome::Started(before);
            }
            Job::Stop { fast_ms, names } => {
                self.stop(*fast_ms > 0);
                if self.missing || self.disk != Disk::Good {
                    return Outcome::Stopped(None);
                }
                if names.is_some() {
                    self.set_names(Names::Peer);
                }
                return Outcome::Stopped(Some(self.dir));
            }
            // It needs the other instance.
            Job::Rebuild(_) => return Outcome::Failed("nothing to copy from".to_owned()),
            Job::Abandon => {
                self.dir.incomplete &= self.torn;
                return Outcome::Data(self.dir);
            }
            _ if !self.dir.running => return Outcome::Failed("the instance does not run".to_owned()),
            Job::NamesOn(_) => self.set_names(Names::Peer),
            Job::NamesOff => self.set_names(Names::Unset),
            Job::Checkpoint => self.checkpoint(),
            Job::Promote => {
                self.dir.standby_signal = false;
                self.dir.state = ControlState::InProduction;
                self.dir.checkpoint_timeline = Timeline(self.timeline().0 + 1);
                self.dir.min_recovery_timeline = Timeline(0);
                self.checkpoint();
                return Outcome::Promoted(self.timeline());
            }
            Job::Prove(_) => {
                self.set_names(Names::Peer);
                if !wire.streams {
                    return Outcome::Failed("the standby does not stream".to_owned());
                }
                return Outcome::Proved(self.lsn);
            }
        }
        Outcome::Applied
    }

    /// Nothing can be started from it from here on.
    pub fn guard(&mut self, torn: bool) {
        self.dir.incomplete = true;
        self.torn |= torn;
    }

    /// The data directory is the other one's, made a standby's: in place, or in a new one.
    pub fn rebuild(&mut self, what: &Rebuild, source: &Postgres) -> Outcome {
        if self.dir.running || !source.is_primary() {
            self.dir.incomplete &= self.torn;
            return Outcome::Failed("could not connect to the other server's instance".to_owned());
        }
        if self.torn && what.order.method == Method::Rewind {
            return Outcome::Failed("the data directory is half rewound, and only a base backup can follow".to_owned());
        }
        let copied = self.missing || self.torn || what.order.method == Method::BaseBackup;
        self.dir = DataDir {
            fingerprint: self.dir.fingerprint + if copied { 100 } else { 0 },
            inode_print: 0,
            state: ControlState::InArchiveRecovery,
            min_recovery_timeline: source.timeline(),
            standby_signal: true,
            backup_label: true,
            running: false,
            ..source.dir
        };
        self.lsn = source.lsn;
        self.set_names(Names::Peer);
        self.missing = false;
        self.torn = false;
        Outcome::Rebuilt { data: self.dir, address: String::new() }
    }

    pub fn set_names(&mut self, names: Names) {
        self.names = names;
        self.dir.unnamed = names == Names::Unset;
    }

    fn start(&mut self, follow: bool) {
        self.dir.standby_signal |= follow;
        self.dir.running = true;
        self.runs += 1;
        self.dir.backup_label = false;
        if self.dir.state == ControlState::InProduction {
            self.checkpoint();
        }
        self.dir.state =
            if self.dir.standby_signal { ControlState::InArchiveRecovery } else { ControlState::InProduction };
    }

    fn stop(&mut self, fast: bool) {
        if self.dir.running && fast && !self.silent {
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
            self.lsn.0 += 0x80;
        }
    }
}
