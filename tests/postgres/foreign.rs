//! An instance of another mount namespace, such as a container's, with the same path for its data directory and the same user.

use crate::harness::host::{Process, signal};
use crate::harness::pair::{Pair, Setup, own};
use crate::harness::{bin_dir, s, wait_for};
use rustix::process::Signal;
use std::process::{Child, Stdio};

/// A copy of the first server's data directory that another mount namespace has under that server's path.
struct Foreign {
    child: Child,
    pid: u32,
}

impl Foreign {
    /// Starts a postmaster on it with these options.
    fn start(pair: &Pair, options: &str) -> Foreign {
        let (data, copy) = (pair.data(0), pair.host(0).dir.join("foreign"));
        let copy = copy.to_str().expect("ASCII");
        pair.as_root(0, &["cp", "-a", data, copy]);
        pair.as_root(0, &["rm", "-f", &format!("{copy}/postmaster.pid")]);
        own(std::path::Path::new(copy));
        let script = format!(
            "mount --bind {copy} {data} && exec setpriv --reuid postgres --regid postgres --clear-groups \
             {}/postgres -D {data} {options}",
            bin_dir().display()
        );
        let mut command = pair.host(0).command("unshare");
        command.args(["-m", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("could not run nsenter");
        let inner = wait_for("the foreign postmaster has a lock file", s(20), || {
            let text = std::fs::read_to_string(format!("{copy}/postmaster.pid")).ok()?;
            let lines: Vec<&str> = text.lines().collect();
            lines.get(7).filter(|status| status.trim() == "ready")?;
            lines.first()?.trim().parse::<u32>().ok()
        });
        let is_it = |process: &Process| process.inner == inner;
        let pid = pair.host(0).processes().into_iter().find(is_it).expect("the foreign postmaster").pid;
        Foreign { child, pid }
    }

    #[track_caller]
    fn survives(&mut self, what: &str) {
        let state = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        assert!(state.contains("Name:\tpostgres") && !state.contains("State:\tZ"), "killed by {what}: {state}");
        assert!(self.child.try_wait().expect("a child").is_none(), "ended by {what}");
    }
}

/// No stop of the controller reaches it, and each stop ends the own instance.
#[test]
fn another_mount_namespace_is_not_stopped() {
    let pair = Setup::default().fast().make();
    let mut foreign = Foreign::start(&pair, "-p 6000");
    for stop in [&["stop"][..], &["stop", "-t", "60"]] {
        pair.start(0, &["-f"]);
        wait_for("the instance answers", s(20), || pair.try_sql(0, "SELECT 1").ok());
        foreign.survives("a start");
        let own = pair.postmaster(0).pid;
        pair.mc(0, stop).expect(0, "mc_ctl stop");
        foreign.survives("mc_ctl stop");
        assert!(!std::path::Path::new(&format!("/proc/{own}")).exists(), "the own instance is left");
    }
    // A frozen postmaster is stopped by SIGKILL, and the instance is started again.
    pair.start(0, &["-f"]);
    wait_for("the instance answers", s(20), || pair.try_sql(0, "SELECT 1").ok());
    let own = pair.postmaster(0).pid;
    signal(own, Signal::STOP);
    wait_for("the frozen postmaster is replaced", s(60), || {
        (pair.host(0).postmaster(pair.servers[0].data.as_path())?.pid != own).then_some(())
    });
    foreign.survives("the end of a frozen instance");
    pair.kill_postmaster(0);
    wait_for("the instance answers again", s(60), || pair.try_sql(0, "SELECT 1").ok());
    foreign.survives("a restart");
    pair.mc(0, &["stop"]).expect(0, "mc_ctl stop");
    foreign.survives("mc_ctl stop");
}

/// The lock file of its socket stays, although it names the path of the own data directory.
#[test]
fn the_lock_file_of_another_mount_namespace_stays() {
    let pair = Setup::default().fast().make();
    pair.start(0, &["-f"]);
    wait_for("the instance answers", s(20), || pair.try_sql(0, "SELECT 1").ok());
    pair.mc(0, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    let own = pair.postmaster(0).pid;
    let lock = std::fs::read_to_string(pair.host(0).path(pair.servers[0].data.as_path()).join("postmaster.pid"));
    let lock = lock.expect("the own lock file");
    let lines: Vec<&str> = lock.lines().collect();
    let socket_lock =
        pair.host(0).path(std::path::Path::new(lines[4])).join(format!(".s.PGSQL.{}.lock", lines[3].trim()));
    signal(own, Signal::KILL);
    wait_for("the own instance is gone", s(20), || {
        (!std::path::Path::new(&format!("/proc/{own}")).exists()).then_some(())
    });
    let mut foreign = Foreign::start(&pair, "-c listen_addresses=");
    let theirs = std::fs::read_to_string(&socket_lock).expect("the foreign lock file");
    let answer = pair.mc(0, &["start", "-w", "-f", "-t", "10"]);
    assert_ne!(answer.code, 0, "{}", answer.text());
    assert_eq!(std::fs::read_to_string(&socket_lock).ok().as_deref(), Some(theirs.as_str()), "{}", answer.text());
    foreign.survives("a start");
    // It ends, and the own instance starts.
    signal(foreign.pid, Signal::INT);
    pair.mc(0, &["stop", "-e"]).expect(0, "mc_ctl stop -e");
    pair.start(0, &["-f"]);
    wait_for("the own instance answers", s(60), || pair.try_sql(0, "SELECT 1").ok());
}
