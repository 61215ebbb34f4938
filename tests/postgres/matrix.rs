//! Whatever the network does: every cut, with each disturbance of the controllers, on real servers with an arbiter.
//!
//! A table of cuts (the tests below) by disturbances. Each test runs its cut with the one disturbance that its line
//! names; with `MC_TEST_MATRIX=full` it runs all of them, and prints a line for each cell:
//!
//! ```text
//! MC_TEST_MATRIX=full cargo test --test postgres matrix -- --test-threads=2 --nocapture
//! ```
//!
//! Clients write beside each server and beside the arbiter. After every cell:
//!
//! - no acknowledged row is missing on the primary, and no two servers have acknowledged in the same period
//!   ([`crate::harness::client`] says what that means);
//! - wherever two members could talk, rows were acknowledged again within the cut's bound;
//! - the pair has healed: by itself to `switchable`, or, where the standby was promoted, to `switched` with the old
//!   primary down, and after `mc_ctl rebuild` of that one to `switchable`.

use crate::harness::client::{Client, Style};
use crate::harness::host::signal;
use crate::harness::net::{ADMIN, LOG};
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// What a loaded test machine adds to any bound.
const SLACK: Duration = s(3);
const ARBITER: usize = 2;

/// What happens to the controllers while the network is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disturbance {
    None,
    /// The server's controller is stopped for 20 s.
    Stop(usize),
    /// The server's controller is killed when it has just found the other one silent, up to 300 ms later.
    Kill(usize),
}
use Disturbance::{Kill, None as Quiet, Stop};

const ALL: [Disturbance; 5] = [Quiet, Stop(0), Stop(1), Kill(0), Kill(1)];

/// What the view must be after the cut; where a controller is disturbed as well, other views are as good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum View {
    /// The same as before, and no commit has waited longer than 3 s, however controllers are disturbed. These cuts use the
    /// usual settings: while a controller is stopped, a disk that stalls for the detection time of the fast ones is a reason
    /// to continue alone.
    Same,
    /// The first primary's.
    Kept,
    /// The standby's.
    Switched,
    /// Either's.
    Any,
}

/// A line of the table.
struct Cut {
    setup: fn() -> Setup,
    /// Breaks the network, or more.
    begin: fn(&Pair),
    end: fn(&Pair),
    /// How long it is broken where nothing else happens.
    lasts: Duration,
    /// Detection, and the time to act.
    bound: Duration,
    view: View,
    /// With what it is run where not all are.
    usual: Disturbance,
}

/// The fast settings; `startup_wait` and the watcher are set so that a killed controller asks soon, and a stopped one
/// stays stopped.
fn fast() -> Setup {
    patient().fast_network()
}

fn patient() -> Setup {
    Setup::default().arbiter().conf("startup_wait = 3").conf("agent_alive_timeout = 60")
}

fn matrix(name: &str, cut: &Cut) {
    let full = std::env::var("MC_TEST_MATRIX").is_ok_and(|v| v == "full");
    let mut failed = Option::None;
    for (n, disturbance) in ALL.into_iter().enumerate().filter(|(_, d)| full || *d == cut.usual) {
        let cell = format!("{name}, {disturbance:?}");
        match catch_unwind(AssertUnwindSafe(|| run(cut, disturbance, n % 2 == 1))) {
            Ok(told) => eprintln!("CELL {cell}: {told}"),
            Err(what) => {
                eprintln!("CELL {cell}: FAILED");
                failed = Some(what);
            }
        }
    }
    if let Some(what) = failed {
        resume_unwind(what);
    }
}

/// One cell; answers what it saw.
fn run(cut: &Cut, disturbance: Disturbance, copy: bool) -> String {
    let pair = (cut.setup)().up();
    let client = pair.client(Style::Everywhere);
    std::thread::sleep(s(1));
    let view = pair.view(0).expect("a view");
    let at = Instant::now();
    let more = match disturbance {
        Quiet => Duration::ZERO,
        Stop(_) => s(20),
        Kill(_) => s(5),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| disturb(&pair, disturbance, at));
        (cut.begin)(&pair);
        std::thread::sleep((at + cut.lasts + more).saturating_duration_since(Instant::now()));
    });
    let served = client.wait_ack(Instant::now() - Duration::from_millis(500), cut.bound + SLACK);
    (cut.end)(&pair);
    let healing = Instant::now();
    let gap = client.longest_gap(at);
    let primary = converge(&pair);
    let healed = healing.elapsed();
    let now = pair.view(primary).expect("a view");
    let expected = match cut.view {
        View::Same => now["term"] == view["term"],
        View::Kept if disturbance == Quiet => primary == 0,
        View::Switched if disturbance == Quiet => primary == 1,
        _ => true,
    };
    assert!(expected, "the view was to be {:?}; before: {view}, after: {now}", cut.view);
    let bound = if cut.view == View::Same { s(3) } else { cut.bound + more + SLACK };
    assert!(gap < bound, "no row was acknowledged for {gap:?}; the bound is {bound:?}");
    assert!(served > at);
    if primary == 1 {
        recover(&pair, copy);
    }
    pair.wait_arbiter_named();
    client.wait_ack(Instant::now(), s(10));
    tell(&pair, client, primary, gap, healed)
}

fn tell(pair: &Pair, client: Client, primary: usize, gap: Duration, healed: Duration) -> String {
    let how = if primary == 0 { "kept" } else { "switched" };
    let wait = client.longest_wait(Instant::now() - s(600));
    let count = client.count();
    client.check(pair, primary, if primary == 0 { &[0] } else { &[0, 1] });
    format!(
        "{how}, longest gap {:.2} s, longest wait of a commit {:.2} s, healed after {:.1} s, {count} rows, 0 lost",
        gap.as_secs_f64(),
        wait.as_secs_f64(),
        healed.as_secs_f64()
    )
}

fn disturb(pair: &Pair, disturbance: Disturbance, at: Instant) {
    match disturbance {
        Quiet => (),
        Stop(server) => {
            let pid = pair.controller(server).pid;
            signal(pid, Signal::STOP);
            std::thread::sleep(s(20));
            signal(pid, Signal::CONT);
        }
        Kill(server) => {
            let pid = pair.controller(server).pid;
            // where nothing is decided, at any time
            while pair.host(server).syslog.find(at, "MCA00019").is_none() && at.elapsed() < s(3) {
                std::thread::sleep(Duration::from_millis(2));
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
            std::thread::sleep(Duration::from_millis(u64::from(now.subsec_micros() % 300)));
            signal(pid, Signal::KILL);
        }
    }
}

/// Waits until both servers agree, and the pair is mirrored or switched; answers the primary.
fn converge(pair: &Pair) -> usize {
    let what = "the pair heals: both servers say switchable, or both switched";
    wait_for(what, s(60), || {
        let told = [pair.json(0)?, pair.json(1)?];
        let both = |word: &str| told.iter().all(|t| t["mirroring_status"] == word);
        if told[0]["view"]["term"] != told[1]["view"]["term"] {
            return None;
        }
        match told[0]["view"]["primary"].as_str()? {
            "nd1" if both("switchable") => Some(0),
            "nd2" if both("switched") && !pair.instance_runs(0) => Some(1),
            _ => None,
        }
    })
}

/// The old primary stays down until an administrator rebuilds it.
fn recover(pair: &Pair, copy: bool) {
    pair.wait_switched(0);
    pair.rebuild(0, &["--method", if copy { "basebackup" } else { "auto" }]);
}

/// The primary hears nobody: the arbiter has heard nothing from it either, and the standby is promoted.
#[test]
fn primary_from_all() {
    matrix(
        "primary cut from all",
        &Cut {
            setup: fast,
            begin: |pair| pair.net.cut(0),
            end: |pair| pair.net.heal(0),
            lasts: s(5),
            bound: Duration::from_millis(1600),
            view: View::Switched,
            usual: Quiet,
        },
    );
}

/// Both ask the arbiter, which hears both: it prefers the primary.
#[test]
fn primary_from_standby() {
    matrix(
        "primary cut from the standby only",
        &Cut {
            setup: fast,
            begin: |pair| pair.net.cut_between(0, 1),
            end: |pair| pair.net.heal_between(0, 1),
            lasts: s(5),
            bound: Duration::from_millis(1600),
            view: View::Kept,
            usual: Kill(0),
        },
    );
}

/// The standby receives no heartbeats: the primary continues alone.
#[test]
fn standby_from_all() {
    matrix(
        "standby cut from all",
        &Cut {
            setup: fast,
            begin: |pair| pair.net.cut(1),
            end: |pair| pair.net.heal(1),
            lasts: s(5),
            bound: Duration::from_millis(1600),
            view: View::Kept,
            usual: Stop(1),
        },
    );
}

/// Nobody hears the arbiter: nothing happens.
#[test]
fn arbiter_from_all() {
    matrix(
        "arbiter cut from all",
        &Cut {
            setup: patient,
            begin: |pair| pair.net.cut(ARBITER),
            end: |pair| pair.net.heal(ARBITER),
            lasts: s(8),
            bound: s(1),
            view: View::Same,
            usual: Stop(0),
        },
    );
}

/// What the primary sends to the standby is lost: a link that works one way is down.
#[test]
fn one_way_primary_to_standby() {
    matrix(
        "one way, primary to standby",
        &Cut {
            setup: fast,
            begin: |pair| pair.net.cut_from_to(0, 1),
            end: |pair| pair.net.heal_from_to(0, 1),
            lasts: s(8),
            bound: s(4),
            view: View::Kept,
            usual: Kill(1),
        },
    );
}

/// What the standby sends to the primary is lost.
#[test]
fn one_way_standby_to_primary() {
    matrix(
        "one way, standby to primary",
        &Cut {
            setup: fast,
            begin: |pair| pair.net.cut_from_to(1, 0),
            end: |pair| pair.net.heal_from_to(1, 0),
            lasts: s(8),
            bound: s(4),
            view: View::Kept,
            usual: Stop(0),
        },
    );
}

fn one_way_with_arbiter(name: &str, begin: fn(&Pair), end: fn(&Pair), usual: Disturbance) {
    matrix(name, &Cut { setup: patient, begin, end, lasts: s(8), bound: s(1), view: View::Same, usual });
}

/// What the primary sends to the arbiter is lost.
#[test]
fn one_way_primary_to_arbiter() {
    one_way_with_arbiter(
        "one way, primary to arbiter",
        |pair| pair.net.cut_from_to(0, ARBITER),
        |pair| pair.net.heal_from_to(0, ARBITER),
        Kill(0),
    );
}

/// What the arbiter sends to the primary is lost.
#[test]
fn one_way_arbiter_to_primary() {
    one_way_with_arbiter(
        "one way, arbiter to primary",
        |pair| pair.net.cut_from_to(ARBITER, 0),
        |pair| pair.net.heal_from_to(ARBITER, 0),
        Quiet,
    );
}

/// What the standby sends to the arbiter is lost.
#[test]
fn one_way_standby_to_arbiter() {
    one_way_with_arbiter(
        "one way, standby to arbiter",
        |pair| pair.net.cut_from_to(1, ARBITER),
        |pair| pair.net.heal_from_to(1, ARBITER),
        Stop(1),
    );
}

/// What the arbiter sends to the standby is lost.
#[test]
fn one_way_arbiter_to_standby() {
    one_way_with_arbiter(
        "one way, arbiter to standby",
        |pair| pair.net.cut_from_to(ARBITER, 1),
        |pair| pair.net.heal_from_to(ARBITER, 1),
        Kill(1),
    );
}

/// The primary's network comes and goes every second for a minute.
#[test]
fn flapping() {
    matrix(
        "flapping every second for a minute",
        &Cut {
            setup: fast,
            begin: |pair| {
                for _ in 0..30 {
                    pair.net.cut(0);
                    std::thread::sleep(s(1));
                    pair.net.heal(0);
                    std::thread::sleep(s(1));
                }
            },
            end: |_| (),
            lasts: s(60),
            bound: s(20),
            view: View::Any,
            usual: Quiet,
        },
    );
}

/// 300 ms each way and 5 % loss between all hosts, with the usual settings.
#[test]
fn far_and_lossy() {
    matrix(
        "300 ms of delay, 5 % of loss",
        &Cut {
            setup: || Setup { far: true, ..patient() },
            begin: |pair| pair.net.far.as_ref().expect("far").set(Duration::from_millis(300), 5),
            end: |pair| pair.net.far.as_ref().expect("far").set(Duration::ZERO, 0),
            lasts: s(25),
            bound: Duration::from_millis(5400 + 800 + 6000),
            view: View::Any,
            usual: Kill(1),
        },
    );
}

/// No heartbeat and no arbiter, but WAL still flows: the other one lives, and nothing happens.
#[test]
fn admin_network() {
    matrix(
        "admin network cut, log transfer network lives",
        &Cut {
            setup: || Setup { more_networks: 1, ..patient() },
            begin: |pair| (0..3).for_each(|host| pair.net.cut_on(ADMIN, host)),
            end: |pair| (0..3).for_each(|host| pair.net.heal_on(ADMIN, host)),
            lasts: s(8),
            bound: s(1),
            view: View::Same,
            usual: Stop(0),
        },
    );
}

/// Both controllers talk, WAL does not flow: the primary continues alone, with the standby's consent.
#[test]
fn log_transfer_network() {
    matrix(
        "log transfer network cut, admin network lives",
        &Cut {
            setup: || Setup { more_networks: 1, ..fast() },
            begin: |pair| (0..2).for_each(|host| pair.net.cut_on(LOG, host)),
            end: |pair| (0..2).for_each(|host| pair.net.heal_on(LOG, host)),
            lasts: s(8),
            bound: s(4),
            view: View::Kept,
            usual: Kill(1),
        },
    );
}

/// The servers hear each other on no network, the arbiter hears both on one of its own.
#[test]
fn all_but_the_arbitration_network() {
    matrix(
        "admin and log transfer network cut, arbitration network lives",
        &Cut {
            setup: || Setup { more_networks: 2, ..fast() },
            begin: |pair| (0..3).for_each(|host| [ADMIN, LOG].iter().for_each(|net| pair.net.cut_on(*net, host))),
            end: |pair| (0..3).for_each(|host| [ADMIN, LOG].iter().for_each(|net| pair.net.heal_on(*net, host))),
            lasts: s(5),
            bound: Duration::from_millis(1600),
            view: View::Kept,
            usual: Quiet,
        },
    );
}
