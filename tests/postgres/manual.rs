//! The procedures of mirroring-controller(7) that no other case goes through, typed as they stand there, under a client
//! that remembers every acknowledged row.

use crate::backup;
use crate::harness::client::{Client, Style};
use crate::harness::pair::{Pair, Setup, new_key, write_private};
use crate::harness::remedy::commands;
use crate::harness::run::Answer;
use crate::harness::{bin_dir, s};
use std::path::{Path, PathBuf};
use std::time::Instant;

fn with_arbiter() -> Setup {
    Setup::default().arbiter()
}

/// `mc_ctl stop --mc-only && mc_ctl start --mc-only -f`.
fn restart_controller(pair: &Pair, server: usize) {
    pair.mc(server, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
    pair.mc(server, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start --mc-only -f");
}

/// The directories of all members.
fn directories(pair: &Pair) -> Vec<PathBuf> {
    let servers = pair.servers.iter().map(|server| server.management.clone());
    servers.chain(pair.arbiter.as_ref().map(|_| pair.arbiter_dir())).collect()
}

fn edit(file: &Path, edit: impl Fn(&str) -> String) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("could not read {file:?}: {e}"));
    write_private(file, &edit(&text));
}

/// All controllers and the arbiter are down while their files are changed; the instances run on.
fn with_controllers_down(pair: &Pair, change: impl Fn(&Path)) {
    for n in [1, 0] {
        pair.mc(n, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
    }
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    directories(pair).iter().for_each(|dir| change(dir));
    pair.start_arbiter();
    for n in [1, 0] {
        pair.mc(n, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start --mc-only -f");
    }
}

/// The pair is mirrored, in the words of both, and no client has noticed what was done since then.
#[track_caller]
fn unnoticed(pair: &Pair, client: &Client, at: Instant) {
    pair.wait_word(0, "switchable");
    pair.wait_word(1, "switchable");
    let gap = client.longest_gap(at);
    assert!(gap < s(2), "commits waited {gap:?}");
}

/// What the server's controller keeps.
fn kept(pair: &Pair, server: usize) -> String {
    pair.run_dir(server).to_str().expect("ASCII").to_string()
}

/// A parameter is changed, a controller after the other; no client notices.
#[test]
#[ignore = "of the manual: run it where the procedure changes"]
fn settings() {
    let pair = with_arbiter().up();
    let client = pair.client(Style::PerHost);
    let at = Instant::now();
    for n in [1, 0] {
        pair.server_line(n, "heartbeat_retry = 3");
        restart_controller(&pair, n);
    }
    unnoticed(&pair, &client, at);
    client.check(&pair, 0, &[0]);
}

/// A new key on all members; no client notices, nothing is switched, and the pair leans on the same arbiter afterwards.
#[test]
fn key() {
    let pair = with_arbiter().up();
    let client = pair.client(Style::PerHost);
    let (at, key, view) = (Instant::now(), new_key(), pair.ledger_of(0));
    with_controllers_down(&pair, |dir| write_private(&dir.join("mc.key"), &key));
    pair.wait_arbiter_named();
    unnoticed(&pair, &client, at);
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
    client.check(&pair, 0, &[0]);
}

/// Other ports in `network.conf`, in the same way.
#[test]
#[ignore = "of the manual: run it where the procedure changes"]
fn network() {
    let pair = with_arbiter().up();
    let client = pair.client(Style::PerHost);
    let at = Instant::now();
    with_controllers_down(&pair, |dir| {
        edit(&dir.join("network.conf"), |text| text.replace("27540", "27560").replace("27541", "27561"));
    });
    pair.wait_arbiter_named();
    unnoticed(&pair, &client, at);
    client.check(&pair, 0, &[0]);
}

/// The arbiter is taken away; the pair goes by the safe half `switch` afterwards.
#[test]
#[ignore = "of the manual: run it where the procedure changes"]
fn no_arbiter_any_more() {
    let pair = with_arbiter().up();
    let client = pair.client(Style::PerHost);
    let at = Instant::now();
    for n in [1, 0] {
        let dir = &pair.servers[n].management;
        edit(&dir.join("network.conf"), |text| text.lines().take(2).map(|l| format!("{l}\n")).collect());
        pair.server_line(n, "heartbeat_error_action = 'switch'");
        restart_controller(&pair, n);
    }
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    unnoticed(&pair, &client, at);
    std::thread::sleep(s(8));
    pair.net.cut(0);
    client.wait_ack_of(&[1], Instant::now(), s(40));
    pair.net.heal(0);
    pair.wait_switched(0);
    client.check(&pair, 1, &[0, 1]);
}

/// A server's host is replaced by a new one with the same identifier, which has nothing but the three files.
#[test]
#[ignore = "of the manual: run it where the procedure changes"]
fn new_hardware() {
    // each host's own: the copy has the primary's configuration
    let pair = with_arbiter().pg("unix_socket_directories = '/dev/shm'").up();
    let client = pair.client(Style::PerHost);
    for (round, n) in [1, 0].into_iter().enumerate() {
        pair.mc(n, &["stop"]).expect(0, "mc_ctl stop");
        pair.as_root(n, &["rm", "-r", &kept(&pair, n), pair.data(n)]);
        client.wait_ack_of(&[1 - n], Instant::now(), s(20));
        pair.rebuild(n, &[]);
        if round == 0 {
            pair.mc(n, &["switch"]).expect(0, "mc_ctl switch");
            pair.wait_switched(0);
        }
    }
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// The standby's management directory has lost what the controller keeps; a start makes it anew from the other server's word.
#[test]
#[ignore = "of the manual: run it where the procedure changes"]
fn the_standbys_ledger_is_lost() {
    let pair = with_arbiter().up();
    let client = pair.client(Style::PerHost);
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.as_root(1, &["rm", "-r", &kept(&pair, 1)]);
    pair.start(1, &["-f"]);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// That of the primary is lost: the other server takes over, and the lost one is rebuilt by that one's word.
#[test]
#[ignore = "of the manual: run it where the procedure changes"]
fn the_primarys_ledger_is_lost() {
    let pair = with_arbiter().up();
    let client = pair.client(Style::PerHost);
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    pair.as_root(0, &["rm", "-r", &kept(&pair, 0)]);
    pair.rebuild(0, &[]);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// The ledger of a server whose controller is down is damaged. Runs the commands that the refused start prints, up to the start.
/// Returns that start.
fn follow_the_hint_on_a_damaged_ledger(pair: &Pair, server: usize) -> Answer {
    pair.mc(server, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
    std::fs::write(pair.run_dir(server).join("ledger"), "garbage").expect("could not write the ledger");
    let at = Instant::now();
    let refused = pair.mc(server, &["start", "--mc-only", "-f"]).expect(1, "a start with such a ledger").text();
    assert!(refused.contains("is damaged"), "{refused}");
    let printed = commands(&refused);
    let [move_ledger, start, status] = &printed[..] else { panic!("{refused}") };
    assert_eq!((start.as_str(), status.as_str()), ("mc_ctl start", "mc_ctl status"));
    pair.wait_log(server, at, "(MCA01118)", s(10));
    pair.paste(server, move_ledger).expect(0, move_ledger);
    pair.paste(server, &format!("{start} -f -t 20"))
}

/// The ledger of the standby cannot be read, then that of the primary, while the instances run. The printed commands restore the
/// pair: the standby receives the state, an operator adopts the primary's data, and no acknowledged row is lost.
#[test]
fn a_ledger_is_unreadable() {
    let pair = with_arbiter().up();
    let client = pair.client(Style::OneSession);
    assert_eq!(pair.explained(1, 1118), "mc_ctl start");
    follow_the_hint_on_a_damaged_ledger(&pair, 1).expect(0, "the start of a standby without a ledger");
    pair.wait_word(0, "switchable");
    let refused = follow_the_hint_on_a_damaged_ledger(&pair, 0).expect(4, "the start of a primary without a ledger");
    assert!(refused.text().contains("mark"), "{}", refused.text());
    pair.run_hinted(0, "the ledger of this server is lost");
    pair.wait_word(0, "switchable");
    pair.wait_word(1, "switchable");
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 0, &[0]);
}

/// The lines of the section's examples that run on a server, with its identifier.
fn procedure(section: &str) -> Vec<(String, String)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/mirroring-controller.7"))
        .expect("could not read the manual");
    let (_, text) = page.split_once(&format!("\n.Ss {section}\n")).expect("the section");
    let lines = text.split("\n.S").next().into_iter().flat_map(str::lines);
    let split = |line: &str| line.split_once("$ ").map(|(id, line)| (id.to_owned(), line.to_owned()));
    lines.filter(|line| line.starts_with("nd")).filter_map(split).collect()
}

/// A point-in-time recovery from a backup and the archives, after a user's mistake, by the lines of the manual, with a
/// tablespace and an arbiter.
#[test]
#[ignore = "of the manual: run it where the procedure changes"]
fn point_in_time_recovery() {
    let pair = backup::pair(with_arbiter());
    let space = pair.servers[0].data.ancestors().nth(3).expect("the pair's directory").join("space");
    std::fs::create_dir(&space).expect("could not create a directory");
    for n in [0, 1] {
        let disk = pair.host(n).dir.join("space");
        std::fs::create_dir_all(disk.join("a")).expect("could not create a directory");
        crate::harness::pair::own(&disk);
        crate::harness::pair::own(&disk.join("a"));
        pair.as_root(n, &["mount", "--bind", disk.to_str().expect("ASCII"), space.to_str().expect("ASCII")]);
    }
    pair.sql(0, &format!("CREATE TABLESPACE apart LOCATION '{}/a'", space.display()));
    pair.sql(0, "CREATE TABLE in_space TABLESPACE apart AS SELECT generate_series(1, 10000) AS id");
    pair.mc(0, &["backup", "--fast-checkpoint"]).expect(0, "mc_ctl backup");
    pair.sql(0, "CREATE TABLE precious (id int) TABLESPACE apart");
    for id in 1..=20 {
        pair.sql(0, &format!("INSERT INTO precious VALUES ({id})"));
        pair.sql(0, "SELECT pg_switch_wal()");
    }
    pair.sql(0, "SELECT pg_create_restore_point('before')");
    pair.sql(0, "DROP TABLE precious");

    let lines = procedure("Restoring a backup");
    assert_eq!(lines.len(), 6);
    for (id, line) in &lines[..4] {
        assert_eq!(id, "nd1");
        let line = line.replace("--time 2026-11-30T14:05:00+00", "--name before");
        let yes = if line.contains("asks") { line.replace("    #", " --yes #") } else { line };
        eprintln!("TOLD {}", pair.paste(0, &yes).expect(0, &yes).text());
    }
    pair.wait_word(0, "switchable");
    for n in [0, 1] {
        assert_eq!(pair.sql(n, "SELECT count(*) FROM precious"), "20");
        assert_eq!(pair.sql(n, "SELECT count(*) FROM in_space"), "10000");
    }
    for (_, line) in &lines[4..] {
        let refused = pair.paste(0, line);
        assert!(refused.err.contains("no recovery is in progress"), "{}", refused.text());
    }
    pair.mc(0, &["backup", "--check"]).expect(0, "mc_ctl backup --check");
    pair.client(Style::PerHost).check(&pair, 0, &[0]);
}

/// The system identifier of the first server's data directory.
fn system(pair: &Pair, bin: &Path, data: &str) -> String {
    let mut command = pair.host(0).admin(bin.join("pg_controldata").to_str().expect("ASCII"));
    command.arg(data);
    let told = crate::harness::run::run(command, s(60)).expect(0, "pg_controldata").out;
    let line = told.lines().find_map(|l| l.strip_prefix("Database system identifier:")).expect("an identifier");
    line.trim().to_string()
}

/// Another major version by `pg_upgrade`: `MC_TEST_UPGRADE_TO` names its programs' directory; without it, the same version
/// again, which differs in nothing that matters here. And back, before anything was written.
#[test]
#[ignore = "of the manual: run it where the procedure changes"]
fn major_upgrade() {
    let mut pair = with_arbiter().pg("unix_socket_directories = '/dev/shm'").up();
    let client = pair.client(Style::PerHost);
    let new_bin = std::env::var_os("MC_TEST_UPGRADE_TO").map_or_else(|| bin_dir().to_path_buf(), PathBuf::from);
    let (old_bin, new_bin_text) = (bin_dir().to_str().expect("ASCII"), new_bin.to_str().expect("ASCII"));
    let bin_line = format!("bin_dir = '{new_bin_text}'");
    let old: Vec<String> = [0, 1].map(|n| pair.data(n).to_string()).into();
    let new: Vec<String> = old.iter().map(|data| format!("{data}.new")).collect();
    let as_admin = |pair: &Pair, n: usize, program: &str, words: &[&str]| {
        let mut command = pair.host(n).admin(new_bin.join(program).to_str().expect("ASCII"));
        command.args(words);
        crate::harness::run::run(command, s(300)).expect(0, program)
    };
    as_admin(&pair, 0, "initdb", &["-D", &new[0], "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8"]);
    let rows = client.count();
    drop(client);
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    let words = ["-b", old_bin, "-B", new_bin_text, "-d", &old[0], "-D", &new[0], "-s", "/tmp"];
    as_admin(&pair, 0, "pg_upgrade", &words);
    let (of_old, of_new) = (system(&pair, bin_dir(), &old[0]), system(&pair, &new_bin, &new[0]));
    pair.arb(&["forget", &of_old]).expect(0, "mc_arb forget");
    for file in ["postgresql.conf", "pg_hba.conf"] {
        pair.as_root(0, &["cp", "-p", &format!("{}/{file}", old[0]), &new[0]]);
    }
    let old_conf = [0, 1].map(|n| std::fs::read_to_string(pair.conf(n)).expect("ID.conf"));
    for n in [0, 1] {
        edit(&pair.conf(n), |text| {
            let text = text.replace(&old[n], &new[n]);
            let lines = text.lines().filter(|l| !l.starts_with("bin_dir")).chain([&*bin_line]);
            lines.map(|l| format!("{l}\n")).collect()
        });
        let run = kept(&pair, n);
        pair.as_root(n, &["mv", &run, &format!("{run}.old")]);
        pair.servers[n].data = PathBuf::from(&new[n]);
    }
    pair.mc(0, &["start"]).expect(0, "mc_ctl start");
    pair.mc(1, &["rebuild"]).expect(0, "mc_ctl rebuild");
    pair.mc(1, &["enable-failover"]).expect(0, "mc_ctl enable-failover");
    pair.check_rebuilt(1);
    pair.wait_arbiter_named();
    eprintln!("TOLD {}", pair.sql(0, "SHOW server_version"));
    assert!(pair.sql(0, "SELECT count(*) FROM written").parse::<usize>().expect("a number") >= rows);
    eprintln!("TOLD {}", pair.arb(&["status"]).text());
    // ... and back to the old version
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    pair.arb(&["forget", &of_new]).expect(0, "mc_arb forget");
    for n in [0, 1] {
        write_private(&pair.conf(n), &old_conf[n]);
        let run = kept(&pair, n);
        pair.as_root(n, &["mv", &run, &format!("{run}.new")]);
        pair.as_root(n, &["mv", &format!("{run}.old"), &run]);
        pair.servers[n].data = PathBuf::from(&old[n]);
    }
    for n in [0, 1] {
        pair.start(n, &["-f"]);
    }
    pair.wait_word(0, "switchable");
    pair.wait_arbiter_named();
    pair.client(Style::PerHost).check(&pair, 0, &[0]);
}
