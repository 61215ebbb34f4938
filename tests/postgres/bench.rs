//! Measures outages and waits as a client sees them, rows lost, and what the controllers cost. Prints the rows of `BENCH.md`,
//! and with `UPDATE_BENCH` set writes them there. `RUNS` is the number of runs (5), `BENCH_CASES` a choice of cases.

#[allow(dead_code, reason = "the cases of the test target use the rest")]
mod harness;

mod bench_peers;
mod bench_rebuild;

use harness::client::{Client, Style, THIRD};
use harness::document;
use harness::host::signal;
use harness::pair::{Pair, Setup, program};
use harness::run::run;
use harness::{bin_dir, s};
use rustix::process::Signal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What one run gives.
#[derive(Default)]
struct Run {
    values: Vec<f64>,
    lost: usize,
    /// What else was measured: further lines of the table, in seconds, that have no limit.
    more: Vec<(&'static str, f64)>,
}

/// A line of the table.
struct Case {
    key: &'static str,
    title: &'static str,
    must: &'static str,
    unit: &'static str,
    run: fn() -> Run,
}

const CASES: &[Case] = &[
    Case {
        key: "postmaster",
        title: "SIGKILL of the primary's postmaster: outage",
        must: "median ≤ 0.5 s, max ≤ 1 s",
        unit: "s",
        run: postmaster,
    },
    Case {
        key: "host",
        title: "SIGKILL of all processes of the primary's host, its kernel answers: outage",
        must: "median ≤ 1 s",
        unit: "s",
        run: host,
    },
    Case { key: "cut", title: "the primary's host stops responding: outage", must: "≤ 6.2 s", unit: "s", run: cut },
    Case {
        key: "cut-fast",
        title: "the same with interval 100, timeout '300ms', retry 1",
        must: "≤ 1.6 s",
        unit: "s",
        run: cut_fast,
    },
    Case {
        key: "arbiter-cut",
        title: "arbiter, the primary is cut off from all other hosts: outage, seen on the arbiter's host",
        must: "≤ 6.2 s",
        unit: "s",
        run: arbiter_cut,
    },
    Case {
        key: "arbiter-cut-fast",
        title: "the same with interval 100, timeout '300ms', retry 1",
        must: "≤ 1.6 s",
        unit: "s",
        run: arbiter_cut_fast,
    },
    Case {
        key: "arbiter-between",
        title: "arbiter, the primary is cut off from the standby only: longest wait of a commit",
        must: "≤ 6.2 s",
        unit: "s",
        run: arbiter_between,
    },
    Case {
        key: "standby",
        title: "SIGKILL of the standby's postmaster: longest wait of a commit",
        must: "≤ 0.5 s",
        unit: "s",
        run: standby,
    },
    Case { key: "switch", title: "`mc_ctl switch`: outage", must: "median ≤ 0.7 s", unit: "s", run: switch },
    Case {
        key: "frozen-postmaster",
        title: "SIGSTOP of the primary's postmaster: time until the standby serves",
        must: "≤ 6.4 s",
        unit: "s",
        run: frozen_postmaster,
    },
    Case {
        key: "frozen-walreceiver",
        title: "SIGSTOP of the standby's WAL receiver: longest wait of a commit",
        must: "≤ 6.4 s",
        unit: "s",
        run: frozen_walreceiver,
    },
    Case {
        key: "frozen-checkpointer",
        title: "SIGSTOP of the primary's checkpointer, then the standby fails: time until the message that names it",
        must: "≤ 6.4 s",
        unit: "s",
        run: frozen_checkpointer,
    },
    Case { key: "status", title: "run time of `mc_ctl status`", must: "≤ 10 ms", unit: "ms", run: status },
    Case {
        key: "status-broken",
        title: "the same, the own postmaster stopped and the other host not responding",
        must: "≤ 200 ms",
        unit: "ms",
        run: status_broken,
    },
    Case {
        key: "memory",
        title: "idle controller and watcher: resident memory",
        must: "≤ 15 MiB",
        unit: "MiB",
        run: memory,
    },
    Case {
        key: "cpu",
        title: "idle controller and watcher: CPU time per minute",
        must: "≤ 0.3 s",
        unit: "s",
        run: cpu,
    },
    Case {
        key: "throughput",
        title: "pgbench: throughput with controllers / without",
        must: "≥ 0.98",
        unit: "",
        run: throughput,
    },
    Case {
        key: "rebuild-auto",
        title: "`rebuild_action = auto`: SIGKILL of the primary's postmaster until `switchable`",
        must: "",
        unit: "s",
        run: bench_rebuild::by_itself,
    },
    Case {
        key: "rebuild-switch",
        title: "after a clean switch: `mc_ctl rebuild` until `switchable`",
        must: "≤ 3 s",
        unit: "s",
        run: bench_rebuild::after_a_switch,
    },
    Case {
        key: "rebuild-rewind",
        title: "`pg_rewind`, 2 GB with 1 % changed: `mc_ctl rebuild` less 2 s and its two checkpoints / by hand",
        must: "≤ 1.2",
        unit: "",
        run: bench_rebuild::rewind,
    },
    Case {
        key: "rebuild-basebackup",
        title: "`pg_basebackup`, 2 GB: `mc_ctl rebuild` less 2 s and its two checkpoints / by hand",
        must: "≤ 1.1",
        unit: "",
        run: bench_rebuild::base_backup,
    },
];

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        println!("measurements: run them with sh tests/bench.sh");
        return;
    }
    let wanted = std::env::var("BENCH_CASES").unwrap_or_default();
    let wanted: Vec<_> = wanted.split([' ', ',']).filter(|w| !w.is_empty()).collect();
    if wanted == ["list"] {
        CASES.iter().for_each(|c| println!("{:22} {}", c.key, c.title));
        bench_peers::names().iter().for_each(|(key, title)| println!("{key:22} {title}"));
        return;
    }
    let runs: usize = std::env::var("RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    if let Some(unknown) = wanted.iter().find(|w| **w != "peers" && !keys().iter().any(|key| key == *w)) {
        eprintln!("there is no case \"{unknown}\"; BENCH_CASES=list names them");
        std::process::exit(2);
    }
    println!(
        "| measurement | limit | min | median | max | runs | rows lost | case |\n|---|---|---|---|---|---|---|---|"
    );
    for case in CASES.iter().filter(|c| wanted.is_empty() || wanted.contains(&c.key)) {
        measure(case.key, [case.title, case.must, case.unit], runs, case.run);
    }
    bench_peers::measure_all(|key| wanted.contains(&key) || wanted.contains(&"peers"), runs);
}

/// The names of all cases, in the order of the table.
fn keys() -> Vec<String> {
    CASES.iter().map(|c| c.key.to_owned()).chain(bench_peers::names().into_iter().map(|(key, _)| key)).collect()
}

fn measure(key: &str, words: [&str; 3], runs: usize, run: impl Fn() -> Run) {
    let mut values = Vec::new();
    let mut more: Vec<(&str, Vec<f64>)> = Vec::new();
    let (mut lost, mut failed) = (0, 0);
    for _ in 0..runs {
        match catch_unwind(AssertUnwindSafe(&run)) {
            Ok(run) => {
                values.extend(run.values);
                lost += run.lost;
                for (title, value) in run.more {
                    match more.iter_mut().find(|(known, _)| *known == title) {
                        Some((_, values)) => values.push(value),
                        None => more.push((title, vec![value])),
                    }
                }
            }
            Err(_) => failed += 1,
        }
    }
    let failures = if failed == 0 { String::new() } else { format!(", {failed} failed") };
    let mut rows = vec![line(key, words, values, &failures, lost)];
    rows.extend(more.into_iter().map(|(title, values)| line(key, [title, "", "s"], values, "", lost)));
    rows.iter().for_each(|row| println!("{row}"));
    if std::env::var_os("UPDATE_BENCH").is_some() {
        let keys = keys();
        document::put("BENCH.md", &keys.iter().map(String::as_str).collect::<Vec<_>>(), key, &rows);
    }
}

/// A row of the table.
fn line(key: &str, [title, must, unit]: [&str; 3], mut values: Vec<f64>, failures: &str, lost: usize) -> String {
    values.sort_by(f64::total_cmp);
    let show = |value: Option<&f64>| match value {
        Some(value) => format!("{value:.2} {unit}").trim_end().to_string(),
        None => "–".into(),
    };
    let middle =
        if values.is_empty() { None } else { Some((values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0) };
    format!(
        "| {title} | {must} | {} | {} | {} | {}{failures} | {lost} | `{key}` |",
        show(values.first()),
        show(middle.as_ref()),
        show(values.last()),
        values.len(),
    )
}

/// Lets a client write, does something, waits until rows are acknowledged again, and checks what is on `server`.
fn outage(setup: Setup, style: Style, server: usize, fault: fn(&mut Pair)) -> Run {
    let mut pair = setup.up();
    let client = pair.client(style);
    std::thread::sleep(s(2));
    let at = Instant::now();
    fault(&mut pair);
    until_served(&client, at, s(60));
    finish(&pair, client, server, at)
}

/// Waits until the client has been served without a break for two seconds.
fn until_served(client: &Client, since: Instant, limit: Duration) {
    let mut last = client.wait_ack(since + Duration::from_millis(30), limit);
    let mut quiet = Instant::now();
    while quiet.elapsed() < s(2) {
        let next = client.wait_ack(Instant::now(), limit);
        if next - last > Duration::from_millis(200) {
            quiet = Instant::now();
        }
        last = next;
    }
}

fn finish(pair: &Pair, client: Client, server: usize, at: Instant) -> Run {
    let gap = client.longest_gap(at).as_secs_f64();
    let lost = client.lost_on(pair, server);
    if !lost.is_empty() {
        eprintln!("lost (id, server that acknowledged, how long ago), {:?} after the fault: {lost:?}", at.elapsed());
    }
    Run { values: vec![gap], lost: lost.len(), ..Run::default() }
}

fn postmaster() -> Run {
    outage(Setup::default(), Style::OneSession, 1, |pair| {
        pair.kill_postmaster(0);
    })
}

fn host() -> Run {
    outage(Setup::default(), Style::OneSession, 1, |pair| pair.host_mut(0).power_off())
}

fn cut() -> Run {
    outage(Setup::default(), Style::PerHost, 1, |pair| pair.net.cut(0))
}

fn cut_fast() -> Run {
    outage(Setup::default().fast(), Style::PerHost, 1, |pair| pair.net.cut(0))
}

/// The primary is cut from all. A client on the arbiter's host measures; one beside the old primary continues to try, and
/// what it may get acknowledged there must be on the new primary too.
fn cut_with_arbiter(setup: Setup) -> Run {
    let pair = setup.arbiter().up();
    let client = pair.client(Style::Third);
    std::thread::sleep(s(2));
    let at = Instant::now();
    pair.net.cut(0);
    client.wait_ack_of(&[1], at, s(60));
    std::thread::sleep(s(3));
    let outage = client.longest_gap_at(THIRD, at);
    pair.net.heal(0);
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    assert_eq!(client.turns(), [0, 1], "the servers that acknowledged, in turn");
    Run { values: vec![outage.as_secs_f64()], lost: client.lost_on(&pair, 1).len(), ..Run::default() }
}

fn arbiter_cut() -> Run {
    cut_with_arbiter(Setup::default())
}

fn arbiter_cut_fast() -> Run {
    cut_with_arbiter(Setup::default().fast())
}

/// The arbiter hears both and prefers the primary, which continues alone; healed, the pair is mirrored again by itself.
fn arbiter_between() -> Run {
    let pair = Setup::default().arbiter().up();
    let client = pair.client(Style::Third);
    std::thread::sleep(s(2));
    let at = Instant::now();
    pair.net.cut_between(0, 1);
    client.wait_ack_of(&[0], at + s(1), s(60));
    std::thread::sleep(s(3));
    let wait = client.longest_wait(at);
    assert_eq!(pair.status(0).expect("a status").word, "not-switchable");
    pair.net.heal_between(0, 1);
    pair.wait_word(0, "switchable");
    assert_eq!(client.turns(), [0], "the servers that acknowledged, in turn");
    Run { values: vec![wait.as_secs_f64()], lost: client.lost_on(&pair, 0).len(), ..Run::default() }
}

fn standby() -> Run {
    outage(Setup::default(), Style::OneSession, 0, |pair| {
        pair.kill_postmaster(1);
    })
}

fn switch() -> Run {
    outage(Setup::default(), Style::OneSession, 1, |pair| {
        pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    })
}

/// Old sessions continue until the hand-over: the measure is when the standby serves.
fn frozen_postmaster() -> Run {
    let pair = Setup::default().up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(2));
    let at = Instant::now();
    signal(pair.postmaster(0).pid, Signal::STOP);
    pair.wait_log(1, at, "MCA00062", s(60));
    let served = client.wait_ack(Instant::now(), s(60)) - at;
    Run { values: vec![served.as_secs_f64()], ..finish(&pair, client, 1, at) }
}

fn frozen_walreceiver() -> Run {
    outage(Setup::default(), Style::OneSession, 0, |pair| {
        signal(pair.host(1).backend("walreceiver").expect("a walreceiver").pid, Signal::STOP);
        std::thread::sleep(Duration::from_millis(100));
    })
}

fn frozen_checkpointer() -> Run {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let checkpointer = pair.host(0).backend("checkpointer").expect("a checkpointer");
    signal(checkpointer.pid, Signal::STOP);
    let at = pair.kill_postmaster(1);
    let named = pair.wait_log(0, at, "checkpointer", s(60)) - at;
    signal(checkpointer.pid, Signal::CONT);
    client.wait_ack(Instant::now(), s(60));
    Run { values: vec![named.as_secs_f64()], ..finish(&pair, client, 0, at) }
}

/// Times of `mc_ctl status` from fork to exit, as a shell on the host sees them.
fn status_times(pair: &Pair) -> Run {
    let mut shell = pair.host(0).admin("/bin/bash");
    let script = r#"for n in {1..20}; do a=${EPOCHREALTIME/./}; "$0" status -M "$1" >/dev/null || exit 1
        b=${EPOCHREALTIME/./}; echo $((b - a)); done"#;
    shell.args(["-c", script]).arg(program()).arg(&pair.servers[0].management);
    let answer = run(shell, s(60)).expect(0, "mc_ctl status");
    Run { values: answer.out.lines().map(|l| l.parse::<f64>().expect("a number") / 1000.0).collect(), ..Run::default() }
}

fn status() -> Run {
    status_times(&Setup::default().up())
}

fn status_broken() -> Run {
    let pair = Setup::default().up();
    signal(pair.postmaster(0).pid, Signal::STOP);
    pair.net.cut(1);
    std::thread::sleep(s(1));
    status_times(&pair)
}

/// A field of each of `mc_ctl`'s processes on the first host, summed.
fn sum(pair: &Pair, read: fn(u32) -> f64) -> f64 {
    pair.host(0).controllers().iter().map(|p| read(p.pid)).sum()
}

fn memory() -> Run {
    let pair = Setup::default().up();
    std::thread::sleep(s(20));
    let resident = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default().to_string();
        line.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    };
    Run { values: vec![sum(&pair, resident)], ..Run::default() }
}

fn cpu() -> Run {
    let pair = Setup::default().up();
    std::thread::sleep(s(5));
    // user and system time, in ticks of 10 ms
    let used = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
        (field(11) + field(12)) / 100.0
    };
    let before = sum(&pair, used);
    std::thread::sleep(s(60));
    Run { values: vec![sum(&pair, used) - before], ..Run::default() }
}

/// Transactions a second, of TPC-B at scale 10 by four clients.
fn pgbench(pair: &Pair, more: &[&str]) -> f64 {
    let mut command = std::process::Command::new(bin_dir().join("pgbench"));
    let server = &pair.servers[0];
    command.args(["-h", server.address, "-p", &server.port.to_string(), "-U", "postgres"]).args(more).arg("postgres");
    let out = run(command, s(300)).expect(0, "pgbench").out;
    let tps = out.lines().find_map(|l| l.strip_prefix("tps = ")).and_then(|l| l.split(' ').next());
    tps.and_then(|t| t.parse().ok()).unwrap_or_default()
}

/// With and without controllers in turn, in an order that changes, so that what drifts hits both alike.
fn throughput() -> Run {
    let pair = Setup::default().up();
    pgbench(&pair, &["-i", "-q", "-s", "10"]);
    let load = ["-n", "-c", "4", "-j", "2", "-T", "15"];
    pgbench(&pair, &load);
    let with = |pair: &Pair| {
        for n in [0, 1] {
            pair.start(n, &["-f", "--mc-only"]);
        }
        pair.wait_word(0, "switchable");
        pgbench(pair, &load)
    };
    let without = |pair: &Pair| {
        for n in [0, 1] {
            pair.mc(n, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
        }
        pgbench(pair, &load)
    };
    let mut ratios = Vec::new();
    for _ in 0..2 {
        let first = without(&pair);
        let second = with(&pair);
        ratios.push(second / first);
    }
    let with_first = pgbench(&pair, &load);
    ratios.push(with_first / without(&pair));
    Run { values: ratios, ..Run::default() }
}
