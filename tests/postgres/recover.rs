//! `mc_ctl recover` on real servers: to exactly the target, over failovers and rebuilds, and killed at any time.

use crate::backup::pair;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::Answer;
use std::time::Duration;

/// A table of which every row is a transaction of its own.
fn table(pair: &Pair, primary: usize) {
    pair.sql(primary, "CREATE TABLE paced (id serial)");
}

/// So many transactions, 100 ms apart.
fn write(pair: &Pair, primary: usize, rows: u32) {
    for _ in 0..rows {
        pair.sql(primary, "INSERT INTO paced DEFAULT VALUES");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The rows, each with the time of its commit, in microseconds since 1970.
fn rows(pair: &Pair, server: usize) -> Vec<(i64, i64)> {
    let sql =
        "SELECT id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM paced ORDER BY id";
    let number = |text: &str| text.parse().expect("a number");
    let row = |line: &str| line.split_once('|').map(|(id, at)| (number(id), number(at))).expect("two columns");
    pair.sql(server, sql).lines().map(row).collect()
}

fn ids(rows: &[(i64, i64)]) -> Vec<i64> {
    rows.iter().map(|(id, _)| *id).collect()
}

/// `mc_ctl recover --yes …`, which must succeed; the pair is mirrored again, and the server is its primary.
#[track_caller]
fn recover(pair: &Pair, server: usize, target: &[&str]) -> Answer {
    let answer = pair.mc(server, &[&["recover", "--yes"], target].concat()).expect(0, "mc_ctl recover");
    assert!(answer.out.contains("the pair is mirrored"), "{answer:?}");
    check(pair, server);
    answer
}

/// The pair is mirrored with this server as its primary, and nothing of the recovery is left but the old data.
#[track_caller]
fn check(pair: &Pair, server: usize) {
    let roles = if server == 0 { ["primary", "standby"] } else { ["standby", "primary"] };
    [0, 1].iter().for_each(|n| pair.wait_roles(*n, "switchable", roles));
    let left: Vec<String> = pair.beside(server).into_iter().filter(|path| path.contains(".rebuild")).collect();
    assert!(left.is_empty() && !pair.run_dir(server).join("recover.json").exists(), "left behind: {left:?}");
    assert_eq!(
        pair.sql(
            server,
            "SELECT count(*) FROM pg_settings WHERE name LIKE 'recovery_target%' AND setting <> '' \
        AND name NOT IN ('recovery_target_timeline', 'recovery_target_action', 'recovery_target_inclusive')"
        ),
        "0"
    );
}

/// To a random time between two transactions that are 100 ms apart, so often, while the pair fails over and is rebuilt:
/// exactly the right rows.
fn to_random_times(rounds: u32) {
    let pair = pair(Setup::default().pg("track_commit_timestamp = on"));
    table(&pair, 0);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    let mut random = 0x9e37_79b9_u64 ^ u64::from(std::process::id());
    for round in 0..rounds {
        write(&pair, 0, 10);
        pair.fail_over_from(0);
        pair.wait_switched(0);
        write(&pair, 1, 5);
        pair.rebuild(0, &[]);
        write(&pair, 1, 5);
        let before = rows(&pair, 1);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let last = (random >> 33) as usize % (before.len() - 1);
        let (at, next) = (before[last].1, before[last + 1].1);
        let target = pair.sql(1, &format!("SELECT to_timestamp({}::numeric / 1000000)", at + (next - at) / 2));
        recover(&pair, 0, &["--time", &target]);
        for n in [0, 1] {
            assert_eq!(ids(&rows(&pair, n)), ids(&before[..=last]), "round {round}, {target}, server {n}");
        }
        pair.as_root(0, &["sh", "-c", "rm -rf \"$0\".old-*", pair.data(0)]);
        eprintln!("RECOVERED {round}: to {target}, row {} of {}", last + 1, before.len());
    }
}

#[test]
fn to_a_time_over_failovers() {
    to_random_times(2);
}

#[test]
#[ignore = "20 recoveries take minutes"]
fn to_twenty_times() {
    to_random_times(20);
}
