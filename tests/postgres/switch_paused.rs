//! `mc_ctl switch` while something of the standby is stopped (SIGSTOP). The command fails within about the detection time, the
//! primary serves all the time, and the pair can be switched once the processes continue.

use crate::harness::client::Style;
use crate::harness::host::{Process, signal};
use crate::harness::pair::{Pair, Setup};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Detection at defaults, the time to act, and what a loaded test machine adds.
const LIMIT: Duration = Duration::from_millis(5400 + 1000 + 2000);

/// Stops what `find` returns, tries to switch, lets it continue, and switches.
fn switch_to_a_paused_standby(find: fn(&Pair) -> Vec<Process>) {
    let pair = Setup::default().up();
    pair.wait_word(1, "switchable");
    let client = pair.client(Style::OneSession);
    let primary = pair.postmaster(0).pid;
    let found = find(&pair);
    assert!(!found.is_empty(), "there is nothing to stop");
    let at = Instant::now();
    found.iter().for_each(|process| signal(process.pid, Signal::STOP));
    let answer = pair.mc(0, &["switch"]);
    let took = at.elapsed();
    client.wait_ack(Instant::now(), LIMIT);
    let gap = client.longest_gap(at);
    found.iter().for_each(|process| signal(process.pid, Signal::CONT));
    let text = answer.text();
    assert_eq!(answer.code, 1, "{text}");
    assert!(text.contains("the standby") && text.contains("the primary continues to serve"), "{text}");
    assert!(took < LIMIT, "the command took {took:?}: {text}");
    assert!(gap < LIMIT, "commits waited {gap:?}");
    assert_eq!(pair.postmaster(0).pid, primary, "the primary was stopped");
    [0, 1].iter().for_each(|n| pair.wait_roles(*n, "switchable", ["primary", "standby"]));
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    client.wait_ack(Instant::now(), LIMIT);
    client.check(&pair, 1, &[0, 1]);
}

/// The standby's controller and its watcher.
#[test]
fn controller() {
    switch_to_a_paused_standby(|pair| pair.host(1).controllers());
}

/// The standby's postmaster and all its processes.
#[test]
fn instance() {
    switch_to_a_paused_standby(|pair| {
        let is_instance =
            |process: &Process| process.command.contains("postgres") && !process.command.contains("mc_ctl");
        pair.host(1).processes().into_iter().filter(is_instance).collect()
    });
}

/// The standby's walreceiver alone.
#[test]
fn walreceiver() {
    switch_to_a_paused_standby(|pair| pair.host(1).backend("walreceiver").into_iter().collect());
}
