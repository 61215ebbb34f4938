//! The fault matrix in `FAULTS.md`, a test a row: what fails, what the pair makes of it, how long commits wait, and what
//! brings it back.
//!
//! ```text
//! cargo test --test postgres faults::primary_killed -- --include-ignored
//! UPDATE_FAULTS=1 cargo test --test postgres faults:: -- --include-ignored --test-threads=2     # writes FAULTS.md
//! ```
//!
//! Where nothing else is said the pair has an arbiter and the usual settings: what is silent is found after 5.4 s. Those
//! that are ignored are left out of the usual run, for its length; other tests of this target look at most of these faults.

use crate::fault::{Fault, rebuild, run, start};
use crate::harness::client::Style::{Everywhere, OneSession};
use crate::harness::host::signal;
use crate::harness::net::{ADMIN, LOG};
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::process::Stdio;
use std::time::Duration;

/// Detection at defaults, and the time to act.
const SILENCE: Duration = Duration::from_millis(6400);
const ARBITER: usize = 2;

fn kill(pair: &Pair, server: usize) {
    pair.kill_postmaster(server);
}

/// Stops a process of the instance.
fn stop(pair: &Pair, server: usize, title: &str) {
    let process = pair.host(server).backend(title).unwrap_or_else(|| panic!("no {title} runs"));
    signal(process.pid, Signal::STOP);
}

fn all(pair: &Pair, server: usize, order: Signal) {
    pair.host(server).processes().iter().for_each(|p| signal(p.pid, order));
}

/// A server's host dies, and its kernel with it.
fn lose(pair: &mut Pair, server: usize) {
    pair.net.cut(server);
    pair.host_mut(server).power_off();
}

fn boot(pair: &mut Pair, server: usize) {
    pair.net.heal(server);
    pair.host_mut(server).boot();
}

/// The arbiter's host dies, and both servers have found that out.
fn lose_arbiter(pair: &mut Pair) {
    pair.net.cut(ARBITER);
    pair.arbiter.as_mut().expect("an arbiter").power_off();
    for n in [0, 1] {
        wait_for("the arbiter is offline", s(30), || (pair.arbiter_status(n)? == "offline").then_some(()));
    }
}

fn boot_arbiter(pair: &mut Pair) {
    pair.net.heal(ARBITER);
    pair.arbiter.as_mut().expect("an arbiter").boot();
    pair.start_arbiter();
}

fn end_controllers(pair: &mut Pair) {
    for n in [0, 1] {
        pair.mc(n, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    }
}

/// What an operator types who knows that the other server is down.
fn force(pair: &Pair, server: usize, verb: &str) {
    pair.mc(server, &[verb, "--force", "--yes"]).expect(0, "mc_ctl --force");
}

fn without_arbiter(action: &str) -> Setup {
    Setup::default().conf(&format!("heartbeat_error_action = {action}"))
}

/// The standby's host dies, and the primary continues alone.
fn lose_standby(pair: &mut Pair) {
    lose(pair, 1);
    wait_for("the primary continues alone", s(30), || (pair.view(0)?["mode"] == "degraded").then_some(()));
}

#[test]
#[ignore = "in the fault matrix"]
fn primary_killed() {
    let what = "SIGKILL of the primary's postmaster";
    let fault = Fault::takes_over(what, |pair| kill(pair, 0));
    run("primary_killed", fault.clients(OneSession));
}

#[test]
#[ignore = "in the fault matrix"]
fn primary_process_killed() {
    let what = "SIGKILL of the primary's WAL writer (`wal_retrieve_retry_interval = 1s`)";
    let fault = Fault::nothing(what, |pair| {
        signal(pair.host(0).backend("walwriter").expect("a WAL writer runs").pid, Signal::KILL);
    });
    // else the standby takes five seconds to connect again
    let setup = Setup::default().arbiter().pg("wal_retrieve_retry_interval = '1s'");
    run("primary_process_killed", fault.setup(setup).bound(s(3)));
}

#[test]
#[ignore = "in the fault matrix"]
fn standby_killed() {
    let what = "SIGKILL of the standby's postmaster";
    let fault = Fault::goes_on(what, |pair| kill(pair, 1));
    run("standby_killed", fault.clients(OneSession));
}

#[test]
fn alone_killed() {
    let what = "the primary runs alone, the standby's host is down: SIGKILL of the primary's postmaster";
    let fault = Fault::nothing(what, |pair| kill(pair, 0));
    run("alone_killed", fault.bound(s(3)).before(lose_standby).repair(|pair| boot(pair, 1)).started());
}

#[test]
#[ignore = "in the fault matrix"]
fn primary_stopped() {
    let what = "SIGSTOP of the primary's postmaster";
    let fault = Fault::takes_over(what, |pair| signal(pair.postmaster(0).pid, Signal::STOP));
    run("primary_stopped", fault.bound(s(3)));
}

#[test]
#[ignore = "in the fault matrix"]
fn standby_stopped() {
    let what = "SIGSTOP of the standby's postmaster";
    let fault = Fault::goes_on(what, |pair| signal(pair.postmaster(1).pid, Signal::STOP));
    run("standby_stopped", fault.bound(s(3)));
}

#[test]
#[ignore = "in the fault matrix"]
fn walreceiver_stopped() {
    let what = "SIGSTOP of the standby's WAL receiver";
    let fault = Fault::goes_on(what, |pair| stop(pair, 1, "walreceiver"));
    run("walreceiver_stopped", fault.bound(SILENCE).repair(|pair| all(pair, 1, Signal::CONT)));
}

#[test]
#[ignore = "in the fault matrix"]
fn walsender_stopped() {
    let what = "SIGSTOP of the primary's WAL sender";
    let fault = Fault::goes_on(what, |pair| stop(pair, 0, "walsender"));
    run("walsender_stopped", fault.bound(SILENCE).repair(|pair| all(pair, 0, Signal::CONT)));
}

#[test]
#[ignore = "in the fault matrix"]
fn checkpointer_stopped() {
    let what = "SIGSTOP of the primary's checkpointer";
    let fault = Fault::nothing(what, |pair| stop(pair, 0, "checkpointer"));
    run("checkpointer_stopped", fault.repair(|pair| all(pair, 0, Signal::CONT)));
}

#[test]
#[ignore = "in the fault matrix"]
fn checkpointer_stopped_and_standby_host_killed() {
    let what = "checkpointer stopped, SIGKILL of the standby's host";
    let fault = Fault::waits(what, |pair| pair.host_mut(1).power_off());
    let fault = fault.before(|pair| stop(pair, 0, "checkpointer")).repair(|pair| pair.host_mut(1).boot());
    let back = "SIGCONT; nd2: `start -f`";
    run(
        "checkpointer_stopped_and_standby_host_killed",
        fault.back(back, |pair| {
            all(pair, 0, Signal::CONT);
            start(pair, 1);
        }),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn controllers_killed() {
    let what = "SIGKILL of both controllers";
    let fault = Fault::nothing(what, |pair| [0, 1].iter().for_each(|n| signal(pair.controller(*n).pid, Signal::KILL)));
    run("controllers_killed", fault);
}

#[test]
#[ignore = "in the fault matrix"]
fn controller_stopped() {
    let what = "SIGSTOP of the primary's controller";
    let fault = Fault::nothing(what, |pair| signal(pair.controller(0).pid, Signal::STOP));
    run("controller_stopped", fault.lasts(s(16)));
}

#[test]
#[ignore = "in the fault matrix"]
fn watchers_killed() {
    let what = "SIGKILL of the watchers of both controllers";
    let fault = Fault::nothing(what, |pair| {
        [0, 1].iter().for_each(|n| signal(pair.host(*n).controllers()[0].pid, Signal::KILL))
    });
    run("watchers_killed", fault);
}

#[test]
#[ignore = "in the fault matrix"]
fn no_controller() {
    let what = "neither controller nor watcher runs on either server";
    let fault = Fault::nothing(what, end_controllers);
    run("no_controller", fault.back("both: `start -f`", |pair| [0, 1].iter().for_each(|n| start(pair, *n))));
}

#[test]
#[ignore = "in the fault matrix"]
fn no_controller_and_primary_killed() {
    let what = "no controller runs, SIGKILL of the primary's postmaster";
    let fault = Fault::waits(what, |pair| kill(pair, 0));
    run(
        "no_controller_and_primary_killed",
        fault.before(end_controllers).back("both: `start -f`", |pair| [0, 1].iter().for_each(|n| start(pair, *n))),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn primary_host_killed() {
    let what = "SIGKILL of the primary's host";
    let fault = Fault::takes_over(what, |pair| pair.host_mut(0).power_off());
    run("primary_host_killed", fault.bound(s(2)).repair(|pair| boot(pair, 0)));
}

#[test]
#[ignore = "in the fault matrix"]
fn standby_host_killed() {
    let what = "SIGKILL of the standby's host";
    let fault = Fault::goes_on(what, |pair| pair.host_mut(1).power_off());
    run("standby_host_killed", fault.bound(s(2)).repair(|pair| boot(pair, 1)).started());
}

#[test]
#[ignore = "in the fault matrix"]
fn primary_host_lost() {
    let what = "the primary's host loses power";
    let fault = Fault::takes_over(what, |pair| lose(pair, 0));
    run("primary_host_lost", fault.bound(SILENCE).repair(|pair| boot(pair, 0)));
}

#[test]
#[ignore = "in the fault matrix"]
fn standby_host_lost() {
    let what = "the standby's host loses power";
    let fault = Fault::goes_on(what, |pair| lose(pair, 1));
    run("standby_host_lost", fault.bound(SILENCE).repair(|pair| boot(pair, 1)).started());
}

#[test]
fn primary_host_paused() {
    let what = "the primary's host is paused, like a virtual machine, and resumes later";
    let fault = Fault::takes_over(what, |pair| all(pair, 0, Signal::STOP));
    run(
        "primary_host_paused",
        fault.bound(SILENCE).clients(Everywhere).lasts(s(5)).repair(|pair| all(pair, 0, Signal::CONT)),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn standby_host_paused() {
    let what = "the standby's host is paused and resumes later";
    let fault = Fault::goes_on(what, |pair| all(pair, 1, Signal::STOP));
    run(
        "standby_host_paused",
        fault.bound(SILENCE).clients(Everywhere).lasts(s(5)).repair(|pair| all(pair, 1, Signal::CONT)),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn primary_isolated() {
    let what = "the primary is cut off from all other hosts";
    let fault = Fault::takes_over(what, |pair| pair.net.cut(0));
    run("primary_isolated", fault.bound(SILENCE).clients(Everywhere).lasts(s(5)).repair(|pair| pair.net.heal(0)));
}

#[test]
#[ignore = "in the fault matrix"]
fn standby_isolated() {
    let what = "the standby is cut off from all other hosts";
    let fault = Fault::goes_on(what, |pair| pair.net.cut(1));
    run("standby_isolated", fault.bound(SILENCE).clients(Everywhere).lasts(s(5)).repair(|pair| pair.net.heal(1)));
}

#[test]
#[ignore = "in the fault matrix"]
fn link_cut() {
    let what = "the network between the servers fails; the arbiter reaches both";
    let fault = Fault::goes_on(what, |pair| pair.net.cut_between(0, 1));
    run("link_cut", fault.bound(SILENCE).clients(Everywhere).lasts(s(5)).repair(|pair| pair.net.heal_between(0, 1)));
}

#[test]
#[ignore = "in the fault matrix"]
fn link_cut_from_primary() {
    let what = "packets from the primary to the standby are lost";
    let fault = Fault::goes_on(what, |pair| pair.net.cut_from_to(0, 1));
    run(
        "link_cut_from_primary",
        fault.bound(s(12)).clients(Everywhere).lasts(s(5)).repair(|pair| pair.net.heal_from_to(0, 1)),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn link_cut_from_standby() {
    let what = "packets from the standby to the primary are lost";
    let fault = Fault::goes_on(what, |pair| pair.net.cut_from_to(1, 0));
    run(
        "link_cut_from_standby",
        fault.bound(s(12)).clients(Everywhere).lasts(s(5)).repair(|pair| pair.net.heal_from_to(1, 0)),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn admin_network_cut() {
    let what = "the admin network fails; the log transfer network is separate and works";
    let fault = Fault::nothing(what, |pair| (0..3).for_each(|host| pair.net.cut_on(ADMIN, host)));
    run(
        "admin_network_cut",
        fault
            .setup(Setup { more_networks: 1, ..Setup::default().arbiter() })
            .clients(Everywhere)
            .repair(|pair| (0..3).for_each(|host| pair.net.heal_on(ADMIN, host))),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn log_network_cut() {
    let what = "the log transfer network fails; the admin network works";
    let fault = Fault::goes_on(what, |pair| (0..2).for_each(|host| pair.net.cut_on(LOG, host)));
    run(
        "log_network_cut",
        fault
            .setup(Setup { more_networks: 1, ..Setup::default().arbiter() })
            .clients(Everywhere)
            .bound(s(12))
            .lasts(s(5))
            .repair(|pair| (0..2).for_each(|host| pair.net.heal_on(LOG, host))),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn arbiter_host_lost() {
    let what = "the arbiter's host loses power";
    let fault = Fault::nothing(what, lose_arbiter);
    run("arbiter_host_lost", fault.repair(boot_arbiter));
}

#[test]
#[ignore = "in the fault matrix"]
fn arbiter_lost_and_primary_killed() {
    let what = "the arbiter is lost, then SIGKILL of the primary's postmaster";
    let fault = Fault::takes_over(what, |pair| kill(pair, 0));
    run("arbiter_lost_and_primary_killed", fault.before(lose_arbiter).repair(boot_arbiter));
}

#[test]
fn arbiter_lost_and_primary_host_lost() {
    let what = "the arbiter is lost, then the primary's host loses power";
    let fault = Fault::waits(what, |pair| lose(pair, 0));
    run(
        "arbiter_lost_and_primary_host_lost",
        fault
            .before(lose_arbiter)
            .turns(&[0, 1])
            .repair(|pair| {
                force(pair, 1, "switch");
                boot(pair, 0);
                boot_arbiter(pair);
            })
            .back("nd2: `switch --force`; nd1: `rebuild`", rebuild),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn arbiter_lost_and_standby_host_lost() {
    let what = "the arbiter is lost, then the standby's host loses power";
    let fault = Fault::waits(what, |pair| lose(pair, 1));
    run(
        "arbiter_lost_and_standby_host_lost",
        fault
            .before(lose_arbiter)
            .repair(|pair| {
                force(pair, 0, "detach");
                boot(pair, 1);
                boot_arbiter(pair);
            })
            .back("nd1: `detach --force`; nd2: `start -f`", |pair| start(pair, 1)),
    );
}

#[test]
fn both_hosts_lost() {
    let what = "both servers lose power";
    let fault = Fault::waits(what, |pair| [0, 1].iter().for_each(|n| lose(pair, *n)));
    run(
        "both_hosts_lost",
        fault
            .repair(|pair| [0, 1].iter().for_each(|n| boot(pair, *n)))
            .back("both: `start -f`", |pair| [1, 0].iter().for_each(|n| start(pair, *n))),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn both_hosts_lost_and_standby_back() {
    let what = "both servers lose power, only the standby returns (`startup_wait = 5`)";
    let fault = Fault::takes_over(what, |pair| {
        [0, 1].iter().for_each(|n| lose(pair, *n));
        boot(pair, 1);
        start(pair, 1);
    });
    run(
        "both_hosts_lost_and_standby_back",
        fault.setup(Setup::default().arbiter().conf("startup_wait = 5")).bound(s(20)).repair(|pair| boot(pair, 0)),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn both_hosts_lost_and_primary_back() {
    let what = "both servers lose power, the primary returns (`startup_wait = 5`)";
    let fault = Fault::goes_on(what, |pair| {
        [0, 1].iter().for_each(|n| lose(pair, *n));
        boot(pair, 0);
        start(pair, 0);
    });
    run(
        "both_hosts_lost_and_primary_back",
        fault
            .setup(Setup::default().arbiter().conf("startup_wait = 5"))
            .bound(s(20))
            .repair(|pair| boot(pair, 1))
            .started(),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn primary_disk_full() {
    let what = "the disk of the primary's data directory is full";
    let fault = Fault::takes_over(what, |pair| {
        let fill = format!("dd if=/dev/zero of={}/filler bs=4k 2>/dev/null; true", pair.data(0));
        pair.as_root(0, &["sh", "-c", &fill]);
        // PostgreSQL lives on the WAL that it has
        wait_for("it dies of that", s(60), || {
            let _ = pair.try_sql(0, "SELECT pg_switch_wal()");
            (!pair.instance_runs(0)).then_some(())
        });
    });
    run(
        "primary_disk_full",
        fault
            .setup(Setup { small_disk_mib: Some(300), ..Setup::default().arbiter() })
            .bound(s(12))
            .repair(|pair| pair.as_root(0, &["rm", &format!("{}/filler", pair.data(0))])),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn management_disk_full() {
    let what = "the disk of the primary's management directory is full";
    let fault = Fault::nothing(what, |pair| pair.fill_management(0));
    run("management_disk_full", fault.prepare(|pair| pair.small_management(0)).repair(|pair| pair.empty_management(0)));
}

#[test]
fn management_disk_full_and_primary_killed() {
    let what = "management disk full, SIGKILL of the primary's postmaster";
    let fault = Fault::takes_over(what, |pair| kill(pair, 0)).prepare(|pair| pair.small_management(0));
    // the space that is reserved for the ledger lets it consent
    let fault = fault.before(|pair| pair.fill_management(0)).bound(s(2)).repair(|pair| pair.empty_management(0));
    run("management_disk_full_and_primary_killed", fault);
}

#[test]
fn management_disk_full_and_standby_host_killed() {
    let what = "management disk full, SIGKILL of the standby's host";
    let fault = Fault::goes_on(what, |pair| pair.host_mut(1).power_off()).prepare(|pair| pair.small_management(0));
    // it is mirrored again on the full disk
    let fault = fault.before(|pair| pair.fill_management(0)).bound(s(2)).repair(|pair| boot(pair, 1)).started();
    run("management_disk_full_and_standby_host_killed", fault);
}

#[test]
#[ignore = "in the fault matrix"]
fn rebuild_killed() {
    let what = "SIGKILL of nd1's controller, watcher and `pg_basebackup` during a rebuild; nd2 serves";
    let fault = Fault::nothing(what, |pair| {
        let mut rebuild = pair.mc_command(0, &["rebuild", "--yes", "--method", "basebackup"]);
        let rebuild = rebuild.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("could not run mc_ctl");
        pair.freeze_program(0, "pg_basebackup");
        pair.kill_rebuilders(0);
        drop(rebuild.wait_with_output());
    });
    run(
        "rebuild_killed",
        fault
            .before(|pair| {
                pair.fill(0, 64);
                pair.fail_over_from(0);
            })
            .turns(&[0, 1])
            .back("nd1: `rebuild`", rebuild),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn switch() {
    let what = "no fault: `mc_ctl switch`";
    let fault = Fault::takes_over(what, |pair| {
        pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    });
    run("switch", fault.clients(OneSession));
}

#[test]
#[ignore = "in the fault matrix"]
fn primary_restarted() {
    let what = "no fault: `mc_ctl stop` on the primary";
    let fault = Fault::takes_over(what, |pair| {
        pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    });
    run("primary_restarted", fault.clients(OneSession));
}

#[test]
#[ignore = "in the fault matrix"]
fn standby_restarted() {
    let what = "no fault: `mc_ctl stop` on the standby";
    let fault = Fault::goes_on(what, |pair| {
        pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    });
    run("standby_restarted", fault.clients(OneSession).started());
}

#[test]
#[ignore = "in the fault matrix"]
fn switch_primary_host_lost() {
    let what = "no arbiter, `switch`: the primary's host loses power";
    let fault = Fault::takes_over(what, |pair| lose(pair, 0));
    run("switch_primary_host_lost", fault.setup(without_arbiter("switch")).bound(SILENCE).repair(|pair| boot(pair, 0)));
}

#[test]
#[ignore = "in the fault matrix"]
fn switch_standby_host_lost() {
    let what = "no arbiter, `switch`: the standby's host loses power";
    let fault = Fault::waits(what, |pair| lose(pair, 1));
    run(
        "switch_standby_host_lost",
        fault
            .setup(without_arbiter("switch"))
            .repair(|pair| {
                force(pair, 0, "detach");
                boot(pair, 1);
            })
            .back("nd1: `detach --force`; nd2: `start -f`", |pair| start(pair, 1)),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn switch_link_cut() {
    let what = "no arbiter, `switch`: the network between the servers fails";
    let fault = Fault::takes_over(what, |pair| pair.net.cut_between(0, 1));
    run(
        "switch_link_cut",
        fault
            .setup(without_arbiter("switch"))
            .clients(Everywhere)
            .bound(SILENCE)
            .lasts(s(5))
            .repair(|pair| pair.net.heal_between(0, 1)),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn disconnect_primary_host_lost() {
    let what = "no arbiter, `disconnect`: the primary's host loses power";
    let fault = Fault::waits(what, |pair| lose(pair, 0));
    run(
        "disconnect_primary_host_lost",
        fault
            .setup(without_arbiter("disconnect"))
            .turns(&[0, 1])
            .repair(|pair| {
                force(pair, 1, "switch");
                boot(pair, 0);
            })
            .back("nd2: `switch --force`; nd1: `rebuild`", rebuild),
    );
}

#[test]
#[ignore = "in the fault matrix"]
fn disconnect_link_cut() {
    let what = "no arbiter, `disconnect`: the network between the servers fails";
    let fault = Fault::goes_on(what, |pair| pair.net.cut_between(0, 1));
    run(
        "disconnect_link_cut",
        fault
            .setup(without_arbiter("disconnect"))
            .clients(Everywhere)
            .bound(SILENCE)
            .lasts(s(5))
            .repair(|pair| pair.net.heal_between(0, 1)),
    );
}
