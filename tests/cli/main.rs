//! `mc_ctl` as a user sees it: help, exit codes, refused users, bad files, and a controller that does not run.

mod backup;
mod rebuild;
#[path = "../common/user.rs"]
mod user;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use user::{User, is_root};

/// A management directory, a data directory and a copy of the program, all the instance administrator user's.
struct Site {
    root: tempfile::TempDir,
    user: User,
}

impl Site {
    /// A pair of which `nd1` is this host, whose configuration is in order.
    fn new() -> Site {
        let site = Site { root: tempfile::tempdir().unwrap(), user: User::new() };
        site.user.copy_mc_ctl(&site.root.path().join("mc_ctl"));
        fs::create_dir(site.data()).unwrap();
        fs::create_dir(site.dir()).unwrap();
        fs::write(site.data().join("PG_VERSION"), "15\n").unwrap();
        fs::write(site.data().join("postgresql.conf"), "").unwrap();
        site.own(site.root.path(), 0o700);
        for path in [site.dir(), site.data(), site.data().join("PG_VERSION"), site.data().join("postgresql.conf")] {
            site.own(&path, 0o700);
        }
        site.write("network.conf", "nd1 127.0.0.1 27601\nnd2 203.0.113.77 27601\n");
        site.write("mc.key", &"0123456789abcdef".repeat(4));
        site.write("nd1.conf", &format!("db_instance = '{}'\n", site.data().display()));
        site
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("mc")
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn own(&self, path: &Path, mode: u32) {
        self.user.own(path, mode);
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        fs::write(&path, text).unwrap();
        self.own(&path, 0o600);
    }

    fn command(&self) -> Command {
        let mut command = self.user.command(&self.root.path().join("mc_ctl"));
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Runs the program with these arguments, `-M` of this site after the verb.
    fn run(&self, args: &str) -> Ran {
        let mut words = args.split(' ');
        let mut command = self.command();
        command.arg(words.next().unwrap()).arg("-M").arg(self.dir()).args(words);
        Ran::of(&mut command)
    }
}

/// A controller that a test has started does not outlive it.
impl Drop for Site {
    fn drop(&mut self) {
        if self.dir().join("nd1").exists() {
            let _ = self.command().args(["stop", "-e", "-M"]).arg(self.dir()).output();
        }
    }
}

/// What a run came to.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn of(command: &mut Command) -> Ran {
        let Output { status, stdout, stderr } = command.output().expect("the program runs");
        Ran {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// The exit code, and what standard error says.
    fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "\"{part}\" is missing in {self:?}");
        }
    }
}

fn bare(args: &[&str]) -> Ran {
    Ran::of(Command::new(env!("CARGO_BIN_EXE_mc_ctl")).args(args).env_remove("MCCONTROLDIR"))
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["-h"], &["start", "--help"], &["status", "-h"], &["-V"], &["--version"]] {
        let ran = bare(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
        assert!(ran.out.contains("mc_ctl"), "{args:?}");
    }
}

#[test]
fn wrong_usage_is_2() {
    for args in [
        &[][..],
        &["frob"],
        &["start", "--frob"],
        &["start", "-f", "-F"],
        &["start", "-t", "0"],
        &["start", "-t", "x"],
        &["stop", "-e", "-a"],
        &["stop", "-e", "--mc-only"],
        &["status", "--format", "xml"],
        &["status", "--check", "--watch"],
        &["rebuild", "--method", "copy"],
        &["rebuild", "--old-data", "burn"],
        &["rebuild", "--format", "json"],
        &["rebuild", "--dry-run", "--format", "prometheus"],
        &["rebuild", "--dry-run", "--yes"],
        &["rebuild", "-t", "0"],
        &["explain"],
        &["explain", "MCA99999"],
        &["explain", "promotion"],
        &["explain", "--list", "MCA00062"],
    ] {
        let ran = bare(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}");
        assert!(!ran.err.is_empty(), "{args:?}");
    }
}

#[test]
fn root_is_refused_but_may_read_help() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let dir = site.dir();
    for verb in
        ["start", "stop", "status", "switch", "detach", "enable-failover", "disable-failover", "rebuild", "history"]
    {
        let ran = bare(&[verb, "-M", dir.to_str().unwrap()]);
        ran.refused(2, &["mc_ctl: cannot be run as root", "HINT: Run it as the instance administrator user"]);
    }
    assert_eq!(bare(&["explain", "MCA00062"]).code, 0);
}

#[test]
fn every_message_is_explained() {
    let ran = bare(&["explain", "MCA00062"]);
    assert!(ran.out.starts_with("MCA00062  LOG: promotion processing completed\n"), "{ran:?}");
    for entry in mirroring_controller::messages::catalogue::CATALOGUE {
        let ran = bare(&["explain", &format!("mca{}", entry.number)]);
        assert_eq!(ran.code, 0);
        for part in [entry.text, entry.cause, entry.action, entry.remedy] {
            assert!(ran.out.contains(part), "{ran:?}");
        }
    }
}

#[test]
fn every_finding_of_the_check_is_explained() {
    let list = bare(&["explain", "--list"]);
    assert_eq!(list.code, 0);
    let completions = bare(&["completions", "bash"]).out;
    for entry in mirroring_controller::check::catalogue() {
        let ran = bare(&["explain", entry.code]);
        assert_eq!(ran.code, 0, "{ran:?}");
        for part in [entry.code, entry.severity.word(), entry.about, entry.remedy()] {
            assert!(ran.out.contains(part), "{ran:?}");
        }
        assert!(list.out.lines().any(|line| line.split(' ').next() == Some(entry.code)), "{}", entry.code);
        let mut words = completions.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        assert!(words.any(|word| word == entry.code), "{}", entry.code);
    }
    for entry in mirroring_controller::messages::catalogue::CATALOGUE {
        assert!(list.out.contains(&format!("MCA{:05}  ", entry.number)), "{}", entry.number);
    }
}

#[test]
fn a_reader_who_goes_away_is_no_crash() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let program = env!("CARGO_BIN_EXE_mc_ctl");
    let status = Command::new(program).args(["explain", "MCA01024"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_directory_comes_from_m_or_the_environment() {
    let site = Site::new();
    let ran = Ran::of(site.command().arg("status"));
    ran.refused(2, &["no management directory specified and environment variable MCCONTROLDIR unset"]);
    let ran = Ran::of(site.command().arg("status").env("MCCONTROLDIR", site.dir()));
    ran.refused(3, &["the controller of server \"nd1\" is not running"]);
    let ran = Ran::of(site.command().args(["status", "-M", "/nonexistent/mc"]));
    ran.refused(2, &["\"/nonexistent/mc", "No such file or directory"]);
}

#[test]
fn a_controller_that_does_not_run_is_3() {
    let site = Site::new();
    for args in [
        "status",
        "status --format json",
        "status --arbiter",
        "stop",
        "stop -a",
        "stop --mc-only",
        "stop -e",
        "switch",
        "switch -t 5",
        "detach",
        "enable-failover",
        "disable-failover",
        "what-if all",
        "what-if arbiter then primary-host --format json",
    ] {
        let ran = site.run(args);
        ran.refused(3, &["mc_ctl: the controller of server \"nd1\" is not running"]);
        assert_eq!(ran.out, "", "{args}");
    }
    let ran = site.run("status --check");
    assert_eq!(ran.code, 3);
    assert_eq!(ran.out, "MIRRORING UNKNOWN - the controller of server \"nd1\" is not running\n");
    assert_eq!(ran.err, "");
    let ran = site.run("history");
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert_eq!(site.run("history --format json").out, "[]\n");
    assert_eq!(site.run("history --last --format json").out, "[]\n");
}

/// Clap would propose "detach", which is the opposite.
#[test]
fn attach_names_the_command_that_attaches() {
    let site = Site::new();
    for args in ["attach", "attach -M /tmp --yes"] {
        let ran = site.run(args);
        ran.refused(2, &["HINT: To attach a detached standby, run \"mc_ctl start\" on it."]);
        assert!(!ran.err.contains("detach\""), "{}", ran.err);
    }
}

/// Force says what it may cost, and whether the other server is fenced; without a terminal it wants --yes.
#[test]
fn force_is_confirmed() {
    let site = Site::new();
    let verbs = [
        ("switch", "promotes the standby on this server"),
        ("detach", "makes the primary on this server continue alone"),
    ];
    let line = format!("db_instance = '{}'\n", site.data().display());
    for (verb, what) in verbs {
        site.write("nd1.conf", &line);
        let lost = "the commits of one server are lost";
        let ran = site.run(&format!("{verb} --force"));
        ran.refused(2, &[what, "server \"nd2\"", lost, "No fencing_command is configured", "Use --yes to confirm"]);
        site.write("nd1.conf", &format!("{line}fencing_command = '/bin/true'\n"));
        site.run(&format!("{verb} --force")).refused(2, &["\"/bin/true\" is run first", "nothing is changed"]);
        site.run(&format!("{verb} --force --no-fencing")).refused(2, &["fencing_command is not run"]);
        site.run(&format!("{verb} --force --yes")).refused(3, &["is not running"]);
        for args in ["--no-fencing", "--yes"] {
            assert_eq!(site.run(&format!("{verb} {args}")).code, 2, "without --force");
        }
    }
}

/// An arbiter that is configured and does not answer: nothing is started, whatever the way to start.
#[test]
fn a_start_without_the_arbiter_is_given_up() {
    let site = Site::new();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    site.write("network.conf", &format!("nd1 127.0.0.1 27603\nnd2 203.0.113.77 27603\narb 127.0.0.1 {port} arbiter\n"));
    let lines = format!("db_instance = '{}'\narbiter_connect_timeout = '300ms'\n", site.data().display());
    site.write("nd1.conf", &lines);
    let text = "failed to connect to arbitration server \"arb\" event:";
    // The kernel takes the connection, and nobody shakes hands.
    let ways = ["start", "start --foreground", "start --mc-only -W", "start -f -t 1"];
    for args in ways {
        site.run(args)
            .refused(1, &[text, "event:\"timeout\" (MCA00152)", "Nothing was started", "--async-connect-arb"]);
    }
    drop(nobody);
    for args in ways {
        let refuses = format!("127.0.0.1:{port} refuses connections");
        site.run(args).refused(1, &[text, "event:\"communication error\" (MCA00152)", &refuses]);
    }
    assert!(!site.dir().join("nd1").exists(), "no controller has begun");
    site.run("status").refused(3, &["is not running"]);
}

/// The controller starts all the same, and shows the arbiter as offline.
#[test]
fn a_start_may_leave_the_arbiter_for_later() {
    let site = Site::new();
    site.write("network.conf", "nd1 127.0.0.1 27604\nnd2 203.0.113.77 27604\narb 127.0.0.1 1 arbiter\n");
    let started = site.run("start --async-connect-arbiter --mc-only");
    assert_eq!(started.code, 0, "{started:?}");
    let shown = site.run("status --arbiter");
    assert!(
        shown.out.ends_with(
            "\narbiter_id  host       status\n------------------------------\narb         127.0.0.1  offline\n"
        ),
        "{shown:?}"
    );
    assert!(!site.run("status").out.contains("arbiter_id"), "only when it is asked for");
    let json: serde_json::Value = serde_json::from_str(&site.run("status --format json").out).unwrap();
    let arbiter = &json["arbiter"];
    assert_eq!([&arbiter["arbiter_id"], &arbiter["host"], &arbiter["status"]], ["arb", "127.0.0.1", "offline"]);
    assert_eq!(arbiter["disk_status"], "unknown");
    assert!(site.run("status --format prometheus").out.contains("\nmirroring_arbiter_online 0\n"));
    assert!(site.run("status --check").out.contains("arbiter offline"));
    // Its controller runs already, and looks for the arbiter by itself.
    site.run("start --mc-only").refused(4, &["already running"]);
    // A controller that dies is started again by its watcher, which does not ask for the arbiter.
    let pid = || {
        let json: serde_json::Value = serde_json::from_str(&site.run("status --format json").out).ok()?;
        json["controller"]["pid"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(pid as i32))
    };
    let first = pid().expect("it runs");
    rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while pid().is_none_or(|pid| pid == first) {
        assert!(std::time::Instant::now() < end, "the controller is not started again");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(site.run("stop -e").code, 0);
}

/// The memory of the controller and its watcher contains the key: no core file is written, and no process of the same user can
/// read it.
#[test]
fn the_memory_of_the_controller_is_protected() {
    let site = Site::new();
    let cores = site.root.path().join("cores");
    fs::create_dir(&cores).unwrap();
    site.own(&cores, 0o700);
    let conf = format!("db_instance = '{}'\ncore_file_path = '{}'\n", site.data().display(), cores.display());
    site.write("nd1.conf", &conf);
    // A hard limit of 0 is raised by root alone.
    let unlimited = |program: &mut Command| {
        let mut command = Command::new("sh");
        let line = "ulimit -c unlimited 2>/dev/null; exec \"$@\"";
        command.args(["-c", line, "sh"]).arg(program.get_program()).args(program.get_args()).current_dir(&cores);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command
    };
    let started = Ran::of(&mut unlimited(site.command().args(["start", "--mc-only", "-M"]).arg(site.dir())));
    assert_eq!(started.code, 0, "{started:?}");
    let mut other = unlimited(site.user.command(Path::new("/bin/sleep")).arg("300")).spawn().unwrap();
    let pid = |name: &str| {
        let text = fs::read_to_string(site.dir().join("nd1").join(name)).unwrap();
        text.split(' ').next().unwrap().to_owned()
    };
    let reads = |pid: &str| {
        let mut cat = site.user.command(Path::new("/bin/cat"));
        Ran::of(cat.arg(format!("/proc/{pid}/environ"))).code == 0
    };
    let signal = |pid: &str| assert!(Command::new("/bin/kill").args(["-ABRT", pid]).status().unwrap().success());
    let wait = |what: &str, done: &mut dyn FnMut() -> bool| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !done() {
            assert!(std::time::Instant::now() < end, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    wait("another process of the user can be read", &mut || reads(&other.id().to_string()));
    let (controller, watcher) = (pid("mc.pid"), pid("watcher.pid"));
    assert!(!reads(&controller) && !reads(&watcher), "the same user can read their memory");
    signal(&controller);
    wait("the controller is started again", &mut || pid("mc.pid") != controller && site.run("status").code != 3);
    assert!(!reads(&pid("mc.pid")));
    assert_eq!(fs::read_dir(&cores).unwrap().count(), 0, "a core file was written");
    // The same signal to another process, where the kernel writes core files to the working directory.
    signal(&other.id().to_string());
    other.wait().unwrap();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if is_root() && !pattern.starts_with(['|', '/']) {
        assert_eq!(fs::read_dir(&cores).unwrap().count(), 1, "this test sees core files");
    }
}

/// The controller has ended and its watcher has not. A start waits for it, and reports it if it does not end.
#[test]
fn a_start_waits_for_the_end_of_the_last_controller() {
    let site = Site::new();
    let started = site.run("start --mc-only");
    assert_eq!(started.code, 0, "{started:?}");
    let pid = |name: &str| {
        let text = fs::read_to_string(site.dir().join("nd1").join(name)).unwrap();
        rustix::process::Pid::from_raw(text.split(' ').next().unwrap().parse().unwrap()).unwrap()
    };
    let (controller, watcher) = (pid("mc.pid"), pid("watcher.pid"));
    rustix::process::kill_process(watcher, rustix::process::Signal::STOP).unwrap();
    let stopped = site.run("stop --mc-only -t 60");
    assert!(stopped.code == 0 && stopped.err.contains("the controller has not ended yet"), "{stopped:?}");
    site.run("start --mc-only -t 1")
        .refused(5, &["previous controller of server \"nd1\" has not ended within 1 s", "\"mc_ctl stop -e\""]);
    let mut command = site.command();
    let mut waiting =
        command.args(["start", "--mc-only", "-M"]).arg(site.dir()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(waiting.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "mc_ctl: waiting: the previous controller of server \"nd1\" is ending\n");
    rustix::process::kill_process(watcher, rustix::process::Signal::CONT).unwrap();
    assert!(waiting.wait().unwrap().success());
    assert_ne!((pid("mc.pid"), pid("watcher.pid")), (controller, watcher));
    assert_eq!(site.run("status --format json").code, 0);
}

/// Without a ledger and with a data directory that cannot be read, a stop ends as soon as it has found no process.
#[test]
fn a_stop_without_a_data_directory_succeeds() {
    for missing in [false, true] {
        let site = Site::new();
        let started = site.run("start --mc-only");
        assert_eq!(started.code, 0, "{started:?}");
        if missing {
            fs::remove_dir_all(site.data()).unwrap();
        }
        let stopped = site.run("stop -t 60");
        assert_eq!((stopped.code, stopped.err.as_str()), (0, ""), "{stopped:?}");
        site.run("status").refused(3, &["is not running"]);
    }
}

#[test]
fn files_that_others_can_read_are_refused() {
    let site = Site::new();
    for name in ["mc.key", "network.conf", "nd1.conf"] {
        let path = site.dir().join(name);
        for mode in [0o644, 0o640, 0o660] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let fix = format!("chmod 600 \"{}\"", path.display());
            site.run("start").refused(2, &[&format!("\"{}\"", path.display()), &fix]);
            site.run("status").refused(2, &[&fix]);
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        site.run("status").refused(3, &[]);
    }
    fs::set_permissions(site.dir(), Permissions::from_mode(0o777)).unwrap();
    site.run("status").refused(2, &["chmod go-w"]);
}

#[test]
fn files_of_others_are_refused() {
    if !is_root() {
        return;
    }
    let site = Site::new();
    let path = site.dir().join("mc.key");
    chown(&path, Some(65_534), None).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    site.run("status").refused(2, &["mc.key\" is owned by", "chown postgres"]);
    site.own(&path, 0o600);
    site.run("status").refused(3, &[]);
}

#[test]
fn missing_and_broken_files_are_named() {
    let site = Site::new();
    let dir = site.dir();
    let key = format!("\"{}\"", dir.join("mc.key").display());
    site.write("mc.key", "0123");
    site.run("start").refused(2, &[&key, "64", "openssl rand -hex 32"]);
    fs::remove_file(dir.join("mc.key")).unwrap();
    site.run("start").refused(2, &[&key]);
    site.write("mc.key", &"0123456789abcdef".repeat(4));

    let head = format!("db_instance = '{}'\n", site.data().display());
    site.write("nd1.conf", &format!("{head}heartbeat_intervall = 800\n"));
    site.run("start").refused(2, &["nd1.conf", "line 2", "heartbeat_intervall"]);
    site.write("nd1.conf", &format!("{head}\nheartbeat_interval = -1\n"));
    site.run("start").refused(2, &["nd1.conf", "line 3", "heartbeat_interval"]);
    site.write("nd1.conf", "heartbeat_interval = 800\n");
    site.run("start").refused(2, &["nd1.conf", "db_instance"]);
    site.write("nd1.conf", &head);

    site.write("network.conf", "nd1 127.0.0.1 27601\n");
    site.run("start").refused(2, &["network.conf"]);
    site.write("network.conf", "nd1 127.0.0.1 port\nnd2 203.0.113.77 27601\n");
    site.run("start").refused(2, &["network.conf", "line 1", "port"]);
    site.write("network.conf", "nd1 203.0.113.78 27601\nnd2 203.0.113.77 27601\n");
    // It waits for an address of this host, which may come up late at a boot.
    site.run("start -t 2").refused(2, &["network.conf", "this host", "--local-server"]);
}

#[test]
fn data_directories_that_cannot_be_run() {
    let site = Site::new();
    let version = site.data().join("PG_VERSION");
    fs::write(&version, "11\n").unwrap();
    site.run("start").refused(2, &["PostgreSQL 11", "HINT: PostgreSQL 12 or later is required"]);
    fs::remove_file(&version).unwrap();
    site.run("start").refused(2, &[site.data().to_str().unwrap(), "PG_VERSION"]);
    site.run("rebuild").refused(2, &["not a data directory of PostgreSQL"]);
    fs::remove_dir_all(site.data()).unwrap();
    let made_by = "On a standby, run \"mc_ctl rebuild\"";
    for args in ["start", "start -f -W", "start --foreground", "start --adopt-data --yes"] {
        let data = site.data();
        site.run(args).refused(2, &[data.to_str().unwrap(), "does not exist", made_by, "initdb", "is not mounted"]);
    }
    fs::create_dir(site.data()).unwrap();
    site.own(&site.data(), 0o700);
    site.run("start").refused(2, &["is empty", made_by]);
    fs::remove_dir(site.data()).unwrap();
    // Whoever only asks the controller does not look at the data directory: its disk may be what has failed.
    site.run("status").refused(3, &[]);
}

#[test]
fn two_identifiers_on_this_host_need_local_server() {
    let site = Site::new();
    site.write("network.conf", "nd1 127.0.0.1 27601\nnd2 127.0.0.1 27602\n");
    site.write("nd2.conf", &format!("db_instance = '{}'\n", site.data().display()));
    for args in ["start", "status", "stop", "switch"] {
        site.run(args).refused(2, &["\"nd1\"", "\"nd2\"", "--local-server"]);
    }
    site.run("status --local-server nd2").refused(3, &["server \"nd2\" is not running"]);
    site.run("status --local-server nd3").refused(2, &["\"nd3\""]);
}

/// With a mistake in the files, only the option tells which of two servers is meant.
#[test]
fn a_mistake_beside_two_servers_needs_local_server() {
    let site = Site::new();
    site.write("network.conf", "nd1 127.0.0.1 27607\nnd2 203.0.113.77 27607\n");
    let started = site.run("start --mc-only");
    assert_eq!(started.code, 0, "{started:?}");
    site.write("network.conf", "nd1 127.0.0.1 27607\n");
    let stopped = site.run("stop --mc-only -t 60 --local-server nd2");
    stopped.refused(2, &["network.conf"]);
    fs::create_dir(site.dir().join("nd2")).unwrap();
    fs::write(site.dir().join("nd2/lock"), "").unwrap();
    site.own(&site.dir().join("nd2"), 0o700);
    site.run("status").refused(2, &["network.conf", "--local-server nd1 or --local-server nd2"]);
    let shown = site.run("status --local-server nd1");
    assert!(shown.code == 0 && shown.err.contains("WARNING: "), "{shown:?}");
    assert_eq!(site.run("stop -e --local-server nd1").code, 0);
}
