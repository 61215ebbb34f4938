//! What `mc_ctl check` finds in files, before the first start. Each line is written, found with its file and number, and taken
//! out again.

use crate::check::{Edit, apart, check, expect, expect_gone, id_conf, in_data, setup};
use crate::harness::pair::{Pair, Setup};

/// A line at the end of a file of the data directory, and the finding at that line.
#[track_caller]
fn line(pair: &Pair, server: usize, file: &str, line: &str, code: &str) {
    let path = in_data(pair, server, file);
    let id = pair.servers[server].id;
    {
        let edit = Edit::append(pair, server, &path, line);
        let found = expect(pair, server, code, id);
        assert_eq!((found.file.as_str(), found.line), (path.as_str(), edit.line(line)), "{found:?}");
    }
    expect_gone(pair, server, code, id);
}

#[test]
fn settings() {
    let pair = setup().make();
    apart(&pair);
    let conf = |text: &str, code: &str| line(&pair, 0, "postgresql.conf", text, code);
    conf("wal_level = minimal", "wal-level");
    conf("max_wal_senders = 2", "max-wal-senders");
    conf("hot_standby = off", "hot-standby");
    conf("fsync = no", "fsync-off");
    conf("full_page_writes = off", "full-page-writes-off");
    // 18 makes clusters with checksums; before, it says that there are none.
    pair.host(0).pg("pg_checksums", &["--disable", "-D", pair.data(0)]);
    conf("wal_log_hints = off", "no-rewind");
    conf("synchronous_commit = remote_write", "synchronous-commit");
    conf("superuser_reserved_connections = 1", "reserved-connections");
    conf("wal_keep_size = 0", "wal-keep");
    conf("wal_sender_timeout = 0", "wal-sender-timeout-off");
    conf("wal_sender_timeout = 1min", "wal-sender-timeout-long");
    conf("wal_receiver_timeout = 0", "wal-receiver-timeout-off");
    conf("wal_receiver_timeout = 60000", "wal-receiver-timeout-long");
    conf("archive_mode = off", "archive-off");
    conf("archive_mode = on", "archive-on");
    conf("archive_timeout = 0", "archive-timeout");
    conf("restore_command = 'false secret'", "restore-command");
    conf("recovery_target_time = '2026-01-01'", "recovery-target");
    conf("recovery_min_apply_delay = 1h", "recovery-min-apply-delay");
    conf("listen_addresses = '127.0.0.1'", "listen-addresses");
    conf("synchronous_standby_names = 'FIRST 1 (nd2, nd3)'", "standby-names-not-one");
    line(&pair, 0, "postgresql.auto.conf", "synchronous_standby_names = 'nd2'", "standby-names-overridden");
    line(&pair, 1, "postgresql.conf", "max_connections = 20", "standby-settings");
    let major: u32 = pair.read(0, "PG_VERSION").trim().parse().expect("a version");
    if major < 16 {
        conf("promote_trigger_file = '/tmp/x'", "promote-trigger-file");
    }
    // nothing archives: the place is that of the mode
    {
        let _edit = Edit::append(&pair, 0, &in_data(&pair, 0, "postgresql.conf"), "archive_command = ''");
        assert!(expect(&pair, 0, "archive-command", "nd1").what.contains("archive_mode is \"always\""));
    }
    expect_gone(&pair, 0, "archive-command", "nd1");
    // what may hold a secret is not told
    let _edit = Edit::append(&pair, 0, &in_data(&pair, 0, "postgresql.conf"), "restore_command = 'fetch secret'");
    assert!(!check(&pair, 0).json.to_string().contains("secret"));
}

#[test]
fn lines_and_files() {
    let pair = setup().make();
    apart(&pair);
    let path = in_data(&pair, 0, "postgresql.conf");
    let names = "synchronous_standby_names = 'nd2'";
    {
        let edit = Edit::append(&pair, 0, &path, names);
        let found = expect(&pair, 0, "standby-names-repeated", "nd1");
        assert!(found.line > 0 && found.line < edit.line(names), "{found:?}");
    }
    expect_gone(&pair, 0, "standby-names-repeated", "nd1");
    // a value that PostgreSQL refuses, and a line that it cannot read
    line(&pair, 0, "postgresql.conf", "wal_level = nonsense", "conf-errors");
    line(&pair, 0, "postgresql.conf", "wal_level = = replica", "conf-errors");
    // an included file that wins
    let included = in_data(&pair, 0, "more.conf");
    pair.append(0, "more.conf", "x");
    {
        let _include = Edit::append(&pair, 0, &path, "include 'more.conf'");
        let edit = Edit::change(&pair, 0, &included, |_| format!("# ours\n{names}\n"));
        let found = expect(&pair, 0, "standby-names-overridden", "nd1");
        assert_eq!((found.file.as_str(), found.line), (included.as_str(), edit.line(names)));
    }
    expect_gone(&pair, 0, "standby-names-overridden", "nd1");
    pair.as_root(0, &["chmod", "400", &path]);
    assert_eq!(expect(&pair, 0, "conf-not-writable", "nd1").file, path);
    pair.as_root(0, &["chmod", "600", &path]);
    pair.as_root(0, &["chmod", "500", pair.data(0)]);
    expect(&pair, 0, "conf-not-writable", "nd1");
    pair.as_root(0, &["chmod", "700", pair.data(0)]);
    expect_gone(&pair, 0, "conf-not-writable", "nd1");
    // the management directory beside the data directory
    let me = pair.servers[0].management.to_str().expect("ASCII");
    pair.as_root(0, &["sh", "-c", "mkdir \"$0.disk\" && cp -a \"$0/.\" \"$0.disk\" && umount \"$0\"", me]);
    pair.as_root(0, &["sh", "-c", "cp -a \"$0.disk/.\" \"$0\"", me]);
    let found = expect(&pair, 0, "same-file-system", "nd1");
    assert!(found.what.contains(me) && found.what.contains(pair.data(0)), "{found:?}");
    assert_eq!(found.severity, "warning", "as init and start report it");
    apart(&pair);
    expect_gone(&pair, 0, "same-file-system", "nd1");
    // a standby that is still to be made
    {
        let to = format!("db_instance = '{}.none'", pair.data(1));
        let from = format!("db_instance = '{}'", pair.data(1));
        let _edit = Edit::change(&pair, 1, &id_conf(&pair, 1), |old| old.replace(&from, &to));
        assert!(expect(&pair, 1, "no-data-directory", "nd2").fix.contains("mc_ctl rebuild"));
        let expected = ["isolated-primary-waits nd2", "no-data-directory nd2", "no-member-keys ", "peer-not-seen nd2"];
        assert_eq!(check(&pair, 1).codes(), expected);
    }
    // remarks of the configuration
    {
        let _edit = Edit::change(&pair, 0, &id_conf(&pair, 0), |old| old.replace("= 'switch'", "= 'fallback'"));
        let _edit = Edit::append(&pair, 0, &id_conf(&pair, 0), "arbiter_alive_interval = 700");
        expect_gone(&pair, 0, "configuration-warning", "nd1");
        assert!(expect(&pair, 0, "configuration-notice", "nd1").what.contains("arbiter_alive_interval"));
    }
    let _edit = Edit::change(&pair, 0, &id_conf(&pair, 0), |old| old.replace("heartbeat_error_action", "#"));
    assert!(expect(&pair, 0, "configuration-warning", "nd1").what.contains("fallback"));
}

#[test]
fn rules_of_pg_hba() {
    let pair = setup().make();
    apart(&pair);
    let path = in_data(&pair, 0, "pg_hba.conf");
    let with = |rules: &str| Edit::change(&pair, 0, &path, |_| format!("local all all trust\n{rules}\n"));
    let place = |code: &str, line: Option<u64>| {
        let report = check(&pair, 0);
        let found = report.find(code, "nd1");
        let seen = found.as_ref().map(|found| (found.file.as_str(), found.line));
        assert_eq!(seen, line.map(|line| (path.as_str(), line)), "{code}: {:#}", report.json);
    };
    let good = "host all postgres 192.0.2.0/24 scram-sha-256\nhost replication postgres 192.0.2.0/24 scram-sha-256";
    {
        let _edit = with(good);
        ["hba-errors", "hba-replication", "hba-rebuild", "hba-trust"].iter().for_each(|code| place(code, None));
    }
    {
        let _edit = with(&format!("host all all all reject\n{good}"));
        place("hba-rebuild", Some(2));
        place("hba-replication", None);
    }
    {
        let peer = pair.servers[1].address;
        let _edit = with(&format!("host replication all {peer} 255.255.255.255 reject\n{good}"));
        place("hba-replication", Some(2));
        place("hba-rebuild", None);
        let fix = expect(&pair, 0, "hba-replication", "nd1").fix;
        assert!(fix.contains(&format!("host replication postgres {peer}/32 scram-sha-256")), "{fix}");
    }
    {
        let _edit = with("hostssl all all all scram-sha-256\nhost replication all all trust");
        // without a line: none applies, since this server has no TLS
        place("hba-rebuild", Some(0));
        place("hba-replication", None);
        place("hba-trust", Some(3));
    }
    {
        let _edit = with("host all all all md5");
        place("hba-replication", Some(0));
        place("hba-rebuild", None);
    }
    {
        let _edit = with(&format!("{good}\nhost all all all nonsense"));
        place("hba-errors", Some(4));
    }
    {
        let _edit = with("host all all 192.0.2.250/32 md5\nhost replication all 192.0.2.250/32 md5");
        place("hba-replication", Some(0));
        place("hba-rebuild", Some(0));
    }
}

#[test]
fn where_a_standby_connects() {
    let pair = setup().make();
    apart(&pair);
    let path = in_data(&pair, 1, "postgresql.auto.conf");
    let conninfo = |code: &str, value: &str| {
        {
            let edit = Edit::change(&pair, 1, &path, |_| format!("# x\nprimary_conninfo = '{value}'\n"));
            let found = expect(&pair, 1, code, "nd2");
            assert_eq!((found.file.as_str(), found.line), (path.as_str(), edit.line("primary_conninfo")), "{found:?}");
            assert!(!check(&pair, 1).json.to_string().contains("secret"));
        }
        expect_gone(&pair, 1, code, "nd2");
    };
    let host = pair.servers[0].address;
    conninfo("conninfo-name", &format!("host={host} user=postgres password=secret"));
    conninfo("conninfo-host", "host=192.0.2.99 user=postgres application_name=nd2");
    conninfo("conninfo-host", "user=postgres application_name=nd2");
    conninfo("conninfo-unreadable", &format!("postgresql://postgres:secret@{host}/?application_name=nd2"));
}

/// A program that tells an older version, as an old package would.
#[test]
fn minor_versions() {
    let pair = setup().make();
    apart(&pair);
    let bin = crate::harness::bin_dir().to_str().expect("ASCII");
    let old = pair.host(0).dir.join("old");
    let old = old.to_str().expect("ASCII");
    let major = pair.read(0, "PG_VERSION").trim().to_owned();
    if major.parse::<u32>().is_ok_and(|major| major >= 18) {
        return; // none of its minor versions has the race
    }
    let make = "mkdir \"$0\" && for p in \"$1\"/*; do ln -s \"$p\" \"$0\"; done && rm \"$0/postgres\" && printf '%s\\n' '#!/bin/sh' \
                \"[ \\\"\\$1\\\" = --version ] && exec echo 'postgres (PostgreSQL) $2.1'\" \"exec $1/postgres \\\"\\$@\\\"\" \
                > \"$0/postgres\" && chmod 755 \"$0\" \"$0/postgres\"";
    pair.as_root(0, &["sh", "-c", make, old, bin, &major]);
    {
        let _edit = Edit::append(&pair, 0, &id_conf(&pair, 0), &format!("bin_dir = '{old}'"));
        assert!(expect(&pair, 0, "startup-race", "nd1").what.contains(&format!("PostgreSQL {major}.1")));
        let _edit = Edit::append(&pair, 0, &id_conf(&pair, 0), "accept_startup_race = 'on'");
        expect(&pair, 0, "startup-race-accepted", "nd1");
        expect_gone(&pair, 0, "startup-race", "nd1");
    }
    expect_gone(&pair, 0, "startup-race-accepted", "nd1");
}

/// "Moving the management directory" of the manual: the standby, whose ledger stays behind, is mirrored again.
#[test]
fn moving_the_management_directory() {
    let mut pair = Setup::default().up();
    let old = pair.servers[1].management.clone();
    let new = old.with_file_name("moved");
    let text = |path: &std::path::Path| path.to_str().expect("ASCII").to_owned();
    pair.as_root(1, &["install", "-d", "-m", "700", "-o", "postgres", &text(&new)]);
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    let copy = "cp -p $0/network.conf $0/mc.key $0/nd2.* $1";
    let copied = pair.host(1).admin("sh").args(["-c", copy, &text(&old), &text(&new)]).status().expect("sh runs");
    assert!(copied.success());
    pair.servers[1].management = new;
    pair.mc(1, &["start", "-f"]).expect(0, "mc_ctl start in the new directory");
    [0, 1].iter().for_each(|n| drop(pair.wait_word(*n, "switchable")));
}
