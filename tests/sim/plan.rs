//! What goes wrong in a run: drawn by the seed before it begins, but for the faults that meet a step that matters.

use crate::faults::{Exchange, Fault, What};
use crate::operator::random_order;
use crate::rng::Rng;
use crate::world::*;
use mirroring_controller::fsm::event::*;

/// Lays down what goes wrong in this run.
pub fn plan(world: &mut World) {
    let begin = world.rng.range(1_000, 20_000);
    let span = world.rng.pick(&[5_000, 5_000, 5_000, 20_000, 20_000, 20_000, 20_000, 40_000, 40_000, 100_000]);
    let count = world.rng.range(1, if span == 100_000 { 40 } else { 12 });
    for s in 0..2 {
        let ms = world.rng.range(5_000, begin + span);
        world.after(ms, Ev::Fault(Fault::Backup(s)));
    }
    needed(world, begin, span);
    name_services(world, begin, span);
    rebuilds(world, begin, span);
    names_by_hand(world, begin, span);
    for _ in 0..count {
        let at = begin + world.rng.range(0, span);
        one(world, at);
    }
    let heal = begin + span + world.rng.range(0, 15_000);
    let missing = if world.arbiter { world.rng.index(3) } else { ARBITER };
    let fault = if world.arbiter && world.rng.chance(500) {
        Fault::HealTwo { missing, cut: world.rng.chance(500), kernel: world.rng.chance(500) }
    } else {
        Fault::Heal
    };
    world.after(heal, Ev::Fault(fault));
}

/// Name services that are down for a while, of one member or of all. Drawn from a generator of its own, as below.
fn name_services(world: &mut World, begin: u64, span: u64) {
    let mut rng = world.rng.aside().aside();
    if !rng.chance(200) {
        return;
    }
    let one = rng.pick(&[None, Some(0), Some(1), Some(2)]);
    let at = begin + rng.range(0, span);
    let ms = rng.range(1_000, 40_000);
    for m in (0..3).filter(|m| one.is_none_or(|one| one == *m)) {
        world.after(at, Ev::Fault(Fault::NameService(m, true)));
        world.after(at + ms, Ev::Fault(Fault::NameService(m, false)));
        // A process that begins meanwhile knows no address.
        if rng.chance(500) {
            let at = at + rng.range(0, ms);
            world.after(at, Ev::Fault(Fault::KillController(m)));
        }
    }
}

/// Operators who ask for rebuilds, mostly at the wrong moment, and who start instances themselves. Drawn from a generator of
/// its own, so that the rest of a seed's plan is what it would be without.
fn rebuilds(world: &mut World, begin: u64, span: u64) {
    let mut rng = world.rng.aside();
    world.op.works_by_hand(rng.chance(150));
    let mut first = rng.aside();
    if first.chance(80) {
        first_standby(world, &mut first);
    }
    let early = world.broken == Broken::EarlyRebuild;
    if early || rng.chance(400) {
        let gap = rng.range(1_000, 8_000);
        let mut at = begin;
        while at < begin + span {
            let s = rng.index(2);
            let ask = |rng: &mut Rng| Ev::Fault(Fault::Ask(s, Request::Rebuild(random_order(rng))));
            world.after(at, ask(&mut rng));
            if rng.chance(100) {
                world.after(at + rng.range(0, 500), ask(&mut rng));
            }
            at += rng.range(gap / 2, gap);
        }
    }
    if rng.chance(400) {
        for _ in 0..rng.range(1, 6) {
            let at = begin + rng.range(0, span);
            world.after(at, Ev::Fault(Fault::PlainStart(rng.index(2))));
        }
        world.rc = [rng.chance(500), rng.chance(500)];
    }
    if early {
        for _ in 0..4 {
            let at = begin + rng.range(0, span);
            world.after(at, Ev::Fault(Fault::KillInstance(rng.index(2))));
        }
    }
}

/// The link is cut for a while, and a DBA takes the names off the primary so that commits do not wait; its instance dies before
/// the link returns, or after. Drawn from a generator of its own too.
fn names_by_hand(world: &mut World, begin: u64, span: u64) {
    let mut rng = Rng::new(world.rng.aside().next());
    if !rng.chance(200) {
        return;
    }
    for _ in 0..rng.range(1, 4) {
        let mut at = begin + rng.range(0, span);
        let (arbiter, cut) = (rng.chance(300), rng.chance(850));
        let until = at + rng.range(1_000, 8_000);
        for from in (0..3).filter(|_| cut) {
            for to in (0..3).filter(|to| *to != from && (arbiter || from + to == 1)) {
                world.after(at, Ev::Fault(Fault::Cut(from, to, true, true, true)));
                world.after(until, Ev::Fault(Fault::Cut(from, to, true, true, false)));
            }
        }
        at += rng.range(100, 3_000);
        for s in [0, 1] {
            world.after(at, Ev::Fault(Fault::NamesByHand(s)));
            if rng.chance(800) {
                world.after(at + rng.range(100, 4_000), Ev::Fault(Fault::KillInstance(s)));
            }
            if rng.chance(300) {
                world.after(at + rng.range(100, 4_000), Ev::Fault(Fault::KillController(s)));
            }
        }
    }
}

/// The standby's data directory is empty, and an operator has it made.
fn first_standby(world: &mut World, rng: &mut Rng) {
    let s = if world.hosts[0].dir.standby_signal { 0 } else { 1 };
    let dir = &mut world.hosts[s].dir;
    dir.missing = true;
    dir.standby_signal = false;
    for _ in 0..rng.range(1, 8) {
        let at = rng.range(500, 20_000);
        world.after(at, Ev::Fault(Fault::Ask(s, Request::Rebuild(random_order(rng)))));
    }
    world.reach("first standby by a rebuild".to_string());
}

/// What shows that a broken world is broken, and what a forced one needs to be one.
fn needed(world: &mut World, begin: u64, span: u64) {
    let at = begin + world.rng.range(0, span);
    match world.broken {
        Broken::ExchangedData => {
            let s = world.rng.index(2);
            world.after(at, Ev::Fault(Fault::Restore(s)));
        }
        Broken::WalNotCompared => {
            for _ in 0..4 {
                let at = begin + world.rng.range(0, span);
                let s = world.rng.index(2);
                let fault = if world.rng.chance(500) { Fault::GoBack(s) } else { Fault::LoseWal(s) };
                world.after(at, Ev::Fault(fault));
            }
        }
        Broken::ForgetfulArbiter | Broken::ImpatientArbiter => one_after_the_other(world, at),
        Broken::ArbiterAnswersEarly => {
            for _ in 0..4 {
                let at = begin + world.rng.range(0, span);
                one_after_the_other(world, at);
            }
        }
        Broken::ArbiterPutBack => {
            one_after_the_other(world, at);
            let at = at + world.rng.range(0, 20_000);
            world.after(at, Ev::Fault(Fault::Exchange(Exchange::PutBack)));
        }
        _ => {}
    }
    if world.forced && world.settings[0].on_silence != OnSilence::Fallback {
        for _ in 0..world.rng.range(1, 3) {
            let at = begin + world.rng.range(0, span);
            force(world, at);
        }
    }
}

fn one(world: &mut World, at: u64) {
    let s = world.rng.index(2);
    let m = if world.arbiter { world.rng.index(3) } else { s };
    let ms = world.rng.pick(&[300, 1_000, 3_000, 8_000, 20_000]);
    let ms = world.rng.range(ms / 2, ms);
    let fault = match world.rng.range(0, 99) {
        0..12 => Fault::KillController(m),
        12..20 => Fault::KillInstance(s),
        20..23 => Fault::BackendCrash(s),
        23..33 => Fault::Crash(m, world.rng.chance(500), ms),
        33..40 => Fault::Pause(m, ms),
        40..43 => Fault::Suspend(s, ms),
        43..45 => Fault::Leap(m, ms),
        45..59 => return cut(world, at, ms),
        59..62 => return one_after_the_other(world, at),
        62..64 => return flap(world, at),
        64..68 => {
            let disk = world.rng.pick(&[LedgerDisk::Slow, LedgerDisk::Slow, LedgerDisk::Dead, LedgerDisk::Fails]);
            world.after(at + ms, Ev::Fault(Fault::Ledger(m, LedgerDisk::Well)));
            Fault::Ledger(m, disk)
        }
        68..81 => {
            let what = world.rng.pick(&[
                What::Frozen,
                What::FrozenPostmaster,
                What::FrozenReceiver,
                What::FrozenReceiver,
                What::StuckCheckpointer,
                What::Full,
                What::DiskFailed,
            ]);
            world.after(at + ms, Ev::Fault(Fault::Set(s, what, false)));
            Fault::Set(s, what, true)
        }
        81 if world.rng.chance(500) => Fault::GoBack(s),
        82 if world.rng.chance(500) => Fault::LoseWal(s),
        81..83 => Fault::Restore(s),
        83 if world.broken == Broken::No => Fault::LoseLedger(s),
        84..89 if world.arbiter => Fault::Exchange(world.rng.pick(&[
            Exchange::New,
            Exchange::New,
            Exchange::Back,
            Exchange::Lost,
            Exchange::PutBack,
        ])),
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
pub fn cut(world: &mut World, at: u64, ms: u64) {
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

/// All links of a member fail and come back, again and again.
fn flap(world: &mut World, at: u64) {
    let who = world.rng.index(if world.arbiter { 3 } else { 2 });
    let other = world.rng.pick(&[None, Some((who + 1) % 3), Some((who + 2) % 3)]);
    let (each, times) = (world.rng.range(200, 2_000), world.rng.range(3, 20));
    for n in 0..times {
        let from = at + n * each;
        for x in (0..3).filter(|x| *x != who && other.is_none_or(|other| *x == other)) {
            for (a, b) in [(who, x), (x, who)] {
                world.after(from, Ev::Fault(Fault::Cut(a, b, true, true, true)));
                world.after(from + each / 2, Ev::Fault(Fault::Cut(a, b, true, true, false)));
            }
        }
    }
}

/// An operator forces a view while a server, or the way to it, is gone.
fn force(world: &mut World, at: u64) {
    let gone = world.rng.index(2);
    let ms = world.rng.range(4_000, 20_000);
    if world.rng.chance(500) {
        let kernel = world.rng.chance(500);
        world.after(at, Ev::Fault(Fault::Crash(gone, kernel, ms)));
    } else {
        for x in (0..3).filter(|x| *x != gone) {
            for (a, b) in [(gone, x), (x, gone)] {
                world.after(at, Ev::Fault(Fault::Cut(a, b, true, true, true)));
                world.after(at + ms, Ev::Fault(Fault::Cut(a, b, true, true, false)));
            }
        }
        if world.rng.chance(500) {
            world.after(at, Ev::Fault(Fault::KillController(ARBITER)));
        }
    }
    for who in [1 - gone, gone] {
        let asked = at + world.rng.range(500, ms);
        let fencing = world.rng.chance(500);
        let request = match world.rng.range(0, 3) {
            0 | 1 => Request::ForceSwitch { fencing },
            2 => Request::ForceDetach { fencing },
            _ => Request::AdoptData,
        };
        world.after(asked, Ev::Fault(Fault::Ask(who, request)));
        if world.rng.chance(500) {
            break;
        }
    }
}

impl World {
    /// A step that matters is met by a fault.
    pub fn jinx(&mut self, m: usize, action: &Action) {
        if self.jinx == 0 || self.calm() {
            return;
        }
        let matters = match action {
            Action::Run(_, job) => !matches!(job, Job::Inspect),
            Action::Store(_, _, why) => why.is_some(),
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
            6 => Fault::Crash(if self.rng.chance(300) { m } else { who }, self.rng.chance(500), ms),
            7 => Fault::Pause(m, ms),
            8 => Fault::Ask(who, Request::Switch),
            _ => return cut(self, at, ms),
        };
        self.after(at, Ev::Fault(fault));
    }
}
