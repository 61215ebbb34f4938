//! The simulator: the decision core of two servers and, in half of the runs, an arbiter, in a world of virtual time in
//! which networks, disks, processes, hosts and PostgreSQL fail in every way that a seed makes up. After every step the
//! invariants of PROTOCOL section 8 are looked at; then everything is healed and the pair must serve, and be mirrored,
//! again.
//!
//! ```text
//! cargo test --test sim                                  the seeds that CI runs
//! SEED=17 cargo test --test sim seeds -- --nocapture     one seed, with its whole transcript
//! SEEDS=0..50000 cargo test --test sim seeds             a range of seeds
//! REACHED=1 cargo test --test sim seeds -- --nocapture   also says how often what the core can do was done
//! LINES=500, FAILURES=20                               show more of a transcript, go on after a violation
//! SIM_SECONDS=3600 cargo test --test sim seeds           seeds that nobody has seen yet, for an hour
//! ```
//!
//! The tests named `broken_…` show that the simulator can fail: the world breaks one of the promises that the protocol
//! rests on (never the core), and a seed must be found that violates an invariant.

#[path = "sim/checks.rs"]
mod checks;
#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/instance.rs"]
mod instance;
#[path = "sim/jobs.rs"]
mod jobs;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/operator.rs"]
mod operator;
#[path = "sim/process.rs"]
mod process;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/setup.rs"]
mod setup;
#[path = "sim/trace.rs"]
mod trace;
#[path = "sim/wal.rs"]
mod wal;
#[path = "sim/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use world::{Broken, World};

/// How many seeds are run without being asked for.
const CI_SEEDS: u64 = 2_000;
/// Lines of a transcript that are shown of a violation.
const LINES: usize = 80;

/// What came of a seed: what was violated, if anything was.
fn run(seed: u64, broken: Broken, tracing: bool) -> (World, Option<String>) {
    let mut world = World::new(seed, broken, tracing);
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).err();
    let what = match (&world.violation, panicked) {
        (_, Some(panic)) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(format!("panic: {}", text.or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()))
        }
        (Some(violation), None) => Some(violation.what.clone()),
        (None, None) => None,
    };
    (world, what)
}

/// The end of the transcript of a seed, and how to see it again.
fn report(seed: u64, broken: Broken) -> String {
    let (world, what) = run(seed, broken, true);
    let from = world.trace.len().saturating_sub(std::env::var("LINES").map_or(LINES, |n| n.parse().unwrap_or(LINES)));
    let settings = format!("{:?}", world.settings[0]);
    format!(
        "seed {seed}: {}\narbiter {}, on silence {:?}, forced {}\n{settings}\n{}\nreproduce: SEED={seed} cargo test --test sim seeds -- --nocapture\n",
        what.unwrap_or("nothing violated".to_string()),
        world.arbiter,
        [world.settings[0].on_silence, world.settings[1].on_silence],
        world.forced,
        world.trace[from..].join("\n"),
    )
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name} must be a number, not \"{text}\"")))
}

#[test]
fn seeds() {
    if let Some(seed) = number("SEED") {
        println!("{}", report(seed, Broken::No));
        let (_, what) = run(seed, Broken::No, false);
        assert_eq!(what, None, "seed {seed}");
        return;
    }
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64) & 0xffff_ffff_ffff;
    let limit = number("SIM_SECONDS").map(Duration::from_secs);
    let (from, to) = match (std::env::var("SEEDS"), limit) {
        (Ok(range), _) => {
            let (from, to) = range.split_once("..").expect("SEEDS is a range as in 0..1000");
            (from.parse().expect("a number"), to.parse().expect("a number"))
        }
        (Err(_), Some(_)) => (fresh, u64::MAX),
        (Err(_), None) => (0, CI_SEEDS),
    };
    let (began, mut ran, mut steps, mut failed) = (Instant::now(), 0u64, 0u64, Vec::new());
    let mut reached = BTreeMap::new();
    let at_most = number("FAILURES").unwrap_or(1);
    for seed in from..to {
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            break;
        }
        let (world, what) = run(seed, Broken::No, false);
        ran += 1;
        let forced = world.forced;
        steps += world.steps;
        for (what, times) in world.reached {
            *reached.entry(what).or_insert(0u64) += times;
        }
        if let Some(what) = what {
            println!("seed {seed}: {what}{}", if forced { " (forced views)" } else { "" });
            failed.push(seed);
            if failed.len() as u64 >= at_most {
                break;
            }
        }
    }
    if number("REACHED").is_some() {
        reached.iter().for_each(|(what, times)| println!("{times:>9}  {what}"));
    }
    println!("{ran} seeds, {steps} steps, {:.1} s", began.elapsed().as_secs_f64());
    if let Some(seed) = failed.first() {
        panic!("{} of {ran} seeds violate an invariant ({failed:?})\n{}", failed.len(), report(*seed, Broken::No));
    }
    if (from, to) == (0, CI_SEEDS) {
        for what in MUST_REACH {
            assert!(reached.contains_key(what), "no seed of CI comes to \"{what}\"");
        }
    }
}

/// What the seeds of CI must have met at least once: else a world that has become too kind would go unnoticed.
const MUST_REACH: [&str; 12] = [
    "job: Promote",
    "job: Prove",
    "job: NamesOff",
    "job: Start as the other's standby",
    "job: Stop at once",
    "say: HandOverFailed",
    "say: NotEligible",
    "say: PeerAlive",
    "say: Split",
    "say: StandbyStalled",
    "view: alone: the arbiter consented",
    "view: alone: the other server consented",
];

#[test]
fn a_seed_is_a_run() {
    for seed in 0..20 {
        let ((a, _), (b, _)) = (run(seed, Broken::No, false), run(seed, Broken::No, true));
        assert_eq!((a.steps, a.acks, a.t), (b.steps, b.acks, b.t), "seed {seed}");
    }
}

/// The range in which a broken world must be found out.
const BROKEN_SEEDS: u64 = 3_000;

/// A world that breaks a promise violates an invariant with its kept seed; where the core has changed since, with another
/// one of the range.
fn found_out(broken: Broken, kept: u64) {
    if let Some(seed) = number("SEED") {
        println!("{}", report(seed, broken));
        return;
    }
    for seed in std::iter::once(kept).chain(0..BROKEN_SEEDS) {
        if let (_, Some(what)) = run(seed, broken, false)
            && !what.starts_with("I5")
        {
            println!("{broken:?}: seed {seed}: {what}");
            return;
        }
    }
    panic!("{broken:?}: none of {BROKEN_SEEDS} seeds violates an invariant");
}

#[test]
fn broken_ledger_that_forgets_a_write() {
    found_out(Broken::ForgetsWrite, 30);
}

#[test]
fn broken_answer_before_it_is_stored() {
    found_out(Broken::AnswersEarly, 40);
}

#[test]
fn broken_proof_that_lies() {
    found_out(Broken::LyingProof, 30);
}

#[test]
fn broken_arbiter_that_forgets() {
    found_out(Broken::ForgetfulArbiter, 3);
}

#[test]
fn broken_data_directory_exchanged_unseen() {
    found_out(Broken::ExchangedData, 7);
}

#[test]
fn broken_postgresql_that_acknowledges_early() {
    found_out(Broken::AcksEarly, 4);
}
