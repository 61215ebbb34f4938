//! What a recovery must not meet: a recovery of the other server, a rebuild, and data that a rebuild has left incomplete.

use crate::backup::{destination, pair};
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::{Beside, run};
use crate::harness::{s, wait_for};
use rustix::process::Signal;

const ARBITER: usize = 2;
const LATEST: [&str; 3] = ["recover", "--latest", "--yes"];

/// A pair with three rows, and a backup on each server.
fn with_backups(setup: Setup) -> Pair {
    let pair = pair(setup);
    pair.sql(0, "CREATE TABLE kept AS SELECT generate_series(1, 3) AS id");
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    let [from, to] = [0, 1].map(|n| destination(&pair, n).display().to_string());
    pair.as_root(1, &["sh", "-c", &format!("cp -a {from}/20* {to}/")]);
    pair
}

fn rows(pair: &Pair, server: usize) -> String {
    pair.sql(server, "SELECT count(*) FROM kept")
}

fn journal(pair: &Pair, server: usize, file: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(pair.run_dir(server).join(file)).unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default()["journal"].take()
}

fn primaries(pair: &Pair) -> Vec<usize> {
    let primary = |n: &usize| pair.sql_beside(*n, "SELECT pg_is_in_recovery()").as_deref() == Ok("f");
    [0, 1].into_iter().filter(primary).collect()
}

/// Begins a recovery on both servers at once; what each answers.
fn both(pair: &Pair) -> [(i32, String); 2] {
    let commands = [0, 1].map(|n| pair.mc_command(n, &LATEST));
    let threads = commands.map(|command| std::thread::spawn(move || run(command, s(300))));
    threads.map(|thread| thread.join().expect("an answer")).map(|answer| (answer.code, answer.text()))
}

/// Both servers are down, and a recovery begins on both at once. With the link at most one continues. Without it neither does,
/// until an operator confirms that the other server is down.
#[test]
fn on_both_servers_at_once() {
    let pair = with_backups(Setup::default());
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    pair.net.cut_between(0, 1);
    for (code, text) in both(&pair) {
        assert!(
            code == 4 && text.contains("does not respond, and may be the primary") && text.contains("--force"),
            "{text}"
        );
    }
    assert!(primaries(&pair).is_empty() && [0, 1].iter().all(|n| journal(&pair, *n, "recover.json").is_null()));
    let plan = pair.mc(1, &["recover", "--latest", "--dry-run"]);
    assert!(plan.code == 4 && plan.text().contains("may be the primary"), "{plan:?}");
    pair.net.heal_between(0, 1);
    let answers = both(&pair);
    let ended: Vec<usize> = [0, 1].into_iter().filter(|n| answers[*n].0 == 0).collect();
    assert!(ended.len() < 2 && primaries(&pair).len() < 2, "{answers:?}");
    for n in [0, 1] {
        let left = !journal(&pair, n, "recover.json").is_null();
        assert!(!left || pair.mc(n, &["recover", "--abandon"]).code == 0, "{answers:?}");
    }
    [0, 1].iter().for_each(|n| drop(pair.mc(*n, &["stop"])));
    pair.net.cut_between(0, 1);
    let answer = pair.mc(0, &[&LATEST[..], &["--force"]].concat()).expect(0, "mc_ctl recover --force");
    assert!(answer.out.contains("runs alone"), "{answer:?}");
    assert_eq!(pair.mc(1, &LATEST).code, 4);
    pair.net.heal_between(0, 1);
    wait_for("nd2 is rebuilt", s(60), || (pair.mc(1, &["rebuild", "--yes"]).code == 0).then_some(()));
    pair.mc(0, &["enable-failover"]).expect(0, "mc_ctl enable-failover");
    pair.wait_roles(1, "switchable", ["primary", "standby"]);
    assert_eq!(rows(&pair, 1), "3");
}

/// The arbiter consents if it receives no heartbeats of the other server. If it receives them, an operator cannot force the
/// recovery.
#[test]
fn with_an_arbiter() {
    let pair = with_backups(Setup::default().arbiter());
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    pair.net.cut_between(0, 1);
    pair.start(1, &["--mc-only"]);
    for words in [&LATEST[..], &["recover", "--latest", "--yes", "--force"]] {
        let answer = pair.mc(0, words);
        assert!(
            answer.code == 4 && answer.err.contains("the arbiter receives heartbeats of server \"nd2\""),
            "{answer:?}"
        );
    }
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.net.cut(ARBITER);
    let answer = pair.mc(0, &LATEST);
    assert!(answer.code == 4 && answer.err.contains("nor the arbiter responds"), "{answer:?}");
    pair.net.heal(ARBITER);
    let both = both(&pair);
    let ended = both.iter().filter(|(code, _)| *code == 0).count();
    assert!(ended < 2 && primaries(&pair).len() < 2, "{both:?}");
    let primary = match primaries(&pair)[..] {
        [primary] => primary,
        _ => {
            [0, 1].iter().for_each(|n| drop(pair.mc(*n, &["recover", "--abandon"])));
            pair.mc(1, &["stop", "--mc-only"]);
            let recovered = || (pair.mc(0, &LATEST).code == 0).then_some(());
            wait_for("nd1 is recovered with the arbiter's consent", s(120), recovered);
            0
        }
    };
    let other = 1 - primary;
    assert_eq!(pair.mc(other, &LATEST).code, 4);
    pair.net.heal_between(0, 1);
    wait_for("the other server is rebuilt", s(60), || (pair.mc(other, &["rebuild", "--yes"]).code == 0).then_some(()));
    assert_eq!((primaries(&pair), rows(&pair, other)), (vec![primary], "3".to_owned()));
}

/// A rebuild of nd1 is killed while `pg_rewind` changes the data directory, and nd2 is lost. The recovery replaces the data
/// directory, which nothing can start meanwhile or later, and can be undone until then.
#[test]
fn of_a_half_rewound_directory() {
    let pair = with_backups(Setup::default().conf("startup_wait = 5").pg("wal_keep_size = 1GB"));
    pair.fill(0, 150);
    pair.fail_over_from(0);
    pair.sql(1, "UPDATE bulk SET id = -id");
    pair.sql(1, "CHECKPOINT");
    let command = pair.mc_command(0, &["rebuild", "--yes", "--method", "rewind"]);
    let mut rebuild = Beside::start(command);
    wait_for("it rewinds", s(120), || (journal(&pair, 0, "rebuild.json")["phase"] == "rewinding").then_some(()));
    pair.kill_rebuilders(0);
    wait_for("the command has ended", s(120), || rebuild.ended());
    assert_eq!(journal(&pair, 0, "rebuild.json")["phase"], "rewinding", "it was killed too late");
    // What has ended early on nd1 does not prevent a recovery of nd2.
    let other = pair.mc(1, &["recover", "--latest", "--dry-run"]).text();
    assert!(!other.contains("in progress"), "{other}");
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.net.cut_between(0, 1);

    let force = [&LATEST[..], &["--force"]].concat();
    // It is refused while the controller waits for the source of the rebuild.
    let mut command = None;
    wait_for("the rebuild is ended", s(60), || {
        let running = command.get_or_insert_with(|| Beside::start(pair.mc_command(0, &force)));
        let phase = journal(&pair, 0, "recover.json")["phase"].clone();
        if running.ended().is_some() && phase.is_null() {
            command = None;
        }
        (phase == "recovering").then_some(())
    });
    let own = || pair.host(0).processes().into_iter().filter(|p| p.command.contains(" recover "));
    own().for_each(|p| signal(p.pid, Signal::KILL));
    pair.mc(0, &["recover", "--abandon"]).expect(0, "mc_ctl recover --abandon");
    assert!(pair.read(0, "PG_VERSION").contains("Mirroring Controller"), "the directory can be started");
    assert_eq!(journal(&pair, 0, "rebuild.json")["phase"], "rewinding");
    let answer = pair.mc(0, &force).expect(0, "mc_ctl recover --force");
    assert!(answer.err.contains("a rebuild has left the data directory incomplete"), "{answer:?}");
    assert!(answer.err.contains("rename the directory \"nd2\""), "{answer:?}");
    assert!(journal(&pair, 0, "rebuild.json").is_null());
    assert_eq!(rows(&pair, 0), "3");
    let kept = pair.beside(0).into_iter().find(|name| name.contains(".old-")).expect("the old data directory");
    let version = pair.servers[0].data.with_file_name(kept).join("PG_VERSION");
    let version = std::fs::read_to_string(pair.host(0).path(&version)).expect("PG_VERSION");
    assert!(version.contains("Mirroring Controller"), "the old data directory can be started");
    let ledger = pair.run_dir(1).display().to_string();
    pair.as_root(1, &["mv", &ledger, &format!("{ledger}.old")]);
    pair.net.heal_between(0, 1);
    wait_for("nd2 is rebuilt", s(60), || (pair.mc(1, &["rebuild", "--yes"]).code == 0).then_some(()));
    assert_eq!((primaries(&pair), rows(&pair, 1)), (vec![0], "3".to_owned()));
}

/// With `rebuild_action = auto` on both servers: the other server is rebuilt from the recovered data, and a server that is being
/// recovered is not rebuilt by itself when the other server appears as the primary.
#[test]
fn with_automatic_rebuilds() {
    let mut pair = with_backups(Setup::default().conf("rebuild_action = auto"));
    pair.sql(0, "SELECT pg_create_restore_point('three')");
    for server in [0, 1] {
        pair.sql(server, "INSERT INTO kept VALUES (4)");
        let target = ["recover", "--yes", "--name", "three"];
        let answer = pair.mc(0, &target).expect(0, "mc_ctl recover");
        assert!(answer.out.contains("the pair is mirrored"), "{answer:?}");
        [0, 1].iter().for_each(|n| pair.wait_roles(*n, "switchable", ["primary", "standby"]));
        assert_eq!([0, 1].map(|n| rows(&pair, n)), ["3", "3"]);
        pair.as_root(0, &["sh", "-c", "rm -rf \"$0\".old-*", pair.data(0)]);
        if server == 0 {
            // The next one begins on the standby.
            pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
            pair.wait_roles(0, "switchable", ["standby", "primary"]);
        }
    }

    // nd2 takes over while nd1 is off, and is off when nd1 boots.
    pair.host_mut(0).power_off();
    wait_for("nd2 takes over", s(60), || (primaries_of(&pair, 1)).then_some(()));
    pair.sql(1, "INSERT INTO kept VALUES (5)");
    pair.host_mut(1).power_off();
    pair.host_mut(0).boot();
    pair.mc(0, &["start", "-W", "-f"]);
    let mut command = Beside::start(pair.mc_command(0, &["recover", "--yes", "--force", "--name", "three"]));
    wait_for("the backup is copied", s(60), || {
        let copies = journal(&pair, 0, "recover.json")["phase"] == "copying";
        assert!(command.ended().is_none(), "it has ended");
        copies.then_some(())
    });
    let own = |pair: &Pair| {
        pair.host(0)
            .processes()
            .into_iter()
            .filter(|p| p.command.contains(" recover "))
            .map(|p| p.pid)
            .collect::<Vec<_>>()
    };
    own(&pair).into_iter().for_each(|pid| signal(pid, Signal::STOP));
    let since = std::time::Instant::now();
    pair.host_mut(1).boot();
    pair.mc(1, &["start", "-W", "-f"]);
    pair.wait_log(0, since, "a recovery of this server is in progress", s(60));
    own(&pair).into_iter().chain([command.pid()]).for_each(|pid| signal(pid, Signal::CONT));
    wait_for("the command has ended", s(120), || command.ended());
    assert_eq!(primaries(&pair), [1]);
    pair.mc(0, &["recover", "--abandon"]).expect(0, "mc_ctl recover --abandon");
    // It is rebuilt by itself now.
    pair.wait_roles(1, "switchable", ["standby", "primary"]);
    assert_eq!([0, 1].map(|n| rows(&pair, n)), ["4", "4"]);
}

fn primaries_of(pair: &Pair, server: usize) -> bool {
    pair.sql_beside(server, "SELECT pg_is_in_recovery()").as_deref() == Ok("f")
}
