//! The hooks: `post_switch_command`, `pre_detach_command`, `post_attach_command`, with real scripts, under a client that
//! remembers every acknowledged row. Those that hang, fail or are missing delay and change nothing.

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::script::Script;
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::time::Instant;

const HOOKS: [&str; 3] = ["post_switch", "pre_detach", "post_attach"];

/// A pair whose servers call these three, in this order; not started. By server, then by hook.
fn with_hooks(setup: Setup, then: &str) -> (Pair, [[Script; 3]; 2]) {
    let pair = setup.make();
    let scripts = [0, 1].map(|n| HOOKS.map(|hook| Script::new(pair.host(n), hook, then)));
    for (n, scripts) in scripts.iter().enumerate() {
        for (hook, script) in HOOKS.iter().zip(scripts) {
            pair.server_line(n, &script.line(&format!("{hook}_command")));
        }
    }
    (pair, scripts)
}

/// Waits until it was called so often, and answers its arguments, each time.
#[track_caller]
fn called(script: &Script, times: usize) -> Vec<String> {
    wait_for(&format!("call {times} of the command"), s(30), || (script.calls().len() >= times).then_some(()));
    script.arguments()
}

/// First mirrored, switched by a crash, rebuilt, detached: who is called, with what, and how often.
#[test]
fn who_is_called_and_with_what() {
    let (pair, scripts) = with_hooks(Setup::default().fast_network(), "exit 0");
    pair.bring_up();
    let [[switched, detached, attached], [switched_2, detached_2, attached_2]] = &scripts;
    assert_eq!(called(attached, 1), ["nd1 primary nd2 primarycenter"]);
    assert_eq!(called(attached_2, 1), ["nd2 standby nd2 primarycenter"]);

    let client = pair.client(Style::Everywhere);
    let at = pair.kill_postmaster(0);
    client.wait_ack_of(&[1], at, s(20));
    assert_eq!(called(switched_2, 1), ["nd2 primarycenter"]);
    let term = pair.ledger_of(1);
    let call = &switched_2.calls()[0];
    assert_eq!((&call[1], call[3].as_str(), call[4].as_str()), (&term, pair.data(1), "/"));
    assert!(!call[2].is_empty(), "MC_REASON: {call:?}");
    assert_eq!(pair.sql(1, "SELECT pg_is_in_recovery()"), "f", "called before it took writes");

    pair.mc(0, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
    assert_eq!(called(attached, 2)[1..], ["nd1 standby nd1 primarycenter"]);
    assert_eq!(called(attached_2, 2)[1..], ["nd2 primary nd1 primarycenter"]);
    pair.mc(1, &["detach"]).expect(0, "mc_ctl detach");
    assert_eq!(called(detached, 1), ["nd1 standby nd1 primarycenter"]);
    assert_eq!(called(detached_2, 1), ["nd2 primary nd1 primarycenter"]);

    // neither a stop and start of the controller alone, nor its end and restart by the watcher, calls anything
    pair.mc(1, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
    pair.start(1, &["--mc-only", "-f"]);
    let before = pair.controller(1).pid;
    signal(before, Signal::KILL);
    wait_for("another controller", s(20), || pair.host(1).controllers().iter().all(|p| p.pid != before).then_some(()));
    pair.wait_roles(1, "not-switchable", ["standby", "primary"]);
    std::thread::sleep(s(2));
    let counts = [switched, detached, attached, switched_2, detached_2, attached_2].map(|script| script.calls().len());
    assert_eq!(counts, [0, 1, 2, 1, 1, 2]);
    client.check(&pair, 1, &[0, 1]);
}

/// An operator's disconnection waits for the primary's command, and commits continue meanwhile; that it fails changes nothing.
#[test]
fn a_detach_waits_for_its_hook() {
    let (pair, scripts) = with_hooks(Setup::default().fast_network(), "exit 0");
    pair.bring_up();
    scripts[0][1].set("sleep 3; psql -XAt -h 192.0.2.100 -U postgres -c 'SHOW synchronous_standby_names'; exit 7");
    let client = pair.client(Style::Everywhere);
    let at = Instant::now();
    pair.mc(0, &["detach"]).expect(0, "mc_ctl detach");
    let took = at.elapsed();
    assert!(took >= s(3), "detached after {took:?}, before the command had ended");
    client.wait_ack(Instant::now(), s(10));
    let said = wait_for("the disconnection is told", s(10), || {
        let said = pair.host(0).syslog.since(at);
        said.iter().any(|(_, line)| line.contains("MCA01012")).then_some(said)
    });
    let place = |text: &str| said.iter().position(|(_, line)| line.contains(text));
    // what the script has read, its failure, the effect
    let order = [place(": nd2 (MCA01112)"), place("MCA01051"), place("MCA01012")];
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} in {said:#?}");
    let advice = pair.json(0).expect("a status")["advice"].to_string();
    assert!(advice.contains("pre_detach_command has failed"), "{advice}");
    client.check(&pair, 0, &[0]);
}

/// Commands that hang, with children: the standby's while the primary dies, then the new primary's own. Neither the
/// promotion nor service waits, and nothing of them is left.
#[test]
fn hooks_that_hang_delay_nothing() {
    let setup = Setup::default().fast_network().conf("status_change_command_timeout = 5");
    let (pair, scripts) = with_hooks(setup, "sleep 1234 & sleep 1234");
    let at = Instant::now();
    pair.bring_up();
    // killed at their limit: the first of all, on both
    for n in [0, 1] {
        pair.wait_log(n, at, "MCA01051", s(30));
    }
    let client = pair.client(Style::Everywhere);
    let at = pair.kill_postmaster(0);
    client.wait_ack_of(&[1], at, s(20));
    called(&scripts[1][0], 1);
    let advice = || pair.json(1).expect("a status")["advice"].to_string();
    wait_for("the advice", s(30), || advice().contains("post_switch_command has failed").then_some(()));
    let left = || pair.host(1).processes().into_iter().filter(|p| p.command.contains("sleep 1234")).collect::<Vec<_>>();
    assert!(left().is_empty(), "{:?}", left());
    assert_eq!(pair.status(1).expect("a status").word, "switched");
    client.check(&pair, 1, &[0, 1]);
}

/// What the standby is still being told of is past when the primary dies: that command is ended, and the new one is called at
/// once. An ordered stop of the controller leaves nothing behind either.
#[test]
fn a_hook_whose_news_is_past_is_ended() {
    let (pair, scripts) = with_hooks(Setup::default().fast_network(), "exit 0");
    scripts[1][2].set("sleep 1234 & sleep 1234");
    pair.bring_up();
    called(&scripts[1][2], 1);
    let client = pair.client(Style::Everywhere);
    let at = pair.kill_postmaster(0);
    client.wait_ack_of(&[1], at, s(20));
    pair.wait_log(1, at, "MCA01050", s(20));
    assert_eq!(called(&scripts[1][0], 1), ["nd2 primarycenter"]);
    let left = pair.host(1).processes().into_iter().any(|p| p.command.contains("sleep 1234"));
    assert!(!left, "the command was ended, and something of it runs");
    client.check(&pair, 1, &[0, 1]);
}

/// A file that is missing, or cannot be executed, is an error at the start that names file and line.
#[test]
fn a_hook_that_is_missing_is_an_error_at_the_start() {
    let pair = Setup::default().make();
    pair.server_line(0, "post_switch_command = '/nonexistent/post_switch'");
    let said = pair.mc(0, &["start", "-w"]).expect(2, "mc_ctl start without the command").text();
    for part in ["nd1.conf\", line 2", "post_switch_command", "/nonexistent/post_switch"] {
        assert!(said.contains(part), "\"{part}\" is missing in: {said}");
    }
    assert!(!pair.instance_runs(0));
}

/// The new primary's controller is killed when the promotion begins: the next one finishes it, and calls the command. It is
/// killed again while the command runs: it is called again. Once it has ended, no restart calls it.
#[test]
fn killed_between_promotion_and_hook() {
    let (pair, scripts) = with_hooks(Setup::default().fast_network(), "exit 0");
    let post_switch = &scripts[1][0];
    post_switch.set("sleep 1234");
    pair.bring_up();
    let client = pair.client(Style::Everywhere);
    let kill = || {
        signal(pair.controller(1).pid, Signal::KILL);
        Instant::now()
    };
    let at = pair.kill_postmaster(0);
    pair.wait_log(1, at, "MCA01011", s(20));
    for _ in 0..2 {
        let killed = kill();
        pair.wait_log(1, killed, "calling post_switch_command", s(30));
        client.wait_ack_of(&[1], killed, s(30));
    }
    post_switch.set("exit 0");
    let killed = kill();
    pair.wait_log(1, killed, "post_switch_command has succeeded", s(30));
    let ledger = pair.run_dir(1).join("ledger");
    let noted = || std::fs::read_to_string(&ledger).is_ok_and(|text| text.contains("\"switched\":0"));
    wait_for("the note of it", s(30), || noted().then_some(()));
    let times = post_switch.calls().len();
    kill();
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    std::thread::sleep(s(3));
    let calls = post_switch.arguments();
    assert!(calls.len() == times && calls.iter().all(|call| call == "nd2 primarycenter"), "{calls:?}");
    client.check(&pair, 1, &[0, 1]);
}
