//! The harness checked against PostgreSQL alone: its client, its faults and its checks do what the cases rely on.

use crate::harness::client::Style;
use crate::harness::far::Far;
use crate::harness::net::{ADDRESSES, ADMIN, ARBITRATION, LOG, Net, Wiring};
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

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

/// A datagram from one host to another arrives; answers how long that took.
fn heard(net: &Net, network: usize, from: usize, to: usize) -> Option<Duration> {
    let socket = |host: usize| {
        net.hosts[host].inside(|| UdpSocket::bind((ADDRESSES[network][host], 0)).expect("could not bind"))
    };
    let (ear, mouth) = (socket(to), socket(from));
    let limit = Duration::from_millis(250) + 2 * net.far.as_ref().map_or(Duration::ZERO, Far::delay);
    ear.set_read_timeout(Some(limit)).expect("could not set");
    let begin = Instant::now();
    mouth.send_to(b"x", ear.local_addr().expect("an address")).expect("could not send");
    ear.recv_from(&mut [0; 8]).ok().map(|_| begin.elapsed())
}

/// Every link of three hosts and three networks can be cut alone, each way by itself, and healed.
#[test]
fn each_link_is_cut_alone() {
    let net = Net::new(Wiring { hosts: 3, networks: 3, far: false });
    let ways = || (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).filter(|(from, to)| from != to);
    let expect = |network: usize, what: &str, cut: &dyn Fn(usize, usize) -> bool| {
        for (from, to) in ways() {
            assert_eq!(heard(&net, network, from, to).is_none(), cut(from, to), "{what}: from {from} to {to}");
        }
    };
    expect(ADMIN, "before", &|_, _| false);
    for (a, b) in [(0, 1), (2, 0)] {
        net.cut_from_to(a, b);
        expect(ADMIN, "one way", &|from, to| (from, to) == (a, b));
        net.heal_from_to(a, b);
    }
    expect(ADMIN, "healed", &|_, _| false);
    net.cut_between(0, 1);
    expect(LOG, "both ways", &|from, to| from + to == 1);
    net.heal_between(0, 1);
    net.cut_on(ADMIN, 1);
    expect(ADMIN, "one network", &|from, to| from == 1 || to == 1);
    expect(ARBITRATION, "another network", &|_, _| false);
    net.heal_on(ADMIN, 1);
    net.cut(0);
    expect(LOG, "all networks", &|from, to| from == 0 || to == 0);
    net.heal(0);
    for (from, to) in ways() {
        wait_for("the kernel asks again whose address it is", s(5), || heard(&net, LOG, from, to));
    }
}

/// Far hosts: each way takes as long as was asked for, and as many frames are lost; clients in the middle are not far.
#[test]
fn far_hosts_are_far() {
    let net = Net::new(Wiring { hosts: 3, networks: 1, far: true });
    let far = net.far.as_ref().expect("far");
    let ways = [(0, 1), (1, 2), (2, 0)];
    for (from, to) in ways {
        heard(&net, ADMIN, from, to).expect("it arrives, after the kernel has asked whose address it is");
        assert!(heard(&net, ADMIN, from, to).is_some_and(|t| t < Duration::from_millis(250)));
    }
    far.set(Duration::from_millis(300), 0);
    for (from, to) in ways {
        let took = heard(&net, ADMIN, from, to).expect("it arrives");
        assert!(took > Duration::from_millis(299) && took < Duration::from_millis(800), "{took:?}");
    }
    far.set(Duration::from_millis(5), 50);
    let arrived = (0..40).filter(|_| heard(&net, ADMIN, 0, 1).is_some()).count();
    assert!(far.counts().1 > 4 && (8..=32).contains(&arrived), "{arrived} of 40 arrived where half are lost");
    far.set(Duration::ZERO, 0);
    assert!(heard(&net, ADMIN, 1, 0).is_some());
}
