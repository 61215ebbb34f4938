//! What a new user, a DBA in a hurry or a full machine does: a clear message, the right exit code, and no switch that
//! should not have been.

use crate::harness::client::Style;
use crate::harness::pair::{Setup, new_key, write_private};
use crate::harness::{s, wait_for};
use postgres::{Config, NoTls};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

fn chmod(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("could not chmod");
}

/// Files and users that are refused before anything is started, each with the name of what is wrong.
#[test]
fn wrong_files_are_named() {
    let pair = Setup::default().make();
    let dir = &pair.servers[0].management;
    let (network, conf, key) = (dir.join("network.conf"), dir.join("nd1.conf"), dir.join("mc.key"));
    let refused = |code: i32, texts: &[&str]| {
        let answer = pair.mc(0, &["start", "-w"]);
        assert_eq!(answer.code, code, "{texts:?}: {}", answer.text());
        for text in texts {
            assert!(answer.err.contains(text), "{text:?} is not in: {}", answer.text());
        }
        assert!(!pair.instance_runs(0));
    };
    for file in [&network, &conf, &key] {
        chmod(file, 0o644);
        refused(2, &[file.to_str().expect("ASCII"), "chmod"]);
        chmod(file, 0o600);
    }
    crate::harness::run::must("chown", &["root", key.to_str().expect("ASCII")]);
    refused(2, &["mc.key"]);
    crate::harness::run::must("chown", &["postgres", key.to_str().expect("ASCII")]);
    let good = std::fs::read_to_string(&conf).expect("could not read");
    write_private(&conf, &format!("{good}heartbeat_intervall = 800\n"));
    refused(2, &["heartbeat_intervall", "nd1.conf"]);
    write_private(&conf, &format!("{good}heartbeat_retry = -1\n"));
    refused(2, &["heartbeat_retry"]);
    write_private(&conf, "db_instance = '/nowhere/data'\n");
    refused(2, &["/nowhere/data"]);
    write_private(&conf, &good);
    write_private(&key, "0123\n");
    refused(2, &["mc.key"]);
    write_private(&key, &new_key());
    let listener = pair.net.hosts[0].listen(pair.servers[0].control_port);
    refused(1, &["27540"]);
    drop(listener);
    let mut root = pair.host(0).command("/bin/sh");
    root.args(["-c", "exec \"$0\" start -M \"$1\""]).arg(crate::harness::pair::program()).arg(dir);
    let answer = crate::harness::run::run(root, s(20));
    assert!(answer.code == 2 && answer.err.contains("root"), "{}", answer.text());
    pair.start(0, &[]);
}

/// Two servers on one host need `--local-server`, and with it they work as on two. A rebuild leaves each its own port.
#[test]
fn both_on_one_host() {
    let pair = Setup { one_host: true, ..Setup::default() }.make();
    let mut command = pair.mc_command(0, &["start", "-w"]);
    let plain: Vec<_> = command.get_args().map(|a| a.to_os_string()).collect();
    command = std::process::Command::new(command.get_program());
    command.args(&plain[..plain.len() - 2]);
    let answer = crate::harness::run::run(command, s(20)).expect(2, "mc_ctl start without --local-server");
    assert!(answer.err.contains("--local-server"), "{}", answer.text());
    pair.start(0, &["-f"]);
    pair.start(1, &["-f"]);
    pair.wait_word(0, "switchable");
    let client = pair.client(Style::OneSession);
    pair.fail_over_from(0);
    pair.rebuild(0, &[]);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// Different keys: neither answers the other, the message says so, and the primary serves.
#[test]
fn a_wrong_key() {
    let pair = Setup::default().make();
    write_private(&pair.servers[1].management.join("mc.key"), &new_key());
    let at = Instant::now();
    pair.start(0, &["-f"]);
    let answer = pair.mc(1, &["start", "-w", "-t", "5", "-f"]);
    assert!(answer.text().contains("not mirrored yet"), "{}", answer.text());
    pair.wait_log(1, at, "mc.key", s(5));
    pair.client(Style::OneSession).check(&pair, 0, &[0]);
}

/// With failover disabled a dead primary is not replaced; the log says what would have been done.
#[test]
fn failover_disabled() {
    let pair = Setup::default().up();
    pair.mc(1, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    pair.wait_word(0, "failover-disabled");
    pair.run_hinted(0, "failures are only reported");
    pair.wait_word(0, "switchable");
    pair.mc(1, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    pair.wait_word(0, "failover-disabled");
    let at = pair.kill_postmaster(0);
    wait_for("a message of what would have been done", s(15), || {
        [0, 1].iter().find_map(|n| pair.host(*n).syslog.find(at, "would"))
    });
    std::thread::sleep(s(3));
    assert_eq!(pair.sql(1, "SELECT pg_is_in_recovery()"), "t");
    pair.run_hinted(0, "failed while failover was disabled");
    pair.wait_word(0, "failover-disabled");
}

/// The primary's host dies while failover is disabled: the standby only reports it. The hint is to enable failover, not to use
/// force, and the standby is then promoted.
#[test]
fn failover_disabled_and_the_primary_is_silent() {
    let mut pair = Setup::default().conf("heartbeat_error_action = switch").up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(1));
    pair.mc(1, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    pair.wait_word(0, "failover-disabled");
    pair.host_mut(0).power_off();
    let line = pair.hinted(1, "the primary does not respond");
    assert_eq!(line, "mc_ctl enable-failover");
    assert_eq!(pair.sql_beside(1, "SELECT pg_is_in_recovery()"), Ok("t".to_owned()));
    pair.paste(1, &line).expect(0, &line);
    client.wait_ack_of(&[1], Instant::now(), s(30));
    client.check(&pair, 1, &[0, 1]);
}

/// Clients that use up `max_connections` keep the probe out; that is no failure of the instance.
#[test]
fn too_many_clients() {
    let pair = Setup::default().up();
    let view = pair.ledger_of(0);
    let mut sessions = Vec::new();
    let full = wait_for("all connections are taken", s(20), || {
        let mut config = Config::new();
        config.host(pair.servers[0].address).port(5432).user("postgres").dbname("postgres");
        match config.connect(NoTls) {
            Ok(session) => {
                sessions.push(session);
                None
            }
            Err(_) => Some(Instant::now()),
        }
    });
    while full.elapsed() < s(9) {
        std::thread::sleep(s(1));
        assert!(pair.try_sql(0, "SELECT 1").is_err(), "a connection was free");
    }
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    drop(sessions);
    pair.wait_word(0, "switchable");
}

/// A password that no longer fits keeps the probe out; that is no failure of the instance, and the message says what it
/// is. A standby is promoted all the same.
#[test]
fn a_password_that_does_not_fit() {
    let pair = Setup::default().conf("db_instance_password = 'wrong'").up();
    let view = pair.ledger_of(0);
    let at = Instant::now();
    for n in [0, 1] {
        pair.as_root(
            n,
            &["sh", "-c", "sed -i '/replication/!s/trust/scram-sha-256/' \"$0\"/pg_hba.conf", pair.data(n)],
        );
    }
    let words = |n| ["reload", "-D", pair.data(n)].map(str::to_string);
    for n in [0, 1] {
        let words = words(n);
        pair.host(n).pg("pg_ctl", &words.each_ref().map(String::as_str)).expect(0, "pg_ctl reload");
    }
    pair.wait_log(0, at, "password", s(20));
    std::thread::sleep(s(8));
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    assert!(pair.instance_runs(0) && pair.instance_runs(1));
    let at = pair.kill_postmaster(0);
    pair.wait_log(1, at, "MCA00062", s(10));
}

/// `ALTER SYSTEM` overrides the line that the controller owns: found, and the message names the file.
#[test]
fn names_set_by_alter_system() {
    let pair = Setup::default().up();
    let at = Instant::now();
    pair.sql(0, "ALTER SYSTEM SET synchronous_standby_names = 'somebody'");
    pair.sql(0, "SELECT pg_reload_conf()");
    pair.wait_log(0, at, "postgresql.auto.conf", s(15));
    let advises = |yes: bool| {
        wait_for("the status names the command, while it is needed", s(15), || {
            let advice = pair.json(0)?["advice"].to_string();
            (advice.contains("ALTER SYSTEM RESET synchronous_standby_names") == yes).then_some(())
        });
    };
    advises(true);
    pair.sql(0, "ALTER SYSTEM RESET synchronous_standby_names");
    pair.sql(0, "SELECT pg_reload_conf()");
    pair.wait_word(0, "switchable");
    advises(false);
}

/// A ledger put back from a copy could promise again what was given away since: it is refused.
#[test]
fn a_ledger_from_a_copy() {
    let pair = Setup::default().up();
    let run = pair.servers[0].management.join("nd1").to_str().expect("ASCII").to_string();
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    pair.as_root(0, &["cp", "-a", &run, &format!("{run}.copy")]);
    pair.start(0, &["-f", "-t", "10"]);
    pair.start(1, &["-f"]);
    pair.wait_word(0, "switchable");
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    pair.as_root(0, &["rm", "-r", &run]);
    pair.as_root(0, &["cp", "-a", &format!("{run}.copy"), &run]);
    let answer = pair.mc(0, &["start", "-w", "-f"]);
    assert!(answer.code != 0 && answer.err.contains("ledger"), "{}", answer.text());
    assert!(!pair.instance_runs(0));
}

/// The primary's file system is full. While PostgreSQL lives on the WAL that it has, that is reported and nothing is
/// switched; once it dies of it, the standby takes over without loss.
#[test]
fn full_disk() {
    let pair = Setup { small_disk_mib: Some(160), ..Setup::default() }.up();
    let view = pair.ledger_of(0);
    let client = pair.client(Style::OneSession);
    let at = Instant::now();
    let fill = format!("dd if=/dev/zero of={}/filler bs=4k 2>/dev/null; true", pair.data(0));
    pair.as_root(0, &["sh", "-c", &fill]);
    pair.wait_log(0, at, "MCA01240", s(10));
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    let died = Instant::now();
    while pair.host(1).syslog.find(at, "MCA00062").is_none() {
        assert!(died.elapsed() < s(40), "the standby has not taken over");
        let _ = pair.try_sql(0, "SELECT pg_switch_wal()");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}
