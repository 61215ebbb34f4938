//! Silence: links cut whole or one way, with each `heartbeat_error_action` for two servers without an arbiter.

use crate::harness::client::Style;
use crate::harness::pair::Setup;
use crate::harness::{s, wait_for};
use std::time::{Duration, Instant};

/// Detection at defaults, the time to act, and what a loaded test machine adds.
const LIMIT: Duration = Duration::from_millis(5400 + 800 + 1500);

/// The primary's host falls silent, with `fallback`: the standby acts alone after the detection time. Both have acted
/// when they meet again; the one that was not promoted is stopped, and both say so. The cut host's clients were cut
/// too, so nothing acknowledged is lost.
#[test]
fn primary_host_with_fallback() {
    let pair = Setup::default().conf("heartbeat_error_action = fallback").up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.net.cut(0);
    client.wait_ack(at + s(1), s(20));
    let gap = client.longest_gap(at);
    std::thread::sleep(s(2));
    client.check(&pair, 1, &[0, 1]);
    pair.net.heal(0);
    wait_for("the old primary is stopped", s(15), || (!pair.instance_runs(0)).then_some(()));
    pair.wait_log(0, at, "PANIC", s(10));
    pair.wait_log(1, at, "PANIC", s(10));
    wait_for("one primary", s(10), || {
        let status = pair.status(1)?;
        (status.rows.map(|row| row.role) == ["none(inactivated primary)", "primary"]).then_some(())
    });
    assert!(gap < LIMIT, "outage {gap:?}");
}

/// The safe half `switch`: the standby is promoted on silence, the primary keeps waiting for it, so that it can
/// acknowledge nothing; when the link is back it learns of the new view and is stopped.
#[test]
fn primary_host_with_switch() {
    let pair = Setup::default().conf("heartbeat_error_action = switch").up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.net.cut(0);
    client.wait_ack(at + s(1), s(20));
    let gap = client.longest_gap(at);
    pair.net.heal(0);
    pair.wait_roles(0, "switched", ["none(inactivated primary)", "primary"]);
    client.check(&pair, 1, &[0, 1]);
    assert!(gap < LIMIT, "outage {gap:?}");
}

/// `switch`, and the standby is cut off from all: it is promoted where no client reaches it, and commits wait at the primary.
/// When the network is back, the clients connect to the new primary, and nothing is lost.
#[test]
fn standby_with_switch() {
    let pair = Setup::default().fast_network().conf("heartbeat_error_action = switch").up();
    let client = pair.client(Style::PerHost);
    pair.net.cut(1);
    wait_for("the standby is promoted", s(30), || {
        (pair.sql_beside(1, "SELECT pg_is_in_recovery()").ok()? == "f").then_some(())
    });
    let promoted = Instant::now();
    std::thread::sleep(s(3));
    assert!(!client.acknowledged_since(promoted), "a client was served");
    pair.net.heal(1);
    client.wait_ack_of(&[1], promoted, s(30));
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    client.check(&pair, 1, &[0, 1]);
}

/// The safe half `disconnect`: on silence the primary continues alone, and the standby is never promoted; when the link is
/// back the pair is mirrored again by itself.
#[test]
fn either_host_with_disconnect() {
    let pair = Setup::default().conf("heartbeat_error_action = disconnect").up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.net.cut(1);
    client.wait_ack(at + s(1), s(20));
    let gap = client.longest_gap(at);
    std::thread::sleep(s(2));
    pair.net.heal(1);
    assert_eq!(pair.sql(1, "SELECT pg_is_in_recovery()"), "t");
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
    assert!(gap < LIMIT, "longest wait of a commit {gap:?}");
}

/// The same with an interval of 100 ms, a timeout of 300 ms and one retry: 0.8 s of detection.
#[test]
fn primary_host_with_a_fast_detection() {
    let pair = Setup::default().fast().conf("heartbeat_error_action = switch").up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.net.cut(0);
    client.wait_ack(at + Duration::from_millis(200), s(20));
    let gap = client.longest_gap(at);
    client.check(&pair, 1, &[0, 1]);
    assert!(gap < s(5), "outage {gap:?}");
}

/// A cut shorter than the detection time changes nothing.
#[test]
fn a_short_cut_changes_nothing() {
    let pair = Setup::default().up();
    let client = pair.client(Style::PerHost);
    let view = pair.ledger_of(0);
    pair.net.cut(1);
    std::thread::sleep(s(2));
    pair.net.heal(1);
    client.wait_ack(Instant::now(), s(20));
    std::thread::sleep(s(5));
    pair.wait_word(0, "switchable");
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    client.check(&pair, 0, &[0]);
}

/// What one server sends to the other is lost, while clients reach both. A link counts as up only while both directions
/// work, so both see silence; with `switch` the standby takes over and the primary, which still runs and still has its
/// clients, acknowledges nothing that could be lost.
fn one_way(from: usize) {
    let pair = Setup::default().conf("heartbeat_error_action = switch").up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.net.cut_way(from);
    client.wait_ack(at + s(1), s(25));
    let gap = client.longest_gap(at);
    pair.net.heal_way(from);
    pair.wait_word(0, "switched");
    client.check(&pair, 1, &[0, 1]);
    assert!(gap < LIMIT + s(1), "outage {gap:?}");
}

/// [`one_way`], the primary's messages lost.
#[test]
fn one_way_from_the_primary() {
    one_way(0);
}

/// [`one_way`], the standby's messages lost.
#[test]
fn one_way_from_the_standby() {
    one_way(1);
}
