//! Faults as they begin and end; and the healing: first, in half of the runs with an arbiter, of two members alone, which
//! must then serve; then of everything, after which the pair must be mirrored again.

use crate::note;
use crate::world::*;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;

/// A fault, or the end of one. Servers and members by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SIGKILL of a controller (or the arbiter); its watcher, or an operator, starts it again.
    KillController(usize),
    /// SIGKILL of the postmaster and what belongs to it.
    KillInstance(usize),
    /// The instance with this number has come to its end in the middle of recovery.
    InstanceEnds(usize, u32),
    /// A backend dies: crash recovery.
    BackendCrash(usize),
    /// All of a member's host, its kernel answering or not; back after so many milliseconds.
    Crash(usize, bool, u64),
    /// The host is back.
    Reboot(usize),
    /// Controller and arbiter processes: SIGSTOP for so long.
    Pause(usize, u64),
    /// SIGCONT.
    Resume(usize),
    /// The whole host stands still.
    Suspend(usize, u64),
    /// The clock leaps forward.
    Leap(usize, u64),
    /// A switch on a server, on or off.
    Set(usize, What, bool),
    /// Links: from, to, controllers' network, log network, cut or not.
    Cut(usize, usize, bool, bool, bool),
    /// A DBA takes the names off a mirrored primary.
    NamesByHand(usize),
    /// A member's name service is down, or not.
    NameService(usize, bool),
    /// A copy of the data directory is put aside.
    Backup(usize),
    /// Controller and instance are stopped, the copy is put back, and all is started again.
    Restore(usize),
    /// Everything on a server is killed, and its data directory is what it was before the last start of its instance; nothing of
    /// it shows that.
    GoBack(usize),
    /// The same, and the newest WAL is gone.
    LoseWal(usize),
    /// A server's ledger file is gone.
    LoseLedger(usize),
    /// The arbiter, or its ledger, is exchanged.
    Exchange(Exchange),
    /// The disk of a member's ledger.
    Ledger(usize, LedgerDisk),
    /// An operator asks.
    Ask(usize, Request),
    /// `pg_ctl start`, behind the controller's back.
    PlainStart(usize),
    /// All is well from now on, but for one member, which is cut off or down, its kernel answering or not.
    HealTwo { missing: usize, cut: bool, kernel: bool },
    /// All is well from now on.
    Heal,
}

/// What takes the place of the arbiter, or of its ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchange {
    /// Another arbiter, without a ledger.
    New,
    /// The one that was there before, with the ledger that it had then.
    Back,
    /// The same one; the file is gone.
    Lost,
    /// The same one; an older copy of the file is put back. It refuses to start from it, until the operator has removed it.
    PutBack,
}

/// What can be on or off at a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Frozen,
    FrozenPostmaster,
    FrozenReceiver,
    StuckCheckpointer,
    Full,
    DiskFailed,
}

impl World {
    /// A fault begins or ends.
    pub fn fault(&mut self, fault: Fault) {
        if let Fault::InstanceEnds(s, epoch) = fault {
            if self.hosts[s].epoch == epoch {
                self.instance_dies(s);
            }
            return;
        }
        if self.calm() && !matches!(fault, Fault::Resume(_) | Fault::Reboot(_) | Fault::Heal)
            || self.healed.is_some() && fault == Fault::Heal
            || self.two.is_some_and(|two| self.healed.is_none() && fault == Fault::Reboot(two.missing))
        {
            return;
        }
        note!(self, "-- {fault:?}");
        match fault {
            Fault::KillController(m) => {
                if self.runs(m) {
                    self.end_process(m);
                    let ms = self.restart_after;
                    self.after(ms, Ev::StartProcess { m, by: StartedBy::Watcher });
                }
            }
            Fault::KillInstance(s) => self.instance_dies(s),
            Fault::InstanceEnds(..) => {}
            Fault::BackendCrash(s) => self.backend_crash(s),
            Fault::Crash(s, kernel, ms) => {
                self.crash(s, kernel);
                self.after(ms + 1000, Ev::Fault(Fault::Reboot(s)));
            }
            Fault::Reboot(s) => self.reboot(s),
            Fault::Pause(m, ms) => {
                if self.runs(m) {
                    self.procs[m].paused = true;
                    self.after(ms, Ev::Fault(Fault::Resume(m)));
                }
            }
            Fault::Resume(m) => self.resume(m),
            Fault::Suspend(s, ms) => {
                if self.runs(s) {
                    self.procs[s].paused = true;
                    self.hosts[s].frozen = self.hosts[s].run != Run::Down;
                    self.after(ms, Ev::Fault(Fault::Resume(s)));
                    self.after(ms, Ev::Fault(Fault::Set(s, What::Frozen, false)));
                }
            }
            Fault::Leap(m, ms) => {
                self.procs[m].clock.base += ms;
                if m != ARBITER {
                    self.paused_at[m] = self.t;
                }
            }
            Fault::Set(s, what, on) => self.set(s, what, on),
            Fault::Cut(from, to, control, log, on) => {
                self.links[from][to].cut = on && control;
                if from < 2 && to < 2 {
                    self.log_cut[from] = on && log;
                }
            }
            Fault::NamesByHand(s) => self.names_by_hand(s),
            Fault::NameService(m, down) => self.name_service(m, down),
            // A copy of what cannot be started is no backup.
            Fault::Backup(s) if self.hosts[s].dir.incomplete || self.hosts[s].dir.missing => {}
            Fault::Backup(s) => {
                let mut copy = self.hosts[s].dir.clone();
                if matches!(self.hosts[s].run, Run::Primary | Run::Standby) {
                    copy.backup_label = self.rng.chance(500);
                }
                self.hosts[s].backup = Some(copy);
            }
            Fault::Restore(s) => self.restore(s),
            Fault::GoBack(s) => {
                let cold = self.hosts[s].cold.clone();
                let dir = &self.hosts[s].dir;
                let same = |cold: &Dir| {
                    (cold.fingerprint, cold.standby_signal, cold.mark)
                        == (dir.fingerprint, dir.standby_signal, dir.mark)
                };
                if let Some(cold) = cold.filter(same) {
                    self.go_back(s, Dir { names: dir.names, line: dir.line, follows: dir.follows, ..cold });
                }
            }
            Fault::LoseWal(s) => {
                let mut dir = self.hosts[s].dir.clone();
                let least = dir.checkpoint.0 + crate::wal::CHECKPOINT;
                let lost = self.rng.range(1, 2_000);
                dir.pos = self.wal.at(dir.pos, dir.pos.lsn.saturating_sub(lost).max(least));
                self.go_back(s, dir);
            }
            Fault::LoseLedger(s) => self.lose_ledger(s),
            Fault::Exchange(exchange) => self.exchange(exchange),
            Fault::Ledger(m, disk) => self.machines[m].ledger = disk,
            Fault::Ask(s, request) => self.ask(s, request),
            Fault::PlainStart(s) => self.plain_start(s),
            Fault::HealTwo { missing, cut, kernel } => self.heal_two(missing, cut, kernel),
            Fault::Heal => self.heal(),
        }
    }

    fn set(&mut self, s: usize, what: What, on: bool) {
        let host = &mut self.hosts[s];
        let runs = host.run != Run::Down;
        match what {
            What::Frozen => host.frozen = on && runs,
            What::FrozenPostmaster => host.frozen_postmaster = on && runs,
            What::FrozenReceiver => host.frozen_receiver = on && runs,
            What::StuckCheckpointer => host.stuck_checkpointer = on,
            What::Full => host.full = on,
            What::DiskFailed => {
                host.disk_failed = on;
                if on && runs && self.rng.chance(300) {
                    self.instance_dies(s);
                }
            }
        }
    }

    /// A member's host goes down, with everything on it.
    pub fn crash(&mut self, m: usize, kernel: bool) {
        self.machines[m].up = false;
        self.machines[m].kernel = kernel;
        self.end_process(m);
        if m < 2 {
            self.instance_dies(m);
        }
    }

    fn reboot(&mut self, m: usize) {
        if self.machines[m].up {
            return;
        }
        if self.machines[m].fenced.is_some_and(|fenced| self.is_undecided(fenced)) {
            self.after(500, Ev::Fault(Fault::Reboot(m)));
            return;
        }
        self.machines[m].fenced = None;
        self.machines[m].up = true;
        self.machines[m].kernel = true;
        let failover = self.rng.pick(&[None, Some(true), Some(true)]);
        let by = StartedBy::Operator { instance: true, failover };
        let ms = self.rng.range(10, 2000);
        self.after(ms, Ev::StartProcess { m, by });
        if m < 2 && self.rc[m] {
            self.plain_start(m);
        }
    }

    /// A server ends and starts again without a ledger. What it knew the other one must know: that of the primary can only be
    /// made anew by force.
    fn lose_ledger(&mut self, s: usize) {
        let Some(ledger) = self.procs[s].disk.map(|disk| disk.ledger) else { return };
        let leads = ledger.view.primary.index() == s;
        // Before the mark is there the loss could not be noticed.
        // A promotion under way was allowed by the ledger that is lost.
        let ordered = self.procs[s].job.as_ref().is_some_and(|running| running.job == Job::Promote);
        let promotes = ordered || self.hosts[s].run == Run::Promoting;
        if !self.runs(s) || leads && !self.forced || promotes || self.hosts[s].dir.mark != Some(ledger.id) {
            return;
        }
        self.end_process(s);
        self.procs[s].disk = None;
        self.op.restored(s);
        let ms = self.rng.range(500, 5000);
        self.after(ms, Ev::StartProcess { m: s, by: StartedBy::Operator { instance: true, failover: None } });
    }

    /// The arbiter ends, and what is started in its place has another ledger.
    fn exchange(&mut self, exchange: Exchange) {
        self.end_process(ARBITER);
        let process = &mut self.procs[ARBITER];
        let mut ms = self.rng.range(500, 5000);
        match exchange {
            Exchange::New => {
                self.shelf = process.disk.take();
                process.clock.base = self.rng.range(1_000, 100_000_000);
            }
            Exchange::Back => {
                if self.shelf.is_some() {
                    std::mem::swap(&mut process.disk, &mut self.shelf);
                }
            }
            Exchange::Lost => process.disk = None,
            Exchange::PutBack if self.broken == Broken::ArbiterPutBack => {
                process.disk = process.past.first().copied();
                note!(self, "an older copy of the arbiter's ledger is put back, and nothing shows it");
            }
            Exchange::PutBack => {
                process.disk = None;
                ms += self.rng.range(500, 20_000);
            }
        }
        self.procs[ARBITER].past.clear();
        // No watcher brings back what was there before.
        self.procs[ARBITER].exited = true;
        let by = StartedBy::Operator { instance: false, failover: None };
        self.after(ms, Ev::StartProcess { m: ARBITER, by });
    }

    fn resume(&mut self, m: usize) {
        if !self.procs[m].paused {
            return;
        }
        self.procs[m].paused = false;
        let held = std::mem::take(&mut self.procs[m].held);
        let epoch = self.procs[m].epoch;
        // Which thread comes first is chance: the tick may come before or after what has piled up.
        if self.rng.chance(500) {
            self.feed(m, Event::Tick);
        }
        for event in held {
            if self.alive(m, epoch) {
                self.feed(m, event);
            }
        }
        if self.alive(m, epoch) && !self.procs[m].ticking {
            self.procs[m].ticking = true;
            self.after(1, Ev::Tick { m, epoch });
        }
    }

    /// The operator ends everything on a server and puts the copy back. What follows is not the protocol's fault, but must
    /// be noticed by the core.
    fn restore(&mut self, s: usize) {
        let Some(copy) = self.hosts[s].backup.clone() else { return };
        if !self.machines[s].up {
            return;
        }
        self.end_process(s);
        self.instance_dies(s);
        let (fingerprint, checkpoint) = (self.hosts[s].dir.fingerprint, self.hosts[s].dir.checkpoint);
        let lacks = !self.wal.contains(copy.pos, self.acked);
        let dir = &mut self.hosts[s].dir;
        *dir = Dir { exchanged: lacks, ..copy };
        if self.broken == Broken::ExchangedData {
            dir.fingerprint = fingerprint;
            dir.checkpoint = checkpoint;
            dir.backup_label = false;
        } else {
            dir.fingerprint = self.rng.next() | 1;
        }
        self.op.restored(s);
        let ms = self.rng.range(500, 5000);
        let failover = self.rng.pick(&[None, Some(true)]);
        let by = StartedBy::Operator { instance: true, failover };
        self.after(ms, Ev::StartProcess { m: s, by });
    }

    /// A data directory goes back, without a trace in it. What the controller has noted of it is further on: a copy that is
    /// younger than the last note shows only in what the other members remember. Where nothing compares WAL, there is no note.
    fn go_back(&mut self, s: usize, dir: Dir) {
        let noted = self.procs[s].high_water.zip(self.procs[s].disk);
        let shows = noted
            .is_some_and(|(noted, disk)| noted.data == disk.ledger.data.id && !self.wal.holds(dir.pos, &noted.point));
        let sound = !self.hosts[s].dir.incomplete && !self.hosts[s].dir.missing && !self.hosts[s].dir.hollow;
        if !self.machines[s].up || !sound || !shows && self.broken != Broken::WalNotCompared {
            return;
        }
        self.reach(format!("goes back: {}", if dir.standby_signal { "standby" } else { "primary" }));
        note!(self, "-- {}'s data directory goes back to {}", NAMES[s], Lsn(dir.pos.lsn));
        self.end_process(s);
        self.instance_dies(s);
        let lacks = !self.wal.contains(dir.pos, self.acked);
        self.hosts[s].dir = Dir { went_back: lacks, ..dir };
        self.op.restored(s);
        let ms = self.rng.range(500, 5000);
        let failover = self.rng.pick(&[None, Some(true)]);
        self.after(ms, Ev::StartProcess { m: s, by: StartedBy::Operator { instance: true, failover } });
    }

    /// Everything works again, but for one member; the operator looks after the other two. They must serve, where the right
    /// to run alone is theirs to take (PROTOCOL I5).
    fn heal_two(&mut self, missing: usize, cut: bool, kernel: bool) {
        self.two = Some(Two { missing, since: self.t });
        if !cut {
            self.crash(missing, kernel);
        }
        self.repair(Some(missing));
        for x in (0..3).filter(|x| *x != missing) {
            self.links[x][missing].cut = cut;
            self.links[missing][x].cut = cut;
        }
        self.log_cut = [cut && missing < 2; 2];
        self.after(500, Ev::Operator);
    }

    /// Everything works again; dead processes are started; from now on the operator looks after the pair.
    fn heal(&mut self) {
        self.healed = Some(self.t);
        self.repair(None);
        if self.two.is_none() {
            self.after(500, Ev::Operator);
        }
    }

    fn repair(&mut self, missing: Option<usize>) {
        self.links = [[Link::default(); 3]; 3];
        self.log_cut = [false; 2];
        for s in 0..2 {
            for what in [
                What::Frozen,
                What::FrozenPostmaster,
                What::FrozenReceiver,
                What::StuckCheckpointer,
                What::Full,
                What::DiskFailed,
            ] {
                self.set(s, what, false);
            }
        }
        for m in 0..3 {
            self.name_service(m, false);
            self.machines[m].ledger = LedgerDisk::Well;
            if missing != Some(m) {
                self.reboot(m);
            }
            self.resume(m);
        }
    }
}
