//! Sudden deaths: of a postmaster, of a whole host, of the controllers themselves.

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{rounds, s, wait_for};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// The history names the cause: with the signal, or without it where the first process of the host, which this test's is quick
/// to do, has waited for the postmaster before the controller read it.
#[track_caller]
fn decided(pair: &Pair, server: usize, begin: &str) {
    let history = wait_for("the history has an entry", s(20), || {
        Some(pair.mc(server, &["history"]).out).filter(|history| history.contains(begin))
    });
    let cause = history.split_once(begin).expect("the entry").1.split(')').next().expect("the cause");
    assert!([" was terminated by signal 9", " ended unexpectedly"].contains(&cause), "{history}");
}

/// The main job. The primary's postmaster is killed; the watching controller notices the death itself, hands over, and
/// the standby takes the writes within a fraction of a second, without an acknowledged row lost. The old primary stays
/// down, as `none(inactivated primary)`.
#[test]
fn primary_postmaster() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(1));
    let at = pair.kill_postmaster(0);
    client.wait_ack(at + Duration::from_millis(100), s(10));
    pair.wait_log(1, at, "promotion processing completed (MCA00062)", s(5));
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    assert_eq!(pair.wait_word(0, "switched").rows[1].role, "primary");
    std::thread::sleep(s(1));
    assert!(!pair.instance_runs(0), "the old primary must stay down");
    for server in [0, 1] {
        decided(&pair, server, "the primary handed over its role (the postmaster of nd1");
    }
    pair.run_explained(0, at, 1003);
    pair.run_hinted(0, "role");
    pair.check_rebuilt(0);
    client.check(&pair, 1, &[0, 1]);
}

/// Every process of the primary's host dies at once, its kernel still refuses connections: that is a cause, and the
/// detection time (5.4 s) is not waited out. When the host is back, its controller learns what happened and does not
/// start the old primary.
#[test]
fn primary_host_whose_kernel_answers() {
    let mut pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(2));
    let at = Instant::now();
    pair.host_mut(0).power_off();
    client.wait_ack(at + Duration::from_millis(100), s(20));
    pair.decided(1, "the primary's host refuses connections");
    pair.host_mut(0).boot();
    pair.mc(0, &["start", "-w", "-t", "20", "-f"]);
    pair.wait_roles(0, "switched", ["none(inactivated primary)", "primary"]);
    wait_for("the old primary is down", s(5), || (!pair.instance_runs(0)).then_some(()));
    std::thread::sleep(s(1));
    assert!(!pair.instance_runs(0), "the old primary must stay down");
    client.check(&pair, 1, &[0, 1]);
}

/// The standby's postmaster is killed: the primary continues alone at once. The standby's controller starts it again, and
/// the pair is mirrored again by itself.
#[test]
fn standby_postmaster() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(1));
    let at = pair.kill_postmaster(1);
    client.wait_ack(at + Duration::from_millis(100), s(10));
    wait_for("the standby runs again", s(20), || pair.instance_runs(1).then_some(()));
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    decided(&pair, 0, "the standby's instance or disk has failed (the postmaster of nd2");
    client.check(&pair, 0, &[0]);
}

/// The standby's whole host dies and comes back: the primary continues alone by cause, and is mirrored again once the
/// standby has been started.
#[test]
fn standby_host() {
    let mut pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.host_mut(1).power_off();
    client.wait_ack(at + Duration::from_millis(100), s(20));
    pair.decided(0, "the standby's host refuses connections");
    pair.host_mut(1).boot();
    pair.start(1, &["-f"]);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// Both hosts lose power, and only the standby's returns: the start and the status report that it asks the arbiter, and in how
/// many seconds. Then it takes over.
#[test]
fn lone_standby_after_a_power_loss() {
    let mut pair = Setup::default().arbiter().conf("startup_wait = 30").up();
    pair.wait_arbiter_named();
    for n in [0, 1] {
        pair.host_mut(n).power_off();
    }
    pair.host_mut(1).boot();
    let at = Instant::now();
    let text = "if it does not respond, this server asks the arbiter for the right to run in ";
    let seconds =
        |answer: &str| answer.split_once(text).and_then(|(_, rest)| rest.split(' ').next()?.parse::<u32>().ok());
    let started = pair.mc(1, &["start", "-w", "-t", "12", "-f"]).text();
    assert!(seconds(&started).is_some_and(|seconds| seconds <= 30), "{started}");
    // It is reported before the command waits.
    let first =
        started.find("mc_ctl: the primary does not respond; this server asks the arbiter for the right to run in ");
    assert!(first.is_some() && first < started.find("HINT: "), "{started}");
    let shown = pair.mc(1, &["status"]).err;
    assert!(seconds(&shown) <= seconds(&started) && seconds(&shown).is_some(), "{shown}");
    pair.wait_log(1, at, "MCA01250", s(10));
    pair.wait_log(1, at, "promotion processing completed (MCA00062)", s(90));
    pair.decided(1, "the arbiter consented");
}

/// A controller is killed at a random moment of a failover, on either side. Its watcher starts it again, it finds its
/// ledger and finishes the work; nothing acknowledged is lost, and one server serves.
#[test]
fn controllers_during_a_failover() {
    for round in 0..rounds(3) {
        let random =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").subsec_micros();
        let delay = Duration::from_millis(u64::from(random % 400));
        let victims: &[usize] = [&[0][..], &[1], &[0, 1]][round % 3];
        eprintln!("round {round}: the controllers of {victims:?} die {delay:?} after the postmaster");
        let pair = Setup::default().up();
        let client = pair.client(Style::OneSession);
        std::thread::sleep(Duration::from_millis(500));
        let controllers: Vec<_> = victims.iter().map(|n| pair.controller(*n).pid).collect();
        let at = pair.kill_postmaster(0);
        std::thread::sleep(delay);
        for pid in controllers {
            signal(pid, Signal::KILL);
        }
        client.wait_ack(at + Duration::from_millis(100), s(40));
        let now = wait_for("one primary", s(20), || {
            let recovery = [0, 1].map(|n| pair.try_sql(n, "SELECT pg_is_in_recovery()").ok());
            (0..2).find(|n| recovery[*n].as_deref() == Some("f") && recovery[1 - *n].as_deref() != Some("f"))
        });
        assert!(client.lost_on(&pair, now).is_empty(), "acknowledged rows are lost");
        assert!(client.turns().len() <= 2, "{:?}", client.turns());
        for n in [0, 1] {
            wait_for("both controllers answer", s(20), || pair.status(n));
        }
    }
}

/// A standby's controller that was told to end at once (`stop -e`) is no reason to touch the instances: WAL still flows.
/// When it is started again, all is as before.
#[test]
fn the_peers_controller_is_down() {
    let pair = Setup::default().up();
    let client = pair.client(Style::PerHost);
    let view = pair.ledger_of(0);
    pair.mc(1, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    assert!(pair.host(1).controllers().is_empty(), "stop -e left {:?}", pair.host(1).controllers());
    assert!(pair.instance_runs(1));
    pair.mc(1, &["status"]).expect(3, "mc_ctl status without a controller");
    std::thread::sleep(s(9));
    let status = wait_for("a status", s(10), || pair.status(0));
    assert_eq!(status.rows[1].host, "abnormal");
    let advice = pair.json(0).expect("a status")["advice"].to_string();
    assert!(advice.contains("controller does not respond, but its instance runs"), "{advice}");
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    let line = pair.hinted(0, "controller does not respond, but its instance runs");
    pair.paste(1, &line).expect(0, &line);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// The command that attaches a detached standby again works as `mc_ctl detach` and the status print it.
#[test]
fn detached_standby_is_attached_as_printed() {
    let pair = Setup::default().up();
    let client = pair.client(Style::PerHost);
    let detached = pair.mc(0, &["detach"]).expect(0, "mc_ctl detach").text();
    assert!(detached.contains("run \"mc_ctl start -f\" on server \"nd2\""), "{detached}");
    pair.wait_word(0, "not-switchable");
    let advice = pair.json(0).expect("a status")["advice"].to_string();
    assert!(advice.contains("run \\\"mc_ctl start -f\\\" on server \\\"nd2\\\" to attach it again"), "{advice}");
    let line = pair.hinted(0, "to attach it again");
    let started = pair.paste(1, &line).expect(0, &line).text();
    assert!(started.contains("mirrored"), "{started}");
    pair.wait_word(0, "switchable");
    let again = pair.mc(1, &["start"]).expect(4, "mc_ctl start on a standby that is attached").text();
    assert!(again.contains("already running"), "{again}");
    client.check(&pair, 0, &[0]);
}

/// The run-time directory of a running controller is deleted: a start names the controller that holds the port. When that has
/// ended, the hints lead to the end.
#[test]
fn run_time_directory_is_deleted() {
    let pair = Setup::default().up();
    let directory = pair.servers[0].management.join(pair.servers[0].id);
    std::fs::remove_dir_all(&directory).expect("could not remove the run-time directory");
    let refused = pair.mc(0, &["start", "-t", "10"]).expect(1, "mc_ctl start beside a running controller").text();
    assert!(refused.contains("ss -ltnp") && refused.contains("directory was deleted"), "{refused}");
    assert!(pair.instance_runs(0));
    let client = pair.client(Style::PerHost);
    // As "ss -ltnp" shows it.
    signal(pair.controller(0).pid, Signal::TERM);
    wait_for("controller and watcher are gone", s(20), || pair.host(0).controllers().is_empty().then_some(()));
    let lost = pair.mc(0, &["start", "-f", "-t", "20"]).expect(4, "mc_ctl start without the ledger").text();
    assert!(lost.contains("the ledger of this server is lost"), "{lost}");
    let line = pair.hinted(0, "the ledger of this server is lost");
    pair.paste(0, &line).expect(0, &line);
    pair.wait_word(1, "switchable");
    client.wait_ack(Instant::now(), s(20));
    client.check(&pair, 0, &[0]);
}

/// Another program starts the instance of a server that has lost its role: each time the controller stops it and logs that.
#[test]
fn inactivated_instance_is_started_by_hand() {
    let pair = Setup::default().up();
    pair.kill_postmaster(0);
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    wait_for("the old primary is down", s(10), || (!pair.instance_runs(0)).then_some(()));
    for _ in 0..2 {
        let at = Instant::now();
        // Not with -w: the controller may stop it before it is up.
        let log = pair.host(0).dir.join("run/log");
        let words = ["-D", pair.data(0), "-W", "-l", log.to_str().expect("ASCII"), "start"];
        pair.host(0).pg("pg_ctl", &words).expect(0, "pg_ctl start");
        pair.wait_log(0, at, "MCA01017", s(20));
        wait_for("the old primary is stopped again", s(20), || (!pair.instance_runs(0)).then_some(()));
        pair.wait_log(0, at, "MCA01018", s(20));
    }
}

/// A watcher that is killed has a successor, which starts a controller that dies as the first one did; no client notices.
#[test]
fn the_watcher() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let view = pair.ledger_of(0);
    let watcher = pair.host(0).controllers()[0].pid;
    signal(watcher, Signal::KILL);
    let two = || Some(pair.host(0).controllers()).filter(|found| found.len() == 2 && found[0].pid == found[1].parent);
    let others = || two().filter(|found| found.iter().all(|process| process.pid != watcher));
    let now = wait_for("another watcher with a controller", s(10), others);
    wait_for("the controller answers", s(10), || pair.status(0));
    let at = Instant::now();
    signal(pair.controller(0).pid, Signal::KILL);
    wait_for("the controller is back", s(10), || two().filter(|found| found[1].pid != now[1].pid));
    wait_for("the controller answers", s(10), || pair.status(0));
    pair.run_explained(0, at, 1102);
    pair.wait_word(0, "switchable");
    pair.wait_word(1, "switchable");
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    client.check(&pair, 0, &[0]);
    pair.mc(0, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    assert!(pair.host(0).controllers().is_empty(), "stop -e left {:?}", pair.host(0).controllers());
}
