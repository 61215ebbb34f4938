//! Messages of type ERROR and above that no other case provokes, and the command that "mc_ctl explain" names for each, run as an
//! operator pastes it. `tests/remedies.txt` has the list.

use crate::harness::client::Style;
use crate::harness::host::signal;
use crate::harness::pair::{Pair, Setup, own};
use crate::harness::run::{must, run};
use crate::harness::systemd::control_groups;
use crate::harness::{bin_dir, s, wait_for};
use crate::password::guarded;
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Replaces the data directory of a server that is down by a new cluster. Its configuration files remain.
fn initialize(pair: &Pair, server: usize) {
    let script = "cd / && setpriv --reuid postgres --regid postgres --clear-groups \"$1/initdb\" -D \"$0.new\" -A trust -U postgres -N \
                  >/dev/null && cp -p \"$0/postgresql.conf\" \"$0/pg_hba.conf\" \"$0.new\" && rm -rf \"$0\" && mv \"$0.new\" \"$0\"";
    pair.as_root(server, &["sh", "-c", script, pair.data(server), bin_dir().to_str().expect("ASCII")]);
}

/// The system identifier that the arbiter has recorded.
fn recorded(pair: &Pair) -> String {
    let run = pair.arbiter_dir().join("run");
    let entries = std::fs::read_dir(&run).expect("could not read the run directory").flatten();
    let mut found = entries.filter(|entry| entry.path().join("ledger").exists());
    let found = found.next().expect("the arbiter has a ledger").file_name();
    found.into_string().expect("a number")
}

/// A server that was stopped. The output of the status, which finds no controller, names the command.
#[test]
fn a_stopped_controller() {
    let pair = Setup::default().up();
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.run_hinted(1, "mc_ctl start");
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
}

/// The standby's instance is killed after each start. It stays down until the operator starts it.
#[test]
fn an_instance_that_does_not_stay_up() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let at = Instant::now();
    wait_for("MCA01020", s(60), || {
        if let Some(process) = pair.host(1).postmaster(&pair.servers[1].data) {
            signal(process.pid, Signal::KILL);
        }
        pair.host(1).syslog.find(at, "(MCA01020)")
    });
    assert!(!pair.instance_runs(1), "the instance does not stay down");
    let status = pair.mc(1, &["status"]).err;
    assert!(status.contains("did not stay up"), "{status}");
    pair.run_explained(1, at, 1020);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// The second server has a cluster of its own. Its controller reports it, and a rebuild makes that server the standby. The
/// first server's controller reports it only if it receives a heartbeat before the second server has heard from the first.
#[test]
fn another_cluster_on_the_second_server() {
    let pair = Setup::default().make();
    initialize(&pair, 1);
    pair.start(0, &["-f"]);
    let at = Instant::now();
    let refused = pair.mc(1, &["start", "-f", "-t", "20"]).expect(4, "the start of another cluster").text();
    assert!(refused.contains("belongs to another cluster"), "{refused}");
    pair.run_explained(1, at, 1029);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
}

/// The pair is initialized again beside an arbiter that records the former cluster.
#[test]
fn the_arbiter_records_the_former_cluster() {
    let pair = Setup::default().arbiter().fast_network().up();
    let former = recorded(&pair);
    pair.mc(0, &["stop", "-a"]).expect(0, "mc_ctl stop -a");
    initialize(&pair, 0);
    for n in [0, 1] {
        pair.as_root(n, &["rm", "-r", pair.run_dir(n).to_str().expect("ASCII")]);
    }
    let at = Instant::now();
    let refused =
        pair.mc(0, &["start", "-f", "-t", "10"]).expect(4, "a start beside an arbiter of another cluster").text();
    pair.wait_log(0, at, "(MCA01220)", s(20));
    wait_for("MCA01136", s(20), || pair.third().syslog.find(at, "(MCA01136)"));
    let line = pair.explained(0, 1220).replace("IDENTIFIER", &former);
    assert_eq!(pair.explained(0, 1136).replace("IDENTIFIER", &former), line);
    assert!(refused.contains(&line), "{line:?} is not in {refused}");
    pair.paste_to_arbiter(&line).expect(0, &line);
    wait_for("the new pair starts", s(30), || (pair.mc(0, &["start", "-f"]).code == 0).then_some(()));
    pair.rebuild(1, &[]);
    pair.wait_arbiter_named();
    assert_ne!(recorded(&pair), former);
}

/// The arbiter's process is stopped. Its watcher starts another one.
#[test]
fn an_arbiter_that_does_not_respond() {
    let pair = Setup::default().arbiter().fast_network().up();
    let view = pair.ledger_of(0);
    let old = pair.arbiters().pop().expect("an arbiter runs");
    let at = Instant::now();
    signal(old.pid, Signal::STOP);
    wait_for("MCA01133", s(60), || pair.third().syslog.find(at, "(MCA01133)"));
    wait_for("another arbiter", s(20), || pair.arbiters().pop().filter(|process| process.pid != old.pid));
    let line = pair.explained(0, 1133);
    wait_for(&line, s(20), || (pair.paste_to_arbiter(&line).code == 0).then_some(()));
    for n in [0, 1] {
        wait_for("the arbiter is online", s(20), || (pair.arbiter_status(n)? == "online").then_some(()));
    }
    assert_eq!(pair.ledger_of(0), view, "the view has changed");
}

/// No process can write to the standby's data directory by its path: a read-only mount covers it. The disk counts as failed.
#[test]
fn a_disk_that_rejects_writes() {
    let pair = Setup::default().up();
    let client = pair.client(Style::OneSession);
    let data = pair.data(1);
    let at = Instant::now();
    pair.as_root(1, &["sh", "-c", "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"", data]);
    pair.wait_log(1, at, "(MCA01006)", s(60));
    let shown = pair.run_explained(1, at, 1006).text();
    assert!(shown.contains("abnormal(data"), "{shown}");
    client.wait_ack(Instant::now(), s(20));
    pair.as_root(1, &["umount", data]);
    pair.wait_word(0, "switchable");
    client.check(&pair, 0, &[0]);
}

/// The standby's configuration has an error, and its instance ends: each start fails, with PostgreSQL's own message. The
/// controller starts the instance after the correction.
#[test]
fn a_start_that_postgresql_rejects() {
    let pair = Setup::default().up();
    let file = pair.servers[1].data.join("postgresql.conf");
    let text = std::fs::read_to_string(&file).expect("could not read postgresql.conf");
    pair.append(1, "postgresql.conf", "max_connections = 'many'\n");
    let at = pair.kill_postmaster(1);
    let shown = pair.run_explained(1, at, 1015).text();
    assert!(shown.contains("not-switchable"), "{shown}");
    std::fs::write(&file, text).expect("could not write postgresql.conf");
    own(&file);
    pair.mc(1, &["start"]);
    pair.wait_word(0, "switchable");
}

/// The data directory cannot be read when the controller starts.
#[test]
fn a_data_directory_that_cannot_be_read() {
    let pair = Setup::default().up();
    let data = pair.data(1);
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.as_root(1, &["mv", &format!("{data}/PG_VERSION"), &format!("{data}/PG_VERSION.kept")]);
    let control = [format!("{data}/global/pg_control"), format!("{data}/global/pg_control.kept")];
    pair.as_root(1, &["mv", &control[0], &control[1]]);
    pair.as_root(1, &["mv", &format!("{data}/PG_VERSION.kept"), &format!("{data}/PG_VERSION")]);
    let at = Instant::now();
    pair.mc(1, &["start", "--mc-only", "-f"]).expect(0, "mc_ctl start --mc-only");
    pair.run_explained(1, at, 1117);
    pair.as_root(1, &["mv", &control[1], &control[0]]);
    pair.start(1, &["-f"]);
    pair.wait_word(0, "switchable");
}

/// The file system of the management directory is full: the ledger uses the space that is reserved for it, and cannot be written
/// when that is gone too.
#[test]
fn the_management_directory_is_full() {
    let pair = Setup::default().make();
    pair.small_management(0);
    pair.bring_up();
    let at = Instant::now();
    pair.fill_management(0);
    pair.mc(0, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    pair.run_explained(0, at, 1171);
    pair.fill_the_reserve(0);
    let at = Instant::now();
    let failed = pair.mc(0, &["enable-failover"]);
    assert!(failed.code == 1 && failed.err.contains("the ledger cannot be written: free space"), "{}", failed.text());
    pair.run_explained(0, at, 1028);
    pair.empty_management(0);
    pair.wait_word(0, "switchable");
}

/// An operator forces the disconnection on a primary that is cut off, and the arbiter gives the right to the standby. The link
/// between the two servers stays cut, and the arbiter reports it. The printed command stops the server whose commits are not kept.
#[test]
fn forced_while_the_arbiter_decides() {
    let pair = Setup::default().arbiter().fast_network().up();
    let at = Instant::now();
    pair.net.cut(0);
    pair.wait_log(0, at, "(MCA00019)", s(20));
    pair.mc(0, &["detach", "--force", "--yes"]).expect(0, "mc_ctl detach --force");
    pair.wait_log(1, at, "(MCA00062)", s(30));
    pair.net.cut_between(0, 1);
    pair.net.heal(0);
    wait_for("MCA01038", s(30), || [0, 1].iter().find_map(|n| pair.host(*n).syslog.find(at, "(MCA01038)")));
    let line = pair.explained(0, 1038);
    pair.paste(0, &line).expect(0, &line);
    assert!(!pair.instance_runs(0), "the instance still runs");
    pair.net.heal_between(0, 1);
    assert_eq!(pair.sql(1, "SELECT pg_is_in_recovery()"), "f");
}

/// The names were changed while the link was cut, and the data directory was replaced by a copy while both ended. The operator has
/// found that the copy is whole, and adopts it.
#[test]
fn an_exchanged_directory_after_the_names_changed() {
    let pair = Setup::default().up();
    let at = Instant::now();
    pair.net.cut_between(0, 1);
    pair.sql(0, "ALTER SYSTEM SET synchronous_standby_names = ''");
    pair.sql(0, "SELECT pg_reload_conf()");
    pair.wait_log(0, at, "(MCA01023)", s(20));
    pair.sql(0, "CREATE TABLE kept AS SELECT 1 AS n");
    pair.sql(0, "ALTER SYSTEM RESET synchronous_standby_names");
    pair.mc(0, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    pair.kill_postmaster(0);
    let script = "cp -a \"$0\" \"$0.copy\" && rm -r \"$0\" && mv \"$0.copy\" \"$0\" && rm -f \"$0/postmaster.pid\"";
    pair.as_root(0, &["sh", "-c", script, pair.data(0)]);
    pair.net.heal_between(0, 1);
    let at = Instant::now();
    pair.mc(0, &["start", "-W", "-f"]).expect(0, "mc_ctl start -W");
    pair.run_explained(0, at, 1056);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    assert_eq!(pair.sql(0, "SELECT n FROM kept"), "1");
    assert_eq!(pair.sql(1, "SELECT n FROM kept"), "1");
}

/// A file with a file system, as a disk of a host.
struct LoopDisk {
    image: String,
    device: Option<String>,
}

impl LoopDisk {
    fn new(image: String) -> LoopDisk {
        must("truncate", &["-s", "64M", &image]);
        must("mkfs.ext4", &["-q", &image]);
        LoopDisk { image, device: None }
    }

    /// The path of its device for a host, which has none of its own.
    fn attach(&mut self) -> String {
        let mut command = Command::new("losetup");
        command.args(["--find", "--show", &self.image]);
        let device = run(command, s(60)).expect(0, "losetup --find").out.trim().to_owned();
        let node = format!("{}.node", self.image);
        must("cp", &["-a", "--remove-destination", &device, &node]);
        self.device = Some(device);
        node
    }

    fn detach(&mut self) {
        if let Some(device) = self.device.take() {
            must("losetup", &["-d", &device]);
        }
    }
}

/// A device that is still mounted is detached when the host ends.
impl Drop for LoopDisk {
    fn drop(&mut self) {
        self.detach();
    }
}

/// The host of the arbiter is set back to a snapshot of its disk, on which each file has its former identity.
#[test]
fn an_arbiter_set_back_to_a_snapshot() {
    let pair = Setup::default().arbiter().fast_network().make();
    let directory = pair.arbiter_dir().display().to_string();
    let root = |script: &str, device: &str| {
        let mut command = pair.third().command("sh");
        command.args(["-ec", script, "sh", &directory, device]);
        run(command, s(60)).expect(0, script);
    };
    let mut disk = LoopDisk::new(format!("{directory}.disk"));
    let snapshot = format!("{directory}.snapshot");
    let copied = "cp -a $1 $1.kept; mount $2 $1; cp -a $1.kept/. $1/; chown postgres:postgres $1";
    root(copied, &disk.attach());
    pair.bring_up();
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    root("umount $1", "");
    disk.detach();
    must("cp", &[&disk.image, &snapshot]);
    root("mount $2 $1", &disk.attach());
    pair.start_arbiter();
    pair.mc(1, &["detach"]).expect(0, "mc_ctl detach");
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    pair.start(1, &["-f"]);
    pair.wait_word(0, "switchable");
    pair.wait_arbiter_named();
    let view = pair.ledger_of(0);
    pair.arb(&["stop"]).expect(0, "mc_arb stop");
    root("umount $1", "");
    disk.detach();
    must("mv", &[&snapshot, &disk.image]);
    root("mount $2 $1", &disk.attach());
    let at = Instant::now();
    pair.start_arbiter();
    wait_for("MCA01042", s(30), || pair.third().syslog.find(at, "(MCA01042)"));
    let line = pair.explained(0, 1042);
    pair.paste(0, &line).expect(0, &line);
    wait_for("the pair accepts the arbiter", s(60), || (pair.ledger_of(0) != view).then_some(()));
    pair.wait_arbiter_named();
    pair.wait_word(0, "switchable");
}

/// A control group named as a unit, which is removed at the end.
struct UnitGroup(PathBuf);

impl UnitGroup {
    fn new(unit: &str) -> UnitGroup {
        let directory = control_groups().join(unit);
        std::fs::create_dir_all(&directory).unwrap_or_else(|why| panic!("could not create {directory:?}: {why}"));
        UnitGroup(directory)
    }

    fn add(&self, process: u32) {
        std::fs::write(self.0.join("cgroup.procs"), process.to_string()).expect("could not move a process");
    }
}

impl Drop for UnitGroup {
    fn drop(&mut self) {
        for directory in [Some(self.0.as_path()), self.0.parent()].into_iter().flatten() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// On a host on which a unit runs the controller, hints and explanations name "systemctl"; for a controller that the unit has not
/// started, a hint on its configuration names "mc_ctl". The host has the files of systemd, but not systemd.
#[test]
fn commands_under_systemd() {
    let group = UnitGroup::new("mc.service");
    let pair = guarded(Setup::default());
    let root = |script: &str| pair.as_root(1, &["sh", "-ec", script]);
    let directory = pair.servers[1].management.display().to_string();
    root("mkdir -p /run/systemd; mount -t tmpfs -o mode=755 none /run/systemd; mkdir /run/systemd/system");
    for hidden in ["/etc/systemd", "/usr/lib/systemd", "/usr/local/lib/systemd"] {
        root(&format!("[ ! -d {hidden} ] || mount -t tmpfs -o mode=755 none {hidden}"));
    }
    root(&format!(
        "mkdir -p /run/systemd/system; printf '[Service]\\nEnvironment=MCCONTROLDIR={directory}\\n\
         ExecStart=/usr/bin/mc_ctl start --foreground\\n' > /run/systemd/system/mc.service"
    ));
    pair.sql(0, "ALTER ROLE mc PASSWORD 'second'");
    assert_eq!(pair.hinted(1, "set db_instance_password"), "mc_ctl reload");
    group.add(pair.controller(1).pid);
    assert_eq!(pair.hinted(1, "set db_instance_password"), "systemctl reload mc");
    assert_eq!(pair.explained(1, 1232), "systemctl reload mc");
    assert_eq!(pair.explained(1, 1046), "mc_ctl rebuild");
    assert_eq!(pair.explained(0, 1232), "mc_ctl reload");
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    assert_eq!(pair.hinted(1, "to start it"), "systemctl start mc");
    pair.mc(0, &["stop", "--mc-only"]).expect(0, "mc_ctl stop --mc-only");
    assert_eq!(pair.hinted(0, "to start it"), "mc_ctl start");
}
