//! `backup_command`, with a program of the tests and with the samples for pgBackRest and Barman.

use crate::harness::pair::{Pair, Setup, own};
use crate::harness::run::{Answer, run};
use crate::harness::{bin_dir, major, need, s, wait_for};
use crate::hook_samples::install;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Makes a file on a host.
fn write(pair: &Pair, n: usize, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = pair.host(n).dir.join(name);
    std::fs::write(&path, text).expect("could not write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("could not chmod");
    own(&path);
    path
}

/// Makes directories on a host, which belong to the instance administrator user.
fn directories(pair: &Pair, n: usize, names: &[&str]) {
    for name in names {
        let path = pair.host(n).dir.join(name);
        std::fs::create_dir(&path).expect("could not create a directory");
        own(&path);
    }
}

fn use_command(pair: &Pair, n: usize, path: &Path) {
    pair.server_line(n, &format!("backup_command = '{}'", path.display()));
}

/// A program of a backup tool on a host.
fn tool(pair: &Pair, n: usize, words: &[&str]) -> Answer {
    let mut command = pair.host(n).admin(words[0]);
    command.args(&words[1..]);
    run(command, s(60))
}

/// It runs on the primary alone, with what it needs to know; its exit status and the time limit decide.
#[test]
fn a_program() {
    let pair = Setup::default().make();
    directories(&pair, 0, &["seen"]);
    let script = "#!/bin/sh\nset -e\n[ ! -e fail ] || exit 7\n";
    let dir = pair.host(0).dir.display().to_string();
    let script = script.replace("fail", &format!("{dir}/fail"))
        + &format!("[ ! -e {dir}/hang ] || sleep 300\nenv | grep ^MC_ | sort >{dir}/seen/variables\necho made\n");
    for n in [0, 1] {
        let program = write(&pair, n, "backup.sh", &script, 0o755);
        use_command(&pair, n, &program);
    }
    pair.bring_up();
    let standby = pair.mc(1, &["backup"]).expect(0, "mc_ctl backup on the standby");
    assert!(standby.out.contains("is the standby") && !pair.host(0).dir.join("seen/variables").exists(), "{standby:?}");
    let made = pair.mc(0, &["backup"]).expect(0, "mc_ctl backup");
    assert!(made.out.starts_with("made\nbackup_command succeeded"), "{}", made.out);
    let seen = std::fs::read_to_string(pair.host(0).dir.join("seen/variables")).expect("what it saw");
    let data = format!("MC_DATA_DIRECTORY={}\n", pair.data(0));
    for line in ["MC_COMMAND=backup_command\n", "MC_SERVER=nd1\n", "MC_PRIMARY_PORT=5432\n", &data] {
        assert!(seen.contains(line), "no {line} in {seen}");
    }
    assert!(seen.contains("MC_PRIMARY_HOST=10.") || seen.contains("MC_PRIMARY_HOST=192."), "{seen}");
    assert_eq!(pair.mc(0, &["backup", "--incremental"]).code, 2);

    write(&pair, 0, "fail", "", 0o600);
    let failed = pair.mc(0, &["backup"]);
    assert!(failed.code == 1 && failed.err.contains("backup_command failed with exit status 7"), "{failed:?}");
    std::fs::remove_file(pair.host(0).dir.join("fail")).expect("a file");
    write(&pair, 0, "hang", "", 0o600);
    let late = pair.mc(0, &["backup", "-t", "2"]);
    assert!(late.code == 5 && late.err.contains("within 2 s"), "{late:?}");
    assert!(pair.host(0).running("sleep").iter().all(|process| !process.command.contains("300")), "it is killed");
}

#[test]
fn pgbackrest() {
    need("pgbackrest", "pgbackrest");
    if major() > 15 {
        return eprintln!("skipped: pgBackRest of Debian 12 does not know PostgreSQL {}", major());
    }
    let pair = Setup::default().pg("archive_mode = on").make();
    for n in [0, 1] {
        let dir = pair.host(n).dir.display().to_string();
        directories(&pair, n, &["repository", "log", "lock"]);
        let text = format!(
            "[global]\nrepo1-path={dir}/repository\nlog-path={dir}/log\nlock-path={dir}/lock\nspool-path={dir}/log\n\
             start-fast=y\nrepo1-retention-full=2\n[main]\npg1-path={}\npg1-port=5432\npg1-socket-path={dir}/run\n",
            pair.data(n)
        );
        let config = write(&pair, n, "pgbackrest.conf", &text, 0o600).display().to_string();
        let line = format!("archive_command = 'pgbackrest --config={config} --stanza=main archive-push %p'\n");
        pair.append(n, "postgresql.conf", &line);
        let psql = bin_dir().join("psql").display().to_string();
        let connection = format!("'host={dir}/run dbname=postgres'");
        let lines = [("config", config.as_str()), ("psql", &psql), ("connection", &connection)];
        use_command(&pair, n, &install(&pair, n, "pgbackrest.sh", &lines));
    }
    pair.bring_up();
    let made = pair.mc(0, &["backup"]).expect(0, "mc_ctl backup");
    assert!(made.out.contains("made on nd1"), "{}", made.text());
    assert!(pair.mc(1, &["backup"]).expect(0, "mc_ctl backup on the standby").out.contains("is the standby"));
    let info = |n: usize| {
        let config = format!("--config={}", pair.host(n).dir.join("pgbackrest.conf").display());
        tool(&pair, n, &["pgbackrest", &config, "--stanza=main", "info"]).out
    };
    assert_eq!(info(0).matches("full backup:").count(), 1, "{}", info(0));
    restored(&pair);
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    pair.wait_switched(0);
    pair.mc(1, &["backup"]).expect(0, "mc_ctl backup on the new primary");
    assert_eq!(info(1).matches("full backup:").count(), 1, "{}", info(1));
}

/// As "Restoring with another program" in mirroring-controller(7) describes.
fn restored(pair: &Pair) {
    pair.sql(0, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id");
    pair.sql(0, "SELECT pg_create_restore_point('mistake')");
    pair.sql(0, "DROP TABLE kept");
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    let data = pair.data(0);
    let config = format!("--config={}", pair.host(0).dir.join("pgbackrest.conf").display());
    tool(pair, 0, &["mv", data, &format!("{data}.wrong")]).expect(0, "mv");
    tool(pair, 0, &["mkdir", "-m", "700", data]).expect(0, "mkdir");
    let target = ["--type=name", "--target=mistake", "--target-action=promote", "restore"];
    let words = [&["pgbackrest", &config, "--stanza=main"][..], &target].concat();
    tool(pair, 0, &words).expect(0, "pgbackrest restore");
    pair.mc(0, &["start", "--adopt-data", "--yes", "-f"]).expect(0, "mc_ctl start --adopt-data");
    pair.mc(1, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start --mc-only");
    pair.rebuild(1, &[]);
    for n in [0, 1] {
        let kept = || pair.try_sql(n, "SELECT count(*) FROM kept").is_ok_and(|rows| rows == "1000");
        wait_for("the rows are there", s(30), || kept().then_some(()));
    }
}

#[test]
fn barman() {
    need("barman", "barman");
    if major() > 15 {
        return eprintln!("skipped: Barman of Debian 12 does not know PostgreSQL {}", major());
    }
    let pair = Setup::default().pg("archive_mode = on").make();
    directories(&pair, 0, &["barman"]);
    let dir = pair.host(0).dir.display().to_string();
    let config = format!("{dir}/barman.conf");
    use_command(&pair, 0, &install(&pair, 0, "barman.sh", &[("config", &config)]));
    pair.bring_up();
    let socket = pair.sql(0, "SHOW unix_socket_directories");
    let user = pair.sql(0, "SELECT current_user");
    let to = format!("host={socket} user={user}");
    let text = format!(
        "[barman]\nbarman_user = postgres\nbarman_home = {dir}/barman\nlog_file = {dir}/barman.log\n\
         [pair]\ndescription = pair\nconninfo = {to} dbname=postgres\nstreaming_conninfo = {to}\nbackup_method = postgres\n\
         archiver = on\npath_prefix = {}\n",
        bin_dir().display()
    );
    write(&pair, 0, "barman.conf", &text, 0o600);
    let shown = tool(&pair, 0, &["barman", "-c", &config, "show-server", "pair"]).expect(0, "barman show-server").out;
    let incoming =
        shown.lines().find_map(|line| line.trim().strip_prefix("incoming_wals_directory: ")).expect("a path");
    tool(&pair, 0, &["barman", "-c", &config, "check", "pair"]);
    pair.append(0, "postgresql.conf", &format!("archive_command = 'cp %p {incoming}/%f'\n"));
    pair.sql(0, "SELECT pg_reload_conf()");
    wait_for("it archives there", s(10), || (pair.sql(0, "SHOW archive_command").contains(incoming)).then_some(()));
    let made = pair.mc(0, &["backup"]).expect(0, "mc_ctl backup");
    assert!(made.out.contains("made on nd1"), "{}", made.text());
    let listed = tool(&pair, 0, &["barman", "-c", &config, "list-backup", "pair"]).out;
    assert!(listed.lines().count() == 1 && listed.contains("Size:") && !listed.contains("FAILED"), "{listed}");
}
