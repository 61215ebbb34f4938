//! Data that went back to an older state (PROTOCOL R13): a data directory that was restored in place, WAL that was lost. The
//! server that lacks what it has reported never serves, and its peer never follows it.

use crate::harness::client::{Client, Style};
use crate::harness::pair::{Pair, Setup, Status};
use crate::harness::run::must;
use crate::harness::{need, s, wait_for};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Who restores. All three write into the files that are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tool {
    Cp,
    Rsync,
    Tar,
}

/// How both servers end before the restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Killed,
    Stopped,
}

/// Until a server notes again how far its WAL goes, which it does every 10 seconds.
const NOTED: Duration = Duration::from_secs(12);

fn usual() -> Setup {
    Setup::default().fast_network()
}

/// Without an arbiter.
fn alone() -> Setup {
    usual().conf("heartbeat_error_action = switch")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("ASCII")
}

/// A copy of the server's data directory. Both servers are stopped for it, and started again.
fn copy_while_stopped(pair: &Pair, servers: &[usize], failover: &str) {
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    for &server in servers {
        must("cp", &["-a", pair.data(server), text(&backup(pair, server))]);
    }
    pair.start(0, &[failover]);
    pair.start(1, &[failover]);
    pair.wait_word(0, if failover == "-f" { "switchable" } else { "failover-disabled" });
}

fn backup(pair: &Pair, server: usize) -> PathBuf {
    pair.host(server).dir.join("backup")
}

/// Puts the copy over the data directory, whose `pg_control` remains the same file.
fn restore(pair: &Pair, server: usize, tool: Tool) {
    let (copy, data) = (backup(pair, server), &pair.servers[server].data);
    let inode = || std::fs::metadata(data.join("global/pg_control")).expect("pg_control").ino();
    let before = inode();
    let (from, to) = (text(&copy), text(data));
    match tool {
        Tool::Cp => must("cp", &["-a", &format!("{from}/."), to]),
        Tool::Rsync => {
            need("rsync", "rsync");
            must("rsync", &["-a", "--inplace", "--delete", &format!("{from}/"), to])
        }
        Tool::Tar => {
            let pipe = "tar -C \"$0\" -cf - . | tar -C \"$1\" --overwrite -xpf -";
            must("sh", &["-ec", pipe, from, to])
        }
    };
    assert_eq!(inode(), before, "{tool:?} has made another pg_control");
}

/// Kills every process of both servers, or stops both.
fn end_both(pair: &mut Pair, end: End) {
    if end == End::Stopped {
        pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
        return;
    }
    for server in [0, 1] {
        pair.host_mut(server).power_off();
    }
    for server in [0, 1] {
        pair.host_mut(server).boot();
    }
}

/// Starts both controllers in this order.
fn start_both(pair: &Pair, first: usize, failover: &str) {
    for server in [first, 1 - first] {
        pair.mc(server, &["start", "-W", failover]).expect(0, "mc_ctl start -W");
    }
}

/// How often nd2's instance has begun to stream.
fn streams(pair: &Pair) -> usize {
    pair.read(1, "log/postgresql.log").matches("started streaming WAL from primary").count()
}

/// What both servers report now. None may call the pair whole while nd1 is its primary.
fn look(pair: &Pair) -> [Option<Status>; 2] {
    let seen = [0, 1].map(|server| pair.status(server));
    for status in seen.iter().flatten() {
        let whole = ["switchable", "failover-disabled"].contains(&&*status.word);
        assert!(
            !whole || status.rows[0].role != "primary",
            "nd1, whose data went back, is a mirrored primary: {status:?}"
        );
    }
    seen
}

/// Waits until nd2 has become the primary, without having streamed from nd1.
fn wait_takeover(pair: &Pair, streamed: usize) {
    let primary = |status: &Status| status.word == "switched" && status.rows[1].role == "primary";
    wait_for("nd2 has taken over", s(60), || {
        look(pair).iter().all(|status| status.as_ref().is_some_and(primary)).then_some(())
    });
    assert_eq!(streams(pair), streamed, "nd2 has streamed from a primary whose data went back");
    assert!(!pair.instance_runs(0), "nd1 must stay down");
}

/// Waits until the server has noticed that its data went back: by its WAL, or by an older checkpoint.
fn wait_noticed(pair: &Pair, server: usize, at: Instant) {
    let log = &pair.host(server).syslog;
    let older = "its last checkpoint is older than the recorded one (MCA01030)";
    wait_for("MCA01053 or MCA01030", s(60), || log.find(at, "MCA01053").or_else(|| log.find(at, older)));
}

/// nd2 serves with every acknowledged row; a rebuild makes nd1 its standby.
fn recover(pair: &Pair, client: Client) {
    client.wait_ack_of(&[1], Instant::now(), s(20));
    pair.rebuild(0, &[]);
    client.wait_ack_of(&[1], Instant::now(), s(20));
    client.check(pair, 1, &[0, 1]);
}

/// Acknowledges rows on nd1 from now on.
fn write(pair: &Pair) -> Client {
    let client = pair.client(Style::OneSession);
    std::thread::sleep(s(2));
    client.wait_ack(Instant::now(), s(20));
    client
}

/// nd1's data directory is restored to an older state. nd2 becomes the primary by itself.
fn primary_restored(setup: Setup, tool: Tool, end: End, first: usize) {
    eprintln!("{tool:?}, {end:?}, nd{} starts first", first + 1);
    let mut pair = setup.up();
    copy_while_stopped(&pair, &[0], "-f");
    let client = write(&pair);
    end_both(&mut pair, end);
    let streamed = streams(&pair);
    restore(&pair, 0, tool);
    let at = Instant::now();
    start_both(&pair, first, "-f");
    wait_noticed(&pair, 0, at);
    wait_takeover(&pair, streamed);
    recover(&pair, client);
}

/// `cp -a`, after every process of both servers was killed.
#[test]
fn primary_restored_by_cp() {
    primary_restored(usual().arbiter(), Tool::Cp, End::Killed, 0);
}

/// `rsync --inplace`, after both were stopped.
#[test]
fn primary_restored_by_rsync() {
    primary_restored(usual().arbiter(), Tool::Rsync, End::Stopped, 1);
}

/// `tar --overwrite`, after every process of both servers was killed.
#[test]
fn primary_restored_by_tar() {
    primary_restored(usual().arbiter(), Tool::Tar, End::Killed, 1);
}

/// Every tool, either end, either order of starts.
#[test]
#[ignore = "12 pairs: 10 minutes"]
fn primary_restored_in_every_way() {
    in_every_way(|| usual().arbiter());
}

/// The same without an arbiter.
#[test]
#[ignore = "12 pairs: 10 minutes"]
fn primary_restored_in_every_way_without_an_arbiter() {
    in_every_way(alone);
}

fn in_every_way(setup: impl Fn() -> Setup) {
    for tool in [Tool::Cp, Tool::Rsync, Tool::Tar] {
        for end in [End::Killed, End::Stopped] {
            for first in [0, 1] {
                primary_restored(setup(), tool, end, first);
            }
        }
    }
}

/// Without an arbiter.
#[test]
fn primary_restored_without_an_arbiter() {
    primary_restored(alone(), Tool::Cp, End::Killed, 0);
}

/// Failover is disabled: the command that the message names makes nd2 the primary.
#[test]
fn primary_restored_with_failover_disabled() {
    let mut pair = usual().arbiter().make();
    pair.start_arbiter();
    pair.start(0, &["-F"]);
    pair.start(1, &["-F"]);
    pair.wait_word(0, "failover-disabled");
    pair.wait_arbiter_named();
    copy_while_stopped(&pair, &[0], "-F");
    let client = write(&pair);
    end_both(&mut pair, End::Killed);
    let streamed = streams(&pair);
    restore(&pair, 0, Tool::Cp);
    let at = Instant::now();
    start_both(&pair, 0, "-F");
    pair.wait_log(0, at, "MCA01053", s(60));
    let told = wait_for("the status names the command", s(30), || {
        look(&pair);
        let text = pair.mc(0, &["status"]).text();
        text.contains("run \"mc_ctl switch\"").then_some(text)
    });
    std::thread::sleep(s(5));
    look(&pair);
    assert_ne!(pair.try_sql(1, "SELECT pg_is_in_recovery()").as_deref(), Ok("f"), "nd2 took over by itself: {told}");
    pair.run_explained(0, at, 1053);
    pair.run_hinted(0, "no longer contains the WAL");
    wait_takeover(&pair, streamed);
    pair.mc(1, &["enable-failover"]).expect(0, "mc_ctl enable-failover");
    recover(&pair, client);
}

/// What becomes of nd1's newest WAL segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    Removed,
    Truncated,
}

/// The newest WAL of nd1 is lost; its `pg_control` is as it was.
fn primary_lost_wal(setup: Setup, loss: Loss, first: usize) {
    let mut pair = setup.up();
    let client = write(&pair);
    pair.sql(0, "CHECKPOINT");
    for _ in 0..2 {
        pair.sql(0, "SELECT pg_switch_wal()");
        client.wait_ack(Instant::now(), s(20));
    }
    // Past what is left of the segment.
    wait_for("acknowledged WAL past three pages of the segment", s(60), || {
        let past = "SELECT (pg_current_wal_flush_lsn() - '0/0') % 16777216 > 24576";
        (pair.sql(0, past) == "t").then(|| client.wait_ack(Instant::now(), s(20)))
    });
    let last = pair.sql(0, "SELECT pg_walfile_name(pg_current_wal_lsn())");
    end_both(&mut pair, End::Killed);
    let streamed = streams(&pair);
    for entry in std::fs::read_dir(pair.servers[0].data.join("pg_wal")).expect("pg_wal").flatten() {
        let name = entry.file_name().into_string().expect("ASCII");
        match loss {
            Loss::Removed if name.len() == 24 && name >= last => {
                std::fs::remove_file(entry.path()).expect("could not remove")
            }
            Loss::Truncated if name == last => {
                let file = std::fs::File::options().write(true).open(entry.path()).expect("could not open");
                file.set_len(8192).expect("could not truncate");
            }
            _ => {}
        }
    }
    let at = Instant::now();
    start_both(&pair, first, "-f");
    pair.wait_log(0, at, "MCA01053", s(60));
    wait_takeover(&pair, streamed);
    let refused = pair.mc(0, &["rebuild", "--yes", "--method", "rewind"]).expect(1, "mc_ctl rebuild --method rewind");
    let told = refused.text();
    assert!(
        told.contains("is missing or truncated") && told.contains("\"mc_ctl rebuild --method basebackup\""),
        "{told}"
    );
    recover(&pair, client);
}

/// The last segments are gone.
#[test]
fn primary_lost_segments() {
    primary_lost_wal(usual().arbiter(), Loss::Removed, 0);
}

/// The last segment is cut off.
#[test]
fn primary_lost_part_of_a_segment() {
    primary_lost_wal(usual().arbiter(), Loss::Truncated, 1);
}

/// Without an arbiter.
#[test]
fn primary_lost_segments_without_an_arbiter() {
    primary_lost_wal(alone(), Loss::Removed, 1);
}

/// The file that notes how far the server's WAL went.
fn note(pair: &Pair, server: usize) -> PathBuf {
    pair.run_dir(server).join("wal_position")
}

/// nd2's data directory is restored, and the primary's host is down: nd2 is not promoted. `forget`: its own note is lost too, so
/// that only the arbiter remembers.
fn standby_restored(setup: Setup, forget: bool) {
    let mut pair = setup.up();
    copy_while_stopped(&pair, &[1], "-f");
    let client = write(&pair);
    if pair.arbiter.is_none() {
        std::thread::sleep(NOTED);
    }
    end_both(&mut pair, End::Killed);
    pair.net.cut(0);
    restore(&pair, 1, Tool::Rsync);
    if forget {
        std::fs::remove_file(note(&pair, 1)).expect("no position was noted");
    }
    let at = Instant::now();
    pair.mc(1, &["start", "-W", "-f"]).expect(0, "mc_ctl start -W");
    pair.wait_log(1, at, "MCA01053", s(60));
    std::thread::sleep(s(8));
    assert_ne!(pair.try_sql(1, "SELECT pg_is_in_recovery()").as_deref(), Ok("f"), "nd2 was promoted");
    let told = pair.mc(1, &["status"]).text();
    let positions = |text: &str| text.split([' ', ':', ';', ',']).filter(|word| position(word).is_some()).count() == 2;
    let line = told.lines().find(|line| line.contains("no longer contains the WAL up to")).expect(&told);
    assert!(positions(line) && told.contains("--adopt-data") && told.contains("loses what followed its end"), "{told}");
    let (_, line) = pair.host(1).syslog.find(at, "MCA01053").expect("it was there");
    assert!(positions(&line[line.find("ends at").expect(&line)..]), "{line}");
    if pair.arbiter.is_some() {
        let arbiter = pair.arb(&["status"]).expect(0, "mc_arb status").out;
        assert!(arbiter.contains("nd2 is not given the right to run alone"), "{arbiter}");
    }
    pair.net.heal(0);
    pair.start(0, &["-f"]);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    client.wait_ack(Instant::now(), s(20));
    client.check(&pair, 0, &[0]);
}

/// Its own note shows it.
#[test]
fn standby_restored_and_primary_lost() {
    standby_restored(usual().arbiter(), false);
}

/// The arbiter remembers.
#[test]
fn standby_restored_without_its_note() {
    standby_restored(usual().arbiter(), true);
}

/// Without an arbiter, its own note shows it.
#[test]
fn standby_restored_without_an_arbiter() {
    standby_restored(alone(), false);
}

/// A position as a number, by its text.
fn position(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    Some((number(high)? << 32) + number(low)?)
}

/// How far the server's note says that its WAL goes.
fn noted(pair: &Pair, server: usize) -> u64 {
    let text = std::fs::read_to_string(note(pair, server)).expect("no position was noted");
    let note: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    note["point"]["lsn"].as_u64().unwrap_or_else(|| panic!("{note}"))
}

/// Both are restored to different older states. An operator chooses, and the commands that the status names bring the pair back.
/// `notes_are_old`: nothing was noted since the newer copy was made, so that only the arbiter remembers what was acknowledged.
fn both_restored(setup: Setup, notes_are_old: bool, first: usize) {
    let mut pair = setup.up();
    copy_while_stopped(&pair, &[0], "-f");
    pair.sql(0, "SET synchronous_commit = on; INSERT INTO written (id) VALUES (-1)");
    copy_while_stopped(&pair, &[1], "-f");
    let notes = [0, 1].map(|server| std::fs::read(note(&pair, server)).expect("no position was noted"));
    let client = write(&pair);
    if !notes_are_old {
        std::thread::sleep(NOTED);
    }
    let acknowledged = position(&pair.sql(0, "SELECT flush_lsn FROM pg_stat_replication")).expect("a position");
    // A heartbeat later the arbiter has received what nd2 had flushed.
    std::thread::sleep(s(1));
    end_both(&mut pair, End::Killed);
    let before = client.count();
    drop(client);
    if notes_are_old {
        // As if both had died before the next note, however long it took until here.
        for server in [0, 1] {
            std::fs::write(note(&pair, server), &notes[server]).expect("could not write");
            assert!(noted(&pair, server) < acknowledged, "nd{} has noted what was acknowledged", server + 1);
        }
    }
    restore(&pair, 0, Tool::Tar);
    restore(&pair, 1, Tool::Cp);
    let at = Instant::now();
    start_both(&pair, first, "-f");
    wait_noticed(&pair, 0, at);
    wait_noticed(&pair, 1, at);
    // It is reported again when nd2 has found its own end.
    wait_for("MCA01055 with both positions", s(60), || {
        let lines = pair.host(0).syslog.since(at);
        lines.iter().any(|(_, line)| line.contains("MCA01055") && line.matches('/').count() == 2).then_some(())
    });
    std::thread::sleep(s(8));
    look(&pair);
    for server in [0, 1] {
        assert_ne!(pair.try_sql(server, "SELECT pg_is_in_recovery()").as_deref(), Ok("f"), "nd{} serves", server + 1);
    }
    let shown = pair.mc(0, &["status"]).text();
    assert!(shown.contains("mc_ctl start --adopt-data"), "{shown}");
    assert_eq!(pair.explained(1, 1055), pair.hinted(0, "compare both"));
    let line = pair.explained(1, 1055);
    pair.paste(1, &line).expect(0, &line);
    wait_for("nd2 serves", s(30), || {
        (pair.try_sql(1, "SELECT pg_is_in_recovery()").as_deref() == Ok("f")).then_some(())
    });
    assert_eq!(pair.sql(1, "SELECT count(*) FROM written WHERE id = -1"), "1", "what nd2 held");
    let left: usize = pair.sql(1, "SELECT count(*) FROM written WHERE id >= 0").parse().expect("a number");
    assert!(left < before, "nothing that was acknowledged was lost by the restores: {left} of {before} rows");
    pair.rebuild(0, &[]);
}

/// Both servers' notes show it.
#[test]
fn both_restored_to_different_states() {
    both_restored(usual().arbiter(), false, 0);
}

/// The same without an arbiter, and the standby starts first.
#[test]
fn both_restored_without_an_arbiter() {
    both_restored(alone(), false, 1);
}

/// Only the arbiter remembers it. The primary starts first.
#[test]
fn both_restored_before_the_next_note() {
    both_restored(usual().arbiter(), true, 0);
}

/// The same, and the standby starts first.
#[test]
fn both_restored_before_the_next_note_standby_first() {
    both_restored(usual().arbiter(), true, 1);
}

/// nd1 was restored and started by hand, and has written past nd2's position. `forget`: nothing remembers what nd1 held, so
/// that only the contents of both servers' WAL show it.
fn restored_and_started_by_hand(setup: Setup, first: usize, forget: bool) {
    let mut pair = setup.up();
    copy_while_stopped(&pair, &[0], "-f");
    let client = write(&pair);
    end_both(&mut pair, End::Stopped);
    let streamed = streams(&pair);
    restore(&pair, 0, Tool::Cp);
    if forget {
        std::fs::remove_file(note(&pair, 0)).expect("no position was noted");
    }
    client.pause();
    pair.pg_start(0);
    pair.sql(0, "CREATE TABLE by_hand AS SELECT g, repeat('x', 1000) FROM generate_series(1, 40000) g");
    // A checkpoint past the one that was noted does not hide it.
    pair.sql(0, "CHECKPOINT");
    let at = Instant::now();
    start_both(&pair, first, "-f");
    client.resume();
    pair.wait_log(0, at, "MCA01053", s(60));
    wait_takeover(&pair, streamed);
    assert_eq!(pair.sql(1, "SELECT to_regclass('by_hand') IS NULL"), "t");
    recover(&pair, client);
}

/// nd1 still has its note.
#[test]
fn primary_started_by_hand() {
    restored_and_started_by_hand(usual().arbiter(), 0, false);
}

/// Only nd2's WAL shows it.
#[test]
fn primary_started_by_hand_without_its_note() {
    restored_and_started_by_hand(alone(), 0, true);
}
