//! An operator's force: what is left to type when the other server is gone for good.

use crate::harness::client::{Client, Style};
use crate::harness::pair::{Pair, Setup};
use crate::harness::remedy::commands;
use crate::harness::{s, wait_for};
use std::time::Instant;

/// The hint that advises force states what is not known, and what it can cost.
#[track_caller]
fn names_the_risk(pair: &Pair, server: usize, unknown: &str) {
    let text = wait_for("a hint that advises force", s(45), || {
        let text = pair.mc(server, &["status"]).err;
        text.lines().find(|line| line.starts_with("HINT: ") && line.contains("--force")).map(str::to_owned)
    });
    assert!(text.contains(unknown) && text.contains("lost"), "{text}");
}

/// With the safe half `switch` a primary whose standby's host is gone waits. Without force a detach is refused; with it
/// (and a confirmation) commits continue. When the standby is back, the pair is mirrored again by itself.
#[test]
fn detach_from_a_standby_that_is_gone() {
    let mut pair = Setup::default().conf("heartbeat_error_action = switch").up();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(1));
    let at = Instant::now();
    pair.host_mut(1).power_off();
    pair.wait_log(0, at, "MCA00019", s(15));
    let refused = pair.mc(0, &["detach"]).expect(4, "mc_ctl detach without its standby");
    assert!(refused.text().contains("cannot consent"), "{}", refused.text());
    let unconfirmed = pair.mc(0, &["detach", "--force"]).expect(2, "mc_ctl detach --force, unconfirmed");
    assert!(unconfirmed.text().contains("--yes"), "{}", unconfirmed.text());
    pair.run_explained(0, at, 19);
    names_the_risk(&pair, 0, "the standby may have been promoted");
    pair.run_hinted(0, "the standby does not respond");
    client.wait_ack(Instant::now(), s(5));
    pair.host_mut(1).boot();
    pair.start(1, &["-f"]);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// With the safe half `disconnect` a standby never acts on silence. An operator who knows that the primary's host is
/// dead promotes it by force; the old primary, back again, learns of it and is stopped.
#[test]
fn switch_from_a_primary_that_is_gone() {
    let mut pair = Setup::default().conf("heartbeat_error_action = disconnect").up();
    let client = pair.client(Style::PerHost);
    std::thread::sleep(s(1));
    let at = Instant::now();
    let early = pair.mc(1, &["switch", "--force", "--yes"]).expect(4, "mc_ctl switch --force while the primary talks");
    assert!(early.text().contains("without --force"), "{}", early.text());
    pair.host_mut(0).power_off();
    pair.wait_log(1, at, "MCA00019", s(15));
    pair.mc(1, &["switch"]).expect(4, "mc_ctl switch without its primary");
    names_the_risk(&pair, 1, "the primary may have served alone");
    pair.run_hinted(1, "the primary does not respond");
    client.wait_ack(Instant::now(), s(5));
    pair.host_mut(0).boot();
    pair.mc(0, &["start", "-t", "20", "-f"]).expect(4, "start of the old primary");
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    assert!(!pair.instance_runs(0), "the old primary must stay down");
    client.check(&pair, 1, &[0, 1]);
}

/// A primary whose management directory was lost finds its mark in the data directory and refuses to begin a new
/// history by itself; an operator adopts the data, and the standby, which knows the old history, follows the new one.
#[test]
fn adopt_the_data_of_a_lost_ledger() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(1));
    let acknowledged = client.count();
    assert!(acknowledged > 0);
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    std::fs::remove_dir_all(pair.servers[0].management.join(pair.servers[0].id))
        .expect("could not lose the run-time directory");
    let at = Instant::now();
    let refused = pair.mc(0, &["start", "-t", "10"]).expect(4, "start without the ledger");
    assert!(refused.text().contains("mark"), "{}", refused.text());
    pair.mc(0, &["start", "--adopt-data"]).expect(2, "start --adopt-data, unconfirmed");
    pair.run_explained(0, at, 1021);
    pair.run_hinted(0, "the ledger of this server is lost");
    pair.start(1, &["-f"]);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 0, &[0]);
}

/// Has both servers run alone: the link is cut, both are forced, both acknowledge commits, and the link is restored. Returns when
/// they were forced.
pub fn force_both(pair: &Pair, client: &Client) -> Instant {
    let ready = force_both_apart(pair, client);
    pair.net.heal_between(0, 1);
    ready
}

/// The same, and the link stays cut.
fn force_both_apart(pair: &Pair, client: &Client) -> Instant {
    let at = Instant::now();
    pair.net.cut_between(0, 1);
    pair.wait_log(0, at, "MCA00019", s(20));
    pair.wait_log(1, at, "MCA00019", s(20));
    let ready = Instant::now();
    pair.mc(1, &["switch", "--force", "--yes"]).expect(0, "mc_ctl switch --force");
    pair.mc(0, &["detach", "--force", "--yes"]).expect(0, "mc_ctl detach --force");
    client.wait_ack_of(&[0], ready, s(10));
    client.wait_ack_of(&[1], ready, s(10));
    ready
}

/// After both servers ran alone, an operator keeps the data of the server that was stopped: the ledger of the other server is
/// moved aside while it is down, the stopped server adopts its own data, and a base backup replaces the data of the other
/// server, which stays beside it.
#[test]
fn keep_the_data_of_the_stopped_server() {
    let pair = Setup::default().conf("heartbeat_error_action = message").up();
    let client = pair.client(Style::Everywhere);
    force_both(&pair, &client);
    wait_for("the server that was not promoted is stopped", s(20), || (!pair.instance_runs(0)).then_some(()));
    let adopt = ["start", "--adopt-data", "--yes", "-f"];
    let refused = pair.mc(0, &adopt).expect(4, "mc_ctl start --adopt-data beside a primary").text();
    let printed = commands(&refused);
    let [rebuild, stop, move_ledger] = &printed[..] else { panic!("{refused}") };
    assert_eq!(rebuild, "mc_ctl rebuild");
    for line in [stop, move_ledger] {
        pair.paste(1, &line.replace("ID", pair.servers[1].id)).expect(0, line);
    }
    pair.mc(0, &adopt).expect(0, "mc_ctl start --adopt-data");
    let line = pair.hinted(0, "the other server was promoted");
    pair.paste(1, &line).expect(0, &line);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    let lost = client.lost_on(&pair, 0);
    assert!(!lost.is_empty() && lost.iter().all(|(_, server, _)| *server == 1), "{} rows", lost.len());
    let data = pair.servers[1].data.clone();
    let beside = std::fs::read_dir(data.parent().expect("a parent")).expect("could not read the directory");
    let old = format!("{}.old-", data.file_name().and_then(|name| name.to_str()).expect("ASCII"));
    let kept = beside.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&old));
    assert!(kept, "the replaced data directory is not beside {data:?}");
}

/// Both servers run alone, and the operator stops the promoted server before the link returns. The other server continues to
/// serve, and the stopped one becomes its standby after its ledger was moved aside: nothing has to be adopted.
#[test]
fn keep_the_data_of_the_server_that_still_serves() {
    let pair = Setup::default().conf("heartbeat_error_action = message").up();
    let client = pair.client(Style::Everywhere);
    force_both_apart(&pair, &client);
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.net.heal_between(0, 1);
    let healed = Instant::now();
    client.wait_ack_of(&[0], healed, s(10));
    let ledger = pair.servers[1].management.join(pair.servers[1].id);
    std::fs::rename(&ledger, ledger.with_extension("split")).expect("could not move the ledger aside");
    pair.mc(1, &["rebuild", "--method", "basebackup", "--yes"]).expect(0, "mc_ctl rebuild");
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    let lost = client.lost_on(&pair, 0);
    assert!(!lost.is_empty() && lost.iter().all(|(_, server, _)| *server == 1), "{} rows", lost.len());
}

/// Both servers were forced to continue alone while the link was cut, and both have acknowledged commits. When the link returns,
/// both report it, and the server that was not promoted is stopped within a heartbeat. A rebuild makes it the standby. Its rows are
/// saved, and reported as rows that may have been acknowledged.
#[test]
fn forced_on_both_sides() {
    let pair = Setup::default().conf("heartbeat_error_action = message").up();
    let client = pair.client(Style::Everywhere);
    let ready = force_both(&pair, &client);
    let met = pair.wait_log(0, ready, "PANIC", s(15));
    wait_for("the one that was not promoted is stopped", s(10), || (!pair.instance_runs(0)).then_some(()));
    let ended = met.elapsed();
    pair.wait_log(1, ready, "PANIC", s(5));
    pair.wait_roles(1, "split-brain", ["none(inactivated primary)", "primary"]);
    assert!(ended < s(4), "the old primary ran on for {ended:?} after it was known");
    assert_eq!(pair.explained(0, 1024), pair.hinted(0, "both servers ran alone"));
    let lost = client.lost_on(&pair, 1);
    assert!(!lost.is_empty() && lost.iter().all(|(_, server, _)| *server == 0), "{} rows", lost.len());
    pair.run_explained(0, ready, 1024);
    pair.check_rebuilt(0);
    let history = pair.mc(0, &["history"]).expect(0, "mc_ctl history").out;
    assert!(history.contains("may have been acknowledged") && history.contains("public.written"), "{history}");
    assert!(!client.lost_on(&pair, 0).is_empty(), "rows of the one that lost came back");
}
