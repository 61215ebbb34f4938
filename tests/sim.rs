//! The simulator: the decision core of two servers and of an arbiter, in a world of virtual time in which networks, disks,
//! processes, hosts and PostgreSQL fail in every way that a seed makes up. After every step the invariants of PROTOCOL
//! section 8 are looked at. Then, in half of the runs, all but one member is healed, and the two that talk must serve;
//! then everything is healed and the pair must serve, and be mirrored, again.
//!
//! ```text
//! cargo test --profile sim --test sim                    the seeds that CI runs
//! SEED=17 … seeds -- --exact --nocapture                 one seed, with its whole transcript
//! SEEDS=0..50000 … seeds -- --exact                      a range of seeds
//! REACHED=1 … seeds -- --exact --nocapture               also says how often what the core can do was done
//! LINES=500, FAILURES=20                                 show more of a transcript, continue after a violation
//!
//! SIM_HASH=1 SEEDS=0..2000 cargo test --profile sim --test sim seeds -- --nocapture
//!                                                        prints one number for all that the cores did in these seeds (`each`:
//!                                                        also one for each seed); a change of the code that is not a change of
//!                                                        behaviour keeps it
//!
//! SIM_SECONDS=3600 cargo test --profile sim --test sim seeds -- --exact --nocapture
//!                                                        seeds that nobody has seen yet, for an hour, on one core; a line
//!                                                        each minute, and the seeds per second at the end
//! ```
//!
//! `heartbeat_error_action = command` and fencing commands are tried with scripts that tell the truth: they take a host
//! down, or fail, or hang. `seeds` runs every seed with an arbiter, `seeds_without_arbiter` fewer of them without: there the safe halves and
//! `fallback` take its place. `arbiter_killed_at_each_write` runs a seed again for each write of the arbiter's ledger,
//! which comes to its end before that write is durable, and after.
//!
//! Hooks take long, fail and hang, also where everything else is well; each that is called must be owed by a durable ledger, and a
//! new primary must have told so before a run ends.
//!
//! Rebuilds are done in steps ([`rebuild`]): asked for by operators, at the right moment and at wrong ones, or made by themselves,
//! killed anywhere, and continued. Instances are also started behind the controller's back, by rc scripts and by operators: a
//! directory whose rebuild has not ended does not start, any other one comes up as what it is.
//!
//! After a crash a primary shows rows whose commits still waited. With `isolated_restart = off` none of them is lost where its controller
//! started it before it heard another member: what such a start shows is compared with the history that the run ends with.
//!
//! The tests named `broken_…` show that the simulator can fail: the world breaks one of the promises that the protocol
//! rests on (never the core), and a seed must be found that violates an invariant. A ledger put back from a backup is
//! refused by the identity of its file (`store.rs`), so that a world in which it is not noticed is a broken one; it is
//! that of a virtual machine's snapshot (PROTOCOL section 7).

#[path = "sim/checks.rs"]
mod checks;
#[path = "sim/faults.rs"]
mod faults;
#[path = "sim/fingerprint.rs"]
mod fingerprint;
#[path = "sim/instance.rs"]
mod instance;
#[path = "sim/jobs.rs"]
mod jobs;
#[path = "common/legal.rs"]
mod legal;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/operator.rs"]
mod operator;
#[path = "sim/parts.rs"]
mod parts;
#[path = "sim/plan.rs"]
mod plan;
#[path = "sim/process.rs"]
mod process;
#[path = "sim/rebuild.rs"]
mod rebuild;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/scripts.rs"]
mod scripts;
#[path = "sim/setup.rs"]
mod setup;
#[path = "sim/trace.rs"]
mod trace;
#[path = "sim/wal.rs"]
mod wal;
#[path = "sim/world.rs"]
mod world;

use fingerprint::Fingerprint;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use world::{ARBITER, Broken, CrashAt, World};

/// How many seeds are run without being asked for, with an arbiter and without one.
const CI_SEEDS: u64 = 2_000;
const CI_SEEDS_WITHOUT: u64 = 500;
/// How many seeds are run again with the arbiter killed at each of its writes.
const CI_SEEDS_BY_WRITE: u64 = 40;
/// Lines of a transcript that are shown of a violation.
const LINES: usize = 80;

/// What is run.
#[derive(Clone, Copy)]
struct Case {
    seed: u64,
    arbiter: bool,
    broken: Broken,
    crash_at: Option<CrashAt>,
    /// Commands are told of changes.
    hooks: bool,
}

impl Case {
    fn new(seed: u64, arbiter: bool) -> Case {
        Case { seed, arbiter, broken: Broken::No, crash_at: None, hooks: true }
    }

    /// Runs it; says what was violated, if anything was.
    fn run(&self, tracing: bool) -> (World, Option<String>) {
        let mut world = World::new(self.seed, self.arbiter, self.broken, self.hooks, tracing);
        world.crash_at = self.crash_at;
        world.fingerprint = std::env::var_os("SIM_HASH").map(|_| Fingerprint::new());
        let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).err();
        let what = match (&world.violation, panicked) {
            (_, Some(panic)) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or(panic.downcast_ref::<&str>().map(|s| s.to_string()));
                Some(format!("panic: {}", text.unwrap_or_default()))
            }
            (Some(violation), None) => Some(violation.what.clone()),
            (None, None) => None,
        };
        (world, what)
    }

    /// The end of the transcript, and how to see it again.
    fn report(&self) -> String {
        let (world, what) = self.run(true);
        let lines = std::env::var("LINES").map_or(LINES, |n| n.parse().unwrap_or(LINES));
        let from = world.trace.len().saturating_sub(lines);
        let test = if self.arbiter { "seeds" } else { "seeds_without_arbiter" };
        format!(
            "seed {}: {}\n{:?}, killed at {:?}, on silence {:?}, forced {}\n{:?}\n{}\nreproduce: SEED={} cargo test --profile sim \
             --test sim {test} -- --exact --nocapture\n",
            self.seed,
            what.unwrap_or("nothing violated".to_string()),
            self.broken,
            self.crash_at,
            [world.settings[0].on_silence, world.settings[1].on_silence],
            world.forced,
            world.settings[0],
            world.trace[from..].join("\n"),
            self.seed,
        )
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("{name} must be a number, not \"{text}\"")))
}

/// Which seeds are asked for, and for how long at most.
fn asked_for(of_ci: u64) -> (Range<u64>, Option<Duration>) {
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64) & 0xffff_ffff_ffff;
    let limit = number("SIM_SECONDS").map(Duration::from_secs);
    let seeds = match (std::env::var("SEEDS"), limit) {
        (Ok(range), _) => {
            let (from, to) = range.split_once("..").expect("SEEDS is a range as in 0..1000");
            from.parse().expect("a number")..to.parse().expect("a number")
        }
        (Err(_), Some(_)) => fresh..u64::MAX,
        (Err(_), None) => 0..of_ci,
    };
    (seeds, limit)
}

/// How many were run, and how fast.
struct Progress {
    began: Instant,
    said: Duration,
    seeds: u64,
    steps: u64,
}

impl Progress {
    fn new() -> Progress {
        Progress { began: Instant::now(), said: Duration::ZERO, seeds: 0, steps: 0 }
    }

    fn count(&mut self, steps: u64, failed: usize) {
        self.seeds += 1;
        self.steps += steps;
        if self.began.elapsed() >= self.said + Duration::from_secs(60) {
            self.said = self.began.elapsed();
            self.say(failed);
        }
    }

    fn say(&self, failed: usize) {
        let seconds = self.began.elapsed().as_secs_f64();
        println!(
            "{seconds:>7.1} s: {} seeds, {:.1} seeds per second, {} steps, {failed} violations",
            self.seeds,
            self.seeds as f64 / seconds.max(0.001),
            self.steps,
        );
    }
}

/// Runs seeds, as the environment asks or those of CI; what was reached is looked at where it was CI's.
fn run_seeds(arbiter: bool, of_ci: u64, must_reach: &[&str]) {
    if let Some(seed) = number("SEED") {
        let case = Case::new(seed, arbiter);
        println!("{}", case.report());
        assert_eq!(case.run(false).1, None, "seed {seed}");
        return;
    }
    let (seeds, limit) = asked_for(of_ci);
    let (mut progress, mut failed) = (Progress::new(), Vec::new());
    let mut reached = BTreeMap::new();
    let mut fingerprint = Fingerprint::new();
    let each = std::env::var("SIM_HASH").is_ok_and(|value| value == "each");
    let at_most = number("FAILURES").unwrap_or(1);
    let all_of_ci = seeds == (0..of_ci);
    for seed in seeds {
        if limit.is_some_and(|limit| progress.began.elapsed() >= limit) {
            break;
        }
        let (world, what) = Case::new(seed, arbiter).run(false);
        if let Some(of_seed) = world.final_fingerprint() {
            fingerprint.add(&of_seed.to_le_bytes());
            if each {
                println!("seed {seed}: {of_seed:016x}");
            }
        }
        for (what, times) in world.reached {
            *reached.entry(what).or_insert(0u64) += times;
        }
        if let Some(what) = what {
            println!("seed {seed}: {what}{}", if world.forced { " (forced views)" } else { "" });
            failed.push(seed);
        }
        progress.count(world.steps, failed.len());
        if failed.len() as u64 >= at_most {
            break;
        }
    }
    if number("REACHED").is_some() {
        reached.iter().for_each(|(what, times)| println!("{times:>9}  {what}"));
    }
    progress.say(failed.len());
    if std::env::var_os("SIM_HASH").is_some() {
        println!("{} seeds, arbiter {arbiter}: {:016x}", progress.seeds, fingerprint.0);
    }
    if let Some(seed) = failed.first() {
        let text = Case::new(*seed, arbiter).report();
        panic!("{} of {} seeds violate an invariant ({failed:?})\n{text}", failed.len(), progress.seeds);
    }
    for what in must_reach.iter().filter(|_| all_of_ci) {
        assert!(reached.contains_key(*what), "no seed of CI comes to \"{what}\"");
    }
}

#[test]
fn seeds() {
    run_seeds(true, CI_SEEDS, &MUST_REACH);
}

/// Seeds that have found something once: an arbiter's late message taken for a ledger that was put back; a standby that was
/// to stop while it was disconnected, and was never promoted later; a primary that lost its ledger, and was never adopted;
/// a base backup that was adopted, and never started; a lone primary that continued without its ledger beside another one; a
/// standby's directory that had lost a split, and that the operator did not rebuild; an old primary, started by an rc script, that
/// nobody looked at while a rebuild waited for a write.
const KEPT: [u64; 9] = [
    101,
    103_307,
    135_777,
    755,
    196_708_274_550_839,
    196_708_274_647_513,
    196_441_904_560_646,
    203_389_708_510_098,
    103_330,
];

/// Those that were found with hooks.
const KEPT_WITH_HOOKS: [u64; 18] = [
    60_059_840,
    100_019_538,
    120_014_161,
    120_038_889,
    130_011_285,
    140_018_714,
    150_041_276,
    150_062_269,
    150_094_354,
    400_210_314,
    700_085_710,
    700_161_398,
    800_004_197,
    1_400_048_654,
    1_600_054_616,
    2_400_000_001,
    2_500_052_308,
    2_500_064_091,
];

#[test]
fn kept_seeds() {
    let kept = KEPT.map(|seed| (seed, false)).into_iter().chain(KEPT_WITH_HOOKS.map(|seed| (seed, true)));
    for (seed, hooks) in kept {
        let case = Case { hooks, ..Case::new(seed, true) };
        if case.run(false).1.is_some() {
            panic!("{}", case.report());
        }
    }
}

#[test]
fn seeds_without_arbiter() {
    run_seeds(false, CI_SEEDS_WITHOUT, &MUST_REACH_WITHOUT);
}

/// The same without an arbiter: a primary that had noted that commits may not have waited, and whose data directory was exchanged;
/// a server that continued through a split, and sent nothing because a write of its ledger did not return; an old primary that an
/// rc script started, and whose data directory could not be read; a hand-over to a directory that was replaced and adopted before its
/// promotion; an instance that crashed before the late result of a stop arrived.
const KEPT_WITHOUT: [u64; 7] =
    [1452, 300_106_609, 410_027_773, 1_900_008_716, 2_300_000_280, 3_400_003_280, 3_400_020_318];

#[test]
fn kept_seeds_without_arbiter() {
    for seed in KEPT_WITHOUT {
        let case = Case::new(seed, false);
        assert!(case.run(false).1.is_none(), "{}", case.report());
    }
}

/// The arbiter is killed at each of its writes, before it is durable and after.
#[test]
fn arbiter_killed_at_each_write() {
    for seed in 0..CI_SEEDS_BY_WRITE {
        let (world, _) = Case::new(seed, true).run(false);
        for write in 1..=world.written[ARBITER] {
            for durable in [false, true] {
                let crash_at = Some(CrashAt { m: ARBITER, write, durable });
                let case = Case { crash_at, ..Case::new(seed, true) };
                if case.run(false).1.is_some() {
                    panic!("{}", case.report());
                }
            }
        }
    }
}

/// What the seeds of CI must have met at least once: else a world that has become too kind would go unnoticed.
const MUST_REACH: [&str; 37] = [
    "acknowledged while a DBA had taken the names off",
    "first standby by a rebuild",
    "arbiter: the primary may disconnect",
    "arbiter: the standby may switch",
    "call: Arbitration Switch by itself",
    "call: Fencing Detach by itself",
    "hook: PostSwitch by itself",
    "hook: PreDetach by command",
    "hook: PreDetach by itself",
    "hook: PostAttach by itself",
    "hook: called off",
    "hook: its caller is gone",
    "say: Isolated",
    "job: Promote",
    "job: Prove",
    "job: NamesOff",
    "job: Start as the other's standby",
    "job: Stop at once",
    "plain start: a primary",
    "plain start: a standby",
    "plain start: refused by the guard",
    "rebuild: BaseBackup",
    "rebuild: Follow",
    "rebuild: Rewind",
    "goes back: primary",
    "goes back: standby",
    "name service: down",
    "say: AwaitsMember",
    "say: WentBack",
    "say: RebuildAbandoned",
    "say: HandOverFailed",
    "say: NotEligible",
    "say: PeerAlive",
    "say: Split",
    "say: StandbyStalled",
    "view: alone: the arbiter consented",
    "view: alone: the other server consented",
];

/// The same of those without an arbiter.
const MUST_REACH_WITHOUT: [&str; 7] = [
    "acknowledged while a DBA had taken the names off",
    "goes back: primary",
    "goes back: standby",
    "job: Promote",
    "say: AwaitsMember",
    "say: WentBack",
    "view: alone: the other server consented",
];

#[test]
fn a_seed_is_a_run() {
    for seed in 0..20 {
        let case = Case::new(seed, true);
        let ((a, _), (b, _)) = (case.run(false), case.run(true));
        assert_eq!((a.steps, a.acks, a.t), (b.steps, b.acks, b.t), "seed {seed}");
    }
}

/// The range in which a broken world must be found out.
const BROKEN_SEEDS: u64 = 3_000;

/// A world that breaks a promise violates an invariant with its kept seed; where the core has changed since, with another
/// one of the range.
fn found_out(broken: Broken, kept: u64) {
    let case = |seed| Case { broken, ..Case::new(seed, true) };
    if let Some(seed) = number("SEED") {
        println!("{}", case(seed).report());
        return;
    }
    for seed in std::iter::once(kept).chain(0..BROKEN_SEEDS) {
        if let (_, Some(what)) = case(seed).run(false)
            && ["I1", "I2", "I3", "I4", "R8", "reads"].iter().any(|rule| what.starts_with(rule))
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
fn broken_wal_that_nothing_compares() {
    found_out(Broken::WalNotCompared, 0);
}

#[test]
fn broken_postgresql_that_acknowledges_early() {
    found_out(Broken::AcksEarly, 4);
}

#[test]
fn broken_arbiter_that_answers_before_it_is_stored() {
    found_out(Broken::ArbiterAnswersEarly, 0);
}

#[test]
fn broken_arbiter_whose_ledger_is_put_back() {
    found_out(Broken::ArbiterPutBack, 0);
}

#[test]
fn broken_restart_of_a_primary_that_has_heard_no_member() {
    found_out(Broken::RestartsUnheard, 550);
}

#[test]
fn broken_script_that_lies() {
    found_out(Broken::LyingScript, 0);
}

#[test]
fn broken_note_of_commits_that_did_not_wait() {
    found_out(Broken::ForgetsUnmirrored, 734);
}

#[test]
fn broken_rebuild_that_is_believed_before_it_is_whole() {
    found_out(Broken::EarlyRebuild, 3);
}

#[test]
fn broken_arbiter_that_does_not_wait() {
    found_out(Broken::ImpatientArbiter, 0);
}
