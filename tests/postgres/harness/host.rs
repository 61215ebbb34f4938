//! One host: its processes, mounts and `/dev/log`; booting it, pulling its plug, and signalling what runs on it.

use super::run::{Answer, run};
use super::syslog::Syslog;
use super::{systemd, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Makes a small /dev with this host's own log socket. PostgreSQL's programs that are elsewhere (`PGBIN`) are on it where Debian's
/// packages would have them, and no others.
const DEVICES: &str = r#"
set -e
dev=$1; log=$2; ready=$3; bin=$4; version=$5
case $bin in /usr/lib/postgresql/*) ;; *)
    mkdir -p /usr/lib/postgresql
    mount -t tmpfs -o mode=755 none /usr/lib/postgresql
    mkdir "/usr/lib/postgresql/$version"
    ln -s "$bin" "/usr/lib/postgresql/$version/bin" ;;
esac
mount -t tmpfs -o mode=755 none "$dev"
for f in null zero full random urandom tty; do touch "$dev/$f"; mount --bind "/dev/$f" "$dev/$f"; done
mkdir "$dev/shm"; mount -t tmpfs -o mode=1777 none "$dev/shm"
ln -s /proc/self/fd "$dev/fd"; ln -s "$log" "$dev/log"
mount --move "$dev" /dev
"#;

/// Then reaps what is orphaned, as an init does.
const INIT: &str = r#"
touch "$ready"
while :; do sleep 1000 & wait $! || :; done
"#;

/// A process of a host.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number as this test process sees it.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its number as the host sees it.
    pub inner: u32,
    /// Its command line, arguments separated by spaces.
    pub command: String,
}

/// A host; off, or on with its first process.
pub struct Host {
    /// Its server identifier and host name.
    pub name: String,
    /// Its address.
    pub address: &'static str,
    /// Its directory: `data`, `mc`, `run`.
    pub dir: PathBuf,
    /// What its programs have logged.
    pub syslog: Syslog,
    /// The control group of a host with systemd.
    pub(super) group: Option<PathBuf>,
    net_pid: u32,
    init: Option<Child>,
    init_pid: u32,
}

impl Host {
    /// A host in the network namespace of `net_pid`, booted.
    pub fn new(name: &str, address: &'static str, dir: PathBuf, net_pid: u32) -> Host {
        std::fs::create_dir_all(dir.join("dev")).expect("could not create a directory");
        let syslog = Syslog::listen(&dir.join("syslog"));
        let mut host = Host { name: name.into(), address, dir, syslog, group: None, net_pid, init: None, init_pid: 0 };
        host.boot();
        host
    }

    /// Switches it on. Nothing is started on it.
    pub fn boot(&mut self) {
        assert!(self.init.is_none(), "{} is on already", self.name);
        let path = |name: &str| self.dir.join(name).to_str().expect("ASCII").to_string();
        let ready = path("ready");
        let _ = std::fs::remove_file(&ready);
        // what it says at its end, a complaint of unshare's about signals, is nobody's business
        let said = std::fs::File::create(path("boot.log")).expect("could not create a file");
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.net_pid.to_string(), "-n", "setpriv", "--pdeathsig", "KILL"]);
        let init = match &self.group {
            Some(group) => systemd::begin(&mut command, group),
            None => {
                command.arg("unshare");
                INIT
            }
        };
        command
            .args(["--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL", "--mount-proc"])
            .args(["bash", "-c", &format!("hostname {}; {DEVICES}{init}", self.name), "init"])
            .args([&path("dev"), &path("syslog"), &ready])
            .arg(super::bin_dir())
            .arg(super::major().to_string());
        if self.group.is_some() {
            command.args([super::root(), &self.dir]).args(systemd::programs());
        }
        let child = command.stdin(Stdio::null()).stderr(said).spawn().expect("could not run nsenter");
        let unshare = child.id();
        self.init = Some(child);
        wait_for(&format!("the host boots (see {})", path("boot.log")), Duration::from_secs(30), || {
            Path::new(&ready).exists().then_some(())
        });
        self.init_pid = children(unshare).pop().expect("the host's first process");
        if self.group.is_some() {
            wait_for("systemd responds", Duration::from_secs(30), || {
                let state = self.type_root("systemctl is-system-running").out;
                ["starting", "running", "degraded"].contains(&state.trim()).then_some(())
            });
        }
    }

    /// Pulls its plug: every process is killed at once. Its kernel still answers (with refusals); cut it off with
    /// [`super::net::Net::cut`] for one that does not.
    pub fn power_off(&mut self) {
        let Some(mut child) = self.init.take() else { return };
        if self.init_pid == 0 {
            // It did not boot in time.
            let _ = child.kill();
        } else {
            signal(self.init_pid, Signal::KILL);
        }
        let _ = child.wait();
        self.group.iter().for_each(|group| systemd::remove_groups(group));
    }

    /// Waits until it has switched itself off.
    #[track_caller]
    pub fn wait_off(&mut self) {
        let init = self.init.as_mut().expect("it is on");
        wait_for("the host has switched itself off", Duration::from_secs(150), || {
            init.try_wait().expect("could not wait")
        });
        self.power_off();
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.init.is_some()
    }

    /// A path of its own, as this test process sees it.
    pub fn path(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.init_pid, path.display()))
    }

    /// A command on it, as root.
    pub fn command(&self, program: &str) -> Command {
        assert!(self.is_on(), "{} is off", self.name);
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init_pid.to_string(), "-m", "-n", "-p", "-i", "-u", "--", program]);
        command
    }

    /// A command on it, as the instance administrator user.
    pub fn admin(&self, program: &str) -> Command {
        let mut command = self.command("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "env", "-i", "-C", "/tmp"]);
        command.args(["USER=postgres", "LOGNAME=postgres", "LANG=C.UTF-8", "PATH=/usr/bin:/bin", "HOME=/tmp"]);
        command.arg(program);
        command
    }

    /// Runs one of PostgreSQL's programs as the instance administrator user.
    pub fn pg(&self, program: &str, arguments: &[&str]) -> Answer {
        let mut command = self.admin(super::bin_dir().join(program).to_str().expect("ASCII"));
        command.args(arguments);
        run(command, Duration::from_secs(600))
    }

    /// Its processes, but for the first and what only waits for that one.
    pub fn processes(&self) -> Vec<Process> {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(mine) = namespace(&self.init_pid.to_string()) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().filter(|n| n.starts_with(|c: char| c.is_ascii_digit())) else { continue };
            if namespace(pid).as_ref() != Some(&mine) {
                continue;
            }
            let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let field = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default().trim();
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_string();
            let (Ok(pid), Ok(parent)) = (pid.parse(), field("PPid:").parse()) else { continue };
            let inner = field("NSpid:").split_whitespace().last().and_then(|p| p.parse().ok()).unwrap_or_default();
            if inner > 1 && !command.is_empty() && !command.starts_with("sleep 1000") {
                found.push(Process { pid, parent, inner, command });
            }
        }
        found
    }

    /// The postmaster of this data directory, if one runs.
    pub fn postmaster(&self, data: &Path) -> Option<Process> {
        let file = std::fs::read_to_string(self.path(data).join("postmaster.pid")).ok()?;
        let inner: u32 = file.lines().next()?.trim().parse().ok()?;
        self.processes().into_iter().find(|p| p.inner == inner && p.command.contains("bin/postgres"))
    }

    /// The processes of `mc_ctl`, parents first: the watcher, then the controller.
    pub fn controllers(&self) -> Vec<Process> {
        self.running("mc_ctl")
    }

    /// The processes of a program, parents first.
    pub fn running(&self, program: &str) -> Vec<Process> {
        let mut found: Vec<_> = self
            .processes()
            .into_iter()
            .filter(|p| p.command.split(' ').next().is_some_and(|c| c.ends_with(program)))
            .collect();
        found.sort_by_key(|p| p.inner);
        let pids: Vec<_> = found.iter().map(|p| p.pid).collect();
        found.sort_by_key(|p| pids.contains(&p.parent));
        found
    }

    /// The process of the instance whose title contains this.
    pub fn backend(&self, title: &str) -> Option<Process> {
        self.processes().into_iter().find(|p| p.command.starts_with("postgres:") && p.command.contains(title))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// The children of a process with one thread.
pub fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().flat_map(str::parse).collect()
}

/// Sends a signal; a process that has gone is as good.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal);
    }
}
