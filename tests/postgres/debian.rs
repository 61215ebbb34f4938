//! Clusters as Debian's `pg_createcluster` makes them: `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf` below
//! /etc/postgresql, the data below /var/lib/postgresql. Each host has these directories of its own, so that the machine's are
//! left alone.

use crate::check::expect;
use crate::harness::bin_dir;
use crate::harness::pair::{Pair, Setup, write_private};
use crate::harness::run::run;
use crate::harness::{s, wait_for};
use std::path::Path;

const DIRECTORIES: &str = r#"
set -e
mount -t tmpfs -o mode=755 none /run
install -d -o postgres -g postgres /run/postgresql
for at in /etc/postgresql /var/lib/postgresql /var/log/postgresql; do
    own=$1/debian/$(basename "$(dirname "$at")")
    install -d -o postgres -g postgres "$own"
    mount --bind "$own" $at
done
"#;

// the test's processes are not in the group ssl-cert, which may read the key that Debian sets
const SETTINGS: &str = "
ssl = off
listen_addresses = '*'
wal_keep_size = 128MB
wal_log_hints = on
shared_buffers = 32MB
max_connections = 40
";

/// Gives a server the cluster VERSION/main for its instance; nothing is started.
pub fn create_cluster(pair: &mut Pair, n: usize, version: &str) {
    let dir = pair.host(n).dir.to_str().expect("ASCII").to_owned();
    pair.as_root(n, &["sh", "-c", DIRECTORIES, "sh", &dir]);
    let create = ["pg_createcluster", "-p", "5432", "--start-conf=disabled", version, "main", "--", "-A", "trust"];
    pair.as_root(n, &create);
    pair.servers[n].data = format!("/var/lib/postgresql/{version}/main").into();
    let hba = format!("host all,replication all 192.0.2.0/24 trust\n# of host {n}\n");
    for (file, text) in [("postgresql.conf", SETTINGS), ("pg_hba.conf", &hba)] {
        let file = format!("/etc/postgresql/{version}/main/{file}");
        pair.as_root(n, &["sh", "-c", "echo \"$1\" >>$2", "sh", text, &file]);
    }
    write_private(&pair.conf(n), &format!("db_instance = '{}'\n", pair.data(n)));
}

/// The version whose clusters Debian's programs make, where the servers are of Debian's packages.
pub fn version_of_debian() -> Option<String> {
    let Ok(bin) = bin_dir().strip_prefix("/usr/lib/postgresql") else {
        println!("LEFT OUT: {} is not of Debian's packages", bin_dir().display());
        return None;
    };
    assert!(
        Path::new("/usr/bin/pg_createcluster").exists(),
        "pg_createcluster is missing: apt-get install postgresql-common"
    );
    Some(bin.iter().next().and_then(|v| v.to_str()).expect("a version").to_owned())
}

/// What `pg_lsclusters` says of the cluster's state.
pub fn listed(pair: &Pair, server: usize) -> String {
    let answer = crate::harness::run::run(pair.host(server).command("pg_lsclusters"), crate::harness::s(20));
    answer.expect(0, "pg_lsclusters").out.split_whitespace().nth(12).unwrap_or_default().to_owned()
}

/// The standby is mirrored, and its files are where Debian wants them, and its own.
#[track_caller]
fn check(pair: &Pair, standby: usize, version: &str) {
    let roles = if standby == 0 { ["standby", "primary"] } else { ["primary", "standby"] };
    [0, 1].iter().for_each(|n| pair.wait_roles(*n, "switchable", roles));
    for n in [0, 1] {
        let etc = format!("/etc/postgresql/{version}/main");
        let shown = "SELECT concat_ws(' ', current_setting('config_file'), current_setting('hba_file'), current_setting('ident_file'))";
        assert_eq!(pair.sql(n, shown), format!("{etc}/postgresql.conf {etc}/pg_hba.conf {etc}/pg_ident.conf"));
        for file in ["postgresql.conf", "pg_hba.conf"] {
            let path = pair.host(n).path(Path::new(pair.data(n))).join(file);
            assert!(!path.exists(), "{} has come into being", path.display());
        }
        let hba = std::fs::read_to_string(pair.host(n).path(Path::new(&etc)).join("pg_hba.conf")).expect("pg_hba.conf");
        assert!(hba.contains(&format!("# of host {n}\n")), "not this server's own:\n{hba}");
        assert_eq!(listed(pair, n), if n == standby { "online,recovery" } else { "online" });
    }
}

/// First start and first standby, switch, crash, rebuild by pg_rewind and by pg_basebackup, stop: without `config_file` in
/// `ID.conf`, while Debian's own programs show what there is.
#[test]
fn clusters_of_debian() {
    let Some(version) = version_of_debian() else { return };
    let version = version.as_str();
    let mut pair = Setup::default().make();
    [0, 1].into_iter().for_each(|n| create_cluster(&mut pair, n, version));
    pair.as_root(1, &["find", pair.data(1), "-mindepth", "1", "-delete"]);
    pair.start(0, &["-f"]);
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "the first mc_ctl rebuild");
    check(&pair, 1, version);
    pair.sql(0, "CREATE TABLE written (id bigint PRIMARY KEY)");

    pair.mc(1, &["switch"]).expect(0, "mc_ctl switch");
    pair.mc(0, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild after a switch");
    check(&pair, 0, version);

    for (server, method, words) in [(1, "pg_rewind", &[][..]), (0, "pg_basebackup", &["--method", "basebackup"])] {
        pair.fail_over_from(server);
        assert_eq!(listed(&pair, server), "down");
        let told = pair.mc(server, &[&["rebuild", "--yes"], words].concat()).expect(0, "mc_ctl rebuild").text();
        assert!(told.contains(method), "{told}");
        check(&pair, server, version);
    }

    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    assert_eq!((listed(&pair, 0), listed(&pair, 1)), ("down,recovery".into(), "online".into()));
    pair.start(0, &["-f"]);
    check(&pair, 0, version);
}

/// Lines that the server's log has, of which the last one is written now.
#[track_caller]
fn logged(pair: &Pair, server: usize, file: &str, mark: &str) -> String {
    pair.sql(server, &format!("DO $$ BEGIN RAISE LOG 'mark {mark}'; END $$"));
    let path = pair.host(server).path(Path::new(file));
    wait_for(&format!("\"{mark}\" in {file}"), s(20), || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.contains(&format!("mark {mark}")).then_some(text)
    })
}

/// The log of a cluster stays where `pg_ctlcluster` had it, and `logrotate` rotates it there as Debian's package does.
#[test]
fn the_log_stays_in_its_place() {
    let Some(version) = version_of_debian() else { return };
    let version = version.as_str();
    let mut pair = Setup::default().make();
    [0, 1].into_iter().for_each(|n| create_cluster(&mut pair, n, version));
    pair.as_root(1, &["find", pair.data(1), "-mindepth", "1", "-delete"]);
    let log = format!("/var/log/postgresql/postgresql-{version}-main.log");
    pair.as_root(0, &["sed", "-i", "s/^disabled/manual/", &format!("/etc/postgresql/{version}/main/start.conf")]);
    pair.as_root(0, &["pg_ctlcluster", version, "main", "start"]);
    let before = logged(&pair, 0, &log, "of pg_ctlcluster");
    pair.as_root(0, &["pg_ctlcluster", version, "main", "stop", "-m", "fast"]);
    pair.start(0, &["-f"]);
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "the first mc_ctl rebuild");
    [0, 1].iter().for_each(|n| pair.wait_roles(*n, "switchable", ["primary", "standby"]));
    for n in [0, 1] {
        let text = logged(&pair, n, &log, "of the controller");
        assert!(n == 1 || text.starts_with(&before), "the log was replaced");
        assert!(!pair.run_dir(n).join("startup.log").exists(), "there is a log in the management directory");
        let found = expect(&pair, n, "server-log", pair.servers[n].id);
        assert!(found.severity == "notice" && found.what.contains(&format!("log is \"{log}\"")), "{found:?}");
        let conf = pair.host(n).dir.join("rotate");
        let lines = "/var/log/postgresql/*.log {\n  su root root\n  rotate 2\n  copytruncate\n}\n";
        std::fs::write(&conf, lines).expect("could not write");
        pair.as_root(n, &["logrotate", "-f", "-s", "/run/state", conf.to_str().expect("ASCII")]);
        let text = logged(&pair, n, &log, "after the rotation");
        assert!(!text.contains("of the controller") && !text.contains('\0'), "not rotated:\n{text}");
        let old = std::fs::read_to_string(pair.host(n).path(Path::new(&format!("{log}.1")))).expect("an older log");
        assert!(old.contains("of the controller"), "{old}");
    }
}

/// The second server has the cluster that Debian's package creates, and an operator starts it beside the pair: it is neither
/// founded as a rival nor stopped, each message names the rebuild, and the rebuild keeps the old directory.
#[test]
fn a_cluster_on_both_servers() {
    let Some(version) = version_of_debian() else { return };
    let mut pair = Setup::default().make();
    [0, 1].into_iter().for_each(|n| create_cluster(&mut pair, n, &version));
    let started = pair.start(0, &["-f"]).text();
    assert!(started.contains("next: run \"mc_ctl rebuild\" on \"nd2\""), "{started}");
    pair.as_root(1, &["sh", "-c", &format!("echo manual >/etc/postgresql/{version}/main/start.conf")]);
    pair.as_root(1, &["pg_ctlcluster", &version, "main", "start"]);
    let refused = pair.mc(1, &["start", "-f"]);
    let advice = "run \"mc_ctl rebuild\" here, which keeps the present data directory";
    assert!(refused.code != 0 && refused.text().contains(advice), "{}", refused.text());
    assert_eq!(listed(&pair, 1), "online", "the cluster was stopped");
    let shown = pair.mc(0, &["status"]).err;
    assert!(shown.contains("server \"nd2\" has another cluster: run \"mc_ctl rebuild\" on it"), "{shown}");
    let found = pair.mc(1, &["check", "-t", "60"]).out;
    let (_, found) = found.split_once("ERROR system-identifiers").unwrap_or_else(|| panic!("no finding in {found}"));
    assert!(
        found.split_whitespace().collect::<Vec<_>>().join(" ").contains("it keeps the old data directory"),
        "{found}"
    );
    let rebuilt = pair.mc(1, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild").text();
    let data = pair.data(1);
    assert!(rebuilt.contains(&format!("\"{data}.old-")), "the old directory is not named: {rebuilt}");
    check(&pair, 1, &version);
}

/// A primary with its `postgresql.conf` in the data directory, and a standby whose own is below /etc: each keeps to its own,
/// though the base backup brings the standby the primary's as well.
#[test]
fn one_cluster_of_debian() {
    let Some(version) = version_of_debian() else { return };
    let mut pair = Setup::default().make();
    create_cluster(&mut pair, 1, &version);
    pair.as_root(1, &["find", pair.data(1), "-mindepth", "1", "-delete"]);
    pair.start(0, &["-f"]);
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "the first mc_ctl rebuild");
    let check = |roles: [&str; 2]| {
        [0, 1].iter().for_each(|n| pair.wait_roles(*n, "switchable", roles));
        let shown = "SHOW config_file";
        assert_eq!(pair.sql(0, shown), format!("{}/postgresql.conf", pair.data(0)));
        assert_eq!(pair.sql(1, shown), format!("/etc/postgresql/{version}/main/postgresql.conf"));
    };
    check(["primary", "standby"]);
    assert!(pair.host(1).path(Path::new(pair.data(1))).join("postgresql.conf").exists(), "nothing was brought along");
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.start(1, &["-f"]);
    check(["primary", "standby"]);

    for (from, roles) in [(0, ["standby", "primary"]), (1, ["primary", "standby"])] {
        pair.fail_over_from(from);
        pair.mc(from, &["rebuild", "--yes", "--method", "basebackup"]).expect(0, "mc_ctl rebuild");
        check(roles);
    }
}

/// A second server without a cluster: the rebuild makes its directory as `pg_createcluster` does, but it is not started at boot.
#[test]
fn directory_of_a_cluster() {
    let Some(version) = version_of_debian() else { return };
    let mut pair = Setup::default().make();
    [0, 1].into_iter().for_each(|n| create_cluster(&mut pair, n, &version));
    let etc = format!("/etc/postgresql/{version}/main");
    let shown = |script: &str| {
        let mut command = pair.host(1).command("sh");
        command.args(["-c", script]);
        run(command, s(20)).expect(0, script).out
    };
    let files = format!("cd {etc} && stat -c '%n %A %U:%G' . *");
    let made = shown(&files);
    let text = |name: &str| shown(&format!("cat {etc}/{name}"));
    let [start, options, environment] = ["start.conf", "pg_ctl.conf", "environment"].map(text);
    pair.as_root(1, &["pg_dropcluster", &version, "main"]);
    let log = format!("/var/log/postgresql/postgresql-{version}-main.log");
    let parent = format!("/var/lib/postgresql/{version}");
    let conf = format!("db_instance = '{}'\nconfig_file = '{etc}/postgresql.conf'\n", pair.data(1));
    write_private(&pair.conf(1), &conf);
    pair.as_root(1, &["sh", "-c", "test ! -e $0 && install -d -o postgres -g postgres $1", &log, &parent]);
    pair.start(0, &["-f"]);
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
    assert_eq!(shown(&files), made);
    assert_eq!(text("start.conf"), start.replace("\ndisabled\n", "\nmanual\n"));
    assert_eq!([text("pg_ctl.conf"), text("environment")], [options, environment]);
    // The group of the log is that of Debian's only where this user may set it. The command is reported.
    assert!(shown(&format!("stat -c %A {log}")).starts_with("-rw-r-----"));
    let found = expect(&pair, 1, "server-log", "nd2");
    assert!(found.fix.contains(&format!("as root: chgrp adm {log}")), "{found:?}");
    pair.as_root(1, &["chgrp", "adm", &log]);
    let found = expect(&pair, 1, "server-log", "nd2");
    assert!(!found.fix.contains("chgrp"), "{found:?}");
}

const OPERATORS_FILES: &str = r#"
set -e
mkdir -p "$2/conf.d"
echo 'work_mem = 9MB' >"$2/conf.d/more.conf"
printf '%s\n' '# of the operator' 'local all,replication all trust' 'host all,replication all all trust' >"$2/pg_hba.conf"
chown -R postgres: "$1"
"#;

/// A primary of Debian's, and a standby's host without `postgresql.conf`. The rebuild makes it from the primary's: where
/// `config_file` says, or in the data directory. Files that exist there are kept. Where it cannot, that is reported before
/// anything is copied.
#[test]
fn configuration_from_the_primary() {
    let Some(version) = version_of_debian() else { return };
    for beside in [false, true] {
        let mut pair = Setup::default().make();
        create_cluster(&mut pair, 0, &version);
        pair.as_root(
            0,
            &["sh", "-c", &format!("echo 'work_mem = 7MB' >/etc/postgresql/{version}/main/conf.d/more.conf")],
        );
        let data = pair.data(1).to_owned();
        pair.as_root(1, &["find", &data, "-mindepth", "1", "-delete"]);
        let etc = pair.host(1).dir.join("etc").to_str().expect("ASCII").to_owned();
        let own =
            "mount -t tmpfs -o mode=755 none /run; install -d -o postgres -g postgres /run/postgresql; mkdir -m 755 $1";
        pair.as_root(1, &["sh", "-c", own, "sh", &etc]);
        let dir = if beside { format!("{etc}/one/main") } else { data.clone() };
        if beside {
            let text = format!("db_instance = '{data}'\nconfig_file = '{dir}/postgresql.conf'\n");
            write_private(&pair.conf(1), &text);
        }
        pair.start(0, &["-f"]);
        if beside {
            let refused = pair.mc(1, &["rebuild", "--yes"]);
            assert!(refused.code != 0 && refused.text().contains("is not writable"), "{}", refused.text());
            let left = pair.host(1).path(Path::new(&data)).read_dir().expect("the data directory").count();
            assert_eq!(left, 0, "something was copied");
            pair.as_root(1, &["sh", "-c", OPERATORS_FILES, "sh", &etc, &dir]);
        }
        let plan = pair.mc(1, &["rebuild", "--dry-run"]).expect(0, "mc_ctl rebuild --dry-run").out;
        assert!(plan.contains(&format!("Create this server's configuration file \"{dir}/postgresql.conf\"")), "{plan}");
        let kept = format!(" Existing files are kept: \"{dir}/conf.d/more.conf\", \"{dir}/pg_hba.conf\".");
        assert_eq!(plan.contains(&kept), beside, "{plan}");
        pair.mc(1, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
        [0, 1].iter().for_each(|n| pair.wait_roles(*n, "switchable", ["primary", "standby"]));
        for (setting, value) in [
            ("config_file", format!("{dir}/postgresql.conf")),
            ("hba_file", format!("{dir}/pg_hba.conf")),
            ("ident_file", format!("{dir}/pg_ident.conf")),
            ("data_directory", data.clone()),
            ("work_mem", if beside { "9MB" } else { "7MB" }.into()),
        ] {
            assert_eq!(pair.sql(1, &format!("SHOW {setting}")), value, "{setting}");
        }
        let hba = std::fs::read_to_string(pair.host(1).path(Path::new(&dir)).join("pg_hba.conf")).expect("pg_hba.conf");
        assert_eq!(hba.contains("# of the operator"), beside, "{hba}");
        pair.mc(1, &["switch"]).expect(0, "mc_ctl switch");
        pair.mc(0, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild after a switch");
    }
}
