//! What `mc_ctl check` finds by asking instances that run, in one pair; each change is undone.

use crate::check::{Edit, apart, check, expect, expect_gone, id_conf, in_data, setup};
use crate::harness::host::signal;
use crate::harness::pair::Pair;
use crate::harness::{s, wait_for};
use postgres::{Config, NoTls};
use rustix::process::Signal;

/// Statements on the primary, the finding, and statements that undo it.
#[track_caller]
fn by_sql(pair: &Pair, code: &str, on: &[&str], off: &[&str]) -> crate::check::Found {
    on.iter().for_each(|sql| drop(pair.sql(0, sql)));
    let found = expect(pair, 0, code, "nd1");
    off.iter().for_each(|sql| drop(pair.sql(0, sql)));
    expect_gone(pair, 0, code, "nd1");
    found
}

#[test]
fn of_a_running_pair() {
    let pair = setup().make();
    apart(&pair);
    pair.bring_up();
    pair.mc(0, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    let reload = "SELECT pg_reload_conf()";
    let auto = in_data(&pair, 0, "postgresql.auto.conf");
    let at = |found: &crate::check::Found| assert!(found.file == auto && found.line > 0, "{found:?}");
    // the place of a setting, as the instance tells it
    for (setting, value, code) in [
        ("wal_keep_size", "0", "wal-keep"),
        ("wal_sender_timeout", "0", "wal-sender-timeout-off"),
        ("full_page_writes", "off", "full-page-writes-off"),
        ("synchronous_commit", "local", "synchronous-commit"),
    ] {
        let set = format!("ALTER SYSTEM SET {setting} = '{value}'");
        let reset = format!("ALTER SYSTEM RESET {setting}");
        at(&by_sql(&pair, code, &[&set, reload], &[&reset, reload]));
    }
    let (set, reset) = ("ALTER SYSTEM SET max_connections = 50", "ALTER SYSTEM RESET max_connections");
    at(&by_sql(&pair, "pending-restart", &[set, reload], &[reset, reload]));
    by_sql(
        &pair,
        "synchronous-commit-role",
        &["CREATE ROLE app LOGIN", "ALTER ROLE app SET synchronous_commit = off"],
        &["ALTER ROLE app RESET synchronous_commit"],
    );
    by_sql(
        &pair,
        "role-limits",
        &["ALTER ROLE postgres SET lock_timeout = '1h'"],
        &["ALTER ROLE postgres RESET lock_timeout"],
    );
    by_sql(&pair, "unlogged-tables", &["CREATE UNLOGGED TABLE quick (id int)"], &["DROP TABLE quick"]);
    pair.sql(0, "CREATE TABLE twice AS SELECT 1 AS id FROM generate_series(1, 2)");
    assert!(pair.try_sql(0, "CREATE UNIQUE INDEX CONCURRENTLY broken ON twice (id)").is_err());
    assert!(expect(&pair, 0, "invalid-index", "nd1").what.contains("public.broken"));
    pair.sql(0, "DROP TABLE twice");
    expect_gone(&pair, 0, "invalid-index", "nd1");
    pair.sql(0, "SELECT pg_create_physical_replication_slot('kept', true)");
    expect(&pair, 0, "slot-unlimited", "nd1");
    let advice = expect(&pair, 0, "slot-inactive", "nd1").fix;
    assert!(advice.starts_with("start the client"), "{advice}");
    pair.sql(0, "SELECT pg_drop_replication_slot('kept')");
    expect_gone(&pair, 0, "slot-unlimited", "nd1");
    expect_gone(&pair, 0, "slot-inactive", "nd1");
    archiving_fails(&pair);
    who_is_let_in(&pair);
    connections(&pair);
    impostor(&pair);
    errors_in_files(&pair);
    silence(&pair);
}

fn archiving_fails(pair: &Pair) {
    pair.sql(0, "ALTER SYSTEM SET archive_command = 'false'");
    pair.sql(0, "SELECT pg_reload_conf()");
    pair.sql(0, "INSERT INTO written (id) VALUES (-1)");
    pair.sql(0, "SELECT pg_switch_wal()");
    wait_for("archiving fails", s(30), || {
        (pair.sql(0, "SELECT failed_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    expect(pair, 0, "archive-failing", "nd1");
    pair.sql(0, "ALTER SYSTEM RESET archive_command");
    pair.sql(0, "SELECT pg_reload_conf()");
    // the archiver tries again after a minute, or after the next switch
    pair.sql(0, "INSERT INTO written (id) VALUES (-2)");
    pair.sql(0, "SELECT pg_switch_wal()");
    let archived = "SELECT last_archived_time > last_failed_time FROM pg_stat_archiver";
    wait_for("archiving works", s(90), || (pair.sql(0, archived) == "t").then_some(()));
    expect_gone(pair, 0, "archive-failing", "nd1");
}

/// The configuration is read anew by each check; the controllers keep that of their start.
fn who_is_let_in(pair: &Pair) {
    {
        let _edit = Edit::append(pair, 0, &id_conf(pair, 0), "db_instance_username = 'app'");
        assert!(expect(pair, 0, "not-superuser", "nd1").what.contains("\"app\""));
    }
    expect_gone(pair, 0, "not-superuser", "nd1");
    {
        let _edit = Edit::append(pair, 1, &id_conf(pair, 1), "target_db = 'nowhere'");
        assert!(expect(pair, 1, "session-refused", "nd2").what.contains("nowhere"));
        assert!(expect(pair, 1, "rebuild-session", "nd2").what.contains("nowhere"));
    }
    expect_gone(pair, 1, "session-refused", "nd2");
    expect_gone(pair, 1, "rebuild-session", "nd2");
    // a password that does not fit, on the way to the primary alone
    pair.sql(0, "ALTER ROLE postgres PASSWORD 'right'");
    {
        let scram =
            |old: &str| old.replace("host all all 192.0.2.0/24 trust", "host all all 192.0.2.0/24 scram-sha-256");
        let path = in_data(pair, 0, "pg_hba.conf");
        let before = std::fs::read_to_string(pair.host(0).path(std::path::Path::new(&path))).expect("readable");
        let line =
            before.lines().zip(1..).find(|(line, _)| line.starts_with("host all all 192.0.2.0/24")).expect("a rule").1;
        let _edit = Edit::change(pair, 0, &path, scram);
        pair.host(0).pg("pg_ctl", &["reload", "-D", pair.data(0)]).expect(0, "pg_ctl reload");
        let _wrong = Edit::append(pair, 1, &id_conf(pair, 1), "db_instance_password = 'wrong-secret'");
        expect(pair, 1, "password-rejected", "nd2");
        assert!(!check(pair, 1).json.to_string().contains("wrong-secret"));
        assert!(line > 0);
    }
    pair.host(0).pg("pg_ctl", &["reload", "-D", pair.data(0)]).expect(0, "pg_ctl reload");
    pair.sql(0, "ALTER ROLE postgres PASSWORD NULL");
    expect_gone(pair, 1, "password-rejected", "nd2");
}

/// max_connections is 40, and 3 are reserved.
fn connections(pair: &Pair) {
    let mut config = Config::new();
    config.host(pair.servers[0].address).port(pair.servers[0].port).user("postgres").dbname("postgres");
    let sessions: Vec<_> = (0..35).map_while(|_| config.connect(NoTls).ok()).collect();
    assert!(sessions.len() > 30);
    let found = expect(pair, 0, "max-connections", "nd1");
    assert!(found.what.contains("max_connections = 40"), "{found:?}");
    drop(sessions);
    wait_for("the sessions end", s(10), || {
        let count = "SELECT count(*) < 20 FROM pg_stat_activity";
        (pair.sql(0, count) == "t").then_some(())
    });
    expect_gone(pair, 0, "max-connections", "nd1");
}

fn impostor(pair: &Pair) {
    let into = pair.host(0).dir.join("run/received");
    std::fs::create_dir(&into).expect("could not create a directory");
    crate::harness::pair::own(&into);
    let program = crate::harness::bin_dir().join("pg_receivewal");
    let mut command = pair.host(0).admin(program.to_str().expect("ASCII"));
    let name = format!("host={} user=postgres application_name=nd2", pair.servers[0].address);
    command.args(["-D", into.to_str().expect("ASCII"), "-d", &name, "--synchronous"]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("could not run pg_receivewal");
    wait_for("it receives", s(20), || {
        (pair.sql(0, "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'nd2'") == "2").then_some(())
    });
    let found = expect(pair, 0, "foreign-wal-receiver", "nd1");
    assert!(found.what.contains(pair.servers[0].address) && found.what.contains(pair.servers[1].address), "{found:?}");
    for process in pair.host(0).running("pg_receivewal") {
        signal(process.pid, Signal::KILL);
    }
    let _ = child.wait();
    wait_for("it is gone", s(20), || {
        (pair.sql(0, "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'nd2'") == "1").then_some(())
    });
    expect_gone(pair, 0, "foreign-wal-receiver", "nd1");
}

/// As the instance itself tells them; nothing is reloaded.
fn errors_in_files(pair: &Pair) {
    for (file, line, code) in [
        ("postgresql.conf", "wal_sender_timeout = nonsense", "conf-errors"),
        ("postgresql.conf", "no_such_setting = 1", "conf-errors"),
        ("pg_hba.conf", "host all all all nonsense", "hba-errors"),
        ("pg_hba.conf", "host all all 0.0.0.0 0.0.0.0 trust", "hba-trust"),
    ] {
        let path = in_data(pair, 1, file);
        let edit = Edit::append(pair, 1, &path, line);
        let report = check(pair, 1);
        let place = (path.clone(), edit.line(line));
        let found = report.findings().into_iter().filter(|f| f.code == code && f.member == "nd2");
        assert!(found.map(|f| (f.file, f.line)).any(|found| found == place), "{code}: {:#}", report.json);
    }
    expect_gone(pair, 1, "conf-errors", "nd2");
    expect_gone(pair, 1, "hba-errors", "nd2");
}

/// What does not answer is a finding within the time, and never a hang.
fn silence(pair: &Pair) {
    // somebody locks what is asked for
    let mut config = Config::new();
    config.host(pair.servers[0].address).port(pair.servers[0].port).user("postgres").dbname("postgres");
    let mut locker = config.connect(NoTls).expect("a session");
    locker.batch_execute("BEGIN; LOCK TABLE pg_db_role_setting").expect("a lock");
    let answer = pair.mc(0, &["check", "--format", "json", "-t", "8"]);
    assert!(answer.took < s(15), "{:?}", answer.took);
    drop(locker);
    let report = crate::check::Report::of(&answer);
    assert!(
        report.find("not-checked", "nd1").is_some() || report.find("instance-not-responding", "nd1").is_some(),
        "{:#}",
        report.json
    );
    expect_gone(pair, 0, "not-checked", "nd1");
    let postmaster = pair.postmaster(1);
    signal(postmaster.pid, Signal::STOP);
    let answer = pair.mc(1, &["check", "--format", "json", "-t", "8"]);
    signal(postmaster.pid, Signal::CONT);
    assert!(answer.took < s(15), "{:?}", answer.took);
    let report = crate::check::Report::of(&answer);
    assert!(report.find("instance-not-responding", "nd2").is_some(), "{:#}", report.json);
    expect_gone(pair, 1, "instance-not-responding", "nd2");
}
