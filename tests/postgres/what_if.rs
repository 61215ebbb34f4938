//! `mc_ctl what-if` against what really happens: both servers are asked, then it is done, and the end is compared: who is the
//! primary, the status word, the roles, and for how long nobody acknowledged. Asking changes nothing.

use crate::harness::client::{Client, Style};
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};

/// What the ledgers of both servers hold.
fn ledgers(pair: &Pair) -> [Vec<u8>; 2] {
    [0, 1].map(|n| std::fs::read(pair.run_dir(n).join("ledger")).expect("could not read the ledger"))
}

/// Asks both servers, who must foretell the same; nothing may have changed by that.
#[track_caller]
fn ask(pair: &Pair, faults: &[&str]) -> Value {
    let before = ledgers(pair);
    let told = [0, 1].map(|n| {
        let words = [&["what-if"], faults, &["--format", "json"]].concat();
        let out = pair.mc(n, &words).expect(0, "mc_ctl what-if").out;
        serde_json::from_str::<Value>(&out).unwrap_or_else(|e| panic!("{e} in: {out}"))
    });
    assert!(ledgers(pair) == before, "asking has changed a ledger");
    for part in ["verdict", "without_consent"] {
        assert_eq!(told[0][part], told[1][part], "{:#}\n{:#}", told[0], told[1]);
    }
    for one in &told {
        assert_eq!(one["remarks"], Value::Array(vec![]), "{one:#}");
    }
    let [told, _] = told;
    told
}

/// A status, as far as it is foretold.
fn key(status: &Value) -> Value {
    let roles = [0, 1].map(|n| status["servers"][n]["host_role"].clone());
    serde_json::json!([status["mirroring_status"], status["view"]["primary"], status["view"]["mode"], roles])
}

/// Waits until the server shows the status that was foretold, and compares the interruption.
#[track_caller]
fn compare(pair: &Pair, told: &Value, client: &Client, at: Instant) {
    let status = &told["status"];
    let n = if status["local_server"] == "nd1" { 0 } else { 1 };
    let expected = key(status);
    wait_for(&format!("the status that was foretold: {expected}"), s(45), || {
        (key(&pair.json(n)?) == expected).then_some(())
    });
    let gap = client.longest_gap(at);
    let Some(foretold) = told["interrupted_seconds"].as_f64() else {
        assert!(gap > s(3), "no end was foretold, but only {gap:?} were without an acknowledgement");
        return;
    };
    let most = Duration::from_secs_f64(foretold * 2.0) + s(3);
    assert!(gap < most, "foretold: {foretold} s; it was {gap:?}");
    // A heartbeat's interval may have gone by already.
    let least = Duration::from_secs_f64(foretold / 3.0);
    assert!(gap + Duration::from_millis(300) > least, "foretold: {foretold} s; it was {gap:?}");
}

/// The primary's postmaster is killed: the standby takes over at once.
#[test]
fn primary_instance() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let told = ask(&pair, &["primary-instance"]);
    assert_eq!(told["verdict"], "takes-over", "{told:#}");
    std::thread::sleep(s(1));
    let at = pair.kill_postmaster(0);
    client.wait_ack(at + Duration::from_millis(100), s(20));
    compare(&pair, &told, &client, at);
    client.check(&pair, 1, &[0, 1]);
}

/// The standby's postmaster is killed: the primary continues, the standby is started again, and the pair is mirrored.
#[test]
fn standby_instance() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let told = ask(&pair, &["standby-instance"]);
    assert_eq!((&told["verdict"], &told["status"]["mirroring_status"]), (&"continues".into(), &"switchable".into()));
    std::thread::sleep(s(1));
    let before = pair.ledger_of(0);
    let at = pair.kill_postmaster(1);
    client.wait_ack(at + Duration::from_millis(100), s(20));
    wait_for("the primary continued alone", s(20), || (pair.ledger_of(0) != before).then_some(()));
    compare(&pair, &told, &client, at);
    client.check(&pair, 0, &[0]);
}

/// The primary's instance is frozen: it is found silent, stopped, and the standby takes over.
#[test]
fn primary_instance_hang() {
    let pair = Setup::default().fast_network().conf("heartbeat_error_action = switch").up();
    let client = pair.client(Style::PerHost);
    let told = ask(&pair, &["primary-instance-hang"]);
    assert_eq!(told["verdict"], "takes-over", "{told:#}");
    std::thread::sleep(s(1));
    let at = Instant::now();
    signal(pair.postmaster(0).pid, Signal::STOP);
    pair.wait_log(1, at, "MCA00062", s(30));
    client.wait_ack(Instant::now(), s(20));
    compare(&pair, &told, &client, at);
    client.check(&pair, 1, &[0, 1]);
}

/// Without an arbiter each safe half does what it says when the standby's host falls silent: with `disconnect` the primary goes
/// on, with `switch` its commits wait.
#[test]
fn standby_host_with_either_half() {
    for (half, verdict) in [("disconnect", "continues"), ("switch", "commits-wait")] {
        let pair = Setup::default().fast_network().conf(&format!("heartbeat_error_action = {half}")).up();
        let client = pair.client(Style::PerHost);
        let told = ask(&pair, &["standby-host"]);
        assert_eq!(told["verdict"], verdict, "{told:#}");
        std::thread::sleep(s(1));
        let at = Instant::now();
        pair.net.cut(1);
        std::thread::sleep(s(5));
        compare(&pair, &told, &client, at);
    }
}

/// A controller that ends, with its watcher, is no reason to touch an instance.
#[test]
fn standby_controller() {
    let pair = Setup::default().fast_network().up();
    let client = pair.client(Style::PerHost);
    let told = ask(&pair, &["standby-controller"]);
    assert_eq!((&told["verdict"], &told["interrupted_seconds"]), (&"unharmed".into(), &0.0.into()), "{told:#}");
    let at = Instant::now();
    pair.mc(1, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    std::thread::sleep(s(4));
    compare(&pair, &told, &client, at);
    client.check(&pair, 0, &[0]);
}

/// With an arbiter, the primary is cut off from everybody, and later the network is repaired: both ends were foretold.
#[test]
fn primary_cut_off_with_an_arbiter_and_back() {
    let pair = Setup::default().arbiter().fast_network().up();
    let client = pair.client(Style::Everywhere);
    let told = ask(&pair, &["primary-isolated"]);
    let host = ask(&pair, &["primary-host"]);
    let back = ask(&pair, &["primary-isolated", "then", "back"]);
    assert_eq!(
        (&told["verdict"], &host["verdict"]),
        (&"takes-over".into(), &"takes-over".into()),
        "{told:#}\n{host:#}"
    );
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.net.cut(0);
    client.wait_ack_of(&[1], at, s(20));
    compare(&pair, &told, &client, at);
    pair.net.heal(0);
    let expected = key(&back["status"]);
    wait_for(&format!("the status that was foretold: {expected}"), s(45), || {
        (key(&pair.json(1)?) == expected && !pair.instance_runs(0)).then_some(())
    });
    client.check(&pair, 1, &[0, 1]);
}

/// With an arbiter, only the two servers do not reach each other: the primary continues alone.
#[test]
fn link_with_an_arbiter() {
    let pair = Setup::default().arbiter().fast_network().up();
    let client = pair.client(Style::Everywhere);
    let told = ask(&pair, &["link"]);
    assert_eq!(
        (&told["verdict"], &told["status"]["view"]["mode"]),
        (&"continues".into(), &"degraded".into()),
        "{told:#}"
    );
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.net.cut_between(0, 1);
    wait_for("the primary continues alone", s(20), || (pair.view(0)?["mode"] == "degraded").then_some(()));
    client.wait_ack_of(&[0], Instant::now(), s(20));
    compare(&pair, &told, &client, at);
    client.check(&pair, 0, &[0]);
}

/// The arbiter is stopped, then the primary is cut off: nobody may decide, as was foretold before either; when the network is
/// repaired, all is as before.
#[test]
fn nobody_is_left_to_ask() {
    let pair = Setup::default().arbiter().fast_network().up();
    let client = pair.client(Style::Third);
    let told = ask(&pair, &["arbiter", "then", "primary-isolated"]);
    assert_eq!((&told["verdict"], &told["interrupted_seconds"]), (&"no-service".into(), &Value::Null), "{told:#}");
    let then = told["then"].as_array().expect("an array");
    let says = |what: &str| then.iter().any(|line| line.as_str().is_some_and(|line| line.contains(what)));
    assert!(says("mc_ctl switch --force") && says("switchable"), "{told:#}");
    let before = pair.ledger_of(1);
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    wait_for("the arbiter is offline", s(20), || (pair.arbiter_status(1)? == "offline").then_some(()));
    let at = Instant::now();
    pair.net.cut(0);
    std::thread::sleep(s(6));
    compare(&pair, &told, &client, at);
    assert_eq!(pair.sql(1, "SELECT pg_is_in_recovery()"), "t");
    assert_eq!(pair.ledger_of(1), before);
    pair.start_arbiter();
    pair.net.heal(0);
    pair.wait_word(1, "switchable");
    client.wait_ack(Instant::now(), s(20));
}

/// With automatic switch and disconnection disabled it is told what would be, and nothing is done.
#[test]
fn disabled() {
    let pair = Setup::default().up();
    pair.mc(1, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    pair.wait_word(0, "failover-disabled");
    let client = pair.client(Style::OneSession);
    let told = ask(&pair, &["primary-instance"]);
    assert_eq!(told["verdict"], "no-service", "{told:#}");
    assert!(told["then"].to_string().contains("enable-failover): nd2 takes over"), "{told:#}");
    std::thread::sleep(s(1));
    let at = pair.kill_postmaster(0);
    std::thread::sleep(s(4));
    compare(&pair, &told, &client, at);
}

/// One server predicts what follows if everything is started. The other server is then started, and the result is the predicted one.
#[track_caller]
fn back(pair: &Pair, asked: usize, word: &str) {
    // The controller detects within moments that the other one has ended.
    let out = wait_for("mc_ctl what-if back", s(30), || {
        let answer = pair.mc(asked, &["what-if", "back", "--format", "json"]);
        (answer.code == 0).then_some(answer.out)
    });
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e} in: {out}"));
    assert_eq!(told["status"]["mirroring_status"], word, "{told:#}");
    // A server that has lost its role waits for mc_ctl rebuild.
    let code = if word == "switched" { 4 } else { 0 };
    pair.mc(1 - asked, &["start", "-f", "-w"]).expect(code, "mc_ctl start");
    let n = if told["status"]["local_server"] == "nd1" { 0 } else { 1 };
    let expected = key(&told["status"]);
    wait_for(&format!("the status that was foretold: {expected}"), s(45), || {
        (key(&pair.json(n)?) == expected).then_some(())
    });
}

/// The start of stopped servers ends as `back` predicts: of one server that was stopped just now or some time ago, and of both,
/// stopped in turn or together, if the first one to start has received no heartbeat of the other since.
#[test]
fn stopped_servers() {
    let pair = Setup::default().fast_network().up();
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    back(&pair, 0, "switchable");
    pair.wait_word(0, "switchable");

    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    wait_for("nd2 is known to be down", s(30), || {
        (pair.json(0)?["servers"][1]["host_status"] == "abnormal").then_some(())
    });
    back(&pair, 0, "switchable");
    pair.wait_word(0, "switchable");

    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    pair.mc(1, &["start", "-f", "-W"]).expect(0, "mc_ctl start -W");
    wait_for("the instance of nd2 runs", s(30), || pair.instance_runs(1).then_some(()));
    back(&pair, 1, "switchable");
    pair.wait_word(1, "switchable");

    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    pair.mc(1, &["start", "-f", "-W"]).expect(0, "mc_ctl start -W");
    wait_for("the instance of nd2 runs", s(30), || pair.instance_runs(1).then_some(()));
    back(&pair, 1, "switchable");
    pair.wait_word(1, "switchable");

    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    pair.mc(0, &["start", "-f"]).expect(0, "mc_ctl start");
    back(&pair, 0, "switchable");
    pair.wait_word(0, "switchable");

    // The primary's stop is a switch.
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.mc(1, &["start", "-f"]).expect(0, "mc_ctl start");
    back(&pair, 1, "switched");
}

/// What an operator reads, and refusals: what cannot happen, and a controller that does not run. A pair that runs alone is
/// foretold too.
#[test]
fn as_text() {
    let pair = Setup::default().up();
    let all = pair.mc(1, &["what-if", "all"]).expect(0, "mc_ctl what-if all").out;
    let line = |word: &str| all.lines().find(|line| line.split(' ').next() == Some(word)).map(str::to_owned);
    assert!(line("primary-instance").is_some_and(|line| line.contains("nd2 takes over")), "{all}");
    assert!(line("arbiter").is_some_and(|line| line.contains("there is no arbiter")), "{all}");
    let one = pair.mc(0, &["what-if", "primary-host"]).expect(0, "mc_ctl what-if").out;
    for part in [
        "nd2 takes over",
        "why: no heartbeat",
        "+0.00 s",
        "promotion processing completed",
        "\nswitched\n",
        "mc_ctl rebuild",
    ] {
        assert!(one.contains(part), "no \"{part}\" in:\n{one}");
    }
    pair.mc(0, &["what-if", "arbiter"]).expect(4, "mc_ctl what-if arbiter without one");
    pair.mc(0, &["what-if", "flood"]).expect(2, "mc_ctl what-if flood");
    let at = pair.kill_postmaster(0);
    pair.wait_log(1, at, "MCA00062", s(20));
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    let alone = pair.mc(1, &["what-if", "primary-instance"]).expect(0, "mc_ctl what-if").out;
    assert!(alone.contains("nd2 is the primary again") && !alone.contains("note:"), "{alone}");
    let asked_there = pair.mc(0, &["what-if", "primary-instance"]).expect(0, "mc_ctl what-if").out;
    assert!(asked_there.contains("nd2 is the primary again") && !asked_there.contains("note:"), "{asked_there}");
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    pair.mc(0, &["what-if", "primary-host"]).expect(3, "mc_ctl what-if without a controller");
}
