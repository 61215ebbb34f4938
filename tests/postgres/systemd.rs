//! systemd as it runs: the sample units, and the procedures of mirroring-controller(7) in their `systemctl` form, on hosts whose
//! first process is systemd.

use crate::harness::client::{Client, Style};
use crate::harness::host::signal;
use crate::harness::names::NameService;
use crate::harness::net::ADDRESSES;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::{Answer, Beside, run};
use crate::harness::script::Script;
use crate::harness::systemd::{ARBITER, CONTROLLER};
use crate::harness::{bin_dir, s, wait_for};
use crate::manual_blocks::{Line, MANUAL, block, lines};
use crate::password::{guarded, new_password};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a state may take, on a loaded test machine.
const SOON: Duration = Duration::from_secs(60);

/// What the journal has after too many starts.
const GIVEN_UP: &str = "Start request repeated too quickly";

/// Runs a line of the manual. What the reader does by hand is left to the test.
#[track_caller]
fn type_line(pair: &Pair, line: &Line) -> Option<Answer> {
    let host = pair.on(line.host);
    if line.text.contains("status --watch") {
        pair.wait_word(line.host, "switchable");
        return None;
    }
    let by_hand = line.text.starts_with("...") || line.text.starts_with("vi ");
    (!by_hand).then(|| if line.root { host.type_root(&line.text) } else { host.type_admin(&line.text) })
}

/// Runs the block of the manual after this text; each command must succeed. The test does what stands for "...".
#[track_caller]
fn follow(pair: &mut Pair, after: &str, by_hand: impl Fn(&mut Pair, usize)) {
    for line in lines(&block(MANUAL, after)) {
        match type_line(pair, &line) {
            Some(answer) => _ = answer.expect(0, &line.text),
            None if line.text.starts_with("...") => by_hand(pair, line.host),
            None => (),
        }
    }
}

/// The same, without anything to do by hand.
#[track_caller]
fn type_block(pair: &Pair, after: &str) {
    for line in lines(&block(MANUAL, after)) {
        type_line(pair, &line).map(|answer| answer.expect(0, &line.text));
    }
}

/// The same on this member, whatever the prompt.
#[track_caller]
fn type_on(pair: &Pair, member: usize, after: &str) {
    for line in lines(&block(MANUAL, after)) {
        let line = Line { host: member, ..line };
        type_line(pair, &line).map(|answer| answer.expect(0, &line.text));
    }
}

#[track_caller]
fn root(pair: &Pair, member: usize, line: &str) -> Answer {
    pair.on(member).type_root(line).expect(0, line)
}

#[track_caller]
fn admin(pair: &Pair, member: usize, line: &str) -> Answer {
    pair.on(member).type_admin(line).expect(0, line)
}

/// A new pair, which only units have started.
fn enabled(pair: &Pair) {
    for (member, unit) in [(2, ARBITER), (0, CONTROLLER), (1, CONTROLLER)] {
        root(pair, member, &format!("systemctl enable --now {unit}"));
    }
    pair.wait_word(0, "switchable");
    pair.wait_arbiter_named();
}

/// No client has noticed what was done since then.
#[track_caller]
fn unnoticed(pair: &Pair, client: &Client, at: Instant) {
    [0, 1].into_iter().for_each(|n| _ = pair.wait_word(n, "switchable"));
    client.wait_ack(Instant::now(), s(20));
    let gap = client.longest_gap(at);
    assert!(gap < s(2), "commits waited {gap:?}");
}

/// What the instance's control file says of an instance that is down.
fn cluster_state(pair: &Pair, server: usize) -> String {
    let mut command = Command::new(bin_dir().join("pg_controldata"));
    command.arg(pair.data(server));
    let out = run(command, s(10)).expect(0, "pg_controldata").out;
    let state = out.lines().find_map(|line| line.strip_prefix("Database cluster state:"));
    state.expect("a state").trim().to_owned()
}

/// Its instance is down cleanly meanwhile.
#[track_caller]
fn reboot(pair: &mut Pair, member: usize) {
    pair.on(member).type_root("systemctl reboot");
    wait_off(pair, member);
    pair.on_mut(member).boot();
}

#[track_caller]
fn wait_off(pair: &mut Pair, member: usize) {
    pair.on_mut(member).wait_off();
    if member < 2 {
        let state = cluster_state(pair, member);
        assert!(["shut down", "shut down in recovery"].contains(&state.as_str()), "host {member}: {state}");
    }
}

/// The pair is handed over to systemd, and is then operated as the manual says.
#[test]
fn procedures() {
    let pair = guarded(Setup::default().systemd());
    let client = pair.client(Style::PerHost);
    let at = Instant::now();
    type_block(&pair, ".Ss Starting at boot\n");
    unnoticed(&pair, &client, at);
    for (member, unit, text) in [(0, CONTROLLER, "switchable, primary"), (1, CONTROLLER, "switchable, standby")] {
        pair.on(member).wait_property(unit, "StatusText", text);
    }
    let shown = root(&pair, 0, "systemctl status mirroring-controller").out;
    assert!(shown.contains("Status: \"switchable, primary\"") && shown.contains("(MCA01100)"), "{shown}");
    root(&pair, 2, "systemctl is-active mirroring-arbiter");

    // the password
    pair.sql(0, "ALTER ROLE mc PASSWORD 'second'");
    wait_for("the hint names systemctl", SOON, || {
        let text = pair.on(1).type_admin("mc_ctl status").err;
        text.contains("\"systemctl reload mirroring-controller\"").then_some(())
    });
    for n in [0, 1] {
        new_password(&pair, n, "second");
        root(&pair, n, "systemctl reload mirroring-controller");
    }
    for n in [0, 1] {
        wait_for("status --check is OK", SOON, || {
            (pair.on(n).type_admin("mc_ctl status --check").code == 0).then_some(())
        });
    }
    pair.server_line(0, "mistake = 1");
    let answer = pair.on(0).type_root("systemctl reload mirroring-controller");
    let journal = pair.on(0).journal(CONTROLLER);
    assert!(answer.code != 0 && journal.contains("unknown parameter \"mistake\""), "{}{journal}", answer.text());
    assert!(pair.on(0).property(CONTROLLER, "ActiveState") == "active");
    root(&pair, 0, "sed -i /mistake/d /srv/mc/nd1.conf");

    // the controller alone
    type_block(&pair, "To restart the controller alone, run:");
    type_block(&pair, "Wait for\n.Ql switchable\nbefore each step.");
    let restarts = pair.on(0).property(CONTROLLER, "NRestarts");
    signal(pair.controller(0).pid, Signal::KILL);
    wait_for("systemd restarts it", SOON, || (pair.on(0).property(CONTROLLER, "NRestarts") != restarts).then_some(()));
    pair.on(0).wait_property(CONTROLLER, "SubState", "running");
    unnoticed(&pair, &client, at);
    admin(&pair, 1, "mc_ctl stop -e");
    pair.on(1).wait_property(CONTROLLER, "NRestarts", "1");
    unnoticed(&pair, &client, at);

    // a standby that is stopped, and the hint of what is not running
    admin(&pair, 1, "mc_ctl stop");
    assert!(!pair.instance_runs(1));
    assert_eq!(pair.on(1).property(CONTROLLER, "ActiveState"), "inactive");
    let answer = pair.on(1).type_admin("mc_ctl status").expect(3, "mc_ctl status");
    assert!(answer.err.contains("\"systemctl start mirroring-controller\""), "{}", answer.text());
    root(&pair, 1, "systemctl start mirroring-controller");
    unnoticed(&pair, &client, at);

    // the instance was started by the unit, and outlives the controllers of the unit
    let postmaster = pair.postmaster(1).pid;
    let group = std::fs::read_to_string(format!("/proc/{postmaster}/cgroup")).expect("readable");
    assert!(group.trim().ends_with("/mirroring-controller.service"), "{group}");
    let restarted = Instant::now();
    admin(&pair, 1, "mc_ctl stop --mc-only");
    root(&pair, 1, "systemctl start mirroring-controller");
    // without contact to the standby the primary would stop without a switch
    pair.wait_log(0, restarted, "connected with \"nd2\" (MCA01107)", SOON);
    assert!(pair.on(1).journal(CONTROLLER).contains("Found left-over process"));
    assert_eq!(pair.postmaster(1).pid, postmaster);
    unnoticed(&pair, &client, at);

    // a restart of the unit switches
    root(&pair, 0, "systemctl restart mirroring-controller");
    assert!(pair.status(0).is_some());
    client.wait_ack_of(&[1], Instant::now(), s(30));
    admin(&pair, 0, "mc_ctl rebuild");
    pair.wait_word(1, "switchable");
    type_block(&pair, ".Ss Maintenance of both hosts\n");
    pair.wait_word(1, "switchable");
    client.wait_ack(Instant::now(), s(30));
    client.check(&pair, 1, &[0, 1]);
}

/// What stands in the journal, and what systemd does, if a start fails.
#[test]
fn a_start_that_fails() {
    let pair = Setup::default().systemd().make();
    enabled(&pair);
    // nd2 takes over
    root(&pair, 0, "systemctl stop mirroring-controller");
    let failed = |status: &str| {
        let answer = pair.on(0).type_root("systemctl start mirroring-controller");
        assert!(answer.code != 0, "{}", answer.text());
        assert_eq!(pair.on(0).property(CONTROLLER, "ActiveState"), "failed");
        assert_eq!(pair.on(0).property(CONTROLLER, "ExecMainStatus"), status);
        pair.on(0).journal(CONTROLLER)
    };
    pair.server_line(0, "mistake = 1");
    let journal = failed("2");
    let message = "file \"/srv/mc/nd1.conf\", line 2: unknown parameter \"mistake\"";
    assert!(journal.contains(message) && journal.contains("status=2/INVALIDARGUMENT"), "{journal}");
    let shown: Vec<_> =
        lines(&block(MANUAL, ".Ss The controller does not start\n")).iter().flat_map(|l| type_line(&pair, l)).collect();
    let codes: Vec<_> = shown.iter().map(|answer| answer.code).collect();
    assert!(codes[..3] == [3, 0, 0] && codes[3] != 0, "{codes:?}");
    assert!([0, 1, 3].iter().all(|&n| shown[n].text().contains(message)), "{shown:?}");
    root(&pair, 0, "sed -i /mistake/d /srv/mc/nd1.conf");
    type_block(&pair, "within five minutes.\nRepair the cause, then run:");

    // one that runs already, outside of the unit
    admin(&pair, 0, "mc_ctl stop --mc-only");
    admin(&pair, 0, "mc_ctl start --mc-only -f");
    let journal = failed("4");
    assert!(journal.contains("is already running") && journal.contains("status=4/NOPERMISSION"), "{journal}");
    assert!(journal.contains("run \"mc_ctl stop --mc-only\" first"), "{journal}");
    admin(&pair, 0, "mc_ctl stop --mc-only");

    // a ledger that cannot be read: systemd tries again, until it is enough
    let ledger = "/srv/mc/nd1/ledger";
    root(&pair, 0, &format!("cp {ledger} /run/saved; echo nonsense >{ledger}"));
    let answer = pair.on(0).type_root("systemctl start mirroring-controller");
    assert!(answer.code != 0, "{}", answer.text());
    wait_for("systemd gives up", SOON, || pair.on(0).journal(CONTROLLER).contains(GIVEN_UP).then_some(()));
    assert!(pair.on(0).journal(CONTROLLER).contains("(MCA01118)"));
    root(&pair, 0, &format!("cat /run/saved >{ledger}"));
    assert!(pair.on(0).type_root("systemctl start mirroring-controller").code != 0, "the limit does not hold");
    type_block(&pair, "within five minutes.\nRepair the cause, then run:");
    admin(&pair, 0, "mc_ctl stop --mc-only");

    // no data directory
    pair.as_root(0, &["mv", pair.data(0), &format!("{}.away", pair.data(0))]);
    let journal = failed("2");
    assert!(journal.contains("does not exist"), "{journal}");
    type_block(&pair, "In this case, run\n.Ql mc_ctl rebuild ,\nand then hand the controller over to the unit:");
    pair.wait_roles(0, "switchable", ["standby", "primary"]);
}

/// The controller of a detached standby dies again and again. No restart attaches the standby; when systemd has given up, the
/// operator's start does.
#[test]
fn a_controller_that_dies_too_often() {
    let pair = Setup::default().systemd().make();
    pair.on(1).drop_in(CONTROLLER, "[Service]\nRestartSec=50ms\n");
    enabled(&pair);
    admin(&pair, 0, "mc_ctl detach");
    let postmaster = pair.postmaster(1).pid;
    wait_for("systemd gives up", SOON, || {
        let running = pair.on(1).property(CONTROLLER, "SubState") == "running";
        if running {
            signal(pair.controller(1).pid, Signal::KILL);
        }
        pair.on(1).journal(CONTROLLER).contains(GIVEN_UP).then_some(())
    });
    assert_eq!(pair.on(1).property(CONTROLLER, "ActiveState"), "failed");
    let status = pair.json(0).expect("JSON");
    assert_eq!(status["disconnection"]["by_operator"], true, "{status}");
    type_on(&pair, 1, "within five minutes.\nRepair the cause, then run:");
    assert_eq!(pair.postmaster(1).pid, postmaster);
    pair.wait_word(0, "switchable");
}

/// A new pair, and hosts whose network is there late when they boot, and ends early when they shut down.
fn with_a_late_network() -> Pair {
    let pair = Setup::default().names().systemd().make();
    for n in [0, 1] {
        let address = format!("{}/24 dev eth0", ADDRESSES[0][n]);
        let unit = format!(
            "[Unit]\nBefore=network.target network-online.target\nWants=network.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
             ExecStart=/bin/sh -c 'sleep 2; ip addr replace {address}'\nExecStop=/bin/sh -c 'ip addr del {address}'\n\
             [Install]\nWantedBy=network-online.target\n"
        );
        pair.on(n).write_unit("site-network.service", &unit);
        root(&pair, n, "systemctl enable --now site-network");
    }
    enabled(&pair);
    pair
}

/// Hosts are restarted, one at a time, after what the manual says and without it.
#[test]
fn hosts_that_are_restarted() {
    let mut pair = with_a_late_network();
    let client = pair.client(Style::PerHost);
    follow(&mut pair, ".Ss Maintenance of the standby's host\n", reboot);
    pair.wait_word(0, "switchable");
    reboot(&mut pair, 1);
    pair.wait_word(0, "switchable");
    follow(&mut pair, ".Ss Maintenance of the primary's host\n", reboot);
    pair.wait_word(0, "switchable");
    let at = Instant::now();
    reboot(&mut pair, 0);
    client.wait_ack_of(&[1], at, s(30));
    wait_for("nd1 is back", SOON, || pair.status(0));
    admin(&pair, 0, "mc_ctl rebuild");
    pair.wait_roles(0, "switchable", ["standby", "primary"]);
    reboot(&mut pair, 2);
    wait_for("the arbiter is back", SOON, || (pair.arbiter_status(0)? == "online").then_some(()));
    client.wait_ack(Instant::now(), s(20));
    client.check(&pair, 1, &[0, 1, 0, 1]);
}

/// Both hosts are switched off at once. When they return, the pair is what it was; no name resolves at first.
#[test]
fn hosts_that_are_off_together() {
    let mut pair = with_a_late_network();
    let client = pair.client(Style::PerHost);
    client.wait_ack(Instant::now(), s(20));
    let both_off = |pair: &mut Pair, order: [usize; 2]| {
        for n in order {
            pair.on(n).type_root("systemctl poweroff");
        }
        order.into_iter().for_each(|n| wait_off(pair, n));
    };
    both_off(&mut pair, [1, 0]);
    pair.set_names(NameService::Fails);
    [0, 1].into_iter().for_each(|n| pair.on_mut(n).boot());
    for n in [0, 1] {
        pair.on(n).wait_property(CONTROLLER, "SubState", "running");
        wait_for("it reports what does not resolve", SOON, || {
            pair.on(n).journal(CONTROLLER).contains("(MCA01140)").then_some(())
        });
    }
    pair.set_names(NameService::Answers);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    client.wait_ack(Instant::now(), s(20));
    // The primary first: the standby does not take over any more, or it does so and then ends.
    both_off(&mut pair, [0, 1]);
    [0, 1].into_iter().for_each(|n| pair.on_mut(n).boot());
    client.wait_ack(Instant::now(), s(60));
    let primary = [0, 1].into_iter().find(|&n| pair.try_sql(n, "SELECT pg_is_in_recovery()").as_deref() == Ok("f"));
    let lost = client.lost_on(&pair, primary.expect("a primary"));
    assert!(lost.is_empty(), "{lost:?}");
}

/// systemd sends SIGTERM once. A controller that executes another command, or whose switch does not succeed, stops its instance
/// nevertheless.
#[test]
fn a_stop_that_has_to_wait() {
    let pair = Setup::default().systemd().make();
    let hook = Script::new(pair.host(0), "announce", "sleep 4");
    pair.server_line(0, &hook.line("pre_detach_command"));
    enabled(&pair);
    let mut detach = pair.host(0).admin("env");
    detach.args(["MCCONTROLDIR=/srv/mc", "/usr/local/bin/mc_ctl", "detach"]);
    let _detach = Beside::start(detach);
    wait_for("the command is executed", SOON, || (!hook.calls().is_empty()).then_some(()));
    let stopped = |at: Instant| {
        root(&pair, 0, "systemctl stop mirroring-controller");
        assert_eq!(pair.on(0).property(CONTROLLER, "Result"), "success", "after {:?}", at.elapsed());
        assert_eq!(cluster_state(&pair, 0), "shut down");
    };
    stopped(Instant::now());
    hook.set("exit 0");
    root(&pair, 0, "systemctl start mirroring-controller");
    pair.wait_word(0, "not-switchable");
    admin(&pair, 1, "mc_ctl start -f");
    pair.wait_roles(0, "switchable", ["primary", "standby"]);

    // The standby has consented to nothing yet when its host is cut off.
    let at = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| stopped(at));
        pair.wait_log(0, at, "request of an operator: stop", SOON);
        pair.net.cut(1);
    });
}

/// The unit of the guide, whose controller a watcher of its own restarts.
#[test]
fn the_unit_of_the_guide() {
    let mut pair = Setup::default().systemd().make();
    root(&pair, 2, "systemctl enable --now mirroring-arbiter");
    for n in [0, 1] {
        pair.on(n).install_unit("mcoi");
        root(&pair, n, "systemctl enable --now mcoi");
    }
    pair.wait_word(0, "switchable");
    pair.wait_arbiter_named();
    let postmaster = pair.postmaster(1).pid;
    let before = pair.controller(1).pid;
    signal(before, Signal::KILL);
    wait_for("the watcher restarts it", SOON, || {
        pair.host(1).controllers().pop().filter(|process| process.pid != before)
    });
    pair.wait_word(1, "switchable");
    assert_eq!(pair.postmaster(1).pid, postmaster);
    root(&pair, 1, "systemctl stop mcoi");
    assert_eq!(pair.on(1).property("mcoi", "Result"), "success");
    assert_eq!(cluster_state(&pair, 1), "shut down in recovery");
    root(&pair, 1, "systemctl start mcoi");
    pair.wait_word(0, "switchable");
    reboot(&mut pair, 0);
    wait_for("nd1 is back", SOON, || pair.status(0));
    admin(&pair, 0, "mc_ctl rebuild");
    pair.wait_roles(0, "switchable", ["standby", "primary"]);
}
