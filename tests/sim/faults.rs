//! What goes wrong, when it begins and when it ends; and the healing, after which everything must come back.

use crate::note;
use crate::world::*;
use mirroring_controller::fsm::event::*;

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
    /// All of a host, its kernel answering or not; back after so many milliseconds.
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
    /// A copy of the data directory is put aside.
    Backup(usize),
    /// Controller and instance are stopped, the copy is put back, and all is started again.
    Restore(usize),
    /// The arbiter's place is taken by one without a ledger.
    ReplaceArbiter,
    /// An operator asks.
    Ask(usize, Request),
    /// All is well from now on.
    Heal,
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
    LedgerSlow,
    LedgerDead,
}

/// Lays down what goes wrong in this run.
pub fn plan(world: &mut World) {
    let begin = world.rng.range(1_000, 20_000);
    let span = world.rng.pick(&[5_000, 5_000, 5_000, 20_000, 20_000, 20_000, 20_000, 40_000, 40_000, 100_000]);
    let count = world.rng.range(1, if span == 100_000 { 40 } else { 12 });
    for s in 0..2 {
        let ms = world.rng.range(5_000, begin + span);
        world.after(ms, Ev::Fault(Fault::Backup(s)));
    }
    // What shows that a broken world is broken.
    let needed = match world.broken {
        Broken::ExchangedData => Some(Fault::Restore(world.rng.index(2))),
        Broken::ForgetfulArbiter => {
            let at = begin + world.rng.range(0, span);
            one_after_the_other(world, at);
            None
        }
        _ => None,
    };
    if let Some(fault) = needed {
        let at = begin + world.rng.range(0, span);
        world.after(at, Ev::Fault(fault));
    }
    for _ in 0..count {
        let at = begin + world.rng.range(0, span);
        one(world, at);
    }
    let heal = begin + span + world.rng.range(0, 15_000);
    world.after(heal, Ev::Fault(Fault::Heal));
}

fn one(world: &mut World, at: u64) {
    let s = world.rng.index(2);
    let m = if world.arbiter { world.rng.index(3) } else { s };
    let ms = world.rng.pick(&[300, 1_000, 3_000, 8_000, 20_000]);
    let ms = world.rng.range(ms / 2, ms);
    let fault = match world.rng.range(0, 99) {
        0..14 => Fault::KillController(m),
        14..24 => Fault::KillInstance(s),
        24..28 => Fault::BackendCrash(s),
        28..38 => Fault::Crash(s, world.rng.chance(500), ms),
        38..43 => Fault::Pause(m, ms),
        43..46 => Fault::Suspend(s, ms),
        46..48 => Fault::Leap(m, ms),
        48..62 => return cut(world, at, ms),
        62..64 => return one_after_the_other(world, at),
        64..82 => {
            let what = world.rng.pick(&[
                What::Frozen,
                What::FrozenPostmaster,
                What::FrozenReceiver,
                What::FrozenReceiver,
                What::StuckCheckpointer,
                What::Full,
                What::DiskFailed,
                What::LedgerSlow,
                What::LedgerSlow,
                What::LedgerDead,
            ]);
            world.after(at + ms, Ev::Fault(Fault::Set(s, what, false)));
            Fault::Set(s, what, true)
        }
        82..86 => Fault::Restore(s),
        86..88 if world.arbiter => Fault::ReplaceArbiter,
        _ => Fault::Ask(
            s,
            match world.rng.range(0, 9) {
                0..5 => Request::Switch,
                5..7 => Request::Detach,
                7 => Request::Failover(world.rng.chance(700)),
                _ => Request::Stop { instance: world.rng.chance(800), all: world.rng.chance(200) },
            },
        ),
    };
    world.after(at, Ev::Fault(fault));
}

/// One direction, both, or all of a member's; of either network or both.
fn cut(world: &mut World, at: u64, ms: u64) {
    let (control, log) = world.rng.pick(&[(true, true), (true, true), (true, false), (false, true)]);
    let (from, to) = world.rng.pick(&[(0, 1), (1, 0), (0, 2), (1, 2), (2, 0), (2, 1)]);
    let mut pairs = vec![(from, to)];
    match world.rng.range(0, 3) {
        0 => {}
        1 => pairs.push((to, from)),
        _ => pairs = (0..3).filter(|x| *x != from).flat_map(|x| [(from, x), (x, from)]).collect(),
    }
    for (from, to) in pairs {
        world.after(at, Ev::Fault(Fault::Cut(from, to, control, log, true)));
        world.after(at + ms, Ev::Fault(Fault::Cut(from, to, control, log, false)));
    }
}

/// One server is cut off; when it comes back the other one is, and the arbiter is started anew.
fn one_after_the_other(world: &mut World, at: u64) {
    let s = world.rng.index(2);
    let (first, second) = (world.rng.range(3_000, 15_000), world.rng.range(3_000, 20_000));
    for (who, from, to) in [(s, at, at + first), (1 - s, at + first, at + first + second)] {
        for x in (0..3).filter(|x| *x != who) {
            for (a, b) in [(who, x), (x, who)] {
                world.after(from, Ev::Fault(Fault::Cut(a, b, true, true, true)));
                if who == s && x == 1 - s {
                    continue;
                }
                world.after(to, Ev::Fault(Fault::Cut(a, b, true, true, false)));
            }
        }
    }
    world.after(at + first, Ev::Fault(Fault::KillController(ARBITER)));
}

impl World {
    /// A step that matters is met by a fault.
    pub fn jinx(&mut self, m: usize, action: &Action) {
        if self.jinx == 0 || self.healed.is_some() {
            return;
        }
        let matters = match action {
            Action::Run(_, job) => !matches!(job, Job::Inspect),
            Action::Store(_, _, why) => !why.is_empty(),
            Action::Send(_, message) => matches!(message, Message::Propose { .. } | Message::Answer { .. }),
            _ => false,
        };
        if !matters || !self.rng.chance(self.jinx) {
            return;
        }
        let span = self.rng.pick(&[5, 50, 500, 3000]);
        let at = self.rng.range(0, span);
        let who = if m == ARBITER || self.rng.chance(300) { self.rng.index(2) } else { m };
        let ms = self.rng.range(200, 8000);
        let fault = match self.rng.range(0, 9) {
            0..4 => Fault::KillController(if self.rng.chance(700) { m } else { who }),
            4..6 => Fault::KillInstance(who),
            6 => Fault::Crash(who, self.rng.chance(500), ms),
            7 => Fault::Pause(m, ms),
            8 => Fault::Ask(who, Request::Switch),
            _ => return cut(self, at, ms),
        };
        self.after(at, Ev::Fault(fault));
    }

    /// A fault begins or ends.
    pub fn fault(&mut self, fault: Fault) {
        if let Fault::InstanceEnds(s, epoch) = fault {
            if self.hosts[s].epoch == epoch {
                self.instance_dies(s);
            }
            return;
        }
        if self.healed.is_some() && !matches!(fault, Fault::Resume(_) | Fault::Reboot(_)) {
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
                self.hosts[s].up = false;
                self.hosts[s].kernel = kernel;
                self.end_process(s);
                self.instance_dies(s);
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
            Fault::Leap(m, ms) => self.procs[m].clock.base += ms,
            Fault::Set(s, what, on) => self.set(s, what, on),
            Fault::Cut(from, to, control, log, on) => {
                self.links[from][to].cut = on && control;
                if from < 2 && to < 2 {
                    self.log_cut[from] = on && log;
                }
            }
            Fault::Backup(s) => {
                let mut copy = self.hosts[s].dir.clone();
                if matches!(self.hosts[s].run, Run::Primary | Run::Standby) {
                    copy.backup_label = self.rng.chance(500);
                }
                self.hosts[s].backup = Some(copy);
            }
            Fault::Restore(s) => self.restore(s),
            Fault::ReplaceArbiter => {
                self.end_process(ARBITER);
                self.procs[ARBITER].disk = None;
                self.procs[ARBITER].past.clear();
                let ms = self.rng.range(500, 5000);
                let by = StartedBy::Operator { instance: false, failover: None };
                self.after(ms, Ev::StartProcess { m: ARBITER, by });
            }
            Fault::Ask(s, request) => self.ask(s, request),
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
            What::LedgerSlow => host.ledger_disk_slow = on,
            What::LedgerDead => host.ledger_disk_dead = on,
        }
    }

    fn reboot(&mut self, s: usize) {
        if self.hosts[s].up {
            return;
        }
        self.hosts[s].up = true;
        self.hosts[s].kernel = true;
        let failover = self.rng.pick(&[None, Some(true), Some(true)]);
        let by = StartedBy::Operator { instance: true, failover };
        let ms = self.rng.range(10, 2000);
        self.after(ms, Ev::StartProcess { m: s, by });
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
        if !self.hosts[s].up {
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

    /// Everything works again; dead processes are started; from now on the operator looks after the pair.
    fn heal(&mut self) {
        self.healed = Some(self.t);
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
                What::LedgerSlow,
                What::LedgerDead,
            ] {
                self.set(s, what, false);
            }
            self.reboot(s);
        }
        for m in 0..3 {
            self.resume(m);
        }
        self.after(500, Ev::Operator);
    }
}
