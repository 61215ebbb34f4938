//! What the controller and the instance write into the management directory is bounded. A full disk is reported, on each
//! directory, on both servers: in the status, by `--check`, in the metrics, by the health endpoint and in the log.

use crate::check::{check, expect};
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, program};
use crate::harness::run::{Beside, run};
use crate::harness::{s, wait_for};
use crate::health::{ADDRESS, codes};
use rustix::process::Signal;
use std::path::Path;
use std::time::Instant;

/// With `logging_collector = off`, `startup.log` receives PostgreSQL's whole log. The controller keeps it, and the older file
/// beside it, below 10 MiB each; the log continues in it.
#[test]
fn startup_log_is_bounded() {
    let pair = Setup::default().pg("logging_collector = off").up();
    let log = |name: &str| std::fs::read(pair.host(0).path(&pair.run_dir(0)).join(name)).ok();
    let write = |text: &str, lines: u32| {
        let raise = format!("RAISE LOG '% {text} %', i, repeat('x', 10000)");
        pair.sql(0, &format!("DO $$ BEGIN FOR i IN 1..{lines} LOOP {raise}; END LOOP; END $$"));
    };
    write("many", 4000);
    let older = wait_for("the log is bounded", s(30), || {
        let older = log("startup.log.1").filter(|older| !older.is_empty())?;
        (log("startup.log")?.len() <= 10 << 20).then_some(older)
    });
    assert!(older.len() <= 10 << 20, "{} bytes", older.len());
    assert!(String::from_utf8_lossy(&older).contains("many xxx"));
    write("one more", 1);
    wait_for("the log continues", s(10), || {
        String::from_utf8_lossy(&log("startup.log")?).contains("1 one more xxx").then_some(())
    });
    assert_eq!(pair.status(0).expect("a status").word, "switchable");
}

/// Puts a directory on a file system of its own.
pub fn mount(pair: &Pair, server: usize, dir: &str, mib: u32) {
    let options = format!("size={mib}m,mode=700,uid=postgres,gid=postgres");
    let script = "cp -a $1 $1.kept && mount -t tmpfs -o $2 none $1 && cp -a $1.kept/. $1/ && rm -r $1.kept";
    pair.as_root(server, &["sh", "-c", script, "sh", dir, &options]);
}

pub fn fill(pair: &Pair, server: usize, dir: &str) {
    pair.as_root(server, &["sh", "-c", &format!("dd if=/dev/zero of={dir}/filler bs=4k 2>/dev/null; true")]);
}

/// Fills it but for this many bytes.
fn fill_up_to(pair: &Pair, server: usize, dir: &str, left: u64) {
    let script = "fallocate -l $(($(stat -f -c '%a * %S' $1) - $2)) $1/filler";
    pair.as_root(server, &["sh", "-c", script, "sh", dir, &left.to_string()]);
}

fn empty(pair: &Pair, server: usize, dir: &str) {
    pair.as_root(server, &["rm", &format!("{dir}/filler")]);
}

fn json(pair: &Pair, server: usize) -> serde_json::Value {
    let answer = pair.mc(server, &["status", "--format", "json"]);
    serde_json::from_str(&answer.out).unwrap_or_else(|e| panic!("{e} in: {}", answer.text()))
}

/// Waits until the status of a server shows this disk status of the servers, and prints how long it took.
#[track_caller]
pub fn wait_disks(pair: &Pair, server: usize, expected: [&str; 2], full: [&str; 2]) {
    let begin = Instant::now();
    wait_for("the disk status changes", s(20), || {
        let status = json(pair, server);
        let row = |n: usize| &status["servers"][n];
        (0..2).all(|n| row(n)["disk_status"] == expected[n] && row(n)["full_directories"] == full[n]).then_some(())
    });
    println!("server {server} shows {expected:?} {full:?} after {:?}", begin.elapsed());
}

/// The exit status of `--check`, and that its line contains this.
#[track_caller]
fn expect_check(pair: &Pair, server: usize, code: i32, text: &str) {
    let answer = pair.mc(server, &["status", "--check"]);
    assert!(answer.code == code && answer.out.contains(text), "{}", answer.text());
}

fn metrics(pair: &Pair, server: usize) -> String {
    pair.mc(server, &["status", "--format", "prometheus"]).out
}

/// The log of the server that serves, the history of both and `--check` of both name the full disk with the view that it caused.
#[track_caller]
fn expect_cause(pair: &Pair, serves: usize, since: Instant, text: &str) {
    wait_for("the view in the log names the full disk", s(20), || {
        let log = &pair.host(serves).syslog;
        log.find(since, text).filter(|(_, line)| line.contains("(MCA01000)"))
    });
    for server in [serves, 1 - serves] {
        for command in [&["history"][..], &["status", "--check"]] {
            wait_for(&format!("{command:?} of server {server} names the full disk"), s(40), || {
                let shown = pair.mc(server, command).out;
                let line = shown.lines().rfind(|line| line.contains(text))?;
                assert_eq!(line.matches(text).count(), 1, "{line}");
                Some(())
            });
        }
    }
}

/// Without space for the heap, inserts fail while the pair is switchable: the endpoint sends no clients there any more.
#[test]
fn data_of_the_primary() {
    let pair = Setup { small_disk_mib: Some(160), ..Setup::default() }.conf(ADDRESS).make();
    mount(&pair, 0, &format!("{}/pg_wal", pair.data(0)), 160);
    pair.bring_up();
    let view = pair.ledger_of(0);
    pair.sql(0, "CREATE TABLE t AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 1000)");
    wait_for("the primary serves", s(20), || (codes(&pair, 0) == [200, 503, 200]).then_some(()));
    expect_check(&pair, 0, 0, "OK");
    let at = Instant::now();
    fill(&pair, 0, pair.data(0));
    wait_disks(&pair, 0, ["full", "normal"], ["data", ""]);
    let refused = pair.try_sql(0, "INSERT INTO t SELECT repeat('y', 1000) FROM generate_series(1, 100000)");
    assert!(refused.is_err_and(|why| why.contains("No space left")), "the disk is not full");
    expect_check(&pair, 0, 2, "CRITICAL - switchable, nd1 primary, nd2 standby, nd1 disk full (data)");
    assert_eq!(codes(&pair, 0), [503; 3]);
    assert!(metrics(&pair, 0).contains("mirroring_disk_full{directory=\"data\"} 1\n"));
    let said = pair.mc(0, &["status"]).err;
    assert!(said.contains("(data) is full") && said.contains("/disk\" of"), "{said}");
    // The other server shows it as well.
    wait_disks(&pair, 1, ["full", "normal"], ["data", ""]);
    expect_check(&pair, 1, 2, "nd1 disk full (data)");
    let said = pair.run_explained(0, at, 1240).err;
    assert!(said.contains("(data) is full"), "{said}");
    // No switch begins with a checkpoint that ends in a PANIC.
    let refused =
        [(0, vec!["switch"]), (0, vec!["stop"]), (0, vec!["stop", "-a"]), (1, vec!["stop", "-a"]), (1, vec!["switch"])];
    for (server, args) in refused {
        let refused = pair.mc(server, &args);
        assert!(refused.code == 4 && refused.err.contains("checkpoint"), "{}", refused.text());
        assert!(refused.err.contains("\nHINT: Free space"), "{}", refused.text());
    }
    assert_eq!(pair.sql(0, "SELECT 1"), "1", "the instance is down");
    empty(&pair, 0, pair.data(0));
    wait_disks(&pair, 0, ["normal"; 2], [""; 2]);
    pair.wait_log(0, at, "MCA01122", s(10));
    wait_for("it serves again", s(20), || (codes(&pair, 0) == [200, 503, 200]).then_some(()));
    pair.sql(0, "INSERT INTO t VALUES ('z')");
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    assert_eq!(pair.status(0).expect("a status").word, "switchable");
    // The way out without free space, as printed.
    fill(&pair, 0, pair.data(0));
    wait_disks(&pair, 0, ["full", "normal"], ["data", ""]);
    let hint = pair.mc(0, &["switch"]).err;
    let command = "/pg_ctl stop -m immediate -D ";
    let found = hint.split('"').find(|part| part.starts_with('/') && part.contains(command)).expect(&hint);
    assert!(pair.mc(0, &["status"]).err.contains(found), "the status has another command");
    let args: Vec<&str> = found.split(' ').skip(1).collect();
    pair.host(0).pg("pg_ctl", &args).expect(0, found);
    wait_for("the standby takes over", s(40), || pair.try_sql(1, "INSERT INTO t VALUES ('after')").ok());
    assert_eq!(pair.sql(1, "SELECT count(*) FROM t WHERE x IN ('z', 'after')"), "2");
    expect_cause(&pair, 1, at, "no space left on server \"nd1\" (data)");
}

/// PostgreSQL writes into the segment files that exist. The endpoint answers that this is the primary until it uses the last.
#[test]
fn wal_of_the_primary() {
    let pair = Setup::default().conf(ADDRESS).pg("min_wal_size = 80MB").make();
    let wal = format!("{}/pg_wal", pair.data(0));
    mount(&pair, 0, &wal, 200);
    pair.bring_up();
    pair.sql(0, "SELECT pg_create_physical_replication_slot('forgotten', true)");
    pair.sql(0, "CREATE TABLE t (x int)");
    let at = Instant::now();
    fill(&pair, 0, &wal);
    wait_disks(&pair, 0, ["full", "normal"], ["tran_log", ""]);
    expect_check(&pair, 0, 2, "nd1 disk full (tran_log)");
    assert!(metrics(&pair, 0).contains("mirroring_disk_full{directory=\"tran_log\"} 1\n"));
    let said = pair.mc(0, &["status"]).err;
    for what in ["(tran_log) is full", "replication slot \"forgotten\" retains WAL", "never delete files in pg_wal"] {
        assert!(said.contains(what), "{said}");
    }
    pair.wait_log(0, at, "MCA01240", s(10));
    let number = |text: &serde_json::Value| -> u64 {
        let (high, low) = text.as_str().expect("a position").split_once('/').expect("a position");
        (u64::from_str_radix(high, 16).unwrap() << 32) + u64::from_str_radix(low, 16).unwrap()
    };
    loop {
        let status = json(&pair, 0);
        let spaces = status["disk_space"].as_array().expect("a list");
        let space = spaces.iter().find(|space| space["directory"] == "tran_log").expect("pg_wal");
        let (end, lsn) = (space["wal_end"].as_u64().expect("an end"), number(&status["servers"][0]["lsn"]));
        if end.saturating_sub(lsn) <= 16 << 20 {
            break;
        }
        assert_eq!(codes(&pair, 0)[0], 200, "{end} {lsn}");
        pair.sql(0, "INSERT INTO t VALUES (1)");
        pair.sql(0, "SELECT pg_switch_wal()");
        pair.sql(0, "INSERT INTO t VALUES (1)");
        wait_for("it is reported", s(20), || (number(&json(&pair, 0)["servers"][0]["lsn"]) > lsn).then_some(()));
    }
    wait_for("the endpoint sends nobody there", s(20), || (codes(&pair, 0) == [503; 3]).then_some(()));
    empty(&pair, 0, &wal);
    wait_disks(&pair, 0, ["normal"; 2], [""; 2]);
    wait_for("it serves again", s(20), || (codes(&pair, 0) == [200, 503, 200]).then_some(()));
    pair.wait_log(0, at, "MCA01122", s(10));
    pair.sql(0, "INSERT INTO t VALUES (1)");
    assert_eq!(pair.status(0).expect("a status").word, "switchable");
}

#[test]
fn data_of_the_standby() {
    let pair = Setup::default().conf(ADDRESS).make();
    let disk = pair.host(1).dir.join("disk").display().to_string();
    mount(&pair, 1, &disk, 300);
    pair.bring_up();
    let at = Instant::now();
    fill(&pair, 1, &disk);
    for server in [0, 1] {
        wait_disks(&pair, server, ["normal", "full"], ["", "data, tran_log"]);
        expect_check(&pair, server, 2, "nd2 disk full (data, tran_log)");
    }
    assert!(metrics(&pair, 0).contains("mirroring_server_disk_full{server_id=\"nd2\"} 1\n"));
    assert!(pair.mc(0, &["status"]).err.contains("the disk of server \"nd2\" is full"));
    assert_eq!(codes(&pair, 0), [200, 503, 200], "the primary takes writes");
    assert_eq!(codes(&pair, 1)[2], 503);
    pair.wait_log(1, at, "MCA01240", s(10));
    let refused = pair.mc(0, &["switch"]).expect(4, "mc_ctl switch to a server without space");
    assert!(refused.err.contains("server \"nd2\" has no space left (data, tran_log)"), "{}", refused.text());
    pair.sql(0, "CREATE TABLE t (x int)");
    wait_for("the standby is disconnected", s(120), || {
        pair.sql(0, "INSERT INTO t VALUES (1)");
        pair.sql(0, "SELECT pg_switch_wal()");
        (json(&pair, 0)["view"]["mode"] == "degraded").then_some(())
    });
    // The standby, which cannot write, learns that its view is past.
    expect_cause(&pair, 0, at, "no space left on server \"nd2\" (data, tran_log)");
    empty(&pair, 1, &disk);
    for server in [0, 1] {
        wait_disks(&pair, server, ["normal"; 2], [""; 2]);
    }
    // The standby can already have returned without it.
    let rebuilt = pair.mc(1, &["rebuild", "--yes"]);
    let returned = rebuilt.code == 4 && rebuilt.err.contains("is the standby of the mirrored pair");
    assert!(rebuilt.code == 0 || returned, "{}", rebuilt.text());
    wait_for("the standby is healthy", s(20), || (codes(&pair, 1) == [503, 200, 200]).then_some(()));
}

/// No space can be freed on the standby's disk: its old data makes room for the new copy.
#[test]
fn old_data_on_a_full_disk() {
    let pair = Setup::default().make();
    let disk = pair.host(1).dir.join("disk").display().to_string();
    mount(&pair, 1, &disk, 300);
    pair.bring_up();
    pair.sql(0, "CREATE TABLE t AS SELECT 1 AS x");
    // The WAL of the standby, which the copy does not contain, is what makes room.
    for _ in 0..3 {
        pair.sql(0, "SELECT pg_logical_emit_message(false, '', ''), pg_switch_wal()");
    }
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    fill(&pair, 1, &disk);
    // Nothing would be copied, but no instance starts on this disk.
    let plan = pair.mc(1, &["rebuild", "--dry-run"]).expect(4, "mc_ctl rebuild --dry-run on a full disk").text();
    let lacks =
        "at least 1.0 MB are required, 0 bytes are free. Free space there; or run \"mc_ctl rebuild --method basebackup";
    assert!(plan.contains("to copy:    nothing") && plan.contains(lacks), "{plan}");
    let failed = pair.mc(1, &["rebuild", "--yes"]);
    assert!(failed.code != 0 && failed.err.contains(lacks), "{}", failed.text());
    let delete = ["--method", "basebackup", "--old-data", "delete"];
    pair.mc(1, &[&["rebuild", "--dry-run"], &delete[..]].concat()).expect(0, "mc_ctl rebuild --dry-run");
    pair.rebuild(1, &delete);
    assert_eq!(pair.sql(1, "SELECT x FROM t"), "1");
    pair.as_root(1, &["test", "-e", &format!("{disk}/filler")]);
}

/// `mc_ctl start` names the file system, its free space and the remedy.
#[test]
fn start_of_the_standby() {
    let pair = Setup::default().make();
    let disk = pair.host(1).dir.join("disk").display().to_string();
    mount(&pair, 1, &disk, 300);
    pair.bring_up();
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    fill(&pair, 1, &disk);
    let answer = pair.mc(1, &["start", "-w", "-f", "-t", "40"]);
    assert!(matches!(answer.code, 4 | 5), "{}", answer.text());
    for text in ["the file system \"", "/disk\" of \"", "(data) is full: ", " are free"] {
        assert!(answer.err.contains(text), "{text:?} is not in {}", answer.text());
    }
    assert!(answer.err.contains("\nHINT: Free space on the file system \""), "{}", answer.text());
    empty(&pair, 1, &disk);
    pair.mc(1, &["start", "-w", "-f"]).expect(0, "mc_ctl start with free space");
    pair.wait_word(0, "switchable");
}

/// The arbiter reports its own disk.
#[test]
fn directory_of_the_arbiter() {
    let pair = Setup::default().arbiter().make();
    let dir = pair.arbiter_dir().display().to_string();
    let root = |script: &str| {
        let mut command = pair.third().command("sh");
        command.args(["-c", script, "sh", &dir]);
        run(command, s(60)).expect(0, script);
    };
    root(
        "cp -a $1 $1.kept && mount -t tmpfs -o size=64m,mode=700,uid=postgres,gid=postgres none $1 && cp -a $1.kept/. $1/",
    );
    pair.bring_up();
    let state = || -> Option<String> {
        let status: serde_json::Value = serde_json::from_str(&pair.arb(&["status", "--format", "json"]).out).ok()?;
        Some(status["disk_space"][0]["state"].as_str()?.to_owned())
    };
    let wait = |expected: &str| {
        wait_for(expected, s(20), || (state()? == expected).then_some(()));
        pair.arb(&["status"]).out
    };
    assert!(!wait("normal").contains("file system"));
    let at = Instant::now();
    root("dd if=/dev/zero of=$1/filler bs=4k 2>/dev/null; true");
    let shown = wait("full");
    assert!(shown.contains("(management) is full: ") && shown.contains("nd1"), "{shown}");
    wait_for("it is logged", s(20), || pair.third().syslog.find(at, "MCA01240"));
    // The servers report it as well: first a warning, and an alarm when the reserve of the ledger is used up.
    let line = |server: usize, code: i32, text: &str| {
        wait_for(text, s(20), || {
            let answer = pair.mc(server, &["status", "--check"]);
            (answer.code == code && answer.out.contains(text)).then_some(())
        });
        pair.mc(server, &["status", "--arbiter"])
    };
    for server in [0, 1] {
        let status = line(server, 1, ", arbiter disk full");
        assert!(
            status.out.contains("online(disk full)") && status.err.contains("(management) is full"),
            "{}",
            status.text()
        );
        assert!(metrics(&pair, server).contains("mirroring_arbiter_disk_full 1\n"));
    }
    root("find $1 -name reserve -exec truncate -s 0 {} +; dd if=/dev/zero of=$1/more bs=4k 2>/dev/null; true");
    for server in [0, 1] {
        let status = line(server, 2, ", arbiter cannot grant");
        assert!(status.out.contains("online(cannot grant)"), "{}", status.text());
        assert!(metrics(&pair, server).contains("mirroring_arbiter_ledger_error 1\n"));
        let found = expect(&pair, server, "arbiter-disk-full", "arb");
        assert!(found.what.contains("cannot consent") && found.fix.contains("free space"), "{found:?}");
    }
    // A server that waits for its consent names the disk, and takes over when it has space.
    pair.net.cut(0);
    let said = wait_for("the hint names the disk", s(60), || {
        let said = pair.mc(1, &["status"]).err;
        said.contains("cannot write its ledger: free space on the arbiter's host").then_some(said)
    });
    let (first, force) = (said.find("this server then takes over"), said.find("switch --force"));
    assert!(first.is_some() && (force.is_none() || first < force), "{said}");
    root("rm $1/filler $1/more");
    wait_for("the standby takes over", s(60), || pair.try_sql(1, "CREATE TABLE t ()").ok());
    pair.net.heal(0);
    wait("normal");
    wait_for("it is logged", s(20), || pair.third().syslog.find(at, "MCA01122"));
}

/// First a warning, then the alarm. Clients do not write there.
#[test]
fn management_directory() {
    let pair = Setup::default().conf(ADDRESS).make();
    let dir = pair.servers[0].management.display().to_string();
    mount(&pair, 0, &dir, 64);
    pair.bring_up();
    let at = Instant::now();
    fill_up_to(&pair, 0, &dir, 2 << 20);
    wait_for("a warning", s(20), || (pair.mc(0, &["status", "--check"]).code == 1).then_some(()));
    expect_check(&pair, 0, 1, "nd1 disk nearly full (management: ");
    assert!(metrics(&pair, 0).contains("mirroring_disk_nearly_full{directory=\"management\"} 1\n"));
    pair.wait_log(0, at, "MCA01241", s(10));
    wait_disks(&pair, 0, ["normal"; 2], [""; 2]);
    empty(&pair, 0, &dir);
    pair.wait_log(0, at, "MCA01242", s(10));
    let at = Instant::now();
    fill(&pair, 0, &dir);
    wait_disks(&pair, 0, ["full", "normal"], ["management", ""]);
    expect_check(&pair, 0, 2, "nd1 disk full (management)");
    assert_eq!(codes(&pair, 0), [200, 503, 503]);
    pair.wait_log(0, at, "MCA01240", s(10));
    // Without its reserve the ledger cannot be written: one cause, and no command that waits in vain.
    let more = "find $1 -name reserve -exec truncate -s 0 {} +; dd if=/dev/zero of=$1/more bs=4k 2>/dev/null; true";
    pair.as_root(0, &["sh", "-c", more, "sh", &dir]);
    let begin = Instant::now();
    let failed = pair.mc(0, &["detach"]);
    println!("detach failed after {:?}", begin.elapsed());
    for answer in [failed, pair.mc(0, &["switch"]), pair.mc(0, &["disable-failover"])] {
        assert!(
            answer.code != 0 && answer.err.contains("the ledger cannot be written: free space on"),
            "{}",
            answer.text()
        );
    }
    assert!(begin.elapsed() < s(30), "it took {:?}", begin.elapsed());
    wait_for("heartbeats are missing", s(30), || {
        (json(&pair, 1)["servers"][0]["host_status"] == "abnormal").then_some(())
    });
    let said = pair.mc(0, &["status"]).err;
    assert!(said.starts_with("HINT: the ledger cannot be written") && !said.contains("does not respond"), "{said}");
    expect_check(&pair, 0, 2, "the ledger of nd1 cannot be written");
    assert!(metrics(&pair, 0).contains("mirroring_ledger_error 1\n"));
    let found = expect(&pair, 0, "ledger-not-writable", "nd1");
    assert!(found.fix.contains("free space"), "{found:?}");
    for code in ["peer-no-heartbeat", "not-mirrored"] {
        assert!(!check(&pair, 0).codes().iter().any(|found| found.starts_with(code)), "{code}");
    }
    pair.as_root(0, &["rm", &format!("{dir}/more")]);
    empty(&pair, 0, &dir);
    wait_disks(&pair, 0, ["normal"; 2], [""; 2]);
    wait_for("the ledger is written", s(30), || json(&pair, 0)["ledger_error"].is_null().then_some(()));
    assert_eq!(codes(&pair, 0)[0], 200);
}

/// A primary that cannot write its ledger cannot consent, and is silent. The standby takes over with the arbiter's consent.
#[test]
fn management_directory_of_a_silent_primary() {
    let pair = Setup::default().arbiter().make();
    let dir = pair.servers[0].management.display().to_string();
    mount(&pair, 0, &dir, 64);
    pair.bring_up();
    let at = Instant::now();
    fill(&pair, 0, &dir);
    wait_disks(&pair, 1, ["full", "normal"], ["management", ""]);
    let more = "find $1 -name reserve -exec truncate -s 0 {} +; dd if=/dev/zero of=$1/more bs=4k 2>/dev/null; true";
    pair.as_root(0, &["sh", "-c", more, "sh", &dir]);
    pair.kill_postmaster(0);
    wait_for("the standby takes over", s(60), || (json(&pair, 1)["mirroring_status"] == "switched").then_some(()));
    pair.as_root(0, &["rm", &format!("{dir}/more")]);
    empty(&pair, 0, &dir);
    expect_cause(&pair, 1, at, "no space left on server \"nd1\" (management)");
}

/// A service manager sends SIGTERM once, to a standby that cannot note the stop in its ledger: its instance is stopped, and the
/// controller ends.
#[test]
fn sigterm_without_space_for_the_ledger() {
    let pair = Setup::default().make();
    let dir = pair.servers[1].management.display().to_string();
    mount(&pair, 1, &dir, 64);
    pair.bring_up();
    pair.mc(1, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
    let mut command = pair.host(1).admin(program().to_str().expect("ASCII"));
    command.args(["start", "--foreground", "-f", "-M", &dir]).stderr(std::process::Stdio::null());
    let _service = Beside::start(command);
    pair.wait_word(0, "switchable");
    pair.wait_word(1, "switchable");
    fill(&pair, 1, &dir);
    let more = "find $1 -name reserve -exec truncate -s 0 {} +; dd if=/dev/zero of=$1/more bs=4k 2>/dev/null; true";
    pair.as_root(1, &["sh", "-c", more, "sh", &dir]);
    signal(pair.controller(1).pid, Signal::TERM);
    wait_for("the controller ends", s(120), || pair.host(1).controllers().is_empty().then_some(()));
    assert!(!pair.instance_runs(1));
    pair.sql(0, "CREATE TABLE t (i int)");
}

/// Moves `postgresql.conf` to a file system of its own.
fn mount_configuration(pair: &Pair, server: usize) -> String {
    let dir = pair.host(server).dir.join("etc").display().to_string();
    let script = "mkdir $2 && mount -t tmpfs -o size=1m,mode=700,uid=postgres,gid=postgres none $2 \
                  && cp -p $1/postgresql.conf $2/ && ln -sf $2/postgresql.conf $1/postgresql.conf";
    pair.as_root(server, &["sh", "-c", script, "sh", pair.data(server), &dir]);
    dir
}

/// Without space for a new `postgresql.conf`, a server that receives the right to run alone serves all the same: the primary
/// that detaches the standby, and the standby that takes over.
#[test]
fn file_system_of_the_configuration() {
    let pair = Setup::default().make();
    let dirs = [0, 1].map(|server| mount_configuration(&pair, server));
    pair.bring_up();
    pair.sql(0, "CREATE TABLE t (i int)");
    let names = |server: usize| {
        let text = pair.host(server).path(&Path::new(&dirs[server]).join("postgresql.conf"));
        let text = std::fs::read_to_string(text).expect("the configuration");
        text.lines().filter(|line| line.contains("ynchronous_standby_names")).map(str::to_owned).collect::<Vec<_>>()
    };
    let mirrored = names(0);
    fill(&pair, 0, &dirs[0]);
    pair.mc(0, &["detach"]).expect(0, "mc_ctl detach");
    assert_eq!(pair.sql(0, "SHOW synchronous_standby_names"), "");
    pair.sql(0, "INSERT INTO t VALUES (1)");
    empty(&pair, 0, &dirs[0]);
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.start(1, &[]);
    pair.wait_word(0, "switchable");
    assert_eq!(names(0), mirrored, "the line was not restored");
    fill(&pair, 1, &dirs[1]);
    pair.kill_postmaster(0);
    wait_for("the standby takes over", s(40), || pair.try_sql(1, "INSERT INTO t VALUES (2)").ok());
    assert_eq!(pair.sql(1, "SELECT sum(i) FROM t"), "3");
}
