//! `mc_ctl check`: passwords that are rejected at the next connection, WAL that was removed, and a rebuild that failed. Both servers
//! report them.

use crate::check::{expect, expect_gone, id_conf};
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::run;
use crate::harness::{s, wait_for};
use crate::password::{conninfo, guarded, new_password};
use rustix::process::Signal;
use std::time::Instant;

/// Both servers report it.
#[track_caller]
fn both_expect(pair: &Pair, code: &str, member: &str, what: &str) {
    for n in [0, 1] {
        wait_for(&format!("server {n} finds {code} on {member}"), s(60), || {
            let found = crate::check::check(pair, n).find(code, member)?;
            found.what.contains(what).then_some(())
        });
    }
}

#[test]
fn passwords_that_are_rejected() {
    let pair = guarded(Setup::default());
    [0, 1].into_iter().for_each(|n| expect_gone(&pair, n, "password-rejected", "nd1"));
    for (n, id, other) in [(0, "nd1", "nd2"), (1, "nd2", "nd1")] {
        new_password(&pair, n, "wrong-secret");
        let found = expect(&pair, n, "password-rejected", id);
        assert!(found.what.contains(other) && found.what.contains("password authentication failed"), "{found:?}");
        assert!(found.fix.contains(&id_conf(&pair, n)) && found.fix.contains("mc_ctl reload"), "{found:?}");
        assert!(!crate::check::check(&pair, n).json.to_string().contains("wrong-secret"));
        // From here on, the controller uses the new password.
        pair.mc(n, &["reload"]).expect(0, "mc_ctl reload");
        both_expect(&pair, "password-rejected", id, "password authentication failed");
        new_password(&pair, n, "first");
        pair.mc(n, &["reload"]).expect(0, "mc_ctl reload");
        [0, 1].into_iter().for_each(|n| expect_gone(&pair, n, "password-rejected", id));
    }

    // Repaired on the servers: the next check tests again what has failed, and not the controllers a minute later.
    let of = |n: usize| pair.sql(n, "SELECT rolpassword FROM pg_authid WHERE rolname = 'mc'");
    let good = of(0);
    pair.sql(0, "ALTER ROLE mc PASSWORD 'other'");
    both_expect(&pair, "password-rejected", "nd1", "password authentication failed");
    pair.sql(0, &format!("ALTER ROLE mc PASSWORD '{good}'"));
    wait_for("the standby has the password", s(30), || (of(1) == good).then_some(()));
    for n in [1, 0] {
        let report = crate::check::check(&pair, n);
        for (code, member) in [("password-rejected", "nd1"), ("replication-fails", "nd2")] {
            assert_eq!(report.find(code, member), None, "found by {n}");
        }
    }

    conninfo(&pair, "rep", "first");
    pair.sql(1, "SELECT pg_reload_conf()");
    pair.sql(0, "ALTER ROLE rep PASSWORD 'other'");
    both_expect(&pair, "replication-fails", "nd2", "password authentication failed for user \"rep\"");
    expect(&pair, 1, "replication-fails", "nd2");
    expect_gone(&pair, 1, "password-rejected", "nd2");
}

#[test]
fn a_rebuild_that_failed() {
    let pair = Setup::default().up();
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    // The old data directory is gone, so that no standby starts.
    let command = pair.mc_command(1, &["rebuild", "--yes", "--method", "basebackup", "--old-data", "delete"]);
    std::thread::scope(|scope| {
        let command = scope.spawn(|| run(command, s(60)));
        signal(pair.freeze_program(1, "pg_basebackup").pid, Signal::KILL);
        command.join().expect("mc_ctl rebuild returns").expect(1, "mc_ctl rebuild without pg_basebackup");
    });
    // On nd2 itself the missing postgresql.conf is the finding.
    let found = expect(&pair, 0, "rebuild-failed", "nd2");
    assert!(found.what.contains("pg_basebackup") && found.fix.contains("mc_ctl rebuild"), "{found:?}");
    assert!(crate::check::check(&pair, 1).find("configuration", "").is_some());
    pair.rebuild(1, &[]);
    [0, 1].into_iter().for_each(|n| expect_gone(&pair, n, "rebuild-failed", "nd2"));
}

/// The primary has removed WAL that the standby requires: the controller and `mc_ctl check` name it, and the printed command
/// repairs the pair.
#[test]
fn wal_that_the_primary_no_longer_has() {
    let pair = Setup::default().up();
    pair.sql(0, "ALTER SYSTEM SET wal_keep_size = 0");
    pair.sql(0, "SELECT pg_reload_conf()");
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    for _ in 0..4 {
        pair.sql(0, "SELECT pg_logical_emit_message(false, 'x', 'x'), pg_switch_wal()");
    }
    pair.sql(0, "CHECKPOINT");
    let at = Instant::now();
    pair.mc(1, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start --mc-only");
    pair.mc(1, &["start", "-W", "-f"]);
    pair.wait_log(1, at, "(MCA01237)", s(60));
    both_expect(&pair, "wal-removed", "nd2", "the primary no longer has WAL segment");
    let rebuilt = pair.run_hinted(1, "the primary no longer has WAL segment").text();
    let said = format!("{rebuilt}{}", pair.mc(1, &["status"]).text());
    assert!(!said.contains("no longer has WAL segment"), "{said}");
    pair.wait_word(0, "switchable");
    wait_for("the finding is gone", s(60), || {
        crate::check::check(&pair, 0).find("wal-removed", "nd2").is_none().then_some(())
    });
}
