//! The pid files of controller and watcher, and ending the process that one names.
//!
//! A file holds the process id and the start time of the process, so that a number that the kernel has given to another
//! process since is never signalled.

use crate::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The controller's, in `DIR/ID`.
pub const CONTROLLER: &str = "mc.pid";

/// The watcher's, in `DIR/ID`.
pub const WATCHER: &str = "watcher.pid";

/// How long a killed process may take to be gone.
const GONE_LIMIT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Writes this process into the file. The caller holds the lock that belongs to it.
///
/// # Errors
/// The file cannot be written.
pub fn write(run_dir: &Path, name: &str) -> Result<PathBuf> {
    let path = run_dir.join(name);
    let pid = std::process::id();
    let started = start_time(pid).unwrap_or(0);
    let text = format!("{pid} {started}\n");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|cause| Error::io("write file", &path, cause))?;
    Ok(path)
}

/// Ends the process that the file names with SIGKILL and waits until it is gone. False where it does not run.
///
/// # Errors
/// It cannot be signalled, or is not gone in time.
pub fn kill(run_dir: &Path, name: &str) -> Result<bool> {
    let path = run_dir.join(name);
    let Some((number, process)) = send(&path, Signal::KILL)? else { return Ok(false) };
    match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&GONE_LIMIT)) {
        Ok(0) => Err(Error::new(format!("process {number} was killed, but has not ended yet"))
            .hint("it may wait for a disk that does not respond")),
        Ok(_) => {
            let _ = std::fs::remove_file(&path);
            Ok(true)
        }
        Err(cause) => Err(Error::new(format!("could not end process {number}: {cause}"))),
    }
}

/// Sends a signal to the process that the file names. False where it does not run.
///
/// # Errors
/// It cannot be signalled.
pub fn signal(run_dir: &Path, name: &str, signal: Signal) -> Result<bool> {
    send(&run_dir.join(name), signal).map(|process| process.is_some())
}

/// The process that the file names, signalled; `None` where it does not run.
fn send(path: &Path, signal: Signal) -> Result<Option<(u32, OwnedFd)>> {
    let Some((number, started)) = read(path) else { return Ok(None) };
    let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let failed = |cause| Error::new(format!("could not signal process {number}: {cause}"));
    // The descriptor first, then the comparison: what is compared is what is signalled.
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(cause) => return Err(failed(cause)),
    };
    if start_time(number) != Some(started) {
        return Ok(None);
    }
    match pidfd_send_signal(&process, signal) {
        Ok(()) => Ok(Some((number, process))),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(cause) => Err(failed(cause)),
    }
}

/// Whether the process that the file names runs.
pub fn is_alive(run_dir: &Path, name: &str) -> bool {
    read(&run_dir.join(name)).is_some_and(|(number, started)| runs(number, started))
}

/// Whether the process that the file names died: a process that ends in an orderly way removes its file.
pub fn died(run_dir: &Path, name: &str) -> bool {
    read(&run_dir.join(name)).is_some_and(|(number, started)| !runs(number, started))
}

fn read(path: &Path) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(path).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

/// Start time of a process in clock ticks since boot.
fn start_time(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.started)
}

/// Whether this process runs. One that has ended, and that its parent has not waited for yet, does not.
fn runs(pid: u32, started: u64) -> bool {
    stat(pid).is_some_and(|stat| stat.started == started && !stat.ended)
}

/// What the kernel reports of a process.
struct Stat {
    /// Start time, in clock ticks since boot.
    started: u64,
    /// The process is a zombie, without a thread that is still to end.
    ended: bool,
}

/// Fields 3, 20 and 22 of `/proc/PID/stat` (proc(5)), counted from behind the name, which may contain anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    let zombie = matches!(fields.first(), Some(&("Z" | "X")));
    Some(Stat { started: number(19)?, ended: zombie && number(17)? <= 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_wrote_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!kill(dir.path(), CONTROLLER).unwrap());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        std::fs::write(dir.path().join(CONTROLLER), format!("{} {}\n", child.id(), started + 1)).unwrap();
        assert!(!kill(dir.path(), CONTROLLER).unwrap());
        assert!(child.try_wait().unwrap().is_none());
        std::fs::write(dir.path().join(CONTROLLER), format!("{} {started}\n", child.id())).unwrap();
        assert!(is_alive(dir.path(), CONTROLLER) && !is_alive(dir.path(), WATCHER));
        let content = std::fs::read(dir.path().join(CONTROLLER)).unwrap();
        assert!(!died(dir.path(), CONTROLLER));
        assert!(kill(dir.path(), CONTROLLER).unwrap());
        assert!(!died(dir.path(), CONTROLLER) && !is_alive(dir.path(), CONTROLLER));
        // Nothing has waited for the process yet.
        std::fs::write(dir.path().join(CONTROLLER), content).unwrap();
        assert!(died(dir.path(), CONTROLLER) && !is_alive(dir.path(), CONTROLLER));
        assert!(!child.wait().unwrap().success());
    }
}
