//! Blocks of mirroring-controller(7) that show what happened, run as they are printed there in the situation that they are for,
//! with the directories of the test in place of the manual's.

use crate::harness::client::Style;
use crate::harness::pair::{Pair, Setup};
use crate::harness::run::Answer;
use crate::harness::{bin_dir, s, wait_for};
use std::time::Instant;

/// The lines of the first block of a section after this text: host and command. Lines that end with a backslash are joined.
fn block(section: &str, after: &str) -> Vec<(usize, String)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/mirroring-controller.7"))
        .expect("could not read the manual");
    let text = page.split("\n.Ss ").find(|text| text.starts_with(&format!("{section}\n"))).expect("the section");
    let (_, text) = text.split_once(after).unwrap_or_else(|| panic!("{after:?} is not in {section:?}"));
    let (_, text) = text.split_once("\n.Bd -literal -offset indent\n").expect("a block");
    let text = text.split("\n.Ed").next().unwrap_or_default().replace("\\e\n", " ");
    let line = |line: &str| {
        let (host, command) = line.split_once("$ ").unwrap_or_else(|| panic!("no prompt in {line:?}"));
        let host = ["nd1", "nd2", "arb"].iter().position(|name| *name == host).expect("a host");
        (host, command.to_owned())
    };
    text.lines().map(line).collect()
}

fn type_line(pair: &Pair, host: usize, line: &str) -> Answer {
    let answer = if host < 2 { pair.paste(host, line) } else { pair.paste_to_arbiter(line) };
    eprintln!("{host}$ {line}\n{}", answer.text());
    answer.expect(0, line)
}

/// The second server is lost, and the first one serves alone until it ends too. The history of each, without a controller, and the
/// arbiter show it.
#[test]
fn who_has_served_alone() {
    let mut pair = Setup::default().arbiter().fast_network().up();
    let client = pair.client(Style::PerHost);
    let at = Instant::now();
    pair.host_mut(1).power_off();
    pair.net.cut(1);
    client.wait_ack_of(&[0], at, s(30));
    wait_for("nd1 serves alone", s(30), || (pair.view(0)?["mode"] == "degraded").then_some(()));
    client.pause();
    pair.host_mut(0).power_off();
    for n in [0, 1] {
        pair.host_mut(n).boot();
    }
    let lines = block("Who has served alone", "");
    let [history, peer_history, arbiter] = &lines[..] else { panic!("{lines:?}") };
    let shown = type_line(&pair, history.0, &history.1).out;
    assert!(shown.contains(" -> nd1 serves alone") && shown.lines().count() == 1, "{shown}");
    let shown = type_line(&pair, peer_history.0, &peer_history.1).out;
    assert!(shown.contains(" -> mirrored, primary nd1"), "{shown}");
    let shown = type_line(&pair, arbiter.0, &arbiter.1).out;
    assert!(shown.contains("\"degraded\"") && shown.contains("\"nd1\""), "{shown}");
    let page = include_str!("../../man/mirroring-controller.7");
    assert!(page.contains(".Ql nd1 serves alone\n") && page.contains(".Ql mirrored, primary nd1\n"));
}

/// Both servers have run alone, and a base backup has replaced the data of the first one. A copy of the replaced directory is
/// started beside it, and holds the rows that only that server had.
#[test]
fn a_copy_to_compare() {
    let pair = Setup::default().conf("heartbeat_error_action = message").up();
    let client = pair.client(Style::Everywhere);
    let ready = crate::force::force_both(&pair, &client);
    pair.wait_log(0, ready, "PANIC", s(20));
    wait_for("nd1 is stopped", s(20), || (!pair.instance_runs(0)).then_some(()));
    let (lost, ..) = *client.lost_on(&pair, 1).first().expect("rows that only nd1 has");
    pair.rebuild(0, &["--method", "basebackup"]);
    let disk = pair.servers[0].data.parent().expect("a parent").to_owned();
    let mut names = std::fs::read_dir(&disk).expect("could not read").flatten().map(|entry| entry.file_name());
    let old = names.find(|name| name.to_string_lossy().contains(".old-")).expect("the replaced directory");
    let (old, copy) = (disk.join(old).display().to_string(), disk.join("compare").display().to_string());
    let query = format!("SELECT count(*) FROM written WHERE id = {lost}");
    for (host, line) in block("Both servers have run alone", "To compare rows") {
        let line = line.replace("/data/15.old-20261130T095803Z", &old).replace("/data/compare", &copy);
        let line = line.replace("/usr/lib/postgresql/15/bin", bin_dir().to_str().expect("ASCII"));
        let typed = if line.starts_with("psql ") { format!("{line} -Atc '{query}'") } else { line };
        let answer = type_line(&pair, host, &typed);
        if typed.starts_with("psql ") {
            assert_eq!(answer.out.trim(), "1");
        }
    }
    assert_eq!(pair.sql(0, &query), "0");
    pair.wait_roles(0, "switchable", ["standby", "primary"]);
}
