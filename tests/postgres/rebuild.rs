//! The rebuild: a server that has lost its role comes back as the standby, by one command or by itself.
//!
//! Every case ends in `switchable` with nothing acknowledged lost, and with no two servers that acknowledged in the same
//! period.

use crate::harness::client::Style;
use crate::harness::pair::{Pair, Setup, own};
use crate::harness::remedy::commands;
use crate::harness::run::run;
use crate::harness::{s, wait_for};
use mirroring_controller::fsm::types::OldData;
use mirroring_controller::rebuild::{Chosen, Journal, Phase};
use std::time::Instant;

/// The whole circle: the primary crashes, comes back as the standby by `pg_rewind` with its own configuration, takes over
/// again by a planned switch, and the other one follows it without a copy. What was lost of the first is kept and told.
/// Each server asks the other one for a password.
#[test]
fn failover_rebuild_failback_rebuild() {
    let setup = Setup::default().pg("include_if_exists = 'own.conf'").conf(r#"db_instance_password = "it's\\secret""#);
    let pair = setup.make();
    for n in [0, 1] {
        pair.append(n, "own.conf", &format!("test.own = 'nd{}'\n", n + 1));
        pair.append(n, "pg_hba.conf", &format!("# of nd{}\n", n + 1));
    }
    pair.bring_up();
    pair.sql(0, "ALTER SYSTEM SET work_mem = '5MB'");
    pair.sql(0, r"SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD 'it''s\secret'");
    for n in [0, 1] {
        let ask = "1i host all,replication all 192.0.2.100/32 scram-sha-256\\nhost all,replication all 192.0.2.110/32 scram-sha-256";
        pair.as_root(n, &["sed", "-i", ask, &format!("{}/pg_hba.conf", pair.data(n))]);
        pair.sql(n, "SELECT pg_reload_conf()");
    }
    let client = pair.client(Style::OneSession);
    pair.fail_over_from(0);

    let planned = pair.mc(0, &["rebuild", "--dry-run"]).expect(0, "mc_ctl rebuild --dry-run").text();
    assert!(planned.contains("pg_rewind") && planned.contains("committed transaction"), "{planned}");
    let unconfirmed = pair.mc(0, &["rebuild"]).expect(2, "mc_ctl rebuild, unconfirmed");
    assert!(unconfirmed.text().contains("--yes"), "{}", unconfirmed.text());
    pair.wait_switched(0);

    let told = pair.rebuild(0, &[]).text();
    assert!(told.contains("pg_rewind") && !told.contains("pg_basebackup"), "{told}");
    assert_eq!(pair.sql(0, "SHOW test.own"), "nd1");
    assert_eq!(pair.sql(0, "SHOW work_mem"), "5MB");
    assert!(pair.read(0, "pg_hba.conf").contains("# of nd1"));
    let history = pair.mc(0, &["history"]).expect(0, "mc_ctl history").out;
    assert!(history.contains("committed transaction") && history.contains("public.written"), "{history}");
    assert!(!history.contains("may have been acknowledged"), "{history}");

    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    pair.wait_switched(1);
    let told = pair.rebuild(1, &[]).text();
    assert!(!told.contains("pg_rewind") && !told.contains("pg_basebackup"), "{told}");
    assert_eq!(pair.sql(1, "SHOW test.own"), "nd2");
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 0, &[0, 1, 0]);
}

/// A power loss while a guard is written in place leaves a part of it. With the journal of the interrupted rebuild, the next one
/// restores the version and uses the directory; without it, the directory is replaced.
#[test]
fn a_torn_guard() {
    let pair = Setup::default().up();
    let (server, data) = (&pair.servers[1], pair.servers[1].data.clone());
    let tear = |text: &str| {
        pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
        pair.as_root(1, &["sh", "-c", "printf \"$1\" > \"$0\"/PG_VERSION", pair.data(1), text]);
    };
    tear("15\\nuilding 15 (Mirroring");
    let journal = Journal {
        method: Chosen::BaseBackup,
        phase: Phase::Copying,
        stamp: "20261201T000000Z".into(),
        ruined: false,
        old_data: OldData::Delete,
        existed: true,
        name: server.id.into(),
        staging: data.with_extension("rebuild-new"),
        old: data.with_extension("old-20261201T000000Z"),
        data,
        moves: Vec::new(),
        swapped: false,
    };
    let run_dir = pair.host(1).path(&pair.run_dir(1));
    journal.write(&run_dir).expect("the journal can be written");
    own(&Journal::path(&run_dir));
    let refused = pair.mc(1, &["start", "-f"]).expect(4, "mc_ctl start with a torn guard");
    assert!(refused.err.contains("run \"mc_ctl rebuild\" here"), "{}", refused.text());
    let told = pair.rebuild(1, &[]).text();
    assert!(!told.contains("pg_basebackup"), "{told}");
    tear("reb");
    let told = pair.rebuild(1, &[]).text();
    assert!(told.contains("pg_basebackup"), "{told}");
}

/// Where the servers let each other in with TLS alone, the session of a rebuild speaks it too, and looks at the certificate as
/// `sslmode` of `primary_conninfo` says.
#[test]
fn over_tls_alone() {
    let pair = Setup::default().pg("ssl = on").conf("db_instance_password = 'secret'").make();
    let certify = |n: usize, address: &str| {
        let make = "cd \"$0\" && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=nd -addext subjectAltName=IP:$1 \
                    -keyout server.key -out server.crt && chmod 600 server.key && chown postgres: server.key server.crt";
        pair.as_root(n, &["sh", "-c", make, pair.data(n), address]);
    };
    for n in [0, 1] {
        certify(n, pair.servers[n].replication_address);
    }
    pair.bring_up();
    pair.sql(0, "SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD 'secret'");
    for n in [0, 1] {
        let only = "1i hostnossl all,replication all 192.0.2.100/32 reject\\nhostnossl all,replication all 192.0.2.110/32 reject\\n\
                    hostssl all,replication all 192.0.2.100/32 scram-sha-256\\nhostssl all,replication all 192.0.2.110/32 scram-sha-256";
        pair.as_root(n, &["sed", "-i", only, &format!("{}/pg_hba.conf", pair.data(n))]);
        pair.sql(n, "SELECT pg_reload_conf()");
    }
    pair.fail_over_from(0);

    let own = pair.servers[0].management.join("root.crt");
    let trust = |n: usize| {
        let from = pair.servers[n].data.join("server.crt");
        std::fs::copy(from, &own).expect("a certificate is there");
        pair.as_root(0, &["chown", "postgres:", own.to_str().expect("ASCII")]);
    };
    // libpq knows a host by its address in a certificate from 15 on
    let verify = if pair.read(0, "PG_VERSION").trim().parse::<u32>().expect("a version") < 15 {
        "verify-ca"
    } else {
        "verify-full"
    };
    let line = |mode: &str| {
        let line = format!("primary_conninfo = 'sslmode={mode} sslrootcert={}'\n", own.display());
        pair.append(0, "postgresql.conf", &line);
    };
    let refused = || {
        let planned = pair.mc(0, &["rebuild", "--dry-run"]);
        assert!(planned.code != 0 && planned.text().contains("invalid peer certificate"), "{}", planned.text());
    };
    trust(0);
    // as libpq: where there are root certificates, the server's is verified
    line("require");
    refused();
    line(verify);
    refused();
    certify(1, "192.0.2.1");
    pair.sql(1, "SELECT pg_reload_conf()");
    trust(1);
    if verify == "verify-full" {
        refused();
    }
    certify(1, pair.servers[1].replication_address);
    pair.sql(1, "SELECT pg_reload_conf()");
    trust(1);
    pair.rebuild(0, &[]);
    assert!(pair.sql(0, "SHOW primary_conninfo").contains(&format!("sslmode={verify}")));
}

/// `rebuild_action = auto`: the same after a crash, with no command at all.
#[test]
fn by_itself() {
    let pair = Setup::default().conf("rebuild_action = auto").up();
    let client = pair.client(Style::OneSession);
    pair.crash_with_more(0);
    wait_for("the standby is promoted", s(20), || {
        (pair.try_sql(1, "SELECT pg_is_in_recovery()").ok()? == "f").then_some(())
    });
    pair.check_rebuilt(0);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// `rebuild_action = auto`: the new primary rejects the connections of the rebuild. The attempt is repeated, and succeeds without a
/// command once the cause is repaired.
#[test]
fn by_itself_after_a_failure() {
    let pair = Setup::default().conf("rebuild_action = auto").up();
    let client = pair.client(Style::OneSession);
    let reject = "1i host all,replication all 192.0.2.100/32 reject";
    pair.as_root(1, &["sed", "-i", reject, &format!("{}/pg_hba.conf", pair.data(1))]);
    pair.sql(1, "SELECT pg_reload_conf()");
    let at = pair.crash_with_more(0);
    pair.wait_log(0, at, "MCA01046", s(60));
    let (_, retried) = wait_for("another attempt", s(10), || pair.host(0).syslog.find(at, "MCA01181"));
    assert!(retried.contains("(attempt 2 of "), "{retried}");
    assert!(!pair.instance_runs(0));
    pair.as_root(1, &["sed", "-i", "1d", &format!("{}/pg_hba.conf", pair.data(1))]);
    pair.sql(1, "SELECT pg_reload_conf()");
    pair.check_rebuilt(0);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// Without checksums and `wal_log_hints` only a base backup can do; with a tablespace, and `pg_wal` on another disk. The
/// old directory is kept, and the configuration is this server's.
#[test]
fn by_a_base_backup() {
    let setup = Setup { wal_apart: true, ..Setup::default() };
    let pair = setup.pg("wal_log_hints = off").make();
    for n in [0, 1] {
        // which initdb enables since version 18; a failure says that there are none
        pair.host(n).pg("pg_checksums", &["--disable", "-D", pair.data(n)]);
    }
    pair.bring_up();
    let client = pair.client(Style::OneSession);
    let space = pair.tablespace(0);
    pair.append(0, "pg_hba.conf", "# of nd1\n");
    pair.fail_over_from(0);
    let refused = pair.mc(0, &["rebuild", "--yes", "--method", "rewind"]);
    assert!(refused.code == 1 && refused.text().contains("wal_log_hints"), "{}", refused.text());
    let told = pair.rebuild(0, &[]).text();
    assert!(told.contains("pg_basebackup") && told.contains("wal_log_hints"), "{told}");
    assert!(pair.read(0, "pg_hba.conf").contains("# of nd1"));
    assert_eq!(pair.sql(0, "SELECT count(*) FROM in_space"), "10000");
    let wal = std::fs::read_link(pair.servers[0].data.join("pg_wal")).expect("pg_wal is a link still");
    assert!(wal.starts_with(pair.host(0).dir.join("disk")), "{wal:?}");
    let link = std::fs::read_dir(pair.servers[0].data.join("pg_tblspc")).expect("tablespaces").flatten().next();
    let link = std::fs::read_link(link.expect("one").path()).expect("a link");
    assert_eq!(link, space);
    let old =
        pair.beside(0).into_iter().find(|name| name.starts_with("data0.old-")).expect("the old directory is kept");
    let version = std::fs::read_to_string(pair.servers[0].data.with_file_name(&old).join("PG_VERSION"));
    assert_eq!(version.expect("a data directory").trim(), pair.read(0, "PG_VERSION").trim());
    pair.mc(0, &["switch"]).expect(0, "mc_ctl switch");
    pair.wait_switched(1);
    in_a_lower_layer(&pair, 1);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 0, &[0, 1, 0]);
}

/// The data directory comes from the lower layer of an overlay file system, as in the image of a container, and cannot be
/// renamed. That is found before the copy, and the printed commands repair it.
#[track_caller]
fn in_a_lower_layer(pair: &Pair, server: usize) {
    let parent = pair.servers[server].data.parent().and_then(|parent| parent.to_str()).expect("ASCII");
    let layer = "set -e; mkdir $0.layers; mount -t tmpfs none $0.layers; mkdir $0.layers/upper $0.layers/work; \
                 chown --reference=$0 $0.layers/upper; chmod --reference=$0 $0.layers/upper; \
                 mount -t overlay -o lowerdir=$0,upperdir=$0.layers/upper,workdir=$0.layers/work none $0";
    pair.as_root(server, &["sh", "-c", layer, parent]);
    let before = pair.beside(server);
    let rebuild = "mc_ctl rebuild --method basebackup";
    // The data directory, then that of the WAL.
    for _ in 0..2 {
        let dry = pair.mc(server, &["rebuild", "--method", "basebackup", "--dry-run"]);
        assert!(dry.code == 4 && dry.text().contains("lower layer of an overlay file system"), "{}", dry.text());
        let failed = pair.paste(server, rebuild).expect(1, rebuild);
        assert!(!failed.err.contains("copying the data directory"), "{}", failed.text());
        assert_eq!(pair.beside(server), before, "something was left behind");
        let hint = failed.err.lines().find(|line| line.contains("lower layer")).unwrap_or_default();
        let command = commands(hint).into_iter().find(|line| line.starts_with("mv "));
        let command = command.unwrap_or_else(|| panic!("no command in {}", failed.text()));
        pair.paste(server, &command).expect(0, &command);
    }
    pair.mc(server, &["rebuild", "--method", "basebackup", "--dry-run"]).expect(0, "mc_ctl rebuild --dry-run");
    pair.paste(server, rebuild).expect(0, rebuild);
}

/// The first standby (the guide's chapter 3.4): an empty data directory, and one command on its host.
#[test]
fn the_first_standby() {
    let pair = Setup::default().pg("unix_socket_directories = '/dev/shm'").make();
    pair.as_root(1, &["sh", "-c", "rm -rf \"$0\"/* \"$0\"/.??*", pair.data(1)]);
    pair.start(0, &["-f"]);
    let client = pair.client(Style::OneSession);
    let planned = pair.mc(1, &["rebuild", "--dry-run"]).expect(0, "mc_ctl rebuild --dry-run").text();
    assert!(planned.contains("pg_basebackup"), "{planned}");
    pair.rebuild(1, &[]);
    pair.mc(1, &["switch"]).expect(0, "mc_ctl switch");
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// What is refused, each with its reason; what an impatient operator types meanwhile; and a stop in the middle, after
/// which the next start continues, and the command that waits for it with it.
#[test]
fn refusals_and_a_stop() {
    let pair = Setup::default().fast_network().conf("heartbeat_error_action = message").up();
    let client = pair.client(Style::OneSession);
    let refused = |server: usize, reason: &str| {
        let text = pair.mc(server, &["rebuild", "--yes"]).expect(4, &format!("mc_ctl rebuild ({reason})")).text();
        assert!(text.contains(reason), "{reason:?} is not in: {text}");
    };
    refused(0, "primary");
    refused(1, "standby");
    pair.fail_over_from(0);
    refused(1, "right to run");
    pair.net.cut_between(0, 1);
    wait_for("the other server is missed", s(10), || (pair.status(0)?.rows[1].host == "abnormal").then_some(()));
    refused(0, "does not respond");
    pair.net.heal_between(0, 1);
    pair.wait_switched(0);

    let mut first =
        pair.mc_command(0, &["rebuild", "--yes", "--method", "basebackup"]).spawn().expect("could not start");
    pair.freeze_program(0, "pg_basebackup");
    let second = pair.mc(0, &["rebuild", "--yes", "-t", "1"]).expect(5, "a second mc_ctl rebuild meanwhile");
    assert!(second.text().contains("already in progress"), "{}", second.text());
    let stopped = pair.mc(0, &["stop"]).expect(0, "mc_ctl stop during a rebuild");
    assert!(stopped.took < s(10), "mc_ctl stop took {:?}", stopped.took);
    assert!(
        pair.rebuilders(0).iter().all(|p| p.pid == first.id() || p.command.contains("rebuild")),
        "processes are left"
    );
    pair.mc(0, &["start", "-w", "-f"]);
    pair.check_rebuilt(0);
    let code = wait_for("mc_ctl rebuild returns", s(10), || first.try_wait().expect("could not wait")).code();
    assert_eq!(code, Some(0));
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// Not enough room for a second copy: refused with the numbers, nothing is changed; with `--old-data delete` there is
/// enough.
#[test]
fn not_enough_room() {
    let pair = Setup { small_disk_mib: Some(200), ..Setup::default() }.up();
    let client = pair.client(Style::OneSession);
    pair.fail_over_from(0);
    let ballast = pair.servers[0].data.with_file_name("ballast");
    let fill =
        "dd if=/dev/zero of=$0 bs=1M count=$(($(df -m --output=avail $(dirname $0) | tail -1) - 15)) 2>/dev/null";
    pair.as_root(0, &["sh", "-c", fill, ballast.to_str().expect("ASCII")]);
    let before = pair.beside(0);
    let refused = pair.mc(0, &["rebuild", "--yes", "--method", "basebackup"]);
    assert!(refused.code == 1 || refused.code == 4, "exit code {}: {}", refused.code, refused.text());
    for text in ["free", "--old-data delete", pair.servers[0].data.parent().and_then(|p| p.to_str()).expect("ASCII")] {
        assert!(refused.text().contains(text), "{text:?} is not in: {}", refused.text());
    }
    assert_eq!(pair.beside(0), before, "something was left behind");
    pair.wait_switched(0);
    pair.rebuild(0, &["--method", "basebackup", "--old-data", "delete"]);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// `--dry-run` shows what is needed and free on the filesystem that would be filled, also where `pg_rewind` cannot report the
/// size yet because the data directory has to recover from a crash first. A full filesystem is an obstacle.
#[test]
fn dry_run_shows_disk_space() {
    let pair = Setup { small_disk_mib: Some(200), ..Setup::default() }.up();
    pair.fail_over_from(0);
    let dry = || pair.mc(0, &["rebuild", "--dry-run"]);
    let disk = pair.servers[0].data.parent().and_then(|p| p.to_str()).expect("ASCII");
    let begins = format!("disk space: {disk}");
    let line = |out: &str| out.lines().find(|line| line.starts_with(&begins)).map(str::to_owned);
    let fits = dry().expect(0, "mc_ctl rebuild --dry-run").out;
    let shown = line(&fits).unwrap_or_else(|| panic!("no disk space in:\n{fits}"));
    for part in ["at least ", " needed, ", " free"] {
        assert!(shown.contains(part), "{shown}");
    }
    let fill = "dd if=/dev/zero of=$0/ballast bs=1M count=$(($(df -m --output=avail $0 | tail -1) - 2)) 2>/dev/null";
    pair.as_root(0, &["sh", "-c", fill, disk]);
    let full = dry().expect(4, "mc_ctl rebuild --dry-run on a full disk").out;
    let shown = line(&full).unwrap_or_else(|| panic!("no disk space in:\n{full}"));
    assert!(shown.contains("not enough, the rebuild would fail"), "{full}");
    pair.as_root(0, &["rm", &format!("{disk}/ballast")]);
    pair.rebuild(0, &[]);
}

/// The source dies in the middle, of a rewind and of a copy: a clear failure each time, the directory does not start, the
/// source serves again by itself, and the next rebuild succeeds.
#[test]
fn the_source_dies() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    pair.fail_over_from(0);
    let begin = Instant::now();
    for (method, program) in [("rewind", "pg_rewind"), ("basebackup", "pg_basebackup")] {
        let command = pair.mc_command(0, &["rebuild", "--yes", "--method", method]);
        let answer = std::thread::scope(|scope| {
            let command = scope.spawn(|| run(command, s(60)));
            let frozen = pair.freeze_program(0, program);
            let at = pair.kill_postmaster(1);
            crate::harness::host::signal(frozen.pid, rustix::process::Signal::CONT);
            client.wait_ack(at, s(20));
            command.join().expect("mc_ctl rebuild returns")
        });
        let answer = answer.expect(1, &format!("mc_ctl rebuild --method {method} from a source that dies"));
        assert!(answer.text().contains(program), "{}", answer.text());
        assert!(!pair.instance_runs(0));
        pair.start_behind_the_controller(0);
    }
    pair.run_explained(0, begin, 1046);
    pair.check_rebuilt(0);
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}

/// Both servers lose power after a switch. Whichever returns first: the old primary alone does not serve, the new one
/// does, and the pair is mirrored again by one command.
#[test]
fn power_lost_after_a_switch() {
    let mut pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    for (loser, first) in [(0, 0), (1, 0)] {
        pair.fail_over_from(loser);
        for n in [0, 1] {
            pair.host_mut(n).power_off();
        }
        pair.host_mut(first).boot();
        pair.mc(first, &["start", "-w", "-t", "8", "-f"]).expect(if first == loser { 4 } else { 0 }, "mc_ctl start");
        let runs = pair.try_sql(first, "SELECT pg_is_in_recovery()");
        assert_eq!(runs.as_deref() == Ok("f"), first != loser, "{runs:?}");
        pair.host_mut(1 - first).boot();
        pair.mc(1 - first, &["start", "-w", "-t", "20", "-f"]);
        pair.wait_switched(loser);
        pair.rebuild(loser, &[]);
        client.wait_ack(Instant::now(), s(10));
    }
    client.check(&pair, 0, &[0, 1, 0]);
}

/// Both lose power while mirrored, and only the standby returns (the guide's 5.4): it does not serve by itself, and does
/// when it is forced to. The old primary, back at last, is rebuilt; what it had is told as such that may have been
/// acknowledged.
#[test]
fn power_lost_and_one_returns() {
    let mut pair = Setup::default().conf("heartbeat_error_action = switch").up();
    let client = pair.client(Style::OneSession);
    pair.crash_with_more(0);
    for n in [0, 1] {
        pair.host_mut(n).power_off();
    }
    pair.host_mut(1).boot();
    pair.mc(1, &["start", "-w", "-t", "8", "-f"]);
    assert_ne!(pair.try_sql(1, "SELECT pg_is_in_recovery()").as_deref(), Ok("f"), "a standby that never heard");
    // Refused until the instance, whose start the command above may not have waited for, runs as a standby.
    wait_for("mc_ctl switch --force is accepted", s(60), || {
        let answer = pair.mc(1, &["switch", "--force", "--yes"]);
        assert!([0, 4].contains(&answer.code), "mc_ctl switch --force: {}", answer.text());
        (answer.code == 0).then_some(())
    });
    client.wait_ack_of(&[1], Instant::now(), s(10));
    pair.host_mut(0).boot();
    pair.mc(0, &["start", "-w", "-t", "20", "-f"]).expect(4, "start of the old primary");
    pair.wait_switched(0);
    pair.rebuild(0, &[]);
    let history = pair.mc(0, &["history"]).expect(0, "mc_ctl history").out;
    assert!(history.contains("may have been acknowledged"), "{history}");
    client.wait_ack(Instant::now(), s(10));
    client.check(&pair, 1, &[0, 1]);
}
