//! Processes that are stopped but not dead (SIGSTOP), as after a hang of a disk or of a virtual machine.

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::Setup;
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Detection at defaults, the time to act, and what a loaded test machine adds.
const LIMIT: Duration = Duration::from_millis(5400 + 1000 + 2000);

/// A frozen postmaster lets old sessions write and answers no new one. Fresh connections find it within the detection
/// time, and the standby takes over; nothing that the old sessions were acknowledged is lost.
#[test]
fn primary_postmaster() {
    let pair = Setup::default().up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(1));
    let at = Instant::now();
    signal(pair.postmaster(0).pid, Signal::STOP);
    pair.wait_log(1, at, "promotion processing completed (MCA00062)", LIMIT);
    client.wait_ack(Instant::now(), s(10));
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    assert!(!pair.instance_runs(0), "the frozen postmaster is still there");
    client.check(&pair, 1, &[0, 1]);
}

/// A frozen walreceiver: both instances answer, the standby is connected, commits wait. Within the detection time the
/// primary continues alone. When the walreceiver continues, the pair is mirrored again by itself.
#[test]
fn standby_walreceiver() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(1));
    let at = Instant::now();
    let receiver = pair.host(1).backend("walreceiver").expect("a walreceiver runs");
    signal(receiver.pid, Signal::STOP);
    client.wait_ack(at + Duration::from_millis(500), s(20));
    let gap = client.longest_gap(at);
    signal(receiver.pid, Signal::CONT);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
    assert!(gap < LIMIT, "longest wait of a commit {gap:?}");
}

/// A frozen checkpointer does not take up that the names are commented out, so a disconnection has no effect. That is
/// seen (by its effect, not by SHOW), and a message names the checkpointer; once it continues, commits do too.
#[test]
fn primary_checkpointer() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let checkpointer = pair.host(0).backend("checkpointer").expect("a checkpointer runs");
    let at = Instant::now();
    signal(checkpointer.pid, Signal::STOP);
    std::thread::sleep(Duration::from_millis(500));
    pair.kill_postmaster(1);
    pair.wait_log(0, at, "checkpointer", LIMIT + s(3));
    signal(checkpointer.pid, Signal::CONT);
    client.wait_ack(Instant::now(), s(15));
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// A frozen controller on the primary: its watcher starts a new one after `agent_alive_timeout`; meanwhile the standby
/// sees that WAL still flows and does nothing, and clients notice nothing.
#[test]
fn primary_controller() {
    let pair = Setup::default().up();
    let client = pair.client(Style::PerHost);
    let view = pair.ledger_of(0);
    let controller = pair.controller(0);
    let at = Instant::now();
    signal(controller.pid, Signal::STOP);
    wait_for("the watcher starts another controller", s(25), || {
        pair.host(0).controllers().last().filter(|c| c.pid != controller.pid).map(|_| ())
    });
    wait_for("the controller answers", s(10), || pair.status(0));
    pair.run_explained(0, at, 1103);
    pair.wait_word(0, "switchable");
    pair.wait_word(1, "switchable");
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    client.check(&pair, 0, &[0]);
}

/// `mc_ctl status` answers at once whatever is broken: the own instance frozen, the other host silent, the disk busy.
#[test]
fn status_answers_whatever_is_broken() {
    let pair = Setup::default().up();
    signal(pair.postmaster(0).pid, Signal::STOP);
    pair.net.cut(1);
    let end = Instant::now() + s(8);
    while Instant::now() < end {
        let answer = pair.mc_once(0, &["status"]).expect(0, "mc_ctl status");
        assert!(answer.took < Duration::from_millis(500), "{:?}", answer.took);
        std::thread::sleep(Duration::from_millis(300));
    }
}
