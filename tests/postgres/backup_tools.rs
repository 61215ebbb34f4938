//! `backup_command` and `recover_command`, with programs of the tests and with the samples for pgBackRest and Barman.

use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, own};
use crate::harness::run::{Answer, Beside, run};
use crate::harness::{bin_dir, major, need, s, wait_for};
use crate::hook_samples::install;
use crate::recover::{check, recover};
use rustix::process::Signal;
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
    for parameter in ["backup_command", "recover_command"] {
        pair.server_line(n, &format!("{parameter} = '{}'", path.display()));
    }
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
    pair.tablespace(0);
    let made = pair.mc(0, &["backup"]).expect(0, "mc_ctl backup");
    assert!(made.out.contains("made on nd1"), "{}", made.text());
    assert!(pair.mc(1, &["backup"]).expect(0, "mc_ctl backup on the standby").out.contains("is the standby"));
    let info = |n: usize| {
        let config = format!("--config={}", pair.host(n).dir.join("pgbackrest.conf").display());
        tool(&pair, n, &["pgbackrest", &config, "--stanza=main", "info"]).out
    };
    assert_eq!(info(0).matches("full backup:").count(), 1, "{}", info(0));
    recovered(&pair);
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    pair.wait_switched(0);
    pair.mc(1, &["backup"]).expect(0, "mc_ctl backup on the new primary");
    assert_eq!(info(1).matches("full backup:").count(), 1, "{}", info(1));
}

/// To a restore point, and to the end of WAL, which the program does not have yet: with tablespaces, from a backup of timeline 1.
fn recovered(pair: &Pair) {
    let rows = |n: usize, count: &str| {
        let kept = || pair.try_sql(n, "SELECT count(*) FROM kept").is_ok_and(|rows| rows == count);
        wait_for("the rows are there", s(30), || kept().then_some(()));
        assert_eq!(pair.sql(n, "SELECT count(*) FROM in_space"), "10000");
    };
    pair.sql(0, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id");
    pair.sql(0, "SELECT pg_create_restore_point('mistake')");
    pair.sql(0, "DROP TABLE kept");
    let answer = recover(pair, 0, &["--name", "mistake"]);
    assert!(answer.err.contains("restore point \"mistake\" is reached at"), "{}", answer.err);
    [0, 1].into_iter().for_each(|n| rows(n, "1000"));
    pair.sql(0, "INSERT INTO kept VALUES (1001)");
    recover(pair, 0, &["--latest"]);
    [0, 1].into_iter().for_each(|n| rows(n, "1001"));
}

/// The program restores, and fetches WAL. What it does wrong changes nothing; what an interrupted one does is ended.
#[test]
fn a_program_restores() {
    let pair = Setup::default().pg("archive_mode = on").make();
    directories(&pair, 0, &["seen", "wal", "base"]);
    let dir = pair.host(0).dir.display().to_string();
    let script = "#!/bin/sh\nset -e\ncd HERE\n[ ! -e fail ] || exit 7\nenv | grep ^MC_ | sort >seen/$MC_ACTION\n\
                  case $MC_ACTION in\nrestore)\n[ ! -e hang ] || sleep 300\n[ ! -e nothing ] || exit 0\ncp -a base/. \"$MC_RESTORE_DIRECTORY\"\n\
                  echo \"recovery_target_name = 'other'\" >>\"$MC_RESTORE_DIRECTORY/postgresql.auto.conf\" ;;\n\
                  wal)\n[ ! -e broken ] || exit 3\n[ -e \"wal/$MC_WAL_NAME\" ] || exit 1\ncp \"wal/$MC_WAL_NAME\" \"$MC_WAL_PATH\" ;;\n\
                  esac\n";
    let program = write(&pair, 0, "restore.sh", &script.replace("HERE", &dir), 0o755);
    pair.server_line(0, &format!("recover_command = '{}'", program.display()));
    pair.append(0, "postgresql.conf", &format!("archive_command = 'cp %p {dir}/wal/%f'\n"));
    pair.bring_up();
    let base = bin_dir().join("pg_basebackup").display().to_string();
    let socket = pair.sql(0, "SHOW unix_socket_directories");
    tool(&pair, 0, &[&base, "-h", &socket, "-D", &format!("{dir}/base"), "-c", "fast", "-X", "none"])
        .expect(0, "pg_basebackup");
    pair.sql(0, "CREATE TABLE kept AS SELECT generate_series(1, 500) AS id");
    pair.sql(0, "SELECT pg_create_restore_point('first')");
    pair.sql(0, "INSERT INTO kept SELECT generate_series(501, 1000)");
    pair.sql(0, "SELECT pg_create_restore_point('here')");
    pair.sql(0, "DELETE FROM kept");
    let refused = |name: &str, why: &str| {
        let path = write(&pair, 0, name, "", 0o600);
        let answer = pair.mc(0, &["recover", "--name", "here", "--yes"]);
        assert!(answer.code == 1 && answer.err.contains(why), "{name}: {answer:?}");
        check(&pair, 0);
        std::fs::remove_file(path).expect("a file");
    };
    refused("fail", "recover_command failed with exit status 7");
    refused("nothing", "it is no data directory");
    refused("broken", "exit code 255");
    assert_eq!(pair.sql(0, "SELECT count(*) FROM kept"), "0");
    let plan = pair.mc(0, &["recover", "--name", "here", "--dry-run"]).expect(0, "the plan").out;
    assert!(plan.contains(&format!("restored by \"{}\"", program.display())), "{plan}");

    let hang = write(&pair, 0, "hang", "", 0o600);
    let words = ["recover", "--name", "here", "--yes", "--backup", "base"];
    let mut command = Beside::start(pair.mc_command(0, &words));
    let sleeps = || pair.host(0).running("sleep").into_iter().any(|process| process.command.contains("300"));
    wait_for("the program runs", s(60), || sleeps().then_some(()));
    let mine = pair.host(0).processes().into_iter().filter(|process| process.command.contains(" recover "));
    mine.for_each(|process| signal(process.pid, Signal::KILL));
    wait_for("the command has ended", s(60), || command.ended());
    std::fs::remove_file(hang).expect("a file");
    let answer = pair.mc(0, &["recover"]).expect(0, "mc_ctl recover");
    assert!(!sleeps(), "the program of the interrupted command is ended");
    assert!(answer.out.contains("the pair is mirrored"), "{answer:?}");
    check(&pair, 0);
    let rows =
        |count: &str| [0, 1].into_iter().for_each(|n| assert_eq!(pair.sql(n, "SELECT count(*) FROM kept"), count));
    rows("1000");
    let seen = |action: &str| std::fs::read_to_string(format!("{dir}/seen/{action}")).expect("what it saw");
    let to = format!("MC_RESTORE_DIRECTORY={}.rebuild-new\n", pair.data(0));
    for line in ["MC_TARGET=here\n", "MC_TARGET_TYPE=name\n", "MC_BACKUP=base\n", "MC_SERVER=nd1\n", &to] {
        assert!(seen("restore").contains(line), "no {line} in {}", seen("restore"));
    }
    assert!(seen("wal").contains(&to) && seen("wal").contains("MC_WAL_NAME=0"), "{}", seen("wal"));

    // The target is on timeline 1, from which timeline 2 begins later.
    recover(&pair, 0, &["--name", "first"]);
    rows("500");
    // Both instances are down. The other server, without a backup_destination, consents.
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    pair.mc(1, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start --mc-only");
    recover(&pair, 0, &["--latest"]);
    rows("500");

    std::fs::remove_file(program).expect("the program");
    let answer = pair.mc(0, &["recover", "--latest", "--yes"]);
    assert!(
        answer.code == 2 && answer.err.contains("nd1.conf") && answer.err.contains("recover_command"),
        "{answer:?}"
    );
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
    pair.tablespace(0);
    let made = pair.mc(0, &["backup"]).expect(0, "mc_ctl backup");
    assert!(made.out.contains("made on nd1"), "{}", made.text());
    let listed = tool(&pair, 0, &["barman", "-c", &config, "list-backup", "pair"]).out;
    assert!(listed.lines().count() == 1 && listed.contains("Size:") && !listed.contains("FAILED"), "{listed}");
    recovered(&pair);
}
