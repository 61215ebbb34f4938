//! The user's commands before a change of view: `fencing_command` on a server and on the arbiter, `arbitration_command`,
//! with real scripts; and a primary that stops itself where it is cut off (`isolated_primary_action`).

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::script::Script;
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::time::{Duration, Instant};

fn fast() -> Setup {
    Setup::default().arbiter().fast_network()
}

/// A pair with a fencing command on both servers and on the arbiter; not started.
fn fenced(then: [&str; 3]) -> (Pair, [Script; 3]) {
    let pair = fast().arbiter_line("fencing_command_timeout = 1").conf("fencing_command_timeout = 1").make();
    let scripts = [
        Script::new(pair.host(0), "fence", then[0]),
        Script::new(pair.host(1), "fence", then[1]),
        Script::new(pair.third(), "fence", then[2]),
    ];
    for n in [0, 1] {
        pair.server_line(n, &scripts[n].line("fencing_command"));
    }
    pair.arbiter_line(&scripts[2].line("fencing_command"));
    (pair, scripts)
}

/// The primary falls silent for all: the standby fences it before it asks, the arbiter before it grants; each once, with
/// the contract's arguments and environment.
#[test]
fn fencing_before_a_switch() {
    let (pair, scripts) = fenced(["exit 0"; 3]);
    pair.bring_up();
    let client = pair.client(Style::Everywhere);
    let term = pair.view(1).expect("a view")["term"].to_string();
    pair.net.cut(0);
    client.wait_ack_of(&[1], Instant::now(), s(10));
    assert_eq!(scripts[1].arguments(), ["monitor switch nd2 nd1 primarycenter"]);
    assert_eq!(scripts[2].arguments(), ["monitor switch arb nd1 primarycenter"]);
    let call = &scripts[1].calls()[0];
    assert_eq!((&call[1], call[3].as_str(), call[4].as_str()), (&term, pair.data(1), "/"));
    assert!(!call[2].is_empty() && !scripts[2].calls()[0][2].is_empty(), "MC_REASON: {call:?}");
    assert_eq!(scripts[2].calls()[0][1], term);
    pair.net.heal(0);
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    client.check(&pair, 1, &[0, 1]);
}

/// The standby falls silent for all: the primary fences it, then the arbiter does (unless it has itself heard the standby
/// within the detection time), then the primary continues alone.
#[test]
fn fencing_before_a_disconnection() {
    let (pair, scripts) = fenced(["exit 0"; 3]);
    pair.bring_up();
    let client = pair.client(Style::Everywhere);
    pair.net.cut(1);
    client.wait_ack(Instant::now() + s(1), s(10));
    assert_eq!(scripts[0].arguments(), ["monitor detach nd1 nd2 primarycenter"]);
    let arbiters = scripts[2].arguments();
    assert!(arbiters.iter().all(|call| call == "monitor detach arb nd2 primarycenter"), "{arbiters:?}");
    pair.net.heal(1);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// A cut between the two servers alone fences nobody that serves.
#[test]
fn no_fencing_of_a_primary_that_the_arbiter_hears() {
    let (pair, scripts) = fenced(["exit 0"; 3]);
    pair.bring_up();
    let client = pair.client(Style::Everywhere);
    pair.net.cut_between(0, 1);
    client.wait_ack(Instant::now() + s(2), s(10));
    std::thread::sleep(s(2));
    assert!(scripts[1].calls().is_empty(), "the primary was to be fenced: {:?}", scripts[1].arguments());
    pair.net.heal_between(0, 1);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// Fencing fails (exit 1) on the standby, or hangs past its limit: nothing is changed, and the message says why; once it
/// succeeds, the standby takes over.
fn fencing_fails(where_: usize, then: &str) {
    let mut bodies = ["exit 0"; 3];
    bodies[where_] = then;
    let (pair, scripts) = fenced(bodies);
    pair.bring_up();
    let client = pair.client(Style::Everywhere);
    let at = Instant::now();
    pair.net.cut(0);
    let told = if where_ == 2 { &pair.third().syslog } else { &pair.host(1).syslog };
    wait_for("the message that fencing has failed", s(10), || told.find(at, "MCA01036"));
    std::thread::sleep(s(3));
    assert_eq!(pair.sql(1, "SELECT pg_is_in_recovery()"), "t", "promoted though fencing failed");
    let line = pair.explained(1, 1036);
    pair.paste(1, &line).expect(0, &line);
    assert_eq!(scripts[where_].calls().len(), 1, "called again at once: {:?}", scripts[where_].arguments());
    let hosts = [pair.host(1), pair.third()];
    let left: Vec<_> = hosts.iter().flat_map(|h| h.processes()).filter(|p| p.command == "sleep 77").collect();
    assert!(left.is_empty(), "what hung was not ended: {left:?}");
    scripts[where_].set("exit 0");
    client.wait_ack_of(&[1], Instant::now(), s(20));
    pair.net.heal(0);
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    client.check(&pair, 1, &[0, 1]);
}

/// [`fencing_fails`] on the standby.
#[test]
fn fencing_fails_on_the_standby() {
    fencing_fails(1, "exit 1");
}

/// [`fencing_fails`] on the arbiter, by hanging, with a child that ignores SIGTERM.
#[test]
fn fencing_hangs_on_the_arbiter() {
    fencing_fails(2, "trap '' TERM; sleep 77 & wait; sleep 77");
}

/// Without an arbiter's answer an operator may force a switch: the server fences first (`command switch`), and with
/// `--no-fencing` it does not.
#[test]
fn forced_switch_with_and_without_fencing() {
    let (pair, scripts) = fenced(["exit 1", "exit 1", "exit 0"]);
    pair.bring_up();
    let client = pair.client(Style::Everywhere);
    let at = Instant::now();
    pair.net.cut(0);
    pair.net.cut(2);
    pair.wait_log(1, at, "MCA00019", s(10));
    std::thread::sleep(s(2));
    assert_eq!(pair.sql(1, "SELECT pg_is_in_recovery()"), "t", "promoted without the arbiter");
    let refused = pair.mc(1, &["switch", "--force", "--yes"]).expect(1, "mc_ctl switch --force, fencing fails");
    assert!(refused.text().contains("fenc"), "{}", refused.text());
    assert_eq!(scripts[1].arguments(), ["command switch nd2 nd1 primarycenter"]);
    pair.mc(1, &["switch", "--force", "--no-fencing", "--yes"]).expect(0, "mc_ctl switch --force --no-fencing");
    assert_eq!(scripts[1].calls().len(), 1, "{:?}", scripts[1].arguments());
    client.wait_ack_of(&[1], Instant::now(), s(5));
    pair.net.heal(2);
    pair.net.heal(0);
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    client.check(&pair, 1, &[0, 1]);
}

/// The same for a primary whose standby and arbiter are both silent: `command detach`, then it continues alone.
#[test]
fn forced_detach_with_fencing() {
    let (pair, scripts) = fenced(["exit 0"; 3]);
    pair.bring_up();
    let client = pair.client(Style::Everywhere);
    let at = Instant::now();
    pair.net.cut(1);
    pair.net.cut(2);
    pair.wait_log(0, at, "MCA00019", s(10));
    std::thread::sleep(s(2));
    let begin = Instant::now();
    pair.mc(0, &["detach", "--force", "--yes"]).expect(0, "mc_ctl detach --force");
    assert_eq!(scripts[0].arguments(), ["command detach nd1 nd2 primarycenter"]);
    client.wait_ack_of(&[0], begin, s(5));
    pair.net.heal(2);
    pair.net.heal(1);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// `heartbeat_error_action = command`: the script on each side decides. That of the standby says that the primary is
/// dead (it is cut off), that of the primary says no.
#[test]
fn arbitration_command_decides() {
    let pair = Setup::default().fast().conf("heartbeat_error_action = command").make();
    let scripts = [("exit 1", 0), ("exit 0", 1)].map(|(then, n)| Script::new(pair.host(n), "arbitrate", then));
    for n in [0, 1] {
        pair.server_line(n, &scripts[n].line("arbitration_command"));
    }
    pair.bring_up();
    let client = pair.client(Style::Everywhere);
    pair.net.cut(0);
    client.wait_ack_of(&[1], Instant::now(), s(10));
    assert_eq!(scripts[1].arguments(), ["nd2 nd1 primarycenter"]);
    wait_for("the primary's script is asked", s(5), || (!scripts[0].calls().is_empty()).then_some(()));
    assert_eq!(scripts[0].arguments()[0], "nd1 nd2 primarycenter");
    assert_eq!(scripts[1].calls()[0][3], pair.data(1));
    pair.net.heal(0);
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    client.check(&pair, 1, &[0, 1]);
}

/// Reads beside the primary that is cut from all, until they are refused; `None` if they continue.
fn reads_end(pair: &Pair, at: Instant, limit: Duration) -> Option<Duration> {
    while at.elapsed() < limit {
        if pair.sql_beside(0, "SELECT count(*) FROM written").is_err() {
            return Some(at.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// `isolated_primary_action = stop`: a primary that hears neither the standby nor the arbiter for twice the detection time
/// lets no client read old rows.
#[test]
fn isolated_primary_stops() {
    let pair = fast().conf("isolated_primary_action = stop").up();
    let client = pair.client(Style::Everywhere);
    let at = Instant::now();
    pair.net.cut(0);
    let ended = reads_end(&pair, at, s(10)).expect("reads continue at a primary that is cut off");
    assert!(ended >= Duration::from_millis(800) && ended < Duration::from_millis(1600) + s(3), "after {ended:?}");
    client.wait_ack_of(&[1], Instant::now(), s(10));
    // "mc_ctl detach --force" would split the pair here.
    wait_for("the primary names how to find out before force is used", s(20), || {
        let hint = pair.mc(0, &["status"]).err;
        let cut_off = hint.contains("this server is cut off and its instance was stopped");
        (cut_off && hint.contains("\"mc_arb status\"") && hint.contains("do not use force")).then_some(())
    });
    pair.net.heal(0);
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    wait_for("the old primary is down", s(10), || (!pair.instance_runs(0)).then_some(()));
    client.check(&pair, 1, &[0, 1]);
}

/// The same where nobody has taken over, since the standby was cut off too: the primary starts its instance again when it
/// hears the arbiter, continues alone, and is mirrored when the standby is heard as well.
#[test]
fn isolated_primary_starts_again() {
    let pair = fast().conf("isolated_primary_action = stop").up();
    let client = pair.client(Style::Everywhere);
    let at = Instant::now();
    pair.net.cut(0);
    pair.net.cut(1);
    reads_end(&pair, at, s(10)).expect("reads continue at a primary that is cut off");
    std::thread::sleep(s(2));
    assert!(!pair.instance_runs(0), "started again though it hears nobody");
    pair.net.heal(0);
    client.wait_ack_of(&[0], Instant::now(), s(20));
    pair.net.heal(1);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// Only the controller and the watcher of the standby have ended. Its instance follows the primary, which is not cut off, and
/// continues.
#[test]
fn primary_that_is_followed_does_not_stop() {
    let setup = Setup::default().fast_network().conf("isolated_primary_action = stop");
    let pair = setup.conf("heartbeat_error_action = switch").up();
    let client = pair.client(Style::PerHost);
    for process in pair.host(1).controllers() {
        signal(process.pid, Signal::KILL);
    }
    std::thread::sleep(s(15));
    client.wait_ack(Instant::now(), s(5));
    pair.start(1, &["-f"]);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// `wait`, the default: reads continue, commits wait.
#[test]
fn isolated_primary_waits() {
    let pair = fast().up();
    let client = pair.client(Style::Everywhere);
    let at = Instant::now();
    pair.net.cut(0);
    assert_eq!(reads_end(&pair, at, s(6)), None, "reads ended at a primary that was to wait");
    client.wait_ack_of(&[1], Instant::now(), s(10));
    pair.net.heal(0);
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    client.check(&pair, 1, &[0, 1]);
}
