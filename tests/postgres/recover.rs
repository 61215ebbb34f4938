//! `mc_ctl recover` on real servers: to exactly the target, over failovers and rebuilds, and killed at any time.

use crate::backup::{archived, backups, destination, pair};
use crate::debian::{create_cluster, version_of_debian};
use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, own, program};
use crate::harness::run::{Answer, Beside};
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// A table of which every row is a transaction of its own.
fn table(pair: &Pair, primary: usize) {
    pair.sql(primary, "CREATE TABLE paced (id serial)");
}

/// So many transactions, 100 ms apart.
fn write(pair: &Pair, primary: usize, rows: u32) {
    for _ in 0..rows {
        pair.sql(primary, "INSERT INTO paced DEFAULT VALUES");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The rows, each with the time of its commit, in microseconds since 1970.
fn rows(pair: &Pair, server: usize) -> Vec<(i64, i64)> {
    let sql =
        "SELECT id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM paced ORDER BY id";
    let number = |text: &str| text.parse().expect("a number");
    let row = |line: &str| line.split_once('|').map(|(id, at)| (number(id), number(at))).expect("two columns");
    pair.sql(server, sql).lines().map(row).collect()
}

fn ids(rows: &[(i64, i64)]) -> Vec<i64> {
    rows.iter().map(|(id, _)| *id).collect()
}

/// `mc_ctl recover --yes …`, which must succeed; the pair is mirrored again, and the server is its primary.
#[track_caller]
pub fn recover(pair: &Pair, server: usize, target: &[&str]) -> Answer {
    let answer = pair.mc(server, &[&["recover", "--yes"], target].concat()).expect(0, "mc_ctl recover");
    assert!(answer.out.contains("the pair is mirrored"), "{answer:?}");
    check(pair, server);
    answer
}

/// The pair is mirrored with this server as its primary, and nothing of the recovery is left but the old data.
#[track_caller]
pub fn check(pair: &Pair, server: usize) {
    let roles = if server == 0 { ["primary", "standby"] } else { ["standby", "primary"] };
    [0, 1].iter().for_each(|n| pair.wait_roles(*n, "switchable", roles));
    let left: Vec<String> = pair.beside(server).into_iter().filter(|path| path.contains(".rebuild")).collect();
    assert!(left.is_empty() && !pair.run_dir(server).join("recover.json").exists(), "left behind: {left:?}");
    assert_eq!(
        pair.sql(
            server,
            "SELECT count(*) FROM pg_settings WHERE name LIKE 'recovery_target%' AND setting <> '' \
        AND name NOT IN ('recovery_target_timeline', 'recovery_target_action', 'recovery_target_inclusive')"
        ),
        "0"
    );
}

/// To a random time between two transactions that are 100 ms apart, so often, while the pair fails over and is rebuilt:
/// exactly the right rows.
///
/// ```text
/// MC_TEST_WRITE_SECONDS=300 cargo test --test postgres to_a_time -- --nocapture
/// ```
fn to_random_times(rounds: u32) {
    let seconds: u32 = std::env::var("MC_TEST_WRITE_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let pair = pair(Setup::default().pg("track_commit_timestamp = on"));
    table(&pair, 0);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    let client = pair.client(Style::OneSession);
    let mut random = 0x9e37_79b9_u64 ^ u64::from(std::process::id());
    for round in 0..rounds {
        client.resume();
        write(&pair, 0, seconds * 5);
        pair.fail_over_from(0);
        pair.wait_switched(0);
        write(&pair, 1, seconds * 5 / 2);
        pair.rebuild(0, &[]);
        write(&pair, 1, seconds * 5 / 2);
        client.wait_ack(Instant::now(), s(30));
        client.pause();
        let before = rows(&pair, 1);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let last = (random >> 33) as usize % (before.len() - 1);
        let (at, next) = (before[last].1, before[last + 1].1);
        let target = pair.sql(1, &format!("SELECT to_timestamp({}::numeric / 1000000)", at + (next - at) / 2));
        recover(&pair, 0, &["--time", &target]);
        for n in [0, 1] {
            assert_eq!(ids(&rows(&pair, n)), ids(&before[..=last]), "round {round}, {target}, server {n}");
        }
        pair.as_root(0, &["sh", "-c", "rm -rf \"$0\".old-*", pair.data(0)]);
        archived(&pair, 0);
        eprintln!("RECOVERED {round}: to {target}, row {} of {}", last + 1, before.len());
    }
}

#[test]
fn to_a_time_over_failovers() {
    to_random_times(2);
}

#[test]
#[ignore = "20 recoveries take minutes"]
fn to_twenty_times() {
    to_random_times(20);
}

/// What cannot be reached, or is damaged: a clear refusal that changes nothing, or the next best copy.
#[test]
fn what_is_refused() {
    let pair = pair(Setup::default());
    table(&pair, 0);
    let fast = ["backup", "--fast-checkpoint"];
    for _ in 0..2 {
        pair.mc(0, &fast).expect(0, "mc_ctl backup");
        write(&pair, 0, 1);
        archived(&pair, 0);
    }
    pair.sql(0, "SELECT pg_create_restore_point('here')");
    write(&pair, 0, 1);
    let last = archived(&pair, 0);
    let postmaster = pair.postmaster(0).pid;
    let refused = |words: &[&str], code: i32, why: &str| {
        let answer = pair.mc(0, &[&["recover"], words].concat());
        assert!(answer.code == code && answer.text().contains(why), "{words:?}: {answer:?}");
        assert_eq!(pair.postmaster(0).pid, postmaster, "{words:?}");
        check(&pair, 0);
    };
    refused(&[], 2, "no target is specified");
    refused(&["--time", "2026-01-01 00:00", "--yes"], 2, "no time zone");
    refused(&["--abandon"], 4, "no recovery is in progress");
    refused(&["--latest"], 2, "confirmation is required");
    refused(&["--time", "2020-01-01 00:00Z", "--yes"], 4, "it was made after the target");
    refused(&["--time", "2999-01-01 00:00Z", "--yes"], 4, "in the future");
    refused(&["--lsn", "FF/0", "--yes"], 1, "could not be recovered to position FF/0");
    refused(&["--name", "nowhere", "--yes"], 1, "trying the next older backup");
    let plan = pair.mc(0, &["recover", "--name", "here", "--dry-run", "--format", "json"]).expect(0, "the plan").out;
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let names = backups(&pair, 0);
    assert_eq!(plan["backup"], names[1].as_str(), "the newest");

    // A segment that neither archive has; one that is damaged in its middle, in both; a history that is missing.
    let files = [0, 1].map(|n| destination(&pair, n).join("archived_wal").join(&last));
    let whole = std::fs::read(&files[0]).expect("a segment");
    let next = archived(&pair, 0);
    files.iter().for_each(|file| std::fs::remove_file(file).expect("a segment"));
    refused(&["--latest", "--yes"], 4, &format!("WAL segment {last} is missing in both archives"));
    let mut damaged = whole.clone();
    damaged[64..8192].fill(0x55);
    for file in &files {
        std::fs::write(file, &damaged).expect("a segment");
        own(file);
    }
    let orphan = destination(&pair, 0).join("archived_wal").join(format!("00000007{}", &next[8..]));
    std::fs::copy(destination(&pair, 0).join("archived_wal").join(&next), &orphan).expect("a segment");
    refused(&["--latest", "--yes"], 4, "neither has \"00000007.history\"");
    std::fs::remove_file(&orphan).expect("a segment");
    let answer = pair.mc(0, &["recover", "--latest", "--yes"]);
    assert!(answer.code == 1 && answer.err.contains("the WAL there is damaged; the recovery was undone"), "{answer:?}");
    // The standby, which was detached, is attached again.
    check(&pair, 0);
    assert_eq!(ids(&rows_without_times(&pair, 0)), [1, 2, 3]);

    // The archive of this server is damaged, and that of the other server is not. The newest backup is damaged.
    std::fs::write(&files[1], &whole).expect("a segment");
    std::fs::write(&files[0], &whole[..4096]).expect("a segment");
    let file = destination(&pair, 0).join(&names[1]).join("data/global/pg_control");
    let mut bytes = std::fs::read(&file).expect("pg_control");
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).expect("pg_control");
    let answer = recover(&pair, 0, &["--name", "here"]);
    assert!(answer.err.contains(&format!("backup \"{}\" is damaged", names[1])), "{answer:?}");
    assert_eq!(ids(&rows_without_times(&pair, 1)), [1, 2]);
}

fn rows_without_times(pair: &Pair, server: usize) -> Vec<(i64, i64)> {
    let text = pair.sql(server, "SELECT id FROM paced ORDER BY id");
    text.lines().map(|id| (id.parse().expect("a number"), 0)).collect()
}

/// On the server that has no backup: that of the other server is copied, which can be interrupted, and is verified.
#[test]
fn from_a_backup_of_the_other_server() {
    let pair = pair(Setup::default());
    pair.tablespace(0);
    table(&pair, 0);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    let name = backups(&pair, 0).pop().expect("a backup");
    write(&pair, 0, 2);
    pair.sql(0, "SELECT pg_create_restore_point('here')");
    write(&pair, 0, 2);
    let words = ["recover", "--name", "here", "--yes"];
    let plan = pair.mc(1, &["recover", "--name", "here", "--dry-run"]).expect(0, "the plan").out;
    assert!(plan.contains("only on server \"nd1\"") && plan.contains("from server \"nd1\" to backup_dest"), "{plan}");

    let copy = destination(&pair, 1).join(&name);
    let mut command = Beside::start(pair.mc_command(1, &words));
    wait_for("files are copied", s(60), || copy.join("data/PG_VERSION").exists().then_some(()));
    let mine = pair.host(1).processes().into_iter().filter(|process| process.command.contains(" recover "));
    mine.for_each(|process| signal(process.pid, Signal::KILL));
    wait_for("the command has ended", s(60), || command.ended());
    check(&pair, 0);
    assert!(backups(&pair, 1).is_empty(), "what is incomplete is no backup");
    let kept = copy.join("data/PG_VERSION").metadata().expect("a file").ino();
    let answer = recover(&pair, 1, &["--name", "here"]);
    assert_eq!(copy.join("data/PG_VERSION").metadata().expect("a file").ino(), kept, "it is not copied again");
    assert!(answer.err.contains(&format!("copying backup \"{name}\" from server \"nd1\"")), "{answer:?}");
    assert_eq!(backups(&pair, 1), [name.as_str()]);
    for n in [0, 1] {
        assert_eq!(ids(&rows_without_times(&pair, n)), [1, 2]);
        assert_eq!(pair.sql(n, "SELECT count(*) FROM in_space"), "10000");
    }

    // A copy that is damaged is removed.
    std::fs::remove_file(copy.join("backup.json")).expect("the description");
    let file = copy.join("data/global/pg_control");
    let mut damaged = std::fs::read(&file).expect("pg_control");
    damaged[100] ^= 1;
    std::fs::write(&file, damaged).expect("pg_control");
    let answer = pair.mc(1, &words);
    assert!(answer.code == 1 && answer.err.contains(&format!("could not copy backup \"{name}\"")), "{answer:?}");
    assert!(!copy.exists() && backups(&pair, 1).is_empty());
    check(&pair, 1);
}

/// Both data directories and ledgers, and one archive, are lost: nothing that was archived is missing. The pair is set up again
/// from the other archive.
#[test]
fn on_new_hosts() {
    let pair = pair(Setup::default());
    table(&pair, 0);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    write(&pair, 0, 3);
    archived(&pair, 0);
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    for n in [0, 1] {
        let run_dir = pair.run_dir(n);
        pair.as_root(n, &["rm", "-rf", pair.data(n), run_dir.to_str().expect("ASCII")]);
    }
    let lost = destination(&pair, 1);
    pair.as_root(1, &["sh", "-c", "rm -rf \"$0\"/* \"$0\"/.??*", lost.to_str().expect("ASCII")]);
    let answer = pair.mc(0, &["recover", "--latest", "--yes", "--force"]).expect(0, "mc_ctl recover");
    assert!(answer.out.contains("runs alone") && answer.err.contains("does not respond"), "{answer:?}");
    assert!(answer.err.contains("\nrecovered:  up to the commit at 20"), "{answer:?}");
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
    pair.mc(0, &["enable-failover"]).expect(0, "mc_ctl enable-failover");
    check(&pair, 0);
    assert_eq!(ids(&rows_without_times(&pair, 1)), [1, 2, 3]);
}

/// Both servers were stopped. The other server is rebuilt when its controller runs again.
#[test]
fn while_both_are_down() {
    let pair = pair(Setup::default());
    table(&pair, 0);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    write(&pair, 0, 2);
    pair.sql(0, "SELECT pg_create_restore_point('here')");
    write(&pair, 0, 2);
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    let refused = pair.mc(0, &["recover", "--name", "here", "--yes"]);
    assert!(refused.code == 4 && refused.err.contains("add --force"), "{refused:?}");
    let answer = pair.mc(0, &["recover", "--name", "here", "--yes", "--force"]).expect(0, "mc_ctl recover");
    assert!(answer.out.contains("runs alone") && answer.err.contains("confirm that it does not"), "{answer:?}");
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
    pair.mc(0, &["enable-failover"]).expect(0, "mc_ctl enable-failover");
    check(&pair, 0);
    assert_eq!(ids(&rows_without_times(&pair, 1)), [1, 2]);
    // Every file can be archived: none differs from one with its name.
    archived(&pair, 0);
    for n in [0, 1] {
        assert_eq!(pair.sql(n, "SELECT failed_count FROM pg_stat_archiver"), "0");
    }
}

/// The other server has a directory that `pg_rewind` cannot remove: it is rebuilt by a full copy, and the reason and the old data
/// directory are named.
#[test]
fn while_the_other_server_cannot_be_rewound() {
    let pair = pair(Setup::default());
    table(&pair, 0);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    write(&pair, 0, 1);
    pair.sql(0, "SELECT pg_create_restore_point('here')");
    write(&pair, 0, 1);
    let foreign = format!("{}/foreign", pair.data(1));
    pair.as_root(1, &["sh", "-c", &format!("mkdir {foreign} && touch {foreign}/file")]);
    let answer = recover(&pair, 0, &["--name", "here"]);
    let why = format!("file \"{foreign}\" cannot be written");
    assert!(answer.err.contains("could not rewind server \"nd2\"") && answer.err.contains(&why), "{answer:?}");
    let old = pair.beside(1).into_iter().find(|name| name.contains(".old-")).expect("the old data directory");
    let line = answer.err.lines().find(|line| line.contains("server \"nd2\" keeps old data too"));
    assert!(line.is_some_and(|line| line.ends_with(&format!("/{old}'"))), "{old}: {answer:?}");
    assert_eq!(ids(&rows_without_times(&pair, 1)), [1]);
}

/// The WAL is on a disk of its own, and what only it has is recovered too.
#[test]
fn with_wal_elsewhere() {
    let pair = pair(Setup { wal_apart: true, ..Setup::default() });
    let space = pair.tablespace(0);
    table(&pair, 0);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    // From here on nothing is archived, as if both archives were slow.
    for n in [0, 1] {
        pair.append(n, "postgresql.conf", "archive_command = '/bin/false'\n");
        pair.sql(n, "SELECT pg_reload_conf()");
    }
    write(&pair, 0, 3);
    pair.sql(0, "SELECT pg_switch_wal()");
    write(&pair, 0, 3);
    recover(&pair, 0, &["--latest"]);
    for n in [0, 1] {
        assert_eq!(rows_without_times(&pair, n).len(), 6);
        assert_eq!(pair.sql(n, "SELECT count(*) FROM in_space"), "10000");
    }
    let wal = std::fs::read_link(pair.servers[0].data.join("pg_wal")).expect("a link");
    assert_eq!(wal, pair.host(0).dir.join("disk/wal"));
    assert!(space.exists());
}

/// A cluster of Debian's: its configuration is outside of the data directory, and remains.
#[test]
fn on_debian() {
    let Some(version) = version_of_debian() else { return };
    let mut pair = Setup::default().make();
    for n in [0, 1] {
        create_cluster(&mut pair, n, &version);
        let at = destination(&pair, n);
        std::fs::create_dir(&at).expect("could not create a directory");
        own(&at);
        pair.server_line(n, &format!("backup_destination = '{}'", at.display()));
        let command = format!("{} archive-wal -M {}", program().display(), pair.servers[n].management.display());
        let lines = format!("archive_mode = always\narchive_command = '{command} \"%p\" \"%f\"'");
        let file = format!("/etc/postgresql/{version}/main/postgresql.conf");
        pair.as_root(n, &["sh", "-c", "echo \"$0\" >>\"$1\"", &lines, &file]);
    }
    pair.as_root(1, &["find", pair.data(1), "-mindepth", "1", "-delete"]);
    pair.start(0, &["-f"]);
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "the first mc_ctl rebuild");
    pair.wait_word(0, "switchable");
    table(&pair, 0);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    write(&pair, 0, 2);
    pair.sql(0, "SELECT pg_create_restore_point('here')");
    write(&pair, 0, 2);
    recover(&pair, 0, &["--name", "here"]);
    assert_eq!(rows_without_times(&pair, 1).len(), 2);
    let shown = pair.sql(0, "SELECT current_setting('config_file')");
    assert_eq!(shown, format!("/etc/postgresql/{version}/main/postgresql.conf"));
    assert!(!pair.host(0).path(&pair.servers[0].data).join("postgresql.conf").exists());
}
