//! `mc_ctl check` on real servers: what it tells of the machines, of the way between the members, and of the other server.

use crate::check::Report;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, new_key, write_private};
use crate::harness::{s, wait_for};
use rustix::process::Signal;
use std::time::Instant;

/// What `mc_ctl check --format json` tells on the server.
fn check(pair: &Pair, server: usize) -> Report {
    Report::of(&pair.mc(server, &["check", "--format", "json", "-t", "30"]))
}

/// Whether one of a code is there, on this member, whose text has all of these words.
fn is_found(told: &Report, code: &str, member: &str, words: &[&str]) -> bool {
    told.findings().iter().any(|found| {
        let text = format!("{} -> {}", found.what, found.fix);
        found.code == code && found.member == member && words.iter().all(|word| text.contains(word))
    })
}

/// The same, which must be so, soon.
#[track_caller]
fn expect(pair: &Pair, server: usize, code: &str, member: &str, words: &[&str]) {
    let begin = Instant::now();
    loop {
        let told = check(pair, server);
        if is_found(&told, code, member, words) {
            return;
        }
        assert!(begin.elapsed() < s(60), "no {code} of {member} with {words:?} in:\n{:#}", told.json);
    }
}

/// None of these, soon.
#[track_caller]
fn expect_none(pair: &Pair, server: usize, codes: &[&str]) {
    let begin = Instant::now();
    loop {
        let told = check(pair, server);
        if !told.findings().iter().any(|found| codes.contains(&found.code.as_str())) {
            return;
        }
        assert!(begin.elapsed() < s(60), "some of {codes:?} in:\n{:#}", told.json);
    }
}

/// Both servers are seen from either, and how quickly they answer is shown; then, one after the other: the arbiter dies, the
/// other controller dies, and this server's.
#[test]
fn who_is_heard() {
    let pair = Setup::default().arbiter().up();
    for n in [0, 1] {
        // each is measured soon after the start
        wait_for("everything is measured", s(60), || {
            let told = check(&pair, n).json;
            assert_eq!(told["seen"].as_array().map(Vec::len), Some(2), "{told:#}");
            let rows = told["pace"].as_array().expect("rows");
            let is_measured = |row| {
                let of =
                    |id| rows.iter().find(|r| r["server_id"] == id && r["of"] == row).and_then(|r| r["count"].as_u64());
                of("nd1") > Some(0) && of("nd2") > Some(0)
            };
            let all = ["heartbeats", "arbiter", "instance", "instance, fresh session", "disk"];
            all.into_iter().all(is_measured).then_some(())
        });
    }
    let text = pair.mc(0, &["check"]).out;
    assert!(text.contains("heartbeats") && text.contains("detection"), "{text}");
    expect_none(&pair, 0, &["peer-no-heartbeat", "peer-not-seen", "arbiter-no-heartbeat", "connection-rejected"]);

    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    expect(&pair, 0, "arbiter-no-heartbeat", "arb", &["\"nd1\" receives no heartbeats", "mc_arb start"]);
    expect(&pair, 0, "arbiter-no-heartbeat", "arb", &["\"nd2\" receives no heartbeats", "mc_arb start"]);
    pair.start_arbiter();
    expect_none(&pair, 0, &["arbiter-no-heartbeat"]);

    pair.mc(1, &["stop", "--mc-only"]).expect(0, "mc_ctl stop");
    expect(&pair, 0, "peer-no-heartbeat", "nd2", &["refuses connections", "mc_ctl start"]);
    let told = check(&pair, 1);
    assert!(is_found(&told, "peer-not-seen", "nd2", &["is not running"]), "{:#}", told.json);
    assert!(is_found(&told, "controller-down", "nd2", &["is not running", "mc_ctl start -f"]), "{:#}", told.json);
    assert_eq!(told.json["seen"].as_array().map(Vec::len), Some(1), "{:#}", told.json);
    // Nor can it be started.
    let key = pair.servers[1].management.join("mc.key");
    let good = std::fs::read_to_string(&key).expect("could not read");
    write_private(&key, &new_key());
    pair.mc(1, &["start", "--mc-only", "-f"]).expect(1, "mc_ctl start with another key");
    let told = check(&pair, 1);
    assert!(
        is_found(&told, "controller-down", "nd2", &["arbiter \"arb\" is not reached", "mc.key"]),
        "{:#}",
        told.json
    );
    write_private(&key, &good);
    pair.mc(1, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start");
    expect_none(&pair, 1, &["controller-down"]);
}

/// Both servers report a member that has another key, with the fix.
#[test]
fn another_key() {
    let pair = Setup::default().up();
    pair.mc(1, &["stop", "--mc-only"]).expect(0, "mc_ctl stop");
    write_private(&pair.servers[1].management.join("mc.key"), &new_key());
    pair.mc(1, &["start", "--mc-only", "-W"]).expect(0, "mc_ctl start");
    expect(&pair, 0, "connection-rejected", "nd1", &["192.0.2.110", "mc.key"]);
    expect(&pair, 0, "peer-no-heartbeat", "nd2", &["copy the correct mc.key"]);
    // Corrected, it is not a stranger any more.
    let good = std::fs::read_to_string(pair.servers[0].management.join("mc.key")).expect("could not read");
    write_private(&pair.servers[1].management.join("mc.key"), &good);
    pair.mc(1, &["stop", "--mc-only"]).expect(0, "mc_ctl stop");
    pair.mc(1, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start");
    expect_none(&pair, 0, &["connection-rejected", "peer-no-heartbeat"]);
}

/// A file on the server, given to the administrator user.
fn write(pair: &Pair, server: usize, path: &str, text: &str) {
    let script = "mkdir -p \"$(dirname \"$1\")\" && printf '%s' \"$2\" > \"$1\"";
    pair.as_root(server, &["sh", "-c", script, "sh", path, text]);
}

/// Members that stand still for a while are heard late: a warning with the timeout to set. A controller whose kernel answers,
/// and which itself does not, is told as what was tried. One that is restarted again and again is told of, too.
#[test]
fn late_answers() {
    let lines =
        ["heartbeat_timeout = 4", "arbiter_alive_timeout = 4", "disk_check_timeout = 60", "agent_alive_timeout = 60"];
    let lines = lines.into_iter().chain(["db_instance_check_interval = 100", "db_instance_check_timeout = 3"]);
    let pair = lines.fold(Setup::default().arbiter(), Setup::conf).up();
    expect_none(&pair, 0, &["heartbeat-late", "arbiter-late", "instance-late"]);
    let (controller, arbiter) = (pair.controller(1), pair.arbiters().pop().expect("an arbiter runs"));
    signal(arbiter.pid, Signal::STOP);
    signal(controller.pid, Signal::STOP);
    std::thread::sleep(s(3));
    let told = check(&pair, 0);
    signal(controller.pid, Signal::CONT);
    signal(arbiter.pid, Signal::CONT);
    assert!(is_found(&told, "peer-not-seen", "nd1", &["did not respond"]), "{:#}", told.json);
    // Perhaps that took too long, and it was called silent.
    for n in [0, 1] {
        let one = if n == 0 { pair.controller(1) } else { pair.arbiters().pop().expect("an arbiter runs") };
        std::thread::sleep(s(3));
        signal(one.pid, Signal::STOP);
        std::thread::sleep(s(3));
        signal(one.pid, Signal::CONT);
    }
    expect(&pair, 0, "heartbeat-late", "nd1", &["heartbeat_timeout = '"]);
    expect(&pair, 0, "arbiter-late", "nd1", &["arbiter_alive_timeout = '"]);

    let postmaster = pair.postmaster(1);
    let backends: Vec<_> = pair.host(1).processes().into_iter().filter(|p| p.parent == postmaster.pid).collect();
    let all = || backends.iter().chain([&postmaster]).map(|p| p.pid);
    all().for_each(|pid| signal(pid, Signal::STOP));
    std::thread::sleep(std::time::Duration::from_millis(2200));
    all().for_each(|pid| signal(pid, Signal::CONT));
    expect(&pair, 0, "instance-late", "nd2", &["db_instance_check_timeout = '"]);

    // Found after 182 s, and answered in a few ms.
    wait_for("enough looks", s(200), || {
        is_found(&check(&pair, 0), "detection-slow", "nd1", &["disk_check_timeout"]).then_some(())
    });

    for _ in 0..8 {
        let old = pair.controller(1).pid;
        signal(old, Signal::KILL);
        wait_for("its watcher starts another", s(30), || {
            pair.host(1).controllers().into_iter().find(|p| p.pid != old && p.command.contains("--controller"))
        });
        wait_for("it is heard", s(30), || (!is_found(&check(&pair, 0), "peer-no-heartbeat", "nd2", &[])).then_some(()));
    }
    expect(&pair, 0, "link-unsteady", "nd1", &["the other server"]);
}

/// Files that were changed on one server, and what its next start would find.
#[test]
fn files_that_differ() {
    let pair = Setup::default().up();
    let codes =
        ["network-conf-differs", "key-differs", "error-action-differs", "heartbeat-times-differ", "restart-needed"];
    expect_none(&pair, 0, &codes);
    expect_none(&pair, 0, &["refused-configuration", "versions-differ", "clock-offset", "name-differs", "shared-host"]);
    // A parameter that can change while the controller runs.
    pair.server_line(1, "remote_call_timeout = 60000");
    expect(&pair, 0, "restart-needed", "nd2", &["nd2.conf", "mc_ctl reload"]);
    pair.mc(1, &["reload"]).expect(0, "mc_ctl reload");
    expect_none(&pair, 0, &["restart-needed"]);
    let directory = &pair.servers[1].management;
    let network = std::fs::read_to_string(directory.join("network.conf")).expect("network.conf");
    write_private(&directory.join("network.conf"), &network.replace("nd2 192.0.2.110 27540", "nd2 192.0.2.110 27549"));
    write_private(&directory.join("mc.key"), &new_key());
    pair.server_line(1, "heartbeat_error_action = 'disconnect'");
    pair.server_line(1, "heartbeat_retry = 5");
    let words: [&[&str]; 4] = [&["nd1", "nd2"], &["mc.key"], &["'fallback'", "'disconnect'"], &["800 ms, 1000 ms, 5"]];
    for (code, words) in codes.into_iter().zip(words) {
        expect(&pair, 0, code, "", words);
    }
    for (file, fix) in [("network.conf", "--mc-only"), ("mc.key", "--mc-only"), ("nd2.conf", "mc_ctl reload")] {
        expect(&pair, 0, "restart-needed", "nd2", &[file, fix]);
    }
    let key = directory.join("mc.key");
    pair.as_root(1, &["chmod", "644", key.to_str().expect("ASCII")]);
    expect(&pair, 0, "refused-configuration", "nd2", &["mode 0644", "chmod 600"]);
}

/// Members of other versions, one of which does not know the question; a clock that is wrong, and a slow disk.
#[test]
fn other_versions_and_clocks() {
    let pair = Setup::default().conf("disk_check_timeout = 4").arbiter().make();
    let old = super::harness::root().join("old");
    std::fs::create_dir_all(&old).expect("could not create a directory");
    for (program, words) in [("mc_ctl", "s/0[.]1[.]0/0.0.9/g"), ("mc_arb", "s/Inspect/Inspekt/g")] {
        let path = super::harness::pair::program().with_file_name(program);
        let from =
            if path.exists() { path } else { super::harness::pair::readable(env!("CARGO_BIN_EXE_mc_arb").as_ref()) };
        let to = old.join(program);
        let edit = "LC_ALL=C sed \"$1\" \"$2\" > \"$3.new\" && chmod 755 \"$3.new\" && mv \"$3.new\" \"$3\"";
        super::harness::run::must("sh", &["-c", edit, "sh", words, path_of(&from), path_of(&to)]);
    }
    // A disk on which each probe takes 2.5 s, and a clock that is 5 s ahead.
    let shim = "#define _GNU_SOURCE\n#include <string.h>\n#include <stdio.h>\n#include <time.h>\n#include <unistd.h>\n\
        #include <sys/syscall.h>\n\
        int clock_gettime(clockid_t c, struct timespec *t) {\n\
        int r = syscall(SYS_clock_gettime, c, t); if (c == CLOCK_REALTIME) t->tv_sec += 5; return r; }\n\
        int fsync(int fd) { char link[64], name[4096]; snprintf(link, sizeof link, \"/proc/self/fd/%d\", fd);\n\
        ssize_t n = readlink(link, name, sizeof name - 1); if (n > 0) { name[n] = 0;\n\
        if (strstr(name, \"pgsql_tmp_mirroring\")) usleep(2500000); } return syscall(SYS_fsync, fd); }\n";
    let (source, library) = (old.join("shim.c"), old.join("shim.so"));
    std::fs::write(&source, shim).expect("could not write");
    super::harness::run::must("cc", &["-shared", "-fPIC", "-O1", "-o", path_of(&library), path_of(&source)]);
    let preload = format!("LD_PRELOAD={}", library.display());

    let mut command = pair.third().admin(path_of(&old.join("mc_arb")));
    command.args(["start", "-w", "-M"]).arg(pair.arbiter_dir());
    super::harness::run::run(command, s(60)).expect(0, "mc_arb start");
    pair.start(0, &["-f"]);
    let mut command = pair.host(1).admin("env");
    command.arg(&preload).arg(old.join("mc_ctl")).args(["start", "-w", "-f", "-M"]).arg(&pair.servers[1].management);
    super::harness::run::run(command, s(120)).expect(0, "mc_ctl start");
    pair.wait_word(0, "switchable");

    expect(&pair, 0, "versions-differ", "nd2", &["0.0.9"]);
    expect(&pair, 0, "versions-differ", "arb", &["does not report its version"]);
    expect(&pair, 0, "clock-offset", "nd2", &["ahead of \"nd1\"", "chronyc"]);
    expect(&pair, 0, "disk-late", "nd2", &["disk_check_timeout = '"]);
}

fn path_of(path: &std::path::Path) -> &str {
    path.to_str().expect("ASCII")
}

/// What a host is like: names, ports, programs, disks, and what its service managers do.
#[test]
fn the_host() {
    let pair = Setup { small_disk_mib: Some(200), ..Setup::default() }.up();
    let data = pair.data(0).to_owned();
    let root = |script: &str| pair.as_root(0, &["sh", "-c", script]);
    let none =
        ["autostart", "unit-kill-mode", "unit-restart", "remove-ipc", "name-unresolved", "name-differs", "shared-host"];
    // What the machine of the tests itself has is hidden.
    let rc = ["/etc/rc2.d", "/etc/rc3.d", "/etc/rc4.d", "/etc/rc5.d"];
    for dir in ["/etc/systemd", "/etc/postgresql", "/usr/lib/systemd"].into_iter().chain(rc) {
        root(&format!("[ ! -d {dir} ] || mount -t tmpfs none {dir}"));
    }
    expect_none(&pair, 0, &none);
    expect_none(
        &pair,
        0,
        &["instance-port", "tool-missing", "tool-version", "rebuild-prevented", "disk-not-readable", "backup-space"],
    );

    // The disk is in memory, and small.
    expect(&pair, 0, "unsuitable-file-system", "nd1", &["data directory", "tmpfs"]);
    expect(&pair, 0, "disk-space", "nd1", &["pg_wal", "max_wal_size is 1.0 GB"]);
    let disk = format!("{data}/..");
    root(&format!("dd if=/dev/zero of={disk}/filler bs=1M count=100 2>/dev/null"));
    expect(&pair, 0, "backup-space", "nd1", &["--old-data delete"]);
    root(&format!("dd if=/dev/zero of={disk}/filler bs=1M 2>/dev/null; true"));
    expect(&pair, 0, "disk-full", "nd1", &["pg_wal", "the next write needs 16 MB"]);
    root(&format!("rm {disk}/filler; chmod 555 {disk}"));
    expect(&pair, 0, "rebuild-prevented", "nd1", &["chown"]);
    root(&format!("chmod 755 {disk}; mkdir {data}/extra && mount -t tmpfs none {data}/extra"));
    expect(&pair, 0, "rebuild-prevented", "nd1", &["extra"]);
    root(&format!("umount {data}/extra && rmdir {data}/extra"));
    expect_none(&pair, 0, &["rebuild-prevented"]);

    root("echo 5000 60999 > /proc/sys/net/ipv4/ip_local_port_range");
    expect(&pair, 0, "instance-port", "nd1", &["port 5432", "ip_local_reserved_ports"]);
    root("echo 5432 > /proc/sys/net/ipv4/ip_local_reserved_ports");
    expect_none(&pair, 0, &["instance-port"]);

    root("echo 0 > /tmp/.overcommit && mount --bind /tmp/.overcommit /proc/sys/vm/overcommit_memory");
    std::fs::write(format!("/proc/{}/oom_score_adj", pair.postmaster(0).pid), "0").expect("could not write");
    expect(&pair, 0, "oom-killer", "nd1", &["OOMScoreAdjust"]);

    services(&pair, &data);
    names_and_tools(&pair);

    // A disk that does not answer, on a server whose controller and instance are down.
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.as_root(1, &["mv", &format!("{}/pg_wal", pair.data(1)), &format!("{}/pg_wal.away", pair.data(1))]);
    expect(&pair, 1, "disk-not-readable", "nd2", &["pg_wal", "findmnt"]);
}

fn services(pair: &Pair, data: &str) {
    let root = |script: &str| pair.as_root(0, &["sh", "-c", script]);
    // Debian's way: start.conf counts only where the service that reads it is enabled.
    root("[ -d /etc/postgresql ] || mkdir /etc/postgresql");
    write(pair, 0, "/etc/postgresql/15/main/postgresql.conf", &format!("data_directory = '{data}'\n"));
    write(pair, 0, "/etc/postgresql/15/main/start.conf", "# how\nauto\n");
    expect_none(pair, 0, &["autostart"]);
    let wants = "/etc/systemd/system/multi-user.target.wants";
    root(&format!("mkdir -p {wants} && ln -s /lib/systemd/system/postgresql.service {wants}/"));
    expect(pair, 0, "autostart", "nd1", &["15/main", "echo manual > /etc/postgresql/15/main/start.conf"]);
    root("echo manual > /etc/postgresql/15/main/start.conf");
    expect_none(pair, 0, &["autostart"]);

    // The template's instance, a unit of one's own, and an rc script.
    root(&format!("ln -s /lib/systemd/system/postgresql@.service {wants}/postgresql@15-main.service"));
    expect(pair, 0, "autostart", "nd1", &["systemctl disable postgresql@15-main.service"]);
    let unit = format!("[Service]\nEnvironment=PGDATA={data}\nExecStart=/usr/bin/pg_ctl start\n");
    write(pair, 0, "/etc/systemd/system/pg.service", &unit);
    root(&format!("rm {wants}/*; ln -s ../pg.service {wants}/"));
    expect(pair, 0, "autostart", "nd1", &["systemctl disable pg.service"]);
    root(&format!("rm {wants}/*; mkdir -p /etc/rc3.d"));
    expect_none(pair, 0, &["autostart"]);
    write(pair, 0, "/etc/rc3.d/S05pg", &format!("#!/bin/sh\npg_ctl -D {data} start\n"));
    expect(pair, 0, "autostart", "nd1", &["update-rc.d S05pg disable"]);

    let directory = pair.servers[0].management.display().to_string();
    let unit = |more: &str| {
        format!("[Service]\nEnvironment=MCCONTROLDIR={directory}\nExecStart=/usr/bin/mc_ctl start --foreground\n{more}")
    };
    write(pair, 0, "/etc/systemd/system/mc.service", &unit("KillMode=mixed\n"));
    expect(pair, 0, "unit-kill-mode", "nd1", &["\"mc.service\"", "is mixed", "KillMode=process"]);
    expect(pair, 0, "unit-restart", "nd1", &["Restart=on-failure"]);
    // What a drop-in says counts.
    let drop_in = "[Service]\nKillMode=process\nRestart=on-failure\n";
    write(pair, 0, "/etc/systemd/system/mc.service.d/override.conf", drop_in);
    expect_none(pair, 0, &["unit-kill-mode", "unit-restart"]);
    let other = unit("").replace(&directory, "/another/mc");
    write(pair, 0, "/etc/systemd/system/other.service", &other);
    expect_none(pair, 0, &["unit-kill-mode", "unit-restart"]);

    // systemd runs, and nothing starts the controller at boot: a unit that is not enabled does not, nor does one of another pair.
    root("mkdir -p /run/systemd && mount -t tmpfs none /run/systemd");
    expect_none(pair, 0, &["not-started-at-boot"]);
    root("mkdir /run/systemd/system");
    root(&format!("rm -f {wants}/* /etc/rc3.d/*; ln -s ../other.service {wants}/"));
    expect(pair, 0, "not-started-at-boot", "nd1", &["systemctl enable mc"]);
    root(&format!("ln -s ../mc.service {wants}/"));
    expect_none(pair, 0, &["not-started-at-boot"]);
    root(&format!(
        "rm {wants}/mc.service; ln -sf /dev/null /etc/systemd/system/masked.service; ln -s ../masked.service {wants}/"
    ));
    expect(pair, 0, "not-started-at-boot", "nd1", &["systemctl enable mc"]);
    write(pair, 0, "/etc/rc3.d/S90mc", &format!("#!/bin/sh\nMCCONTROLDIR={directory}\nmc_ctl start -f\n"));
    expect_none(pair, 0, &["not-started-at-boot"]);
    root("rm /etc/rc3.d/S90mc");
    root("mkdir -p /etc/cron.d && mount -t tmpfs -o mode=755 none /etc/cron.d");
    write(pair, 0, "/etc/cron.d/mc", &format!("@reboot postgres /usr/bin/mc_ctl start -M {directory} -f\n"));
    expect_none(pair, 0, &["not-started-at-boot"]);
    root("rm /etc/cron.d/mc");
    expect(pair, 0, "not-started-at-boot", "nd1", &["mirroring-controller.rc"]);

    // The user postgres is no system user any more.
    root("mkdir -p /usr/lib/systemd; touch /usr/lib/systemd/systemd-logind");
    root("echo 'SYS_UID_MAX 1' > /tmp/.login && mount --bind /tmp/.login /etc/login.defs");
    expect(pair, 0, "remove-ipc", "nd1", &["not set", "RemoveIPC=no"]);
    write(pair, 0, "/etc/systemd/logind.conf.d/ipc.conf", "[Login]\nRemoveIPC=no\n");
    expect_none(pair, 0, &["remove-ipc"]);
}

fn names_and_tools(pair: &Pair) {
    // Programs: one is missing, one is of another version.
    let bin = pair.host(0).dir.join("bin").display().to_string();
    let script = format!(
        "mkdir {bin}; ln -s {}/* {bin}/; rm {bin}/pg_rewind {bin}/pg_basebackup; \
         printf '#!/bin/sh\\necho \"pg_basebackup (PostgreSQL) 12.9\"\\n' > {bin}/pg_basebackup; chmod 755 {bin}/pg_basebackup",
        super::harness::bin_dir().display()
    );
    pair.as_root(0, &["sh", "-c", &script]);
    pair.server_line(0, &format!("bin_dir = '{bin}'"));
    expect(pair, 0, "tool-missing", "nd1", &["pg_rewind", "install"]);
    expect(pair, 0, "tool-version", "nd1", &["pg_basebackup", "PostgreSQL 12"]);

    for (n, one) in [(0, "192.0.2.100"), (1, "192.0.2.111")] {
        let arbiter = if n == 0 { "192.0.2.110 db-three\n" } else { "" };
        let hosts = format!("127.0.0.1 localhost\n{one} db-one\n192.0.2.110 db-two\n{arbiter}");
        let file = pair.host(n).dir.join("hosts").display().to_string();
        write(pair, n, &file, &hosts);
        pair.as_root(n, &["mount", "--bind", &file, "/etc/hosts"]);
        let network = "nd1 db-one 27540\nnd2 db-two 27540\narb db-three 27541 arbiter\n";
        write_private(&pair.servers[n].management.join("network.conf"), network);
    }
    expect(pair, 0, "name-unresolved", "nd2", &["db-three"]);
    expect(pair, 0, "name-differs", "", &["192.0.2.100 on \"nd1\"", "192.0.2.111 on \"nd2\""]);
    expect(pair, 0, "shared-host", "", &["\"nd2\" and \"arb\"", "192.0.2.110"]);
}

/// A wrong port for the other server in `network.conf` of one server: its controller cannot connect, and the check reports that
/// on both servers.
#[test]
fn a_wrong_port_on_one_side() {
    let pair = Setup::default().conf("heartbeat_error_action = switch").up();
    expect_none(&pair, 0, &["peer-no-heartbeat"]);
    expect(&pair, 0, "isolated-primary-waits", "nd2", &["isolated_primary_action = 'stop'"]);
    let text = pair.mc(0, &["check"]).out;
    assert!(text.contains("NOTICE isolated-primary-waits nd1, nd2: "), "{text}");
    let path = pair.servers[0].management.join("network.conf");
    let network = std::fs::read_to_string(&path).expect("network.conf");
    pair.mc(0, &["stop", "--mc-only"]).expect(0, "mc_ctl stop");
    write_private(&path, &network.replace("nd2 192.0.2.110 27540", "nd2 192.0.2.110 27549"));
    pair.mc(0, &["start", "--mc-only", "-W"]).expect(0, "mc_ctl start");
    expect(&pair, 0, "peer-no-heartbeat", "nd2", &["receives heartbeats", "cannot connect", "27549", "network.conf"]);
    expect(&pair, 1, "peer-no-heartbeat", "nd1", &["receives no heartbeats"]);
}
