//! Commits that did not wait for the standby under a mirrored view: the controller must not give the role to a standby that
//! lacks them.

use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
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

/// The link is cut, and a DBA takes `synchronous_standby_names` off with ALTER SYSTEM, so that commits do not wait. The
/// instance dies, and the link returns. `restarts`: the controller is killed too, and started again.
fn names_off_during_a_cut(restarts: bool) {
    let pair = Setup::default().up();
    let at = Instant::now();
    pair.net.cut_between(0, 1);
    pair.sql(0, "ALTER SYSTEM SET synchronous_standby_names = ''");
    pair.sql(0, "SELECT pg_reload_conf()");
    pair.wait_log(0, at, "MCA01023", s(20));
    insert(&pair);
    if restarts {
        signal(pair.controller(0).pid, Signal::KILL);
    }
    pair.kill_postmaster(0);
    pair.net.heal_between(0, 1);
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

/// See [`names_off_during_a_cut`].
#[test]
fn names_changed_during_a_cut() {
    names_off_during_a_cut(false);
}

/// The same: the knowledge survives the controller.
#[test]
fn names_changed_and_the_controller_killed() {
    names_off_during_a_cut(true);
}
