//! What `mc_ctl check`, `mc_ctl status`, `mc_ctl what-if`, the metrics and `mc_ctl backup --check` report of backups.

use crate::backup::{archived, backups, destination, directories, pair};
use crate::check::check;
use crate::harness::pair::{Pair, Setup};
use crate::harness::{s, wait_for};
use serde_json::Value;
use std::path::Path;

/// The controllers read the backups in the background.
#[track_caller]
fn reported(pair: &Pair, code: &str, member: &str, expected: bool) {
    let what = format!("{code} {member} is {}", if expected { "reported" } else { "not reported" });
    wait_for(&what, s(150), || (check(pair, 0).find(code, member).is_some() == expected).then_some(()));
}

fn status(pair: &Pair) -> Value {
    let text = pair.mc(0, &["status", "--format", "json"]).expect(0, "mc_ctl status").out;
    serde_json::from_str(&text).expect("JSON")
}

/// Changes a file, and puts it back.
fn changed(path: &Path, change: impl FnOnce(&str) -> String, then: impl FnOnce()) {
    let before = std::fs::read_to_string(path).expect("a file");
    std::fs::write(path, change(&before)).expect("a file");
    then();
    std::fs::write(path, before).expect("a file");
}

#[test]
fn backups_of_a_pair() {
    let pair = pair(Setup::default());
    let monitored = |code: i32, part: &str| {
        let line = pair.mc(0, &["backup", "--check"]);
        assert!(line.code == code && line.out.contains(part), "{}", line.text());
    };
    reported(&pair, "backup-overdue", "", true);
    assert!(check(&pair, 0).find("backup-same-disk", "nd2").is_some());
    let text = pair.mc(0, &["status"]).text();
    assert!(text.contains("WARNING: backups: neither server has a backup"), "{text}");
    assert!(pair.mc(0, &["status", "--check"]).out.contains("neither server has a backup"));
    assert!(pair.mc(0, &["what-if", "primary-host"]).out.contains("lost: there is no backup"));

    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    assert_eq!(check(&pair, 0).find("backup-overdue", ""), None, "just after a backup");
    let segment = archived(&pair, 0);
    let name = backups(&pair, 0).pop().expect("a backup");
    wait_for("both controllers know it", s(150), || {
        let shown = status(&pair);
        let other = pair.mc(1, &["status", "--format", "json"]).out;
        (shown["backups"]["newest"]["name"] == name.as_str() && other.contains(&name)).then_some(())
    });
    let shown = status(&pair);
    assert!(shown["backups"]["problems"].as_array().is_some_and(Vec::is_empty), "{shown:#}");
    assert!(!pair.mc(0, &["status"]).text().contains("backups:"));
    let metrics = pair.mc(0, &["status", "--format", "prometheus"]).out;
    assert!(
        metrics.contains("mirroring_backup_age_seconds ") && metrics.contains("mirroring_backups 1\n"),
        "{metrics}"
    );
    assert!(pair.mc(1, &["what-if", "primary-host"]).out.contains(&format!("backup {name} of nd1 is left")));
    monitored(0, "archive_failures=");
    monitored(0, " free");

    // A backup that was damaged, one that would not fit twice, and WAL that is missing.
    let description = destination(&pair, 0).join(&name).join("backup.json");
    changed(
        &description,
        |_| "damaged".into(),
        || {
            reported(&pair, "backup-damaged", "nd1", true);
            monitored(2, "cannot be read");
        },
    );
    let bytes = |text: &str| text.replace("\"bytes\": ", "\"bytes\": 99999999");
    changed(&description, bytes, || {
        reported(&pair, "backup-destination-space", "nd1", true);
        monitored(1, "and a backup needs");
    });
    reported(&pair, "backup-destination-space", "nd1", false);
    archived(&pair, 0);
    for n in [0, 1] {
        std::fs::remove_file(destination(&pair, n).join("archived_wal").join(&segment)).expect("a segment");
    }
    reported(&pair, "backup-wal-missing", "", true);
    monitored(2, &format!("{segment} after the newest backup is missing from the archives of both servers"));

    // An archiver that fails, a destination that is not mounted, and one that is not set.
    let archive = pair.sql(0, "SHOW archive_command");
    pair.append(0, "postgresql.conf", "archive_command = 'false'\n");
    pair.sql(0, "SELECT pg_reload_conf(), pg_switch_wal()");
    pair.sql(0, "CREATE TABLE more AS SELECT 1; SELECT pg_switch_wal()");
    wait_for("archiving fails", s(60), || {
        pair.mc(0, &["backup", "--check"]).out.contains("archiving fails, last for").then_some(())
    });
    pair.append(0, "postgresql.conf", &format!("archive_command = '{archive}'\n"));
    pair.sql(0, "SELECT pg_reload_conf()");
    let place = destination(&pair, 1);
    let aside = place.with_extension("aside");
    std::fs::rename(&place, &aside).expect("the destination");
    reported(&pair, "backup-destination", "nd2", true);
    assert_eq!(pair.mc(1, &["backup", "--check"]).code, 2);
    std::fs::rename(&aside, &place).expect("the destination");
    reported(&pair, "backup-destination", "nd2", false);
    let file = pair.servers[1].management.join("nd2.conf");
    changed(
        &file,
        |text| text.lines().filter(|l| !l.contains("backup_destination")).map(|l| format!("{l}\n")).collect(),
        || {
            reported(&pair, "backup-one-server", "nd2", true);
        },
    );
}

/// An `archive_command` that does not end, which `pg_stat_archiver` does not count as a failure.
#[test]
fn wal_that_is_not_archived() {
    let pair = pair(Setup::default());
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    let name = backups(&pair, 0).pop().expect("a backup");
    archived(&pair, 0);
    for n in [0, 1] {
        pair.append(n, "postgresql.conf", "archive_command = 'sleep 3600'\n");
        pair.sql(n, "SELECT pg_reload_conf()");
    }
    pair.fill(0, 40);
    let line = pair.mc(0, &["backup", "--check"]).expect(0, "mc_ctl backup --check").out;
    assert!(line.contains(" s ago, ") && line.contains(" MB not archived; "), "{line}");
    assert_eq!(check(&pair, 0).find("backup-wal-late", ""), None);
    // Twenty minutes later.
    for n in [0, 1] {
        let files = destination(&pair, n).join("archived_wal");
        pair.as_root(n, &["find", files.to_str().expect("ASCII"), "-exec", "touch", "-d", "20 minutes ago", "{}", "+"]);
    }
    let description = destination(&pair, 0).join(&name).join("backup.json");
    let text = std::fs::read_to_string(&description).expect("a description");
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    let ended = json["ended_ms"].as_u64().expect("a time");
    json["ended_ms"] = (ended - 20 * 60_000).into();
    std::fs::write(&description, json.to_string()).expect("a description");
    let found = check(&pair, 0).find("backup-wal-late", "").expect("a finding");
    assert!(found.what.contains(" MB of WAL is not archived; the last was archived 20 min ago"), "{found:?}");
    let line = pair.mc(0, &["backup", "--check"]);
    assert!(line.code == 1 && line.out.contains("MB of WAL is not archived"), "{line:?}");
}

/// Both servers use one directory, as of a network file system: nothing is removed, and no backup is made while the other server
/// responds. While it does not, its backups are kept.
#[test]
fn one_destination_for_both_servers() {
    let pair = pair(Setup::default());
    let fast = ["backup", "--fast-checkpoint"];
    for _ in 0..2 {
        pair.mc(0, &fast).expect(0, "mc_ctl backup");
    }
    for name in backups(&pair, 0) {
        let file = destination(&pair, 0).join(name).join("backup.json");
        let text = std::fs::read_to_string(&file).expect("a description");
        std::fs::write(&file, text.replace("\"server\": \"nd1\"", "\"server\": \"nd2\"")).expect("a description");
    }
    let file = pair.servers[1].management.join("nd2.conf");
    let [own, shared] = [1, 0].map(|n| destination(&pair, n).display().to_string());
    let before = std::fs::read_to_string(&file).expect("a file");
    std::fs::write(&file, before.replace(&format!("'{own}'"), &format!("'{shared}'"))).expect("a file");
    pair.mc(1, &["reload"]).expect(0, "mc_ctl reload");
    for (server, peer) in [(0, "nd2"), (1, "nd1")] {
        let answer = pair.mc(server, &fast);
        let expected = format!("is the same directory as that of server \"{peer}\"");
        assert!(answer.code == 4 && answer.err.contains(&expected), "{answer:?}");
        let line = pair.mc(server, &["backup", "--check"]);
        assert!(line.code == 2 && line.out.contains("is the same directory on both servers"), "{line:?}");
        assert!(pair.mc(server, &["backup", "--list"]).err.contains(&expected));
    }
    assert!(check(&pair, 0).find("backup-destination-shared", "").is_some());
    assert_eq!(directories(&pair, 0), 2);

    pair.mc(1, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
    for expected in [3, 4, 4] {
        pair.mc(0, &fast).expect(0, "mc_ctl backup");
        assert_eq!(directories(&pair, 0), expected, "of nd2 and of nd1");
    }
    std::fs::write(&file, before).expect("a file");
    pair.start(1, &["--mc-only"]);
    wait_for("backups of both count", s(60), || {
        pair.mc(0, &fast).expect(0, "mc_ctl backup");
        (directories(&pair, 0) == 2).then_some(())
    });
}
