//! The faults of [`crate::soak`]: what a round does, by seed, and doing and undoing it.

use crate::harness::host::{Host, Process, signal};
use crate::harness::pair::Pair;
use crate::harness::run::Beside;
use crate::harness::{arbiter, wait_for};
use crate::rng::Rng;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["nd1", "nd2", "arb"];
const ARBITER: usize = 2;

/// Processes of a host: of a server's, or of the arbiter's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Postmaster,
    Walreceiver,
    Walsender,
    /// The controller or the arbiter, without its watcher.
    Controller,
    Watcher,
    ControllerAndWatcher,
    /// Every process.
    Host,
}
use Target::{Controller, ControllerAndWatcher, Postmaster, Walreceiver, Walsender, Watcher};

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// SIGKILL; for a whole controller or host, its end is a start by the service manager.
    Kill(Target, usize),
    /// SIGSTOP, then SIGCONT.
    Pause(Target, usize),
    /// What the first host sends to the second is lost.
    CutWay(usize, usize),
    /// Two hosts do not reach each other.
    CutBoth(usize, usize),
    /// The host reaches no other host, and no client reaches it.
    Isolate(usize),
    /// `mc_ctl switch` on this server.
    Switch(usize),
}
use Fault::{CutBoth, CutWay, Isolate, Kill, Pause, Switch};

/// A fault and its time, in milliseconds from the begin of the round.
struct Planned {
    from: u64,
    to: u64,
    fault: Fault,
}

/// The faults of a round.
pub struct Plan(Vec<Planned>);

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        write!(f, "{:.1}", seconds(self.from))?;
        if self.fault.has_an_end() {
            write!(f, "-{:.1}", seconds(self.to))?;
        }
        match self.fault {
            Kill(target, n) => write!(f, " kill {target:?} of {}", NAMES[n]),
            Pause(target, n) => write!(f, " pause {target:?} of {}", NAMES[n]),
            CutWay(from, to) => write!(f, " cut {}>{}", NAMES[from], NAMES[to]),
            CutBoth(one, other) => write!(f, " cut {}<>{}", NAMES[one], NAMES[other]),
            Isolate(n) => write!(f, " cut off {}", NAMES[n]),
            Switch(n) => write!(f, " switch on {}", NAMES[n]),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

impl Fault {
    fn has_an_end(self) -> bool {
        match self {
            Kill(target, _) => matches!(target, ControllerAndWatcher | Target::Host),
            Switch(_) => false,
            _ => true,
        }
    }

    fn random(rng: &mut Rng) -> Fault {
        let server = rng.index(2);
        let host = rng.index(3);
        let other = (host + 1 + rng.index(2)) % 3;
        match rng.index(20) {
            0..3 => Kill(Postmaster, server),
            3 => Kill(Controller, host),
            4 => Kill(Watcher, host),
            5 => Kill(ControllerAndWatcher, host),
            6 => Kill(Target::Host, host),
            7 => Pause(Postmaster, server),
            8 => Pause(Walreceiver, server),
            9 => Pause(Walsender, server),
            10 => Pause(Controller, host),
            11 => Pause(Target::Host, host),
            12..14 => CutWay(host, other),
            14..17 => CutBoth(host, other),
            17 => Isolate(host),
            _ => Switch(server),
        }
    }

    /// The ways on which frames are lost.
    fn cuts(self) -> Vec<(usize, usize)> {
        match self {
            CutWay(from, to) => vec![(from, to)],
            CutBoth(one, other) => vec![(one, other), (other, one)],
            _ => Vec::new(),
        }
    }
}

/// The faults of this round of this seed: two to seven, within 3 to 14 seconds.
pub fn plan(seed: u64, round: u64) -> Plan {
    let mut rng = Rng::new(Rng::new(seed).next().wrapping_add(round));
    let lasts = rng.range(3_000, 14_000);
    let mut faults: Vec<Planned> = (0..rng.range(2, 7))
        .map(|_| {
            let from = rng.range(0, lasts);
            let to = (from + rng.time(8_000, 14_000)).min(lasts);
            Planned { from, to, fault: Fault::random(&mut rng) }
        })
        .collect();
    faults.sort_by_key(|planned| planned.from);
    Plan(faults)
}

/// A pair, and what is being done to it.
pub struct Bench<'a> {
    pair: &'a Pair,
    cuts: BTreeSet<(usize, usize)>,
    isolated: BTreeSet<usize>,
    /// By index in the plan.
    paused: Vec<(usize, Vec<u32>)>,
    switches: Vec<(String, Beside)>,
    starts: [Option<Beside>; 3],
}

impl<'a> Bench<'a> {
    /// Nothing is done yet.
    pub fn new(pair: &'a Pair) -> Bench<'a> {
        Bench {
            pair,
            cuts: BTreeSet::new(),
            isolated: BTreeSet::new(),
            paused: Vec::new(),
            switches: Vec::new(),
            starts: [const { None }; 3],
        }
    }

    /// Does all of the plan at its time, and undoes all of it.
    pub fn run(&mut self, plan: &Plan) {
        let begin = Instant::now();
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (n, planned) in plan.0.iter().enumerate() {
            events.push((planned.from, true, n));
            if planned.fault.has_an_end() {
                events.push((planned.to, false, n));
            }
        }
        events.sort_by_key(|(at, begins, n)| (*at, !*begins, *n));
        let mut active = BTreeSet::new();
        for (at, begins, n) in events {
            std::thread::sleep((begin + Duration::from_millis(at)).saturating_duration_since(Instant::now()));
            let fault = plan.0[n].fault;
            if begins {
                active.insert(n);
                self.strike(n, fault);
            } else {
                active.remove(&n);
                self.undo(n, fault);
            }
            self.connect(active.iter().map(|n| plan.0[*n].fault));
        }
        self.connect([].into_iter());
        self.end_switches();
    }

    /// How the planned switches ended, for the line of the round.
    pub fn outcomes(&mut self) -> String {
        let text = |(name, child): &mut (String, Beside)| {
            let code = child.ended().and_then(|status| status.code());
            format!("switch on {name}: exit status {}; ", code.map_or("none".into(), |c| c.to_string()))
        };
        self.switches.iter_mut().map(text).collect()
    }

    fn host(&self, n: usize) -> &Host {
        if n == ARBITER { self.pair.third() } else { self.pair.host(n) }
    }

    fn strike(&mut self, n: usize, fault: Fault) {
        match fault {
            Kill(target, host) => self.find(target, host).iter().for_each(|p| signal(p.pid, Signal::KILL)),
            Pause(target, host) => {
                let mut stopped = Vec::new();
                // again, for what was started meanwhile
                for _ in 0..2 {
                    for process in self.find(target, host) {
                        signal(process.pid, Signal::STOP);
                        stopped.push(process.pid);
                    }
                }
                self.paused.push((n, stopped));
            }
            Switch(server) => {
                let command = quiet(self.pair.mc_command(server, &["switch", "-t", "20"]));
                self.switches.push((NAMES[server].into(), Beside::start(command)));
            }
            CutWay(..) | CutBoth(..) | Isolate(_) => (),
        }
    }

    fn undo(&mut self, n: usize, fault: Fault) {
        match fault {
            Kill(_, host) => self.start(host),
            Pause(..) => {
                let Some(at) = self.paused.iter().position(|(of, _)| *of == n) else { return };
                let (_, stopped) = self.paused.remove(at);
                let still: BTreeSet<u32> = self.paused.iter().flat_map(|(_, pids)| pids.iter().copied()).collect();
                stopped.into_iter().filter(|pid| !still.contains(pid)).for_each(|pid| signal(pid, Signal::CONT));
                // nsenter stops itself when its child is stopped
                let started = self.starts.iter().flatten().chain(self.switches.iter().map(|(_, child)| child));
                started.for_each(|child| signal(child.pid(), Signal::CONT));
            }
            _ => (),
        }
    }

    /// Makes the network what the active faults leave of it.
    fn connect(&mut self, active: impl Iterator<Item = Fault>) {
        let (mut cuts, mut isolated) = (BTreeSet::new(), BTreeSet::new());
        for fault in active {
            cuts.extend(fault.cuts());
            if let Isolate(host) = fault {
                isolated.insert(host);
            }
        }
        let net = &self.pair.net;
        self.cuts.difference(&cuts).for_each(|(from, to)| net.heal_from_to(*from, *to));
        cuts.difference(&self.cuts).for_each(|(from, to)| net.cut_from_to(*from, *to));
        self.isolated.difference(&isolated).for_each(|host| net.heal(*host));
        isolated.difference(&self.isolated).for_each(|host| net.cut(*host));
        (self.cuts, self.isolated) = (cuts, isolated);
    }

    /// The processes of a target that run now.
    fn find(&self, target: Target, n: usize) -> Vec<Process> {
        let host = self.host(n);
        let daemons = || self.daemons(n);
        let has_parent = |p: &Process| daemons().iter().any(|other| other.pid == p.parent);
        match target {
            Postmaster => host.postmaster(&self.pair.servers[n].data).into_iter().collect(),
            Walreceiver => host.backend("walreceiver").into_iter().collect(),
            Walsender => host.backend("walsender").into_iter().collect(),
            Controller => daemons().into_iter().filter(has_parent).collect(),
            Watcher => daemons().into_iter().filter(|p| !has_parent(p)).collect(),
            ControllerAndWatcher => daemons(),
            Target::Host => host.processes(),
        }
    }

    /// The controller and its watcher, or the arbiter and its watcher; not commands of an operator.
    fn daemons(&self, n: usize) -> Vec<Process> {
        let mut found = if n == ARBITER { self.pair.arbiters() } else { self.host(n).controllers() };
        found.retain(|p| !p.command.contains(" switch "));
        found
    }

    /// Starts what the host's service manager starts, if it does not run.
    fn start(&mut self, n: usize) {
        let under_way = self.starts[n].as_mut().is_some_and(|child| child.ended().is_none());
        if under_way || !self.daemons(n).is_empty() {
            return;
        }
        let command = if n == ARBITER {
            let mut command = self.pair.third().admin(arbiter::program().to_str().expect("ASCII"));
            command.args(["start", "-M"]).arg(self.pair.arbiter_dir());
            command
        } else {
            self.pair.mc_command(n, &["start", "-W", "-f", "--async-connect-arbiter"])
        };
        self.starts[n] = Some(Beside::start(quiet(command)));
    }

    /// Starts every controller and arbiter that does not run.
    pub fn start_missing(&mut self) {
        (0..NAMES.len()).for_each(|n| self.start(n));
    }

    /// Waits for the commands of the operator, which must return.
    fn end_switches(&mut self) {
        for (name, child) in &mut self.switches {
            wait_for(&format!("mc_ctl switch on {name} returns"), Duration::from_secs(60), || child.ended());
        }
    }
}

fn quiet(mut command: Command) -> Command {
    command.stderr(Stdio::null());
    command
}
