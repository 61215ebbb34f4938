//! The harness checked against PostgreSQL alone: its client, its faults and its checks do what the cases rely on.

use crate::harness::client::Style;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use std::time::Instant;

fn plain() -> Pair {
    let pair = Setup::default().make();
    pair.pg_start(0);
    pair.pg_start(1);
    wait_for("the standby is synchronous", s(10), || {
        (pair.sql(0, "SELECT sync_state FROM pg_stat_replication") == "sync").then_some(())
    });
    pair
}

fn promote(pair: &Pair, server: usize) {
    pair.sql(server, "SELECT pg_promote()");
    pair.sql(server, "ALTER SYSTEM SET synchronous_standby_names = ''");
    pair.sql(server, "SELECT pg_reload_conf()");
}

/// A synchronous standby that is promoted after the primary's death has every acknowledged row; the gap that the client
/// measures is the time until then.
#[test]
fn a_synchronous_standby_loses_nothing() {
    let pair = plain();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(1));
    let at = pair.kill_postmaster(0);
    std::thread::sleep(s(1));
    promote(&pair, 1);
    client.wait_ack(Instant::now(), s(10));
    let gap = client.longest_gap(at);
    assert!(gap > s(1) && gap < s(4), "{gap:?}");
    client.check(&pair, 1, &[0, 1]);
}

/// The check for lost rows can fail: without synchronous replication, what had not reached the standby is missing.
#[test]
fn lost_rows_are_noticed() {
    let pair = plain();
    pair.sql(0, "ALTER SYSTEM SET synchronous_standby_names = ''");
    pair.sql(0, "SELECT pg_reload_conf()");
    let client = pair.client(Style::OneSession);
    pair.net.cut_way(0);
    std::thread::sleep(s(1));
    pair.kill_postmaster(0);
    promote(&pair, 1);
    client.wait_ack(Instant::now(), s(10));
    assert!(!client.lost_on(&pair, 1).is_empty());
}

/// The check for two servers at once can fail: a standby that is promoted while the primary lives, and the primary
/// released, both acknowledge. Also, a cut host is silent and comes back.
#[test]
fn two_writers_are_noticed() {
    let pair = plain();
    let client = pair.client(Style::PerHost);
    pair.net.cut(0);
    let cut = Instant::now();
    std::thread::sleep(s(1));
    assert!(pair.try_sql(0, "SELECT 1").is_err());
    promote(&pair, 1);
    client.wait_ack(Instant::now(), s(5));
    assert!(client.longest_gap(cut) > s(1));
    pair.net.heal(0);
    wait_for("the old primary answers", s(5), || pair.try_sql(0, "SELECT 1").ok());
    pair.sql(0, "ALTER SYSTEM SET synchronous_standby_names = ''");
    pair.sql(0, "SELECT pg_reload_conf()");
    wait_for("both acknowledge", s(10), || (client.turns().len() > 4).then_some(()));
}

/// A host that loses power answers with refusals, and boots again with nothing running on it.
#[test]
fn a_host_dies_at_once_and_boots() {
    let mut pair = plain();
    pair.host_mut(0).power_off();
    let begin = Instant::now();
    assert!(pair.try_sql(0, "SELECT 1").is_err());
    assert!(begin.elapsed() < s(1), "its kernel should refuse");
    pair.host_mut(0).boot();
    assert!(!pair.instance_runs(0));
    pair.pg_start(0);
    assert_eq!(pair.sql(0, "SELECT 1"), "1");
}

/// One-way cuts lose what one host sends to the other, while clients still reach both.
#[test]
fn a_one_way_cut_is_silent() {
    let pair = plain();
    pair.net.cut_way(1);
    let before = pair.sql(0, "SELECT pg_current_wal_lsn()");
    pair.sql(0, "INSERT INTO written (id) VALUES (-1)");
    std::thread::sleep(s(1));
    let flushed = pair.sql(0, &format!("SELECT flush_lsn > '{before}' FROM pg_stat_replication"));
    assert_eq!(flushed, "f", "answers of the standby are lost");
    assert_eq!(pair.sql(1, "SELECT 1"), "1");
    pair.net.heal_way(1);
    wait_for("the standby's answers arrive again", s(20), || {
        (pair.sql(0, &format!("SELECT flush_lsn > '{before}' FROM pg_stat_replication")) == "t").then_some(())
    });
}
