//! Deaths in the middle of a rebuild: nothing that starts is a second primary, and the rebuild is continued.
//!
//! ```text
//! MC_TEST_KILLS=50 cargo test --test postgres kills -- --nocapture
//! ```

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::{Answer, run};
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Who is killed with SIGKILL.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The controller, its watcher, and what they run.
    All,
    /// The server's whole host.
    Host,
    /// The controller alone: its watcher starts another, while what it ran may continue.
    Controller,
    /// `pg_rewind` or `pg_basebackup` alone.
    Program,
}

const VICTIMS: [Victim; 4] = [Victim::All, Victim::Host, Victim::Controller, Victim::Program];
const METHODS: [&str; 3] = ["auto", "basebackup", "auto"];

/// So often: the primary crashes, its rebuild is killed at a random moment, and what is left is started by the way of an
/// rc script, then by `mc_ctl start`, which heals it. One pair, one client, roles in turn.
#[test]
fn kills() {
    let rounds = std::env::var("MC_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    pair.fill(0, 64);
    let mut turns = vec![0];
    for round in 0..rounds {
        let loser = round % 2;
        let (victim, method) = (VICTIMS[round % 4], METHODS[round % 3]);
        pair.sql(loser, &format!("CHECKPOINT; UPDATE bulk SET id = -id WHERE id % 16 = {}", round % 16));
        pair.fail_over_from(loser);
        pair.sql(1 - loser, &format!("UPDATE bulk SET id = -id WHERE id % 16 = {}", (round + 1) % 16));
        let saw = kill_in(&mut pair, loser, method, victim, round % 2 == 0);
        let healing = Instant::now();
        let how = heal(&pair, loser);
        pair.check_rebuilt(loser);
        client.wait_ack(Instant::now(), s(10));
        turns.push(1 - loser);
        let took = healing.elapsed().as_secs_f64();
        eprintln!("KILL {round}: {method}, {victim:?}: {saw}; healed {how} in {took:.1} s");
        assert_eq!(client.turns(), turns, "the servers that acknowledged, in turn");
    }
    client.check(&pair, rounds % 2, &turns);
}

fn random(below: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    below * (now.subsec_micros() % 1000) / 1000
}

/// Begins a rebuild and kills, at any time or while it copies; answers when, and what a start behind the controller's back
/// did then.
fn kill_in(pair: &mut Pair, server: usize, method: &str, victim: Victim, copying: bool) -> String {
    let command = pair.mc_command(server, &["rebuild", "--yes", "--method", method]);
    let asked = std::thread::spawn(move || run(command, s(100)));
    let begun = Instant::now();
    if copying {
        let copies = |command: &str| command.contains("pg_rewind") || command.contains("pg_basebackup");
        let done = || asked.is_finished() || pair.rebuilders(server).iter().any(|p| copies(&p.command));
        wait_for("it copies", s(60), || done().then_some(()));
    }
    std::thread::sleep(random(Duration::from_millis(if copying { 800 } else { 4000 })));
    let step = pair.json(server).map_or_else(|| "not known".into(), |told| told["rebuild"]["step"].to_string());
    let when = begun.elapsed().as_secs_f64();
    match victim {
        Victim::All => pair.kill_rebuilders(server),
        Victim::Host => {
            pair.host_mut(server).power_off();
            pair.host_mut(server).boot();
        }
        Victim::Controller => signal(pair.controller(server).pid, Signal::KILL),
        Victim::Program => {
            let programs = pair.rebuilders(server).into_iter().filter(|p| !p.command.contains("mc_ctl"));
            programs.for_each(|p| signal(p.pid, Signal::KILL));
        }
    }
    let saw = match victim {
        Victim::All | Victim::Host => {
            let saw = pair.start_behind_the_controller(server);
            pair.mc(server, &["start", "-W", "-f"]);
            saw
        }
        Victim::Controller | Victim::Program => "the watcher lives",
    };
    let answer: Answer = asked.join().expect("mc_ctl rebuild returns");
    assert!(answer.code != 2 && answer.code != 5, "mc_ctl rebuild: exit code {}: {}", answer.code, answer.text());
    format!("after {when:.1} s in step {step}: {saw}")
}

/// Waits until the pair is mirrored; where the rebuild does not continue by itself, asks for it again.
fn heal(pair: &Pair, server: usize) -> &'static str {
    let mut how = "by itself";
    wait_for("the pair is mirrored", s(90), || {
        let word = pair.status(1 - server)?.word;
        if word == "switchable" {
            return Some(());
        }
        let told = pair.json(server)?["rebuild"].clone();
        let idle = told.is_null() || !told["failed"].is_null();
        if idle && pair.mc(server, &["rebuild", "--yes"]).code == 0 {
            how = "by another command";
        }
        None
    });
    how
}
