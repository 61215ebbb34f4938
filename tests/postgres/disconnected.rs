//! A disconnected standby: both servers show by what and since when, and the command that attaches it again.

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::remedy::commands;
use crate::harness::run::Answer;
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::time::Instant;

fn json(pair: &Pair, server: usize) -> Value {
    wait_for("a status is shown", s(10), || {
        serde_json::from_str(&pair.mc(server, &["status", "--format", "json"]).out).ok()
    })
}

/// Waits until the server shows the disconnection.
#[track_caller]
fn wait_disconnection(pair: &Pair, server: usize, by_operator: bool) -> Value {
    wait_for("the disconnection is shown", s(30), || {
        let shown = json(pair, server)["disconnection"].clone();
        (shown["by_operator"] == by_operator && shown["server_id"] == "nd2").then_some(shown)
    })
}

#[test]
fn a_detached_standby_says_so() {
    let pair = Setup::default().up();
    assert_eq!(json(&pair, 1)["disconnection"], Value::Null);
    pair.mc(0, &["detach"]).expect(0, "mc_ctl detach");
    for server in [1, 0] {
        let shown = wait_disconnection(&pair, server, true);
        assert!(shown["seconds"].as_u64().is_some(), "{shown}");
        let command = "run \"mc_ctl start -f\" on server \"nd2\" to attach it again";
        let answer = pair.mc(server, &["status"]).expect(0, "mc_ctl status");
        assert!(answer.out.contains("\nWARNING: standby \"nd2\" was detached by an operator "), "{}", answer.text());
        assert!(answer.err.contains(command), "{}", answer.text());
        let answer = pair.mc(server, &["status", "--check"]);
        assert!(answer.code == 2 && answer.out.contains("was detached by an operator"), "{}", answer.text());
        assert!(answer.out.contains(command), "{}", answer.text());
    }
    // The command works as printed.
    pair.mc(1, &["start", "-w"]).expect(0, "mc_ctl start");
    pair.wait_word(1, "switchable");
    copied_again(&pair);
    pair.mc(0, &["detach"]).expect(0, "mc_ctl detach");
    wait_disconnection(&pair, 1, true);
    copied_again(&pair);
    for server in [0, 1] {
        wait_for("nothing is shown", s(20), || json(&pair, server)["disconnection"].is_null().then_some(()));
        pair.mc(server, &["status", "--check"]).expect(0, "mc_ctl status --check");
    }
}

/// A rebuild of a standby that streams is refused, and so is its plan. The printed commands copy the data again.
#[track_caller]
fn copied_again(pair: &Pair) {
    let before = pair.beside(1).len();
    let refused = pair.mc(1, &["rebuild", "--method", "basebackup", "--yes"]).expect(4, "mc_ctl rebuild of a standby");
    let plan = pair.mc(1, &["rebuild", "--method", "basebackup", "--dry-run"]).expect(4, "its plan");
    let last = |answer: &Answer| answer.err.lines().rev().take(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(last(&plan), last(&refused));
    let hint = refused.err.lines().find(|line| line.starts_with("HINT: ")).unwrap_or_default();
    let lines = commands(hint);
    assert_eq!(lines, ["mc_ctl stop", "mc_ctl rebuild --method basebackup"], "{}", refused.text());
    for line in lines {
        pair.paste(1, &line).expect(0, &line);
    }
    pair.wait_word(0, "switchable");
    assert_eq!(pair.beside(1).len(), before + 1, "nothing was copied");
}

/// The primary disconnects a standby that does not receive WAL; the reason is shown, and nothing has to be done.
#[test]
fn a_disconnected_standby_says_so() {
    let pair = Setup::default().up();
    let receiver = pair.host(1).backend("walreceiver").expect("a WAL receiver").pid;
    let client = pair.client(Style::OneSession);
    signal(receiver, Signal::STOP);
    for server in [1, 0] {
        let shown = wait_disconnection(&pair, server, false);
        let text = shown["text"].as_str().unwrap_or_default();
        assert!(
            text.contains("standby \"nd2\" was disconnected ") && text.contains("does not stream or flush"),
            "{shown}"
        );
    }
    signal(receiver, Signal::CONT);
    pair.wait_word(1, "switchable");
    client.wait_ack(Instant::now(), s(10));
    assert_eq!(json(&pair, 1)["disconnection"], Value::Null);
}

/// Hints of the status, soon.
#[track_caller]
fn wait_hint(pair: &Pair, server: usize, text: &str) {
    wait_for(&format!("the hint of server {server}: {text}"), s(60), || {
        pair.mc(server, &["status"]).err.contains(text).then_some(())
    });
}

/// The arbiter reaches both servers, and they do not reach each other: each names the server, the network and the command.
#[test]
fn a_cut_between_the_servers_is_named() {
    let pair = Setup::default().arbiter().up();
    pair.net.cut_between(0, 1);
    pair.wait_word(0, "not-switchable");
    for (n, other) in [(0, "nd2"), (1, "nd1")] {
        let network = format!(
            "server \"{other}\" does not respond: if its controller is running, repair the network between the servers; if it is \
             not running, run \"mc_ctl start -f\" on server \"{other}\"; standby \"nd2\" is attached again when it streams"
        );
        wait_hint(&pair, n, &network);
    }
}

#[test]
fn the_next_step_after_a_takeover_is_named() {
    let mut pair = Setup::default().up();
    pair.host_mut(0).power_off();
    wait_hint(&pair, 1, "when server \"nd1\" is back, run \"mc_ctl rebuild\" on it");
}
