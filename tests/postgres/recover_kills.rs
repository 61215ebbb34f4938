//! Deaths in the middle of a recovery: nothing that starts is a second primary, and the recovery is continued or undone.
//!
//! ```text
//! MC_TEST_KILLS=50 cargo test --test postgres recover_kills -- --nocapture
//! ```

use crate::backup::pair;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::Beside;
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::time::Duration;

/// Who is killed with SIGKILL.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The command alone; the instance that it has started may continue.
    Command,
    /// The controller of the server alone.
    Controller,
    /// The command, its instance, the controller and its watcher.
    All,
    /// The server's whole host.
    Host,
}

/// What came of a recovery that could not be done.
const REFUSED: &str = "refused";

const VICTIMS: [Victim; 4] = [Victim::Command, Victim::All, Victim::Host, Victim::Controller];

/// How far the journal says that the recovery has come; empty without one.
fn phase(pair: &Pair) -> String {
    let text = std::fs::read_to_string(pair.run_dir(0).join("recover.json")).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    json["journal"]["phase"].as_str().unwrap_or_default().to_owned()
}

fn ids(pair: &Pair, server: usize) -> String {
    pair.sql(server, "SELECT string_agg(id::text, ',' ORDER BY id) FROM written_before")
}

/// At most one server accepts commits.
#[track_caller]
fn one_primary(pair: &Pair) {
    let primary =
        |n: &usize| pair.host(*n).is_on() && pair.sql_beside(*n, "SELECT pg_is_in_recovery()").as_deref() == Ok("f");
    let primaries: Vec<usize> = [0, 1].into_iter().filter(primary).collect();
    assert!(primaries.len() < 2, "both servers are primaries");
}

fn kill(pair: &mut Pair, victim: Victim) {
    let commands = |pair: &Pair| pair.host(0).processes().into_iter().filter(|p| p.command.contains(" recover "));
    match victim {
        Victim::Command => commands(pair).for_each(|p| signal(p.pid, Signal::KILL)),
        Victim::Controller => {
            let ones = pair.host(0).controllers().into_iter().filter(|p| p.command.contains("--controller"));
            ones.for_each(|p| signal(p.pid, Signal::KILL));
        }
        Victim::All => {
            let staged = |p: &crate::harness::host::Process| p.command.contains(".rebuild-new");
            let mine = pair.host(0).processes().into_iter().filter(staged);
            let all: Vec<_> = commands(pair).chain(pair.host(0).controllers()).chain(mine).collect();
            all.into_iter().for_each(|p| signal(p.pid, Signal::KILL));
        }
        Victim::Host => {
            pair.host_mut(0).power_off();
            pair.host_mut(0).boot();
        }
    }
}

/// So often: a recovery is killed at a random time, what an rc script would start is started, and the recovery is continued or
/// undone.
#[test]
fn kills() {
    let rounds = std::env::var("MC_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let mut pair = pair(Setup::default());
    pair.sql(0, "CREATE TABLE written_before (id serial)");
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    let mut random = 0x2545_f491_u64 ^ u64::from(std::process::id());
    for round in 0..rounds {
        let victim = VICTIMS[round % 4];
        let name = format!("round{round}");
        pair.sql(0, "INSERT INTO written_before DEFAULT VALUES");
        let expected = ids(&pair, 0);
        pair.sql(0, &format!("SELECT pg_create_restore_point('{name}')"));
        pair.sql(0, "INSERT INTO written_before DEFAULT VALUES");
        let all = ids(&pair, 0);
        let target: &[&str] = if round % 5 == 4 { &["--latest"] } else { &["--name", &name] };
        let recovered = if round % 5 == 4 { &all } else { &expected };
        let mut command = Beside::start(pair.mc_command(0, &[&["recover", "--yes"], target].concat()));
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let delay = (random >> 33) % 8000;
        std::thread::sleep(Duration::from_millis(delay));
        kill(&mut pair, victim);
        if !matches!(victim, Victim::Command | Victim::Controller) {
            wait_for("the command has ended", s(60), || command.ended());
        }
        let at = phase(&pair);
        one_primary(&pair);
        if matches!(victim, Victim::All | Victim::Host) {
            pair.mc(0, &["start", "-W", "-f"]);
            std::thread::sleep(Duration::from_secs(2));
            one_primary(&pair);
        }
        wait_for("the command has ended", s(120), || command.ended());
        let now = phase(&pair);
        let undone = round % 3 == 1 && ["copying", "stopping", "recovering"].contains(&now.as_str());
        eprintln!("KILL {round}: {victim:?} after {delay} ms in phase \"{at}\", then \"{now}\"");
        let how = settle(&pair, &now, undone, target);
        one_primary(&pair);
        mirrored(&pair);
        let found = ids(&pair, 0);
        let valid = if undone || how == REFUSED { found == all } else { found == *recovered };
        assert!(valid, "round {round}: {found} instead of {recovered} or {all}, {how}");
        assert_eq!(found, ids(&pair, 1));
        eprintln!("KILL {round}: {how}");
        pair.as_root(0, &["sh", "-c", "rm -rf \"$0\".old-*", pair.data(0)]);
    }
}

/// Killed as soon as each phase begins, with the whole host; then only the controller is started.
#[test]
fn in_each_phase() {
    // The other server does not take over while the host boots.
    let mut pair = pair(Setup::default().conf("heartbeat_error_action = message"));
    pair.sql(0, "CREATE TABLE written_before (id serial)");
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    for at in ["stopping", "recovering", "swapping", "adopting"] {
        pair.sql(0, "INSERT INTO written_before DEFAULT VALUES");
        let expected = ids(&pair, 0);
        pair.sql(0, &format!("SELECT pg_create_restore_point('{at}')"));
        pair.sql(0, "INSERT INTO written_before DEFAULT VALUES");
        let all = ids(&pair, 0);
        let mut command = Beside::start(pair.mc_command(0, &["recover", "--yes", "--name", at]));
        // A phase may be over before it is seen.
        let order = ["copying", "stopping", "recovering", "swapping", "adopting", "rebuilding"];
        let reached = |now: &str| order.iter().position(|name| *name == now);
        wait_for(at, s(120), || (reached(&phase(&pair)) >= reached(at) || command.ended().is_some()).then_some(()));
        kill(&mut pair, Victim::Host);
        let now = phase(&pair);
        eprintln!("KILL at {at}: in phase \"{now}\"");
        assert!(!now.is_empty(), "the recovery is in progress");
        pair.mc(0, &["start", "--mc-only"]);
        one_primary(&pair);
        let how = settle(&pair, &now, false, &["--name", at]);
        mirrored(&pair);
        assert_eq!(ids(&pair, 1), if how == REFUSED { all } else { expected }, "{at}");
        pair.as_root(0, &["sh", "-c", "rm -rf \"$0\".old-*", pair.data(0)]);
    }
}

/// While the backup is copied, the primary is cut off and the other server takes over. The primary then learns of that from the
/// arbiter alone. The recovery does not take the right to run alone away from the other server, and is undone.
#[test]
fn the_other_server_takes_over_meanwhile() {
    let pair = pair(Setup::default().arbiter().fast_network());
    pair.sql(0, "CREATE TABLE written_before (id serial)");
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    pair.sql(0, "SELECT pg_create_restore_point('here')");
    let mut command = Beside::start(pair.mc_command(0, &["recover", "--yes", "--name", "here"]));
    wait_for("the backup is copied", s(60), || (phase(&pair) == "copying").then_some(()));
    let own = || pair.host(0).processes().into_iter().filter(|p| p.command.contains(" recover ")).map(|p| p.pid);
    own().for_each(|pid| signal(pid, Signal::STOP));
    pair.net.cut(0);
    wait_for("nd2 takes over", s(60), || {
        (pair.sql_beside(1, "SELECT pg_is_in_recovery()").as_deref() == Ok("f")).then_some(())
    });
    pair.net.cut_between(0, 1);
    pair.net.heal(0);
    wait_for("nd1 is stopped", s(60), || (!pair.instance_runs(0)).then_some(()));
    // nsenter has stopped with its child.
    own().chain([command.pid()]).for_each(|pid| signal(pid, Signal::CONT));
    wait_for("the command has ended", s(120), || command.ended());
    one_primary(&pair);
    assert!(!pair.instance_runs(0), "nd1 serves");
    pair.sql(1, "INSERT INTO written_before DEFAULT VALUES");
    pair.net.heal_between(0, 1);
    if !phase(&pair).is_empty() {
        pair.mc(0, &["recover", "--abandon"]).expect(0, "mc_ctl recover --abandon");
    }
    wait_for("nd1 is the standby", s(60), || {
        (pair.mc(0, &["rebuild", "--yes"]).code == 0 || pair.status(0)?.word == "switchable").then_some(())
    });
    pair.wait_word(1, "switchable");
    assert_eq!(ids(&pair, 0), "1");
}

/// Continues or undoes what was interrupted.
fn settle(pair: &Pair, phase: &str, undo: bool, target: &[&str]) -> &'static str {
    if undo {
        pair.mc(0, &["recover", "--abandon"]).expect(0, "mc_ctl recover --abandon");
        assert!(pair.beside(0).iter().all(|path| !path.contains(".rebuild-new")), "the copy is removed");
        return "undone";
    }
    if phase.is_empty() {
        // It had ended, or had not begun.
        let status = pair.mc(0, &["recover"]);
        assert_eq!(status.code, 2, "{status:?}");
        pair.mc(0, &["start", "-f"]);
        mirrored(pair);
        return again(pair, target);
    }
    assert!(pair.mc(0, &["status"]).code != 0 || pair.mc(0, &["status"]).text().contains("A recovery is in progress"));
    let continued = pair.mc(0, &["recover", "--yes"]);
    if continued.code == 0 {
        return "continued";
    }
    // The instance of the copy was killed while it began its timeline.
    if continued.code == 1 && continued.err.contains("was interrupted; the recovery was undone") {
        mirrored(pair);
        return again(pair, target);
    }
    // The host died while the pair served, and the standby has taken over.
    let taken_over = ["is the primary", "may be the primary"].iter().any(|text| continued.err.contains(text));
    assert!(continued.code == 4 && taken_over, "{continued:?}");
    // A copy that was not whole is removed before the command finds that.
    if !self::phase(pair).is_empty() {
        if phase != "rebuilding" {
            let refused = pair.mc(0, &["rebuild", "--yes"]);
            assert!(refused.code == 4 && refused.err.contains("a recovery is in progress"), "{refused:?}");
        }
        pair.mc(0, &["recover", "--abandon"]).expect(0, "mc_ctl recover --abandon");
    }
    mirrored(pair);
    again(pair, target)
}

/// Another recovery. The WAL of the last moment may be lost with the host, if the standby received it during a rebuild.
fn again(pair: &Pair, target: &[&str]) -> &'static str {
    let answer = pair.mc(0, &[&["recover", "--yes"], target].concat());
    assert!(answer.code == 0 || answer.err.contains("could not be recovered"), "{answer:?}");
    if answer.code != 0 {
        eprintln!("KILL: {}", answer.err);
    }
    if answer.code == 0 { "repeated" } else { REFUSED }
}

/// Waits until the pair is mirrored; a standby that was detached is attached.
#[track_caller]
fn mirrored(pair: &Pair) {
    wait_for("the pair is mirrored", s(120), || {
        let Some(status) = pair.status(0) else {
            // The watcher was killed too.
            pair.mc(0, &["start", "-W", "-f"]);
            return None;
        };
        if status.word == "switchable" {
            return Some(());
        }
        if status.rows.iter().any(|row| row.role == "primary") {
            let standby = usize::from(status.rows[0].role == "primary");
            // A host that died after the recovery had ended has lost its role.
            let verb: &[&str] = if status.word == "switched" { &["rebuild", "--yes"] } else { &["start", "-W", "-f"] };
            pair.mc(standby, verb);
            std::thread::sleep(Duration::from_secs(2));
        }
        None
    });
    if pair.status(0).is_some_and(|status| status.rows[0].role != "primary") {
        pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
        mirrored(pair);
    }
}
