//! `mc_ctl check` on real servers: what it tells of the machines, of the way between the members, and of the other server.

use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, new_key, write_private};
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::time::Instant;

/// What `mc_ctl check --format json` tells on the server.
fn check(pair: &Pair, server: usize) -> Value {
    let answer = pair.mc(server, &["check", "--format", "json", "-t", "30"]);
    serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e} in:\n{}", answer.text()))
}

/// The findings of a code.
fn findings<'a>(told: &'a Value, code: &str) -> Vec<&'a Value> {
    let all = told["findings"].as_array().expect("findings");
    all.iter().filter(|finding| finding["code"] == code).collect()
}

/// Whether one of a code is there, on this member, whose text has all of these words.
fn is_found(told: &Value, code: &str, member: &str, words: &[&str]) -> bool {
    findings(told, code).into_iter().any(|finding| {
        let word = |key: &str| finding[key].as_str().unwrap_or_default();
        let text = format!("{} -> {}", word("what"), word("mend"));
        finding["member"] == member && words.iter().all(|word| text.contains(word))
    })
}

/// The same, which must be so, soon.
#[track_caller]
fn expect(pair: &Pair, server: usize, code: &str, member: &str, words: &[&str]) {
    let begin = Instant::now();
    loop {
        let told = check(pair, server);
        if is_found(&told, code, member, words) {
            return;
        }
        assert!(begin.elapsed() < s(60), "no {code} of {member} with {words:?} in:\n{told:#}");
    }
}

/// None of these, soon.
#[track_caller]
fn expect_none(pair: &Pair, server: usize, codes: &[&str]) {
    let begin = Instant::now();
    loop {
        let told = check(pair, server);
        if codes.iter().all(|code| findings(&told, code).is_empty()) {
            return;
        }
        assert!(begin.elapsed() < s(60), "some of {codes:?} in:\n{told:#}");
    }
}

/// Both servers are seen from either, and how quickly they answer is shown; then, one after the other: the arbiter dies, the
/// other controller dies, and this server's.
#[test]
fn who_is_heard() {
    let pair = Setup::default().arbiter().up();
    for n in [0, 1] {
        let told = check(&pair, n);
        assert_eq!(told["seen"].as_array().map(Vec::len), Some(2), "{told:#}");
        for row in ["heartbeats", "arbiter", "instance", "instance, fresh session", "disk"] {
            let rows = told["pace"].as_array().expect("rows");
            let of =
                |id| rows.iter().find(|r| r["server_id"] == id && r["of"] == row).and_then(|r| r["count"].as_u64());
            assert!(of("nd1") > Some(0) && of("nd2") > Some(0), "{row} in {told:#}");
        }
    }
    let text = pair.mc(0, &["check"]).out;
    assert!(text.contains("heartbeats") && text.contains("detection"), "{text}");
    expect_none(&pair, 0, &["peer-unheard", "peer-not-seen", "arbiter-unheard", "caller-refused"]);

    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    expect(&pair, 0, "arbiter-unheard", "arb", &["\"nd1\" does not hear", "mc_arb start"]);
    expect(&pair, 0, "arbiter-unheard", "arb", &["\"nd2\" does not hear", "mc_arb start"]);
    pair.start_arbiter();
    expect_none(&pair, 0, &["arbiter-unheard"]);

    pair.mc(1, &["stop", "--mc-only"]).expect(0, "mc_ctl stop");
    expect(&pair, 0, "peer-unheard", "nd2", &["refuses connections", "mc_ctl start"]);
    let told = check(&pair, 1);
    assert!(is_found(&told, "peer-not-seen", "nd2", &["is not running"]), "{told:#}");
    assert_eq!(told["seen"].as_array().map(Vec::len), Some(1), "{told:#}");
}

/// A member with another key is told of on both sides, with what mends it.
#[test]
fn another_key() {
    let pair = Setup::default().up();
    pair.mc(1, &["stop", "--mc-only"]).expect(0, "mc_ctl stop");
    write_private(&pair.servers[1].management.join("mc.key"), &new_key());
    pair.mc(1, &["start", "--mc-only", "-W"]).expect(0, "mc_ctl start");
    expect(&pair, 0, "caller-refused", "nd1", &["192.0.2.110", "mc.key"]);
    expect(&pair, 0, "peer-unheard", "nd2", &["copy mc.key"]);
}

/// A controller that stands still for a while has others hear it late: a warning with the timeout to set. One whose kernel
/// answers, and which itself does not, is told as what was tried.
#[test]
fn late_heartbeats() {
    let setup = Setup::default().conf("heartbeat_timeout = 4").conf("db_instance_check_timeout = 60");
    let pair = setup.conf("db_instance_check_interval = 100").conf("disk_check_timeout = 4").up();
    expect_none(&pair, 0, &["heartbeat-late"]);
    let controller = pair.controller(1);
    signal(controller.pid, Signal::STOP);
    std::thread::sleep(s(3));
    let told = check(&pair, 0);
    assert!(is_found(&told, "peer-not-seen", "nd1", &["did not answer within"]), "{told:#}");
    signal(controller.pid, Signal::CONT);
    expect(&pair, 0, "heartbeat-late", "nd1", &["heartbeat_timeout = '"]);
    // Found after 180 s, and answered in a few ms.
    wait_for("enough looks", s(60), || {
        is_found(&check(&pair, 0), "detection-slow", "nd1", &["db_instance_check_timeout"]).then_some(())
    });
}

// Not provoked yet: "arbiter-late" "disk-late" "instance-late" "link-unsteady"
