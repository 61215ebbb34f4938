//! The soak: overlapping random faults on two real servers and an arbiter with `rebuild_action = auto`, round after round.
//!
//! ```text
//! MC_SOAK_SECONDS=1800 cargo test --test postgres soak::long -- --ignored --exact --nocapture
//! MC_SOAK_SEED=7       # the seed; the default is the time, and it is printed
//! MC_SOAK_FROM=12      # begin with the faults of this round
//! MC_SOAK_SETTINGS=fast        # detection within 0.6 s instead of the default settings
//! MC_SOAK_DIR=/tmp/soak        # where a failure leaves the logs, the histories and the status of all members
//! ```
//!
//! In each round faults of [`crate::soak_faults`] overlap. All of them are then undone, and after that:
//!
//! - both servers must report `switchable` within [`LIMIT`], without an operator;
//! - every acknowledged row must exist on the primary, and both servers must hold the same rows;
//! - no server may have acknowledged a row after another server did so on a later timeline
//!   ([`Client::check_timelines`]), so no two primaries accepted writes.
//!
//! Clients write to both instances from all three hosts all the time. Everything random comes from the seed and the number of
//! the round. Detection has the default settings unless `MC_SOAK_SETTINGS` says otherwise, so that a busy machine causes few
//! false alarms; an alarm is no failure.

use crate::harness::client::{Client, Style};
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use crate::soak_faults::{Bench, plan};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// From the end of the last fault until both servers report `switchable`.
const LIMIT: Duration = s(60);
/// For so long it must stay so, to exclude a status from before a fault was noticed.
const STABLE: Duration = Duration::from_millis(1500);

/// A short soak with a fixed seed.
#[test]
fn short() {
    soak(&Soak { seed: 1, first: 0, lasts: s(40), fast: true });
}

/// The soak that the environment describes.
#[test]
#[ignore = "takes MC_SOAK_SECONDS"]
fn long() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|e| panic!("{name}: {e}")));
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    soak(&Soak {
        seed: number("MC_SOAK_SEED").unwrap_or_else(now),
        first: number("MC_SOAK_FROM").unwrap_or(0),
        lasts: s(number("MC_SOAK_SECONDS").unwrap_or(1800)),
        fast: std::env::var("MC_SOAK_SETTINGS").is_ok_and(|v| v == "fast"),
    });
}

struct Soak {
    seed: u64,
    first: u64,
    lasts: Duration,
    fast: bool,
}

fn soak(soak: &Soak) {
    let setup = Setup::default().arbiter().conf("rebuild_action = auto");
    let pair = if soak.fast { setup.fast_network() } else { setup }.up();
    let client = pair.client(Style::Everywhere);
    let begin = Instant::now();
    let mut longest = Duration::ZERO;
    let mut round = soak.first;
    while round == soak.first || begin.elapsed() < soak.lasts {
        match catch_unwind(AssertUnwindSafe(|| self::round(&pair, &client, soak.seed, round))) {
            Ok(took) => longest = longest.max(took),
            Err(what) => {
                eprintln!("SOAK FAILED: seed {}, round {round}, at {:.1} s", soak.seed, pair.elapsed().as_secs_f64());
                keep_evidence(&pair, &format!("seed-{}-round-{round}", soak.seed));
                resume_unwind(what);
            }
        }
        round += 1;
    }
    let primary = settled(&pair).expect("a mirrored pair");
    let lost = client.lost_on(&pair, primary);
    assert!(lost.is_empty(), "{} acknowledged rows are lost: {lost:?}", lost.len());
    eprintln!(
        "SOAK seed {}: {} rounds in {:.0} s, {} rows acknowledged, 0 lost, {} promotions, switchable after at most {:.1} s",
        soak.seed,
        round - soak.first,
        begin.elapsed().as_secs_f64(),
        client.count(),
        client.check_timelines() - 1,
        longest.as_secs_f64()
    );
}

/// One round; answers how long after the last fault the pair was `switchable`.
fn round(pair: &Pair, client: &Client, seed: u64, round: u64) -> Duration {
    let plan = plan(seed, round);
    eprintln!("round {round} at {:.1} s: {plan}", pair.elapsed().as_secs_f64());
    let mut bench = Bench::new(pair);
    let begin = Instant::now();
    bench.run(&plan);
    let healed = Instant::now();
    let (took, primary) = await_switchable(pair, client, &mut bench, healed);
    client.pause();
    same_rows(pair, primary);
    let lost = client.missing_on(pair, primary);
    let rows = client.count();
    assert!(lost.is_empty(), "{} of {rows} acknowledged rows are lost: {lost:?}", lost.len());
    let timeline = client.check_timelines();
    client.resume();
    wait_for("the view names the arbiter", LIMIT, || {
        (pair.view(primary)?["arbiter_ledger"].is_string() && settled(pair).is_some()).then_some(())
    });
    eprintln!(
        "round {round}: {}faults for {:.1} s; switchable after {:.1} s; {} is the primary on timeline {timeline}; \
         {rows} rows acknowledged, 0 lost",
        bench.outcomes(),
        (healed - begin).as_secs_f64(),
        took.as_secs_f64(),
        pair.servers[primary].id,
    );
    took
}

/// The primary, if both servers report `switchable` under the same view.
fn settled(pair: &Pair) -> Option<usize> {
    let reports = [pair.json(0)?, pair.json(1)?];
    let view = &reports[0]["view"];
    let same = reports.iter().all(|r| {
        r["mirroring_status"] == "switchable" && r["view"]["term"] == view["term"] && r["view"]["mode"] == "mirrored"
    });
    let primary = pair.servers.iter().position(|server| view["primary"] == server.id)?;
    same.then_some(primary)
}

/// Waits until the pair is `switchable`, stays so, and acknowledges rows. Meanwhile controllers and an arbiter that are
/// gone with their watcher are started, as the host's service manager does.
fn await_switchable(pair: &Pair, client: &Client, bench: &mut Bench, healed: Instant) -> (Duration, usize) {
    let mut since: Option<Instant> = None;
    loop {
        bench.start_missing();
        match settled(pair) {
            None => since = None,
            Some(primary) => {
                let first = *since.get_or_insert_with(Instant::now);
                if first.elapsed() >= STABLE && client.acknowledged_since(first) {
                    return (first - healed, primary);
                }
            }
        }
        let limit = if since.is_some() { LIMIT + STABLE + s(5) } else { LIMIT };
        assert!(healed.elapsed() < limit, "not switchable, or no row acknowledged, {limit:?} after the last fault");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Checks that both servers hold the same rows, once the standby has replayed what the primary has.
fn same_rows(pair: &Pair, primary: usize) {
    let standby = 1 - primary;
    let rows = "SELECT count(*) || ' ' || coalesce(md5(string_agg(id::text, ',' ORDER BY id)), '') FROM written";
    let mut seen = [String::new(), String::new()];
    let same = (0..100).any(|_| {
        let end = pair.sql(primary, "SELECT pg_current_wal_flush_lsn()");
        wait_for("the standby replays", s(30), || {
            let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
            (pair.sql(standby, &replayed) == "t").then_some(())
        });
        seen = [pair.sql(standby, rows), pair.sql(primary, rows)];
        seen[0] == seen[1]
    });
    assert!(same, "the rows differ: {seen:?}");
    let links = "SELECT string_agg(application_name || ' ' || sync_state, ',') FROM pg_stat_replication";
    let expected = format!("{} sync", pair.servers[standby].id);
    wait_for("the synchronous standby streams", s(10), || (pair.sql(primary, links) == expected).then_some(()));
}

/// Prints the histories, and saves the logs where `MC_SOAK_DIR` says.
fn keep_evidence(pair: &Pair, name: &str) {
    for server in [0, 1] {
        for words in [&["history"][..], &["status", "--format", "json"]] {
            let answer = pair.mc(server, words);
            eprintln!("---- mc_ctl {} on {}\n{}", words.join(" "), pair.servers[server].id, answer.text());
        }
    }
    if let Some(dir) = std::env::var_os("MC_SOAK_DIR") {
        let dir = PathBuf::from(dir).join(name);
        pair.save_logs(&dir);
        eprintln!("---- logs and management directories: {}", dir.display());
    }
}
