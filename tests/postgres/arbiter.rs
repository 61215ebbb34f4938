//! The arbiter's own life: lost, frozen, replaced, put back from a backup, not there at a start; a healthy pair does not
//! notice.

use crate::harness::client::{Client, Style};
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn fast() -> Setup {
    Setup::default().arbiter().fast_network()
}

/// The longest that a commit may wait while the pair is healthy, on a loaded test machine.
const USUAL: Duration = Duration::from_millis(700);

fn term(pair: &Pair) -> u64 {
    pair.view(0).and_then(|v| v["term"].as_u64()).expect("a term")
}

fn named(pair: &Pair) -> String {
    pair.view(0).and_then(|v| v["arbiter_ledger"].as_str().map(Into::into)).expect("an arbiter's id")
}

/// Sees it offline, and online again after `back`.
fn absent(pair: &Pair, back: impl FnOnce()) {
    for n in [0, 1] {
        wait_for("the arbiter is offline", s(10), || (pair.arbiter_status(n)? == "offline").then_some(()));
        let status = pair.status(n).expect("a status");
        assert_eq!(status.word, "switchable", "a pair without its arbiter is whole");
    }
    std::thread::sleep(s(3));
    back();
    for n in [0, 1] {
        wait_for("the arbiter is online", s(20), || (pair.arbiter_status(n)? == "online").then_some(()));
    }
}

/// Stopped, killed, frozen: the view stays, no commit waits longer than usual, and when it is back it is the same one.
#[test]
fn its_loss_disturbs_nobody() {
    let pair = fast().up();
    let client = pair.client(Style::Everywhere);
    let (before, id) = (term(&pair), named(&pair));
    let at = Instant::now();
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    assert!(pair.arbiters().is_empty(), "mc_arb stop left {:?}", pair.arbiters());
    absent(&pair, || pair.start_arbiter());
    let all = pair.arbiters();
    all.iter().for_each(|process| signal(process.pid, Signal::KILL));
    absent(&pair, || pair.start_arbiter());
    let all = pair.arbiters();
    all.iter().for_each(|process| signal(process.pid, Signal::STOP));
    absent(&pair, || all.iter().for_each(|process| signal(process.pid, Signal::CONT)));
    let (gap, wait) = (client.longest_gap(at), client.longest_wait(at));
    assert!(gap < USUAL && wait < USUAL, "longest gap {gap:?}, longest wait {wait:?}");
    assert_eq!((term(&pair), named(&pair)), (before, id), "the view has changed");
    client.check(&pair, 0, &[0]);
}

/// Its process alone is killed: what watches it starts another at once, which knows what the first one knew.
#[test]
fn a_killed_one_is_started_again() {
    let pair = fast().up();
    let client = pair.client(Style::Everywhere);
    let before = (term(&pair), named(&pair));
    let old = pair.arbiters().pop().expect("an arbiter runs");
    let at = Instant::now();
    signal(old.pid, Signal::KILL);
    wait_for("another arbiter", s(10), || pair.arbiters().pop().filter(|p| p.pid != old.pid));
    for n in [0, 1] {
        wait_for("the arbiter is online", s(10), || (pair.arbiter_status(n)? == "online").then_some(()));
    }
    wait_for("MCA01132", s(10), || pair.third().syslog.find(at, "(MCA01132)"));
    let line = pair.explained(0, 1132);
    wait_for(&line, s(10), || (pair.paste_to_arbiter(&line).code == 0).then_some(()));
    assert_eq!((term(&pair), named(&pair)), before, "the view has changed");
    pair.net.cut(0);
    client.wait_ack_of(&[1], Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// The arbiter's ledger of the pair.
fn ledger(pair: &Pair) -> PathBuf {
    let run = pair.arbiter_dir().join("run");
    let entries = std::fs::read_dir(&run).expect("could not read the run directory").flatten();
    let mut found: Vec<_> = entries.map(|e| e.path().join("ledger")).filter(|p| p.exists()).collect();
    assert_eq!(found.len(), 1, "one ledger in {run:?}");
    found.remove(0)
}

/// The pair takes the arbiter that runs now: through `Degraded`, back to `Mirrored` naming it. Then it decides.
fn taken_anew(pair: &Pair, client: Client, old: &str, at: Instant) {
    wait_for("the pair names the new arbiter", s(40), || {
        let view = pair.view(0)?;
        (view["mode"] == "mirrored" && view["arbiter_ledger"].as_str()? != old).then_some(())
    });
    pair.wait_arbiter_named();
    pair.wait_word(0, "switchable");
    let gap = client.longest_gap(at);
    assert!(gap < USUAL, "commits waited {gap:?}");
    std::thread::sleep(s(2));
    pair.net.cut(0);
    client.wait_ack_of(&[1], Instant::now(), s(10));
    client.check(pair, 1, &[0, 1]);
}

/// Replaced while the pair runs, by one with an empty directory.
#[test]
fn replaced_by_an_empty_one() {
    let pair = fast().up();
    let client = pair.client(Style::Everywhere);
    let (before, old) = (term(&pair), named(&pair));
    let at = Instant::now();
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    std::fs::remove_dir_all(pair.arbiter_dir().join("run")).expect("could not remove");
    pair.start_arbiter();
    taken_anew(&pair, client, &old, at);
    assert!(term(&pair) > before + 1, "not through Degraded");
}

/// Its ledger is lost while it is stopped: it is a new arbiter.
#[test]
fn its_ledger_is_lost() {
    let pair = fast().up();
    let client = pair.client(Style::Everywhere);
    let old = named(&pair);
    let at = Instant::now();
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    std::fs::remove_file(ledger(&pair)).expect("could not remove");
    pair.start_arbiter();
    taken_anew(&pair, client, &old, at);
}

fn copy(from: &Path, to: &Path) {
    crate::harness::run::must("cp", &["-p", from.to_str().expect("ASCII"), to.to_str().expect("ASCII")]);
}

/// Its ledger is put back from a backup: refused, loudly, and nothing is granted; forgotten, as the hint says, it is a
/// new arbiter.
#[test]
fn its_ledger_is_put_back() {
    let pair = fast().up();
    let client = pair.client(Style::Everywhere);
    let old = named(&pair);
    let (file, backup) = (ledger(&pair), pair.third().dir.join("backup"));
    copy(&file, &backup);
    pair.mc(1, &["detach"]).expect(0, "mc_ctl detach");
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.start(1, &["-f"]);
    pair.wait_arbiter_named();
    pair.wait_word(0, "switchable");
    let at = Instant::now();
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    std::fs::remove_file(&file).expect("could not remove");
    copy(&backup, &file);
    let told = pair.arb(&["start", "-w"]).text();
    assert!(told.contains("not served") && told.contains("restored from a backup"), "{told}");
    let shown = pair.arb(&["status"]).text();
    assert!(shown.contains("not served"), "{shown}");
    std::thread::sleep(s(2));
    assert_eq!(pair.arbiter_status(0).as_deref(), Some("offline"), "a ledger from a backup is served");
    let system = file.parent().and_then(Path::file_name).and_then(|n| n.to_str()).expect("a directory per cluster");
    wait_for("MCA01135", s(10), || pair.third().syslog.find(at, "(MCA01135)"));
    let line = pair.explained(0, 1135).replace("IDENTIFIER", system);
    assert!(told.contains(&line), "{line:?} is not in {told}");
    pair.paste_to_arbiter(&line).expect(0, &line);
    taken_anew(&pair, client, &old, at);
}

/// A start without the arbiter fails, starts nothing and names the next command; with `--async-connect-arbiter` the pair
/// runs, and takes the arbiter when it comes.
#[test]
fn a_start_without_it() {
    let pair = fast().conf("arbiter_connect_timeout = 2").make();
    let answer = pair.mc(0, &["start", "-w", "-f"]).expect(1, "mc_ctl start without the arbiter");
    assert!(answer.text().contains("MCA00152"), "{}", answer.text());
    assert!(answer.text().contains("--async-connect-arbiter"), "{}", answer.text());
    assert!(!pair.instance_runs(0) && pair.host(0).controllers().is_empty(), "something was started");
    for n in [0, 1] {
        let line = pair.explained(n, 152);
        pair.paste(n, &line).expect(0, &line);
    }
    pair.wait_word(0, "failover-disabled");
    pair.run_hinted(0, "failures are only reported");
    pair.wait_word(0, "switchable");
    let client = pair.client(Style::Everywhere);
    let at = Instant::now();
    assert_eq!(pair.arbiter_status(0).as_deref(), Some("offline"));
    pair.start_arbiter();
    taken_anew(&pair, client, "", at);
}

/// `mc_ctl status --arbiter` and `mc_arb status`.
#[test]
fn both_tables() {
    let pair = fast().up();
    let answer = pair.mc(0, &["status", "--arbiter"]).expect(0, "mc_ctl status --arbiter");
    let table = answer.out.lines().find(|l| l.starts_with("arb ")).expect("the arbiter's row");
    let words: Vec<_> = table.split_whitespace().collect();
    assert_eq!(words, ["arb", "192.0.2.120", "online"], "{}", answer.out);
    assert!(answer.out.lines().any(|l| l.split_whitespace().eq(["arbiter_id", "host", "status"])), "{}", answer.out);
    let rows = |what: &str| {
        let answer = pair.arb(&["status"]).expect(0, "mc_arb status");
        let cells = |l: &str| l.split_whitespace().map(ToString::to_string).collect::<Vec<_>>();
        let all: Vec<_> = answer.out.lines().map(cells).collect();
        assert!(all.contains(&cells("server_id host status")), "{what}: {}", answer.out);
        all.into_iter().filter(|c| c.first().is_some_and(|id| id.starts_with("nd"))).collect::<Vec<_>>()
    };
    let row = |id: &str, host: &str, status: &str| vec![id.to_string(), host.to_string(), status.to_string()];
    let both = [row("nd1", "192.0.2.100", "online"), row("nd2", "192.0.2.110", "online")];
    assert_eq!(rows("both servers"), both);
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    wait_for("the arbiter misses the standby", s(10), || {
        (rows("one server")[1] == row("nd2", "192.0.2.110", "offline")).then_some(())
    });
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    pair.arb(&["status"]).expect(3, "mc_arb status without an arbiter");
}
