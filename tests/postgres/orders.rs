//! Starts, stops and reboots in any order, planned switches, and the guide's rolling update.

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::Setup;
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::time::Instant;

const BACK: &str = "rebuild_action = auto";

/// The guide's first start: the primary, then the standby, automatic failover off; a NOTICE says how to enable it.
#[test]
fn first_start_as_in_the_guide() {
    let pair = Setup::default().make();
    let answer = pair.start(0, &[]);
    assert!(answer.text().contains("enable-failover"), "{}", answer.text());
    assert_eq!(pair.sql(0, "SELECT pg_is_in_recovery()"), "f");
    pair.start(1, &[]);
    pair.wait_roles(0, "failover-disabled", ["primary", "standby"]);
    pair.mc(1, &["enable-failover"]).expect(0, "mc_ctl enable-failover");
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    let lines = pair.status(1).expect("a status");
    assert!(lines.rows.iter().all(|r| [&*r.host, &*r.processes, &*r.disk] == ["normal"; 3]), "{lines:?}");
}

/// The other order: a new standby's controller waits for the primary's, which makes the first ledger.
#[test]
fn first_start_standby_first() {
    let pair = Setup::default().make();
    let mut standby = pair.mc_command(1, &["start", "-w", "-f"]).spawn().expect("could not start");
    std::thread::sleep(s(3));
    pair.start(0, &["-f"]);
    pair.wait_roles(1, "switchable", ["primary", "standby"]);
    let code = wait_for("mc_ctl start returns", s(20), || standby.try_wait().expect("could not wait"));
    assert!(code.success());
}

/// `mc_ctl stop` on the standby disconnects it first, so that no client waits; a start mirrors the pair again.
#[test]
fn stop_on_the_standby() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    assert!(!pair.instance_runs(1));
    wait_for("the controller ends", s(10), || pair.host(1).controllers().is_empty().then_some(()));
    client.wait_ack(Instant::now(), s(5));
    pair.start(1, &["-f"]);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    client.check(&pair, 0, &[0]);
}

/// `mc_ctl stop` on the primary with failover enabled is a clean switch.
#[test]
fn stop_on_the_primary() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    assert!(!pair.instance_runs(0));
    client.wait_ack(Instant::now(), s(10));
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    client.check(&pair, 1, &[0, 1]);
}

/// With failover disabled nothing is switched: the service is down until the primary is started again.
#[test]
fn stop_on_the_primary_without_failover() {
    let pair = Setup::default().up();
    pair.mc(0, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    assert!(!pair.instance_runs(0));
    std::thread::sleep(s(8));
    assert_eq!(pair.sql(1, "SELECT pg_is_in_recovery()"), "t");
    pair.start(0, &[]);
    pair.wait_roles(0, "failover-disabled", ["primary", "standby"]);
    let client = pair.client(Style::OneSession);
    client.check(&pair, 0, &[0]);
}

/// `stop -a` from either side stops both and switches nothing; they can be started in either order.
#[test]
fn stop_both_and_start_in_either_order() {
    let pair = Setup::default().up();
    for (stop, first) in [(0, 1), (1, 0)] {
        let client = pair.client(Style::OneSession);
        pair.mc(stop, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
        assert!(!pair.instance_runs(0) && !pair.instance_runs(1));
        let mut early = pair.mc_command(first, &["start", "-w", "-f"]).spawn().expect("could not start");
        std::thread::sleep(s(1));
        pair.start(1 - first, &["-f"]);
        pair.wait_roles(0, "switchable", ["primary", "standby"]);
        let code = wait_for("mc_ctl start returns", s(20), || early.try_wait().expect("could not wait"));
        assert!(code.success());
        client.check(&pair, 0, &[0]);
    }
}

/// `stop -a` on the primary has stopped the standby, whose watcher has not ended yet. A start there waits for it.
#[test]
fn start_while_the_last_controller_ends() {
    let pair = Setup::default().up();
    let watcher = pair.host(1).controllers()[0].pid;
    signal(watcher, Signal::STOP);
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    pair.mc(1, &["start", "-f", "-t", "2"]).expect(5, "mc_ctl start");
    let mut start = pair.mc_command(1, &["start", "-w", "-f"]).spawn().expect("could not start");
    pair.start(0, &["-f"]);
    signal(watcher, Signal::CONT);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    let code = wait_for("mc_ctl start returns", s(20), || start.try_wait().expect("could not wait"));
    assert!(code.success());
}

/// Both hosts lose power and are started in either order; the standby alone does not take over what it cannot know to
/// be its own, and both together are mirrored again.
fn reboot_of_both(first: usize) {
    let mut pair = Setup::default().up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(1));
    for n in [0, 1] {
        pair.host_mut(n).power_off();
    }
    for n in [0, 1] {
        pair.host_mut(n).boot();
    }
    let mut early = pair.mc_command(first, &["start", "-w", "-f"]).spawn().expect("could not start");
    std::thread::sleep(s(8));
    if first == 1 {
        assert_ne!(pair.try_sql(1, "SELECT pg_is_in_recovery()").as_deref(), Ok("f"), "a standby that never heard");
    }
    pair.start(1 - first, &["-f"]);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    let code = wait_for("mc_ctl start returns", s(60), || early.try_wait().expect("could not wait"));
    assert!(code.success());
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 0, &[0]);
}

/// [`reboot_of_both`], the primary first.
#[test]
fn reboot_of_both_primary_first() {
    reboot_of_both(0);
}

/// [`reboot_of_both`], the standby first.
#[test]
fn reboot_of_both_standby_first() {
    reboot_of_both(1);
}

/// A planned switch from either side, with `rebuild_action = auto`: the old primary comes back as the standby by itself,
/// so that the next switch can follow.
#[test]
fn switch_from_either_side_and_back() {
    let pair = Setup::default().conf(BACK).up();
    let client = pair.client(Style::OneSession);
    for (from, primary) in [(0, 1), (1, 0), (1, 1)] {
        pair.mc(from, &["switch"]).expect(0, "mc_ctl switch");
        client.wait_ack(Instant::now(), s(10));
        let expected = if primary == 0 { ["primary", "standby"] } else { ["standby", "primary"] };
        pair.wait_roles(primary, "switchable", expected);
    }
    client.check(&pair, 1, &[0, 1, 0, 1]);
}

/// After a planned switch with `rebuild_action = manual`, the old primary stays down, and another switch is refused with
/// the reason.
#[test]
fn after_a_switch_the_old_primary_stays_down() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let at = Instant::now();
    pair.mc(1, &["switch"]).expect(0, "mc_ctl switch");
    pair.wait_roles(0, "switched", ["none(inactivated primary)", "primary"]);
    client.wait_ack(Instant::now(), s(10));
    // The message on one server and the status on the other name the same command.
    pair.wait_log(0, at, "MCA01016", s(20));
    let explained = pair.paste(0, "mc_ctl explain MCA01016").expect(0, "mc_ctl explain");
    assert!(explained.out.contains("Run \"mc_ctl rebuild\" on it"), "{}", explained.text());
    assert_eq!(pair.hinted(1, "is not its standby yet"), "mc_ctl rebuild");
    std::thread::sleep(s(2));
    assert!(!pair.instance_runs(0));
    let answer = pair.mc(1, &["switch"]).expect(4, "a switch without a standby");
    assert!(!answer.err.is_empty());
    client.check(&pair, 1, &[0, 1]);
}

/// Two administrators switch at the same time, one on each server: one is obeyed, the other refused.
#[test]
fn a_second_switch_is_refused() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let commands = [0, 1].map(|n| pair.mc_command(n, &["switch"]));
    let answers = std::thread::scope(|scope| {
        let both = commands.map(|c| scope.spawn(|| crate::harness::run::run(c, s(100))));
        both.map(|a| a.join().expect("both return"))
    });
    let codes = answers.each_ref().map(|a| a.code);
    assert!(codes.contains(&0) && codes.iter().any(|c| *c != 0), "{answers:?}");
    let refused = answers.iter().find(|a| a.code != 0).expect("one");
    assert!(refused.code == 4 && !refused.err.is_empty(), "{answers:?}");
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// A hanging `archive_command` keeps the old primary's postmaster from ending; the switch does not wait for it.
#[test]
fn switch_with_a_hanging_archiver() {
    let setup = Setup::default().pg("archive_mode = on").pg("archive_command = 'sleep 3600'");
    let pair = setup.up();
    let client = pair.client(Style::OneSession);
    pair.sql(0, "SELECT pg_switch_wal()");
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    client.wait_ack(Instant::now(), s(10));
    let gap = client.longest_gap(at);
    assert!(gap < s(20), "longest gap {gap:?}");
    client.check(&pair, 1, &[0, 1]);
}

/// A frozen walreceiver cannot confirm the shutdown checkpoint: the switch gives up in time, says so, and the service
/// continues.
#[test]
fn switch_with_a_frozen_walreceiver() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let receiver = pair.host(1).backend("walreceiver").expect("a walreceiver runs");
    crate::harness::host::signal(receiver.pid, rustix::process::Signal::STOP);
    let answer = pair.mc(0, &["switch", "-t", "30"]);
    assert_ne!(answer.code, 0, "{}", answer.text());
    client.wait_ack(Instant::now(), s(30));
    crate::harness::host::signal(receiver.pid, rustix::process::Signal::CONT);
    client.check(&pair, 0, &[0]);
}

/// The guide's rolling update (4.6.1): the standby is stopped, copied anew by hand as the guide has it, and started; the
/// roles are switched; the old primary is stopped and started likewise, and rebuilt by one command; roles are switched
/// back. Clients see two gaps, those of the switches.
#[test]
fn rolling_update() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop on the standby");
    pair.copy_anew(1);
    pair.start(1, &["-f"]);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    let conf = pair.read(1, "postgresql.conf");
    assert!(conf.lines().any(|l| l == "#synchronous_standby_names = 'nd1'"), "the guide's commented line");
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop on the old primary");
    pair.mc(0, &["start", "-w", "-t", "20", "-f"]).expect(4, "start of the old primary");
    pair.rebuild(0, &[]);
    pair.mc(1, &["switch"]).expect(0, "mc_ctl switch back");
    pair.rebuild(1, &[]);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 0, &[0, 1, 0]);
}
