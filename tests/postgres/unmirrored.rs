//! Commits that did not wait for the standby under a mirrored view: the controller must not give the role to a standby that
//! lacks them.

use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::Beside;
use crate::harness::{bin_dir, s, wait_for};
use rustix::process::Signal;
use std::time::Instant;

const ROWS: usize = 8;

/// Rows that a client with `synchronous_commit = on` was told are committed.
fn insert(pair: &Pair) {
    pair.sql(0, "CREATE TABLE IF NOT EXISTS kept (n int)");
    for n in 0..ROWS {
        pair.sql(0, &format!("SET synchronous_commit = on; INSERT INTO kept VALUES ({n})"));
    }
}

/// What becomes of the primary's controller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Controller {
    Stays,
    /// Its watcher starts another one.
    Killed,
    /// It has ended before the names are changed, and is started after the instance has died.
    Ended,
}

/// The link is cut, and a DBA takes `synchronous_standby_names` off with ALTER SYSTEM, so that commits do not wait. The
/// instance dies, and the link returns.
fn names_off_during_a_cut(controller: Controller) {
    let pair = Setup::default().up();
    let at = Instant::now();
    if controller == Controller::Ended {
        pair.mc(0, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    }
    pair.net.cut_between(0, 1);
    pair.sql(0, "ALTER SYSTEM SET synchronous_standby_names = ''");
    pair.sql(0, "SELECT pg_reload_conf()");
    if controller != Controller::Ended {
        pair.wait_log(0, at, "MCA01023", s(20));
    }
    insert(&pair);
    if controller == Controller::Killed {
        signal(pair.controller(0).pid, Signal::KILL);
    }
    pair.kill_postmaster(0);
    pair.net.heal_between(0, 1);
    if controller == Controller::Ended {
        pair.mc(0, &["start", "-f"]).expect(0, "mc_ctl start");
        pair.wait_log(0, at, "MCA01023", s(20));
    }
    wait_for("nd1 serves alone, or nd2 took over", s(60), || {
        let count = |server| pair.try_sql(server, "SELECT count(*) FROM kept WHERE NOT pg_is_in_recovery()").ok();
        let serves = |server| {
            count(server).filter(|found| found != "0").or_else(|| {
                let primary = pair.try_sql(server, "SELECT NOT pg_is_in_recovery()").ok()? == "t";
                primary.then(|| "none".to_owned())
            })
        };
        serves(0).or_else(|| serves(1))
    });
    pair.sql(0, "ALTER SYSTEM RESET synchronous_standby_names");
    pair.sql(0, "SELECT pg_reload_conf()");
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    assert_eq!(pair.sql(0, "SELECT count(*) FROM kept"), ROWS.to_string(), "acknowledged rows are lost");
}

/// A primary that is cut off crashes. It is not started before a member is heard: clients would read a commit that waited, and
/// the standby has taken over without it.
#[test]
fn cut_off_primary_crashes() {
    let pair = Setup::default().fast().arbiter().up();
    pair.wait_arbiter_named();
    pair.sql(0, "CREATE TABLE kept (n int)");
    let at = Instant::now();
    pair.net.cut(0);
    pair.wait_log(0, at, "MCA00019", s(20));
    // It waits for the standby until the instance dies.
    let mut psql = pair.host(0).admin(bin_dir().join("psql").to_str().expect("ASCII"));
    psql.args(["-h", pair.servers[0].address, "-U", "postgres", "-qXc", "INSERT INTO kept VALUES (1)", "postgres"]);
    let _client = Beside::start(psql);
    wait_for("a commit waits", s(20), || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        (pair.sql_beside(0, waiting).ok()? == "1").then_some(())
    });
    let killed = pair.kill_postmaster(0);
    pair.wait_log(0, killed, "MCA01185", s(20));
    pair.wait_word(1, "switched");
    std::thread::sleep(s(3));
    assert!(!pair.instance_runs(0), "clients can read what nd2 does not have");
    pair.net.heal(0);
    pair.wait_roles(0, "switched", ["none(inactivated primary)", "primary"]);
    assert!(!pair.instance_runs(0));
}

/// Settings with which acknowledged commits can be lost are reported while they last.
#[test]
fn weak_settings_are_reported() {
    let pair = Setup::default().fast().up();
    let check = |code: i32, part: &str| {
        wait_for(part, s(40), || {
            let answer = pair.mc(0, &["status", "--check"]);
            (answer.code == code && answer.text().contains(part)).then_some(())
        });
    };
    check(0, "OK");
    let at = Instant::now();
    pair.sql(0, "ALTER SYSTEM SET synchronous_commit = 'remote_write'");
    pair.sql(0, "ALTER ROLE postgres SET synchronous_commit = 'off'");
    pair.sql(0, "ALTER SYSTEM SET fsync = off");
    pair.sql(0, "SELECT pg_reload_conf()");
    check(1, "synchronous_commit is \"off\" for role \"postgres\"");
    check(1, "synchronous_commit is \"remote_write\"");
    check(1, "fsync is off");
    pair.wait_log(0, at, "MCA01186", s(5));
    let text = pair.mc(0, &["status"]).expect(0, "mc_ctl status").out;
    assert!(text.contains("commits can be lost: fsync is off"), "{text}");
    let json = pair.json(0).expect("the status as JSON");
    assert_eq!(json["durability_warnings"].as_array().map(Vec::len), Some(3), "{json}");
    let metrics = pair.mc(0, &["status", "--format", "prometheus"]).out;
    assert!(metrics.contains("\nmirroring_durability_warnings 3\n"), "{metrics}");
    pair.sql(0, "ALTER SYSTEM RESET synchronous_commit");
    pair.sql(0, "ALTER ROLE postgres RESET synchronous_commit");
    pair.sql(0, "ALTER SYSTEM RESET fsync");
    pair.sql(0, "SELECT pg_reload_conf()");
    check(0, "OK");
    pair.wait_log(0, at, "MCA01187", s(5));
}

/// See [`names_off_during_a_cut`].
#[test]
fn names_changed_during_a_cut() {
    names_off_during_a_cut(Controller::Stays);
}

/// The same: the knowledge survives the controller.
#[test]
fn names_changed_and_the_controller_killed() {
    names_off_during_a_cut(Controller::Killed);
}

/// The same where no controller has seen the change: the configuration files show it.
#[test]
fn names_changed_without_a_controller() {
    names_off_during_a_cut(Controller::Ended);
}

/// Both servers are stopped, and a line of the primary's configuration makes its commits wait for nobody. The primary starts cut off:
/// no member learns that, and the standby takes over. The primary's instance must not run.
fn names_without_effect(file: &str, line: &str) {
    let pair = Setup::default().fast_network().arbiter().conf("startup_wait = 5").up();
    pair.wait_arbiter_named();
    pair.sql(0, "CREATE TABLE kept (n int)");
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    pair.append(0, file, line);
    pair.net.cut(0);
    let at = Instant::now();
    let _start = Beside::start(pair.mc_command(0, &["start", "-f", "--async-connect-arbiter"]));
    pair.wait_log(0, at, "MCA01185", s(30));
    let _other = Beside::start(pair.mc_command(1, &["start", "-f"]));
    wait_for("nd2 takes over", s(60), || {
        pair.try_sql(1, "SELECT 1 WHERE NOT pg_is_in_recovery()").is_ok_and(|row| row == "1").then_some(())
    });
    assert!(!pair.instance_runs(0), "the instance of nd1 runs, and its commits wait for nobody");
    pair.sql(1, "INSERT INTO kept VALUES (1)");
    pair.net.heal(0);
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    assert_eq!(pair.sql(1, "SELECT count(*) FROM kept"), "1");
}

#[test]
fn names_that_another_file_overrides() {
    names_without_effect("postgresql.auto.conf", "synchronous_standby_names = ''\n");
}

#[test]
fn names_without_wal_senders() {
    names_without_effect("postgresql.conf", "max_wal_senders = 0\nwal_level = minimal\narchive_mode = off\n");
}
