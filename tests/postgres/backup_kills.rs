//! Kills at random moments of a backup: what is listed as a backup verifies and starts, and the next backup removes the rest.
//!
//! ```text
//! MC_TEST_KILLS=50 cargo test --test postgres backup_kills -- --include-ignored --nocapture
//! ```

use crate::backup::{backups, destination, directories, pair};
use crate::harness::host::{Process, signal};
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::{Beside, run};
use crate::harness::{bin_dir, s, wait_for};
use rustix::process::Signal;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// `mc_ctl` alone.
    Command,
    /// The program that it runs: `pg_basebackup` or `pg_verifybackup`.
    Program,
    /// Both.
    All,
    /// The backend that sends the data, which ends in order: its death would be that of the instance.
    Sender,
}

const VICTIMS: [Victim; 4] = [Victim::Command, Victim::Program, Victim::All, Victim::Sender];
const FAST: [&str; 2] = ["backup", "--fast-checkpoint"];

fn random(below: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    below.mul_f64(f64::from(now.subsec_nanos() / 7 % 10_000) / 10_000.0)
}

fn processes(pair: &Pair, victim: Victim) -> Vec<Process> {
    let command = || pair.host(0).processes().into_iter().filter(|p| p.command.contains(" backup --fast"));
    let programs = || ["pg_basebackup", "pg_verifybackup"].into_iter().flat_map(|name| pair.host(0).running(name));
    match victim {
        Victim::Command => command().collect(),
        Victim::Program => programs().collect(),
        Victim::All => command().chain(programs()).collect(),
        Victim::Sender => pair.host(0).backend("sending backup").into_iter().collect(),
    }
}

#[test]
#[ignore = "50 kills; run with --include-ignored"]
fn kills() {
    let rounds = std::env::var("MC_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    let pair = pair(Setup::default());
    pair.fill(0, 128);
    pair.sql(0, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id");
    let begin = Instant::now();
    pair.mc(0, &FAST).expect(0, "mc_ctl backup");
    let whole = begin.elapsed();
    let (mut kills, mut complete) = (0, 0);
    for attempt in 0..rounds * 8 {
        let victim = VICTIMS[attempt % VICTIMS.len()];
        let before = backups(&pair, 0);
        let mut backup = Beside::start(pair.mc_command(0, &FAST));
        std::thread::sleep(random(whole));
        let killed = processes(&pair, victim);
        let how = if matches!(victim, Victim::Sender) { Signal::TERM } else { Signal::KILL };
        killed.iter().for_each(|process| signal(process.pid, how));
        wait_for("it ends", s(60), || backup.ended());
        let after = backups(&pair, 0);
        // The older ones are as they were, except those that a complete new one has replaced.
        let new = after.iter().filter(|name| !before.contains(name)).count();
        assert!(new <= 1 && !after.is_empty() && after.len() <= 3, "{victim:?}: {before:?}, then {after:?}");
        assert!(new == 1 || after == before, "{victim:?}: {before:?}, then {after:?}");
        let newest = after.last().expect("a backup");
        pair.mc(0, &["backup", "--verify", newest]).expect(0, "mc_ctl backup --verify");
        // The kill comes too late for some backups.
        if !killed.is_empty() {
            (kills, complete) = (kills + 1, complete + new);
            eprintln!("KILL {kills}: {victim:?}: {}", if new == 1 { "complete" } else { "no backup" });
        }
        if kills == rounds {
            break;
        }
    }
    assert_eq!(kills, rounds, "kills that hit a backup");
    wait_for("the next backup succeeds", s(60), || (pair.mc(0, &FAST).code == 0).then_some(()));
    assert_eq!((backups(&pair, 0).len(), directories(&pair, 0)), (2, 2), "what was left is removed");
    eprintln!("{kills} kills: {complete} backups were complete; a whole backup took {whole:?}");
    starts(&pair, &backups(&pair, 0).pop().expect("a backup"));
}

/// The backup alone is a database.
fn starts(pair: &Pair, name: &str) {
    let bin = bin_dir().display().to_string();
    let from = destination(pair, 0).join(name).join("data").display().to_string();
    let at = destination(pair, 0).join("copy").display().to_string();
    let script = format!(
        "cp -a '{from}' '{at}'\ncat >>'{at}/postgresql.conf' <<'END'\narchive_mode = off\nsynchronous_standby_names = ''\n\
         port = 5999\nlisten_addresses = ''\nunix_socket_directories = '{at}'\nEND\n\
         '{bin}/pg_ctl' -w -t 60 -D '{at}' -l '{at}/server.log' start >&2\n\
         '{bin}/psql' -h '{at}' -p 5999 -Atc 'SELECT count(*), max(id) FROM kept' postgres\n\
         '{bin}/pg_ctl' -w -m fast -D '{at}' stop >&2"
    );
    let mut command = pair.host(0).admin("sh");
    command.args(["-euc", &script]);
    assert_eq!(run(command, s(180)).expect(0, "a start of the backup").out.trim(), "1000|1000");
}
