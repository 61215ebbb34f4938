//! Service managers: what one is told through its socket, watchdog included, and what the rc scripts and `mc_std` do with real
//! servers.

use crate::disk_space::{fill, mount, wait_disks};
use crate::harness::arbiter;
use crate::harness::client::Style;
use crate::harness::host::{Host, signal};
use crate::harness::pair::{Pair, Setup, program, readable, write_private};
use crate::harness::run::{Answer, Beside, run};
use crate::harness::{s, sample, wait_for};
use rustix::process::Signal;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long something may take, on a loaded test machine.
const SOON: Duration = Duration::from_secs(45);

/// What the units set, in microseconds: one feeding a second.
const WATCHDOG: &str = "WATCHDOG_USEC=2000000";

/// The service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    /// The unit's directory, which it keeps while it restarts the unit.
    runtime: PathBuf,
    told: Vec<(Instant, String)>,
}

impl Manager {
    fn listen(directory: &Path) -> Manager {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("could not bind");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("could not chmod");
        socket.set_nonblocking(true).expect("could not set");
        let manager = Manager { socket, path, runtime: directory.join("runtime"), told: Vec::new() };
        manager.renew_directory();
        manager
    }

    /// As when the unit has stopped or failed: an empty directory for the next start.
    fn renew_directory(&self) {
        let _ = std::fs::remove_dir_all(&self.runtime);
        std::fs::create_dir(&self.runtime).expect("could not create");
        std::fs::set_permissions(&self.runtime, std::fs::Permissions::from_mode(0o777)).expect("could not chmod");
    }

    /// Lines that were told since then and begin so.
    fn since(&mut self, since: Instant, start: &str) -> Vec<String> {
        let mut buffer = [0; 8192];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.told.extend(text.lines().map(|line| (Instant::now(), line.to_owned())));
        }
        let wanted = |(at, line): &&(Instant, String)| *at >= since && line.starts_with(start);
        self.told.iter().filter(wanted).map(|(_, line)| line.clone()).collect()
    }

    /// The present time, after everything that was sent before has been received.
    fn present(&mut self) -> Instant {
        self.since(Instant::now(), "");
        Instant::now()
    }

    #[track_caller]
    fn wait(&mut self, since: Instant, start: &str) {
        wait_for(&format!("the service manager is told {start}"), SOON, || {
            (!self.since(since, start).is_empty()).then_some(())
        });
    }

    /// Runs a program as a unit would: in the foreground, as the user, with the variables.
    fn run(&self, host: &Host, program: &Path, words: &[&str], directory: &Path) -> Service {
        let mut command = host.admin("env");
        command.arg(format!("NOTIFY_SOCKET={}", self.path.display())).arg(WATCHDOG);
        command.arg(format!("RUNTIME_DIRECTORY={}", self.runtime.display())).arg(program);
        command.args(["start", "--foreground"]).args(words).arg("-M").arg(directory).stderr(Stdio::null());
        Service(Beside::start(command))
    }

    /// The first server's controller, so.
    fn run_controller(&self, pair: &Pair) -> Service {
        self.run_server(pair, 0)
    }

    fn run_server(&self, pair: &Pair, server: usize) -> Service {
        self.run(pair.host(server), program(), &["-f"], &pair.servers[server].management)
    }

    /// Kills the server's controller, and starts it again as systemd does with `Restart=on-failure`.
    #[track_caller]
    fn crash(&mut self, pair: &Pair, server: usize, service: Service) -> Service {
        signal(pair.controller(server).pid, Signal::KILL);
        drop(service);
        wait_for("it is gone", SOON, || pair.host(server).controllers().is_empty().then_some(()));
        let at = self.present();
        let service = self.run_server(pair, server);
        self.wait(at, "READY=1");
        service
    }

    /// The watchdog is fed, but not by a program that stands still.
    #[track_caller]
    fn check_watchdog(&mut self, service: &Service, program: u32) {
        // twice as often as the watchdog wants, give or take what a loaded machine does
        let at = Instant::now();
        std::thread::sleep(s(6));
        let fed = self.since(at, "WATCHDOG=1").len();
        assert!((3..=7).contains(&fed), "fed {fed} times in 6 s");

        signal(program, Signal::STOP);
        std::thread::sleep(Duration::from_millis(200));
        self.since(at, "");
        let at = Instant::now();
        std::thread::sleep(s(4));
        assert_eq!(self.since(at, ""), [""; 0], "told by a program that stands still");
        service.wake(program);
        self.wait(at, "WATCHDOG=1");
    }
}

/// What was run: nsenter, which stops when the program that it has run is stopped, and has to be woken too.
struct Service(Beside);

impl Service {
    fn wake(&self, program: u32) {
        signal(program, Signal::CONT);
        signal(self.0.pid(), Signal::CONT);
    }

    #[track_caller]
    fn wait_end(&mut self) {
        let status = wait_for("it ends", SOON, || self.0.ended());
        assert!(status.success(), "{status}");
    }
}

/// Where standard error and /dev/log both lead to systemd's journal a message is written to one of them; else to both.
#[test]
fn the_journal_has_a_message_once() {
    let pair = Setup::default().make();
    let host = pair.host(1);
    let file = host.dir.join("stderr");
    let run_until_told = |stream: &str| {
        std::fs::write(&file, "").expect("could not write");
        let begin = Instant::now();
        let mut command = host.admin("env");
        command.arg(format!("JOURNAL_STREAM={stream}")).arg(program());
        command.args(["start", "--foreground", "--mc-only", "-M"]).arg(&pair.servers[1].management);
        command.stderr(std::fs::OpenOptions::new().append(true).open(&file).expect("could not open"));
        let mut child = Service(Beside::start(command));
        wait_for("syslog has it", SOON, || host.syslog.find(begin, "MCA01100"));
        pair.mc(1, &["stop", "--mc-only"]).expect(0, "mc_ctl stop");
        child.wait_end();
        std::fs::read_to_string(&file).expect("readable").matches("MCA01100").count()
    };
    std::fs::write(&file, "").expect("could not write");
    let meta = std::fs::metadata(&file).expect("there");
    let stream = format!("{}:{}", meta.dev(), meta.ino());
    assert_eq!(run_until_told(&stream), 1, "the socket is another daemon's");

    let journal = "mount -t tmpfs -o mode=755 none /run && mkdir -p /run/systemd/journal && \
                   ln -s \"$(readlink /dev/log)\" /run/systemd/journal/dev-log && ln -sf /run/systemd/journal/dev-log /dev/log";
    pair.as_root(1, &["sh", "-c", journal]);
    assert_eq!(run_until_told(&stream), 0);
    assert_eq!(run_until_told("1:1"), 1, "standard error leads elsewhere");
}

/// A controller in the foreground tells when it serves, how it is, that its loop goes round, and that it ends; while it
/// stands still the watchdog is not fed, and an instance that it started says nothing in its name.
#[test]
fn a_controller_under_a_service_manager() {
    let pair = Setup::default().make();
    pair.start(1, &["-f", "-W"]);
    let mut manager = Manager::listen(&pair.host(0).dir);
    let begin = Instant::now();
    let mut child = manager.run_controller(&pair);
    manager.wait(begin, "READY=1");
    pair.mc(0, &["status"]).expect(0, "mc_ctl status once it is ready");
    pair.wait_word(0, "switchable");
    manager.wait(begin, "STATUS=switchable, primary");

    let controller = pair.controller(0).pid;
    manager.check_watchdog(&child, controller);
    let environment = std::fs::read(format!("/proc/{}/environ", pair.postmaster(0).pid)).expect("its environment");
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"), "{environment}");
    assert_eq!(manager.since(begin, "READY=1").len(), 1);
    assert_eq!(manager.since(begin, "STOPPING=1").len(), 0);
    signal(controller, Signal::TERM);
    manager.wait(begin, "STOPPING=1");
    child.wait_end();
    assert!(!pair.instance_runs(0));
}

/// `systemctl stop` of a primary whose disk is full: a switch would begin with a checkpoint, which needs space for a page of
/// pg_xact. The instance stops, the standby takes over, and no commit is lost.
#[test]
fn a_stop_of_a_full_primary() {
    let pair = Setup { small_disk_mib: Some(160), ..Setup::default() }.make();
    mount(&pair, 0, &format!("{}/pg_wal", pair.data(0)), 160);
    let manager = Manager::listen(&pair.host(0).dir);
    let mut child = manager.run_controller(&pair);
    pair.start(1, &["-f", "-W"]);
    pair.wait_word(0, "switchable");
    pair.sql(0, "CREATE TABLE wide (x text)");
    let client = pair.client(Style::OneSession);
    fill(&pair, 0, pair.data(0));
    wait_disks(&pair, 0, ["full", "normal"], ["data", ""]);
    // Each transaction uses an id, although its row finds no space.
    pair.sql(
        0,
        "DO $$ BEGIN FOR i IN 1..40000 LOOP BEGIN INSERT INTO wide VALUES (repeat('x', 5000)); EXCEPTION WHEN OTHERS THEN \
         NULL; END; END LOOP; END $$",
    );
    let at = Instant::now();
    signal(pair.controller(0).pid, Signal::TERM);
    child.wait_end();
    assert!(!pair.instance_runs(0));
    client.wait_ack_of(&[1], at, SOON);
    pair.wait_word(1, "switched");
    // One message says what is done, and no checkpoint is tried.
    let said = pair.host(0).syslog.since(at).into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
    assert_eq!(said.matches("is stopped without a checkpoint").count(), 1, "{said}");
    assert!(!said.contains("checkpoint before it failed") && !said.contains("nothing was stopped"), "{said}");
    let history = pair.mc(0, &["history"]).out;
    assert!(history.contains("no space left on server \"nd1\" (data)"), "{history}");
    client.check(&pair, 1, &[0, 1]);
}

/// What systemd does on a lost watchdog and on a crash, with `KillMode=process`: SIGKILL to the controller alone, then
/// another start. The instance lives, its clients notice nothing, and the next controller takes it over.
#[test]
fn a_killed_controller_leaves_the_instance() {
    let pair = Setup::default().make();
    pair.start(1, &["-f", "-W"]);
    let mut manager = Manager::listen(&pair.host(0).dir);
    let child = manager.run_controller(&pair);
    pair.wait_word(0, "switchable");
    let postmaster = pair.postmaster(0).pid;
    signal(pair.controller(0).pid, Signal::KILL);
    drop(child);
    wait_for("it is gone", SOON, || pair.host(0).controllers().is_empty().then_some(()));
    assert_eq!(pair.postmaster(0).pid, postmaster);
    let at = manager.present();
    let mut child = manager.run_controller(&pair);
    manager.wait(at, "READY=1");
    pair.wait_word(0, "switchable");
    assert_eq!(pair.postmaster(0).pid, postmaster);
    signal(pair.controller(0).pid, Signal::TERM);
    child.wait_end();
}

/// systemd restarts the controller of a detached standby after a crash: the standby stays detached, and failover stays disabled,
/// although the unit has -f. The printed command, and an operator's start of the unit, attach it.
#[test]
fn a_crash_attaches_no_detached_standby() {
    let pair = Setup::default().make();
    pair.start(0, &["-f", "-W"]);
    let mut manager = Manager::listen(&pair.host(1).dir);
    let service = manager.run_server(&pair, 1);
    pair.wait_word(0, "switchable");
    pair.mc(0, &["detach"]).expect(0, "mc_ctl detach");
    pair.mc(0, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    let at = Instant::now();
    let service = manager.crash(&pair, 1, service);
    pair.wait_log(0, at, "connected with \"nd2\" (MCA01107)", SOON);
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    wait_for("the standby streams", SOON, || (pair.sql(0, streams) == "1").then_some(()));
    std::thread::sleep(s(5));
    for server in [0, 1] {
        let status: serde_json::Value =
            serde_json::from_str(&pair.mc(server, &["status", "--format", "json"]).out).expect("JSON");
        assert_eq!(status["disconnection"]["by_operator"], true, "{status}");
        assert_eq!(status["failover_enabled"], false, "{status}");
    }
    pair.mc(0, &["enable-failover"]).expect(0, "mc_ctl enable-failover");
    let line = pair.hinted(1, "to attach it again");
    pair.paste(1, &line).expect(0, &line);
    pair.wait_word(0, "switchable");

    // The order counts as the last start, also after another crash.
    let service = manager.crash(&pair, 1, service);
    pair.wait_word(0, "switchable");
    pair.mc(0, &["detach"]).expect(0, "mc_ctl detach");
    let mut service = manager.crash(&pair, 1, service);
    std::thread::sleep(s(5));
    assert_eq!(pair.mc(0, &["status", "--check"]).code, 2, "it is attached");
    signal(pair.controller(1).pid, Signal::TERM);
    service.wait_end();
    assert_eq!(std::fs::read_dir(&manager.runtime).expect("readable").count(), 0, "a mark is left");
    // systemctl restart keeps the directory.
    let mut service = manager.run_server(&pair, 1);
    pair.wait_word(0, "switchable");
    signal(pair.controller(1).pid, Signal::TERM);
    service.wait_end();
}

/// SIGHUP, and the command of the unit for `systemctl reload`, have a controller in the foreground read its files.
#[test]
fn a_controller_in_the_foreground_is_reloaded() {
    let pair = Setup::default().make();
    let manager = Manager::listen(&pair.host(0).dir);
    let mut service = manager.run_controller(&pair);
    wait_for("it responds", SOON, || pair.status(0));
    let at = Instant::now();
    pair.server_line(0, "remote_call_timeout = 50s");
    signal(pair.controller(0).pid, Signal::HUP);
    pair.wait_log(0, at, "reloaded; new: remote_call_timeout (MCA01230)", SOON);
    let unit = sample("mirroring-controller.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecReload=")).expect("a command");
    let line = line.replace("/usr/local/bin/mc_ctl", "mc_ctl");
    pair.server_line(0, "fencing_command_timeout = 40s");
    let answer = pair.paste(0, &line).expect(0, &line);
    assert_eq!(answer.out, "configuration files reloaded; new: fencing_command_timeout\n");
    pair.server_line(0, "mistake = 1");
    let answer = pair.paste(0, &line).expect(2, &line);
    assert!(answer.err.contains("unknown parameter \"mistake\""), "{}", answer.text());
    assert!(pair.status(0).is_some(), "it does not respond");
    pair.mc(0, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    let _ = wait_for("it ends", SOON, || service.0.ended());
}

/// After a crash the service manager's start uses what the dead controller used where a file contains a mistake by then. A
/// start after an orderly end, or after a start that failed, reports the mistake and starts nothing.
#[test]
fn a_mistake_prevents_no_start_after_a_crash() {
    let pair = Setup::default().make();
    pair.start(1, &["-f", "-W"]);
    let mut manager = Manager::listen(&pair.host(0).dir);
    let child = manager.run_controller(&pair);
    pair.wait_word(0, "switchable");
    signal(pair.controller(0).pid, Signal::KILL);
    drop(child);
    wait_for("it is gone", SOON, || pair.host(0).controllers().is_empty().then_some(()));
    let good = std::fs::read_to_string(pair.conf(0)).expect("readable");
    write_private(&pair.conf(0), &format!("{good}mistake = 1\n"));
    let at = manager.present();
    let mut child = manager.run_controller(&pair);
    manager.wait(at, "READY=1");
    pair.wait_word(0, "switchable");
    let answer = pair.mc(0, &["status", "--check"]).expect(1, "mc_ctl status --check");
    assert!(answer.out.contains("unknown parameter \"mistake\""), "{}", answer.text());
    pair.mc(0, &["stop", "--mc-only"]).expect(0, "mc_ctl stop");
    child.wait_end();
    let mut child = manager.run_controller(&pair);
    let status = wait_for("it ends", SOON, || child.0.ended());
    assert_eq!(status.code(), Some(2));

    // A start that fails is no crash either.
    write_private(&pair.conf(0), &good);
    let ledger = pair.servers[0].management.join("nd1/ledger");
    let content = std::fs::read(&ledger).expect("readable");
    std::fs::write(&ledger, "nonsense").expect("could not write");
    let mut child = manager.run_controller(&pair);
    let status = wait_for("it ends", SOON, || child.0.ended());
    assert_eq!(status.code(), Some(1));
    std::fs::write(&ledger, content).expect("could not write");
    write_private(&pair.conf(0), &format!("{good}mistake = 1\n"));
    let mut child = manager.run_controller(&pair);
    let status = wait_for("it ends", SOON, || child.0.ended());
    assert_eq!(status.code(), Some(2));
    write_private(&pair.conf(0), &good);
    let mut child = manager.run_controller(&pair);
    pair.wait_word(0, "switchable");
    signal(pair.controller(0).pid, Signal::TERM);
    child.wait_end();
}

/// The arbiter tells the same.
#[test]
fn an_arbiter_under_a_service_manager() {
    let pair = Setup::default().arbiter().make();
    let host = pair.third();
    let mut manager = Manager::listen(&host.dir);
    let begin = Instant::now();
    let mut child = manager.run(host, arbiter::program(), &[], &pair.arbiter_dir());
    manager.wait(begin, "READY=1");
    let arbiter = pair.arbiters().pop().expect("an arbiter runs").pid;
    manager.check_watchdog(&child, arbiter);
    signal(arbiter, Signal::TERM);
    manager.wait(begin, "STOPPING=1");
    child.wait_end();
}

// ------------------------------------------------------------------------------------------------------------- scripts

/// The sample with this host's program, user and directory put in, as an administrator does.
fn adapted(pair: &Pair, server: Option<usize>) -> PathBuf {
    let (name, directory, place, program) = match server {
        Some(n) => ("mirroring-controller.rc", "MCCONTROLDIR=/srv/mc", pair.servers[n].management.clone(), program()),
        None => ("mirroring-arbiter.rc", "ARBCONTROLDIR=/srv/mc", pair.arbiter_dir(), arbiter::program()),
    };
    let base = program.file_name().and_then(|n| n.to_str()).expect("a name");
    let variable = directory.split('=').next().expect("a name");
    let text = sample(name)
        .replace(&format!("/usr/local/bin/{base}"), program.to_str().expect("ASCII"))
        .replace(directory, &format!("{variable}={}", place.display()))
        .replace("ARB_USER=mcarb", "ARB_USER=postgres");
    let script = place.parent().expect("a directory").join("rc");
    std::fs::write(&script, text).expect("could not write");
    script
}

#[track_caller]
fn rc(pair: &Pair, server: Option<usize>, script: &Path, word: &str, expected: i32) -> Answer {
    let mut command = server.map_or_else(|| pair.third(), |n| pair.host(n)).command("sh");
    command.arg(script).arg(word);
    run(command, Duration::from_secs(120)).expect(expected, &format!("rc {word}"))
}

/// The script of a server, as root: each action in each state, with the exit status that the LSB wants.
#[test]
fn rc_script_of_a_server() {
    let pair = Setup::default().make();
    pair.start(1, &["-f", "-W"]);
    let script = adapted(&pair, Some(0));
    let rc = |word: &str, expected: i32| rc(&pair, Some(0), &script, word, expected);
    rc("status", 3);
    rc("stop", 0);
    rc("try-restart", 0);
    assert!(pair.host(0).controllers().is_empty());
    rc("start", 0);
    pair.wait_word(0, "switchable");
    rc("start", 0);
    assert!(rc("status", 0).out.contains("switchable"));

    // dead, with its pid file
    let postmaster = pair.postmaster(0).pid;
    for process in pair.host(0).controllers() {
        signal(process.pid, Signal::KILL);
    }
    wait_for("they are gone", s(10), || pair.host(0).controllers().is_empty().then_some(()));
    rc("status", 1);
    rc("start", 0);
    pair.wait_word(0, "switchable");
    assert_eq!(pair.postmaster(0).pid, postmaster, "the instance was touched");
    rc("status", 0);

    rc("stop", 0);
    assert!(!pair.instance_runs(0) && pair.host(0).controllers().is_empty());
    rc("status", 3);
    rc("stop", 0);
    let conf = pair.conf(0);
    let good = std::fs::read_to_string(&conf).expect("could not read");
    write_private(&conf, "nonsense\n");
    rc("start", 6);
    write_private(&conf, &good);
}

/// The arbiter's.
#[test]
fn rc_script_of_an_arbiter() {
    let pair = Setup::default().arbiter().make();
    let script = adapted(&pair, None);
    let rc = |word: &str, expected: i32| rc(&pair, None, &script, word, expected);
    rc("status", 3);
    rc("stop", 0);
    rc("start", 0);
    rc("start", 0);
    rc("status", 0);
    rc("restart", 0);
    for process in pair.arbiters() {
        signal(process.pid, Signal::KILL);
    }
    wait_for("it is gone", s(10), || pair.arbiters().is_empty().then_some(()));
    rc("status", 1);
    rc("start", 0);
    rc("stop", 0);
    rc("status", 3);
}

/// `mc_std` of the guide's units, with the options of `samples/mcoi.service`.
#[test]
fn mc_std_starts_and_stops_a_server() {
    let pair = Setup::default().make();
    let mc_std = readable(Path::new(env!("CARGO_BIN_EXE_mc_std")));
    // which is found beside it
    program();
    let std = |n: usize, what: &str, more: &[&str], expected: i32| {
        let mut command = pair.host(n).admin(mc_std.to_str().expect("ASCII"));
        command.args([what, "/nowhere"]).arg(&pair.servers[n].management).args(more);
        run(command, Duration::from_secs(120)).expect(expected, &format!("mc_std {what}"))
    };
    let unit = sample("mcoi.service");
    let options =
        unit.lines().find_map(|l| l.strip_prefix("ExecStart=/usr/local/bin/mc_std start /usr/local /srv/mc "));
    let options: Vec<&str> = options.expect("options").split(' ').collect();
    std(0, "stop", &[], 3);
    std(0, "start", &options, 0);
    std(1, "start", &options, 0);
    pair.wait_word(0, "switchable");
    std(0, "start", &options, 4);
    std(0, "stop", &["-a"], 2);
    assert!(pair.instance_runs(0) && pair.instance_runs(1));
    std(1, "stop", &[], 0);
    assert!(!pair.instance_runs(1) && pair.instance_runs(0));
    std(0, "stop", &[], 0);
    assert!(!pair.instance_runs(0));
}
