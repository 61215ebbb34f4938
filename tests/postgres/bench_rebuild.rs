//! The rebuild against the bare commands by hand, in the same run and in turn; and how soon a pair is whole again.
//!
//! `MC_BENCH_GB` says how large the database is (2). One percent of it changes on the old primary before it dies, and
//! another one on the new primary after that.

use crate::Run;
use crate::harness::client::Style;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::must;
use crate::harness::{s, wait_for};
use std::time::{Duration, Instant};

/// So many pairs of measurements a run.
const TURNS: usize = 3;

const TITLES: [&str; 2] = ["… `mc_ctl rebuild` until `switchable`", "… by hand until the standby has caught up"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Rewind,
    BaseBackup,
}

pub fn by_itself() -> Run {
    let pair = Setup::default().conf("rebuild_action = auto").up();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(2));
    let at = pair.crash_with_more(0);
    pair.wait_log(1, at, "MCA00062", s(20));
    pair.wait_roles(1, "switchable", ["standby", "primary"]);
    let values = vec![at.elapsed().as_secs_f64()];
    Run { values, lost: client.lost_on(&pair, 1).len(), ..Run::default() }
}

pub fn after_a_switch() -> Run {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(2));
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    pair.wait_switched(0);
    let at = Instant::now();
    pair.mc(0, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
    pair.wait_word(1, "switchable");
    let values = vec![at.elapsed().as_secs_f64()];
    Run { values, lost: client.lost_on(&pair, 1).len(), ..Run::default() }
}

pub fn rewind() -> Run {
    against_hand(Method::Rewind)
}

pub fn base_backup() -> Run {
    against_hand(Method::BaseBackup)
}

fn megabytes() -> u32 {
    let gigabytes: f64 = std::env::var("MC_BENCH_GB").ok().and_then(|n| n.parse().ok()).unwrap_or(2.0);
    (gigabytes * 1024.0) as u32
}

fn against_hand(method: Method) -> Run {
    let pair = Setup::default().pg("log_checkpoints = on").up();
    let client = pair.client(Style::OneSession);
    pair.fill(0, megabytes());
    // else the next look at each page would change it, by its hint bits
    for statement in ["ALTER TABLE bulk ADD PRIMARY KEY (id)", "VACUUM FREEZE bulk"] {
        let host = pair.servers[0].address;
        pair.host(0).pg("psql", &["-qX", "-h", host, "-c", statement, "postgres"]).expect(0, statement);
    }
    let mut run = Run::default();
    let mut loser = 0;
    for turn in 0..TURNS {
        let mut took = [Duration::ZERO; 2];
        let mut checkpoints = Duration::ZERO;
        // in an order that changes, so that what drifts hits both alike
        for by_hand in [turn % 2 == 0, turn % 2 == 1] {
            change(&pair, loser, turn as u32 * 4 + u32::from(by_hand) * 2);
            if by_hand {
                took[1] = hand(&pair, loser, method);
            } else {
                (took[0], checkpoints) = tool(&pair, loser, method);
            }
            forget_old_data(&pair, loser);
            loser = 1 - loser;
        }
        let left = took[0].saturating_sub(checkpoints + s(2));
        run.values.push(left.as_secs_f64() / took[1].as_secs_f64());
        eprintln!("rebuild {:?}, by hand {:?}, the two checkpoints {checkpoints:?}", took[0], took[1]);
        TITLES.iter().zip(took).for_each(|(title, took)| run.more.push((title, took.as_secs_f64())));
    }
    run.lost = client.lost_on(&pair, 1 - loser).len();
    run
}

/// One percent on the primary, which dies, and the next one on the other server, which takes over.
fn change(pair: &Pair, loser: usize, part: u32) {
    let percent = megabytes() * 1024 / 100;
    let update = |server: usize, part: u32| {
        let (from, to) = (part * percent, (part + 1) * percent);
        pair.sql(
            server,
            &format!("UPDATE bulk SET filler = rpad(md5(filler), 980, 'y') WHERE id >= {from} AND id < {to}"),
        );
    };
    pair.sql(loser, "CHECKPOINT");
    update(loser, part);
    pair.fail_over_from(loser);
    update(1 - loser, part + 1);
    must("sync", &[]);
}

/// `mc_ctl rebuild`; answers how long it took, and the two checkpoints in it.
fn tool(pair: &Pair, server: usize, method: Method) -> (Duration, Duration) {
    let before = checkpoints(pair, 1 - server).len();
    let word = if method == Method::Rewind { "rewind" } else { "basebackup" };
    let at = Instant::now();
    pair.mc(server, &["rebuild", "--yes", "--method", word]).expect(0, "mc_ctl rebuild");
    pair.wait_word(1 - server, "switchable");
    let took = at.elapsed();
    let all = checkpoints(pair, 1 - server);
    assert!(all.len() >= before + 2, "two checkpoints: {all:?}");
    (took, all.iter().rev().take(2).sum())
}

/// How long the server's checkpoints have taken, by its log.
fn checkpoints(pair: &Pair, server: usize) -> Vec<Duration> {
    let log = pair.read(server, "log/postgresql.log");
    let total = |line: &str| line.split_once("total=")?.1.split(' ').next()?.parse().ok().map(Duration::from_secs_f64);
    log.lines().filter(|l| l.contains("checkpoint complete")).filter_map(total).collect()
}

/// The bare commands, until what the source had written when the standby was started is replayed; then the pair is made
/// whole again.
fn hand(pair: &Pair, server: usize, method: Method) -> Duration {
    let (me, peer) = (&pair.servers[server], &pair.servers[1 - server]);
    let data = pair.data(server);
    pair.mc(server, &["stop"]).expect(0, "mc_ctl stop");
    let keep = format!("cp -p {data}/postgresql.conf {data}/pg_hba.conf {}", me.management.display());
    pair.as_root(server, &["sh", "-c", &keep]);
    if method == Method::BaseBackup {
        let aside = format!("mv {data} {data}.old-hand && mkdir -m 700 {data} && chown postgres: {data}");
        pair.as_root(server, &["sh", "-c", &aside]);
    }
    let at = Instant::now();
    let address =
        format!("host={} port={} user=postgres application_name={}", peer.replication_address, peer.port, me.id);
    if method == Method::Rewind {
        pair.sql(1 - server, "CHECKPOINT");
        let source = format!("--source-server={address} dbname=postgres");
        pair.host(server).pg("pg_rewind", &["-D", data, "-R", &source]).expect(0, "pg_rewind");
    } else {
        let words = ["-D", data, "-R", "-X", "stream", "-c", "fast", "-d", &address];
        pair.host(server).pg("pg_basebackup", &words).expect(0, "pg_basebackup");
    }
    let back = format!("cp -p {0}/postgresql.conf {0}/pg_hba.conf {data}", me.management.display());
    pair.as_root(server, &["sh", "-c", &back]);
    pair.pg_start(server);
    let position = pair.sql(1 - server, "SELECT pg_current_wal_flush_lsn()");
    let caught_up = format!("SELECT replay_lsn >= '{position}' FROM pg_stat_replication WHERE state = 'streaming'");
    wait_for("the standby has caught up", s(300), || (pair.sql(1 - server, &caught_up) == "t").then_some(()));
    let took = at.elapsed();
    pair.host(server).pg("pg_ctl", &["-D", data, "-w", "-m", "fast", "stop"]).expect(0, "pg_ctl stop");
    pair.as_root(server, &["sh", "-c", &format!("rm {0}/postgresql.conf {0}/pg_hba.conf", me.management.display())]);
    pair.start(server, &["-f"]);
    pair.wait_word(1 - server, "switchable");
    took
}

/// What a rebuild keeps of the old data directory.
fn forget_old_data(pair: &Pair, server: usize) {
    pair.as_root(server, &["sh", "-c", &format!("rm -rf {}.old-*", pair.data(server))]);
}
