//! `mc_ctl backup` and the WAL archive on real servers: run from cron on both, killed, and recovered from.

use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, own, program};
use crate::harness::run::{Beside, run};
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::path::{Path, PathBuf};

/// A pair, each server with a directory for its backups, whose instances archive to it.
pub fn pair(setup: Setup) -> Pair {
    let pair = setup.pg("archive_mode = always").make();
    for n in [0, 1] {
        let destination = destination(&pair, n);
        std::fs::create_dir(&destination).expect("could not create a directory");
        own(&destination);
        pair.server_line(n, &format!("backup_destination = '{}'", destination.display()));
    }
    pair.bring_up();
    for n in [0, 1] {
        let command =
            format!("{} archive-wal -M {} \"%p\" \"%f\"", program().display(), pair.servers[n].management.display());
        pair.append(n, "postgresql.conf", &format!("archive_command = '{command}'\n"));
        pair.sql(n, "SELECT pg_reload_conf()");
    }
    pair
}

pub fn destination(pair: &Pair, server: usize) -> PathBuf {
    pair.host(server).dir.join("backup")
}

/// The names of the complete backups on a server, the oldest first, as both servers list them.
pub fn backups(pair: &Pair, server: usize) -> Vec<String> {
    let id = pair.servers[server].id;
    let [own, theirs] = [server, 1 - server].map(|at| {
        let text = pair.mc(at, &["backup", "--list", "--format", "json"]).expect(0, "mc_ctl backup --list").out;
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        let rows = rows.iter().filter(|row| row["on"] == id);
        rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(own, theirs);
    own
}

/// The directories in a destination that look like backups, complete or not.
pub fn directories(pair: &Pair, server: usize) -> usize {
    let entries = std::fs::read_dir(destination(pair, server)).expect("the destination").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("20")).count()
}

/// Waits until both archives have the WAL up to now.
pub fn archived(pair: &Pair, primary: usize) -> String {
    // Without WAL since the last switch, PostgreSQL switches no segment.
    pair.sql(primary, "SELECT pg_create_restore_point('archived')");
    let segment = pair.sql(primary, "SELECT pg_walfile_name(pg_switch_wal())");
    for n in [0, 1] {
        let file = destination(pair, n).join("archived_wal").join(&segment);
        wait_for(&format!("{} archives {segment}", pair.servers[n].id), s(60), || file.exists().then_some(()));
    }
    segment
}

/// Cron runs it on both servers. Only the primary makes a backup; after a switch the new primary does. A number of generations
/// is kept, and the WAL that they need.
#[test]
fn on_both_servers_from_cron() {
    let pair = pair(Setup::default());
    let space = pair.tablespace(0);
    let fast = ["backup", "--fast-checkpoint"];
    assert_eq!(pair.mc(0, &["backup", "--check"]).code, 2);
    let first = pair.mc(0, &fast).expect(0, "mc_ctl backup");
    assert!(first.out.contains("verified"), "{}", first.out);
    let standby = pair.mc(1, &fast).expect(0, "mc_ctl backup on the standby");
    assert_eq!(standby.out, "server \"nd2\" is the standby; the primary makes the backup\n");
    assert!(backups(&pair, 1).is_empty());
    let oldest = archived(&pair, 0);
    pair.fill(0, 40);
    for _ in 0..2 {
        pair.mc(0, &fast).expect(0, "mc_ctl backup");
    }
    let kept = backups(&pair, 0);
    assert_eq!((kept.len(), directories(&pair, 0)), (2, 2), "{kept:?}");
    let archive = destination(&pair, 0).join("archived_wal");
    assert!(!archive.join(&oldest).exists(), "{oldest} is needed by no backup");
    // The standby's archive is trimmed by the same line of cron.
    let of_standby = destination(&pair, 1).join("archived_wal").join(&oldest);
    assert!(of_standby.exists(), "{oldest} is archived on both servers");
    pair.mc(1, &fast).expect(0, "mc_ctl backup on the standby");
    assert!(!of_standby.exists(), "{oldest} is needed by no backup");
    let copy = destination(&pair, 0).join(&kept[1]);
    assert!(std::fs::read_dir(copy.join("tablespaces")).expect("tablespaces").count() == 1 && space.exists());
    assert!(copy.join("configuration/network.conf").exists());
    pair.mc(0, &["backup", "--verify"]).expect(0, "mc_ctl backup --verify");
    let check = pair.mc(0, &["backup", "--check"]).expect(0, "mc_ctl backup --check");
    assert!(check.out.starts_with("MC BACKUP OK - "), "{}", check.out);

    // A backup that is damaged is not called intact.
    let file = copy.join("data/global/pg_control");
    let mut bytes = std::fs::read(&file).expect("pg_control");
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).expect("pg_control");
    let damaged = pair.mc(0, &["backup", "--verify", &kept[1]]);
    assert!(damaged.code == 1 && damaged.err.contains("pg_control"), "{damaged:?}");
    pair.mc(0, &["backup", "--delete", &kept[1]]).expect(0, "mc_ctl backup --delete");
    assert_eq!(backups(&pair, 0), kept[..1]);
    assert_eq!(pair.mc(0, &["backup", "--delete", &kept[1]]).code, 1);

    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    pair.wait_switched(0);
    assert_eq!(pair.mc(0, &fast).code, 4, "a server without a role");
    pair.mc(1, &fast).expect(0, "mc_ctl backup on the new primary");
    assert_eq!(backups(&pair, 1).len(), 1);
}

/// Killed at any point, a backup leaves nothing that looks complete; the next one removes it. A signal ends it in order.
#[test]
fn killed() {
    let pair = pair(Setup::default().conf("backup_max_rate = 4M"));
    pair.fill(0, 30);
    let begin = || {
        // The second process of a pg_basebackup that was killed runs until the next backup ends it.
        let before: Vec<u32> = pair.host(0).running("pg_basebackup").iter().map(|process| process.pid).collect();
        let backup = Beside::start(pair.mc_command(0, &["backup", "--fast-checkpoint"]));
        wait_for("pg_basebackup runs", s(30), || {
            let running = pair.host(0).running("pg_basebackup");
            running.into_iter().find(|process| !before.contains(&process.pid))
        });
        backup
    };
    let mine = || pair.host(0).processes().into_iter().find(|p| p.command.contains(" backup --fast"));
    for round in 0..3 {
        let mut backup = begin();
        let second = pair.mc(0, &["backup"]);
        assert!(second.code == 4 && second.err.contains("already in progress"), "{second:?}");
        std::thread::sleep(std::time::Duration::from_millis(300 * round));
        signal(mine().expect("mc_ctl backup").pid, Signal::KILL);
        wait_for("it ends", s(10), || backup.ended());
        assert_eq!((backups(&pair, 0).len(), directories(&pair, 0)), (0, 1), "round {round}");
    }
    let mut backup = begin();
    signal(mine().expect("mc_ctl backup").pid, Signal::TERM);
    wait_for("it ends", s(10), || backup.ended());
    assert_eq!(directories(&pair, 0), 0, "ended in order");
    wait_for("the next backup succeeds", s(60), || {
        (pair.mc(0, &["backup", "--fast-checkpoint"]).code == 0).then_some(())
    });
    assert_eq!((backups(&pair, 0).len(), directories(&pair, 0)), (1, 1));
}

/// A backup and either archive are enough to recover every row that was archived, over a failover. The server that was rebuilt
/// has not archived what it received from the rebuild, and restore-wal gets it from the other server.
#[test]
fn recovered_by_hand_over_a_failover() {
    let pair = pair(Setup::default());
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    // The standby has it before a crash that follows at once.
    pair.sql(0, "SET synchronous_commit = on; CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id");
    pair.fail_over_from(0);
    pair.wait_switched(0);
    pair.sql(1, "INSERT INTO kept SELECT generate_series(1001, 2000)");
    pair.rebuild(0, &[]);
    let last = archived(&pair, 1);

    let name = backups(&pair, 0).pop().expect("a backup");
    let rows = pair.mc(0, &["backup", "--list", "--format", "json"]).out;
    let rows: serde_json::Value = serde_json::from_str(&rows).expect("JSON");
    assert_eq!((&rows[0]["wal_timeline"], &rows[0]["wal_missing"]), (&2.into(), &serde_json::Value::Null), "{rows}");

    let to = destination(&pair, 0).join("recovered");
    let shell = |script: &str| {
        let mut command = pair.host(0).admin("sh");
        command.args(["-euc", script]);
        run(command, s(120)).expect(0, script)
    };
    let (from, at) = (destination(&pair, 0).join(name).join("data"), to.display().to_string());
    let restore = format!("{} restore-wal -M {}", program().display(), pair.servers[0].management.display());
    shell(&format!("cp -a '{}' '{at}' && touch '{at}/recovery.signal'", from.display()));
    let more = format!(
        "\nrestore_command = '{restore} \"%f\" \"%p\"'\nrecovery_target_timeline = latest\nrecovery_target_action = \
         promote\narchive_mode = off\nsynchronous_standby_names = ''\nport = 5999\nlisten_addresses = ''\n\
         unix_socket_directories = '{at}'\n"
    );
    shell(&format!("cat >> '{at}/postgresql.conf' <<'END'{more}END\n"));
    let bin = crate::harness::bin_dir().display().to_string();
    shell(&format!("{bin}/pg_ctl -w -t 60 -D '{at}' -l '{at}/server.log' start"));
    let count =
        || shell(&format!("{bin}/psql -h '{at}' -p 5999 -Atc 'SELECT count(*), max(id) FROM kept' postgres")).out;
    wait_for("it is recovered", s(60), || {
        let promoted = format!("{bin}/psql -h '{at}' -p 5999 -Atc 'SELECT NOT pg_is_in_recovery()' postgres");
        (shell(&promoted).out.trim() == "t").then_some(())
    });
    assert_eq!(count().trim(), "2000|2000", "recovered to {last}");
    shell(&format!("{bin}/pg_ctl -w -m fast -D '{at}' stop"));
    gap(&pair, &last);
}

/// A segment that is missing in the middle of both archives is reported.
fn gap(pair: &Pair, last: &str) {
    archived(pair, 1);
    for n in [0, 1] {
        assert_eq!(pair.mc(n, &["backup", "--check"]).code, 0, "the other archive has it");
        let file = destination(pair, n).join("archived_wal").join(last);
        std::fs::remove_file(Path::new(&file)).expect("a segment");
    }
    let listed = pair.mc(0, &["backup", "--list"]);
    assert!(listed.out.contains(&format!("GAP: {last} is missing")), "{}", listed.out);
    let check = pair.mc(0, &["backup", "--check"]);
    assert!(check.code == 2 && check.out.contains(last), "{check:?}");
}

/// A backup that cannot be restored is removed by order, once that is confirmed, or when all that are kept are newer.
#[test]
fn damaged() {
    let pair = pair(Setup::default());
    let make = || {
        pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
        backups(&pair, 0).pop().expect("a backup")
    };
    let description = |name: &str| destination(&pair, 0).join(name).join("backup.json");
    let orphan = make();
    let text = std::fs::read_to_string(description(&orphan)).expect("backup.json");
    let orphaned = text.replace("\"full\": null", "\"full\": \"20200101T000000Z\"");
    assert_ne!(text, orphaned);
    std::fs::write(description(&orphan), &orphaned).expect("backup.json");
    let unreadable = make();
    std::fs::write(description(&unreadable), "{").expect("backup.json");
    let answer = pair.mc(0, &["backup", "--delete", &unreadable]);
    assert!(answer.code == 2 && answer.err.contains("is damaged, and its removal cannot be undone"), "{answer:?}");
    assert_eq!(directories(&pair, 0), 2);
    pair.mc(0, &["backup", "--delete", &unreadable, "--yes"]).expect(0, "mc_ctl backup --delete");
    let kept = [make(), make()];
    assert_eq!((backups(&pair, 0), directories(&pair, 0)), (kept.into(), 2));
    assert_eq!(pair.mc(0, &["backup", "--check"]).code, 0);
    assert_eq!(pair.mc(0, &["backup", "--delete", &orphan, "--yes"]).code, 1, "it was removed");
}

/// The standby archives the WAL that a rebuild has copied: the primary may be lost before it has archived it.
#[test]
fn of_a_rebuild() {
    for method in ["basebackup", "rewind"] {
        let pair = pair(Setup::default().pg("wal_keep_size = 1GB"));
        pair.fill(0, 64);
        pair.fail_over_from(0);
        pair.sql(1, "ALTER SYSTEM SET archive_command = '/bin/false'");
        pair.sql(1, "SELECT pg_reload_conf()");
        pair.sql(1, "UPDATE bulk SET id = -id");
        let mut rebuild = Beside::start(pair.mc_command(0, &["rebuild", "--yes", "--method", method]));
        while rebuild.ended().is_none() {
            pair.sql(1, "INSERT INTO bulk SELECT g, 'x' FROM generate_series(1, 100) g");
            pair.sql(1, "SELECT pg_switch_wal()");
        }
        pair.check_rebuilt(0);
        pair.sql(1, "SELECT pg_create_restore_point('archived')");
        let last = pair.sql(1, "SELECT pg_walfile_name(pg_switch_wal())");
        let complete = pair.sql(0, "SELECT string_agg(name, ' ') FROM pg_ls_waldir() WHERE length(name) = 24");
        let archive = destination(&pair, 0).join("archived_wal");
        let of_timeline = |name: &&str| name[..8] == last[..8] && *name <= last.as_str();
        for name in complete.split(' ').filter(of_timeline) {
            let archived = || archive.join(name).exists().then_some(());
            wait_for(&format!("{} archives {name} after {method}", pair.servers[0].id), s(30), archived);
        }
    }
}

/// From PostgreSQL 17 on, an incremental backup is made to the newest full one, and combined with it for a recovery. A full
/// backup is kept as long as an incremental one needs it.
#[test]
fn incremental() {
    let pair = pair(Setup::default());
    let space = pair.tablespace(0);
    let fast = ["backup", "--fast-checkpoint"];
    let more = ["backup", "--fast-checkpoint", "--incremental"];
    let refused = |code: &str| {
        let answer = pair.mc(0, &more);
        assert!(answer.code == 1 && answer.err.contains(code) && answer.err.contains("HINT:"), "{answer:?}");
        assert_eq!(directories(&pair, 0), backups(&pair, 0).len());
    };
    if pair.sql(0, "SELECT current_setting('server_version_num')::int < 170000") == "t" {
        return refused("incremental backups require PostgreSQL 17 or later");
    }
    refused("incremental backups require summarize_wal = on");
    pair.sql(0, "ALTER SYSTEM SET summarize_wal = on");
    pair.sql(0, "SELECT pg_reload_conf()");
    refused("this server has no full backup");
    pair.mc(0, &fast).expect(0, "mc_ctl backup");
    let full = backups(&pair, 0).pop().expect("a backup");
    pair.fill(0, 20);
    pair.sql(0, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id");
    pair.mc(0, &more).expect(0, "mc_ctl backup --incremental");
    let name = backups(&pair, 0).pop().expect("a backup");
    let listed = pair.mc(1, &["backup", "--list"]).out;
    assert!(listed.contains(&format!("incremental, needs {full}")), "{listed}");
    pair.mc(0, &["backup", "--verify", &name]).expect(0, "mc_ctl backup --verify");

    // It is not full, and the two together are.
    let size = |name: &str| {
        let text = std::fs::read_to_string(destination(&pair, 0).join(name).join("backup.json")).expect("backup.json");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["bytes"].as_u64().expect("bytes")
    };
    assert!(size(&name) < size(&full) + (20 << 20), "{} {}", size(&name), size(&full));
    combined(&pair, &full, &name);
    assert!(space.exists());

    // Generations are full backups with their increments; the one that is needed cannot be removed.
    let needed = pair.mc(0, &["backup", "--delete", &full]);
    assert!(needed.code == 1 && needed.err.contains(&format!("--delete {name}")), "{needed:?}");
    pair.mc(0, &fast).expect(0, "mc_ctl backup");
    assert_eq!(backups(&pair, 0).len(), 3);
    pair.mc(0, &more).expect(0, "mc_ctl backup --incremental");
    pair.mc(0, &fast).expect(0, "mc_ctl backup");
    let kept = backups(&pair, 0);
    assert!(kept.len() == 3 && !kept.contains(&full) && !kept.contains(&name), "{kept:?}");

    // Damage of the full backup is found by the verification of the incremental one.
    let file = destination(&pair, 0).join(&kept[0]).join("data/global/pg_control");
    let mut bytes = std::fs::read(&file).expect("pg_control");
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).expect("pg_control");
    assert_eq!(pair.mc(0, &["backup", "--verify", &kept[1]]).code, 1);
    std::fs::remove_dir_all(destination(&pair, 0).join(&kept[0])).expect("a backup");
    assert!(!backups(&pair, 0).contains(&kept[1]), "it cannot be restored");
}

/// Combines both as PostgreSQL's manual describes, starts the result beside the pair, and reads it.
fn combined(pair: &Pair, full: &str, name: &str) {
    let from = destination(pair, 0);
    let bin = crate::harness::bin_dir().display().to_string();
    let (dir, at) = (from.display(), from.join("combined").display().to_string());
    let maps = "for t in $(ls \"$2/tablespaces\"); do set -- \"$@\" -T \"$2/tablespaces/$t=$3.$t\"; done";
    let script = format!(
        "set -- '{dir}/{full}' '{dir}/{name}' '{at}'; a=$1 b=$2 c=$3; {maps}; shift 3\n\
         '{bin}/pg_combinebackup' \"$a/data\" \"$b/data\" -o \"$c\" \"$@\"\n\
         cat >> '{at}/postgresql.conf' <<'END'\narchive_mode = off\nsynchronous_standby_names = ''\nport = 5999\n\
         listen_addresses = ''\nunix_socket_directories = '{at}'\nEND\n\
         '{bin}/pg_ctl' -w -t 60 -D '{at}' -l '{at}/server.log' start >&2\n\
         '{bin}/psql' -h '{at}' -p 5999 -Atc 'SELECT count(*), max(id) FROM kept' postgres\n\
         '{bin}/pg_ctl' -w -m fast -D '{at}' stop >&2"
    );
    let mut command = pair.host(0).admin("sh");
    command.args(["-euc", &script]);
    let answer = run(command, s(180)).expect(0, "pg_combinebackup and a start");
    assert_eq!(answer.out.trim(), "1000|1000");
}

/// A transfer from the other server is resumed after the link was broken. While that server cannot be asked, the recovery of a
/// backup is aborted instead of ended before WAL that only that server may have.
#[test]
fn restored_over_a_broken_link() {
    let pair = pair(Setup::default());
    pair.mc(0, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    let segment = archived(&pair, 0);
    let [own, theirs] = [0, 1].map(|n| destination(&pair, n).join("archived_wal").join(&segment));
    std::fs::remove_file(own).expect("a segment");
    let dir = pair.host(0).dir.join("run");
    let to = dir.join("restored");
    let restore = |more: &str, name: &str| {
        let (program, management) = (program().display(), pair.servers[0].management.display());
        let script = format!("cd {}; exec {program} restore-wal -M {management} {more} {name} restored", dir.display());
        let mut command = pair.host(0).admin("sh");
        command.args(["-c", &script]);
        command
    };
    let mut transfer = Beside::start(restore("-t 500", &segment));
    let new = dir.join("restored.new");
    wait_for("it is transferred", s(30), || new.metadata().ok().filter(|meta| meta.len() > 0));
    pair.net.cut(1);
    assert!(transfer.ended().is_none(), "the link was cut too late");
    std::thread::sleep(s(8));
    pair.net.heal(1);
    let status = wait_for("the transfer ends", s(500), || transfer.ended());
    assert!(status.success(), "{status}");
    assert_eq!(std::fs::read(&to).expect("a segment"), std::fs::read(theirs).expect("a segment"));

    let missing = "0000000100000000000000FF";
    let answer = |more: &str| {
        let answer = run(restore(more, missing), s(60));
        (
            answer.code,
            answer.err.contains("the other server did not respond") || answer.err.contains("does not respond"),
        )
    };
    assert_eq!(answer(""), (1, false), "neither server has it");
    pair.net.cut(1);
    assert_eq!(answer(""), (1, true), "a standby continues with another source");
    std::fs::write(dir.join("recovery.signal"), "").expect("a file");
    assert_eq!(answer(""), (126, true), "the recovery is aborted");
    assert_eq!(answer("--own-archive"), (1, false));
    pair.net.heal(1);
    wait_for("the other server is asked again", s(60), || (answer("") == (1, false)).then_some(()));
}

/// `mc_ctl recover` restores an incremental backup with its full backup, tablespaces included.
#[test]
fn recovered_from_an_incremental_one() {
    if crate::harness::major() < 17 {
        return eprintln!("skipped: incremental backups require PostgreSQL 17");
    }
    let pair = pair(Setup::default().pg("summarize_wal = on"));
    pair.tablespace(0);
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    pair.fill(0, 20);
    pair.sql(0, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id");
    pair.mc(0, &["backup", "--fast-checkpoint", "--incremental"]).expect(0, "mc_ctl backup --incremental");
    let name = backups(&pair, 0).pop().expect("a backup");
    pair.sql(0, "INSERT INTO kept SELECT generate_series(1001, 2000)");
    pair.sql(0, "SELECT pg_create_restore_point('mistake')");
    pair.sql(0, "DROP TABLE kept");
    let answer = pair.mc(0, &["recover", "--yes", "--name", "mistake"]).expect(0, "mc_ctl recover");
    assert!(answer.text().contains(&name), "{}", answer.text());
    for n in [0, 1] {
        assert_eq!(pair.sql(n, "SELECT count(*), max(id) FROM kept"), "2000|2000");
    }
}
