//! The processes of an instance: found by what they are ([`super::membership`]), never by `postmaster.pid` (a stale one may
//! name an innocent process). Signals go through pidfds that were opened before the process was recognised, so a recycled
//! pid is never signalled.

use super::Place;
use super::bounded::Cancel;
use super::membership::{Instance, Membership, arguments, directory, is_postmaster, names_one_of};
use crate::error::{Error, Result};
use crate::fsm::event::ControlState;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The lock file of a data directory.
const LOCK_FILE: &str = "postmaster.pid";

/// How often a stop looks for what is left.
const PAUSE: Duration = Duration::from_millis(10);

/// How long an immediate shutdown may take before SIGKILL.
const IMMEDIATE: Duration = Duration::from_millis(1000);

/// How long processes may stay after the control file says that the instance is shut down (a hanging archive_command).
const AFTER_SHUTDOWN: Duration = Duration::from_millis(500);

/// How long processes may take to vanish after SIGKILL.
const KILL: Duration = Duration::from_secs(5);

/// A process of an instance.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// It is the postmaster, not one of its children.
    pub postmaster: bool,
    fd: OwnedFd,
}

/// The data directory as the kernel names it in `/proc`, also where it is still to be made; as given, where that cannot be
/// looked up.
pub fn home(data: &Path) -> PathBuf {
    let coming = || {
        let parent = data.parent().filter(|_| !data.is_symlink())?;
        Some(std::fs::canonicalize(parent).ok()?.join(data.file_name()?))
    };
    std::fs::canonicalize(data).ok().or_else(coming).unwrap_or_else(|| data.to_path_buf())
}

/// The data directories of other instances of this user's that run on this host.
pub fn others(home: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = all_pids()?.into_iter().filter_map(directory).collect();
    found.retain(|data| data != home && data.join("PG_VERSION").exists());
    found.sort();
    found.dedup();
    Ok(found)
}

/// The numbers of all processes of the instance, the postmaster included. Zombies do not count. `home` is the data
/// directory by its real path ([`home`]). While the data directory has a lock file, a process that cannot be inspected counts:
/// it may be the one that holds it.
pub fn scan(home: &Path) -> Result<Vec<i32>> {
    Ok(Found::of(home)?.all(home))
}

/// What one scan of `/proc` has found.
struct Found {
    /// The processes of the instance.
    members: Vec<i32>,
    /// Those that cannot be inspected.
    unknown: Vec<i32>,
}

impl Found {
    fn of(home: &Path) -> Result<Found> {
        let instance = Instance::of(home);
        let mut found = Found { members: Vec::new(), unknown: Vec::new() };
        for pid in all_pids()? {
            match instance.membership(pid) {
                Membership::Member => found.members.push(pid),
                Membership::Unknown => found.unknown.push(pid),
                Membership::Foreign => {}
            }
        }
        Ok(found)
    }

    /// What [`scan`] returns.
    fn all(&self, home: &Path) -> Vec<i32> {
        let counts = !self.unknown.is_empty() && !is_missing(&home.join(LOCK_FILE));
        let unknown = self.unknown.iter().filter(|_| counts);
        self.members.iter().chain(unknown).copied().collect()
    }

    fn postmaster(&self, home: &Path) -> Option<Process> {
        let mut leading = self.members.iter().filter(|pid| leads(**pid, &self.members));
        leading.find_map(|pid| open(*pid, home)).map(|process| Process { postmaster: true, ..process })
    }
}

fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|cause| cause.kind() == std::io::ErrorKind::NotFound)
}

/// The postmaster of a data directory, given as for [`scan`].
pub fn postmaster(home: &Path) -> Result<Option<Process>> {
    Ok(Found::of(home)?.postmaster(home))
}

/// Whether the process has a postmaster's command line and is not a child of one of these.
fn leads(pid: i32, pids: &[i32]) -> bool {
    let parent = stat_fields(pid).map(|(_, parent)| parent);
    is_postmaster(&arguments(pid)) && parent.is_some_and(|parent| !pids.contains(&parent))
}

impl Process {
    /// Whether it has not ended.
    pub fn alive(&self) -> bool {
        !self.wait(Duration::ZERO)
    }

    /// Waits for its end, at most this long; whether it has ended.
    pub fn wait(&self, time: Duration) -> bool {
        wait_readable(&self.fd, time)
    }

    /// Sends a signal; false where it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        rustix::process::pidfd_send_signal(&self.fd, signal).is_ok()
    }

    /// Where the kernel reports how it ends.
    pub fn end(&self) -> End {
        // Opened before the end: afterwards, the number may belong to another process.
        End(std::fs::File::open(format!("/proc/{}/stat", self.pid)).ok().filter(|_| self.alive()))
    }

    /// It is stopped (SIGSTOP, a debugger).
    pub fn is_stopped(&self) -> bool {
        stat_fields(self.pid).is_some_and(|(state, _)| matches!(state, b'T' | b't'))
    }
}

/// Where the kernel reports how a process ends, from its end until its parent has waited for it. The parent of a postmaster is
/// the first process of the host, so that a reader must be quick, and may be too late.
#[derive(Debug)]
pub struct End(Option<std::fs::File>);

impl End {
    /// The signal that has terminated the process; `None` if none has, or that is no longer known.
    pub fn signal(&self) -> Option<u8> {
        let mut text = [0; 4096];
        let length = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        // proc(5): fields 3 and 52, counted from behind the name, which may contain anything.
        let mut fields = std::str::from_utf8(&text[..length]).ok()?.rsplit_once(')')?.1.split_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X");
        let status: u32 = fields.nth(48)?.parse().ok()?;
        let signal = u8::try_from(status & 0x7f).ok()?;
        (ended && signal != 0).then_some(signal)
    }
}

impl AsFd for Process {
    /// Readable once the process has ended.
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a descriptor becomes readable within this time.
pub(super) fn wait_readable(fd: &OwnedFd, time: Duration) -> bool {
    let time = rustix::event::Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    matches!(rustix::event::poll(&mut fds, Some(&time)), Ok(1..))
}

fn all_pids() -> Result<Vec<i32>> {
    let proc = Path::new("/proc");
    let entries = std::fs::read_dir(proc).map_err(|e| Error::io("open directory", proc, e))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Whether `pg_ctl` or its shell is still on the way to become the postmaster of this directory.
pub fn launching(data: &Path) -> Result<bool> {
    let home = data.as_os_str().as_encoded_bytes();
    let me = rustix::process::geteuid().as_raw();
    Ok(all_pids()?.into_iter().any(|pid| {
        let ours = || std::fs::metadata(format!("/proc/{pid}")).map(|m| m.uid()).ok() == Some(me);
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let named = line.windows(home.len()).any(|part| part == home);
        let exec = line.windows(5).any(|part| part == b"exec ") || line.windows(6).any(|part| part == b"start\0");
        named && exec && ours()
    }))
}

/// The checkpointer of the instance.
pub fn checkpointer(home: &Path) -> Option<i32> {
    let is_it = |pid: &i32| {
        let title = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        title.starts_with(b"postgres:") && String::from_utf8_lossy(&title).contains("checkpointer")
    };
    Found::of(home).ok()?.members.into_iter().find(is_it)
}

/// State letter and parent of a process.
fn stat_fields(pid: i32) -> Option<(u8, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((*fields.next()?.as_bytes().first()?, fields.next()?.parse().ok()?))
}

/// A handle on the process, if it is (still) one of the instance: the handle first, then the look.
fn open(pid: i32, home: &Path) -> Option<Process> {
    let fd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let is_member = Instance::of(home).membership(pid) == Membership::Member;
    is_member.then_some(Process { pid, postmaster: false, fd })
}

// ------------------------------------------------------------------------------------------------------------ stopping

/// Stops the instance: fast for at most this long, then immediate, then SIGKILL to all its processes; returns when none
/// is left. Where the control file says that the shutdown is complete, what remains is killed soon. An error tells which
/// processes cannot be ended, and why.
pub fn stop(place: &Place, fast: Duration, cancel: &Cancel) -> Result<()> {
    let found = Found::of(&place.data)?;
    if let Some(postmaster) = found.postmaster(&place.data) {
        if !fast.is_zero() && !postmaster.is_stopped() {
            postmaster.signal(Signal::INT);
            if wait_fast(place, &postmaster, fast, cancel)? {
                return Ok(());
            }
        }
        if postmaster.alive() && !postmaster.is_stopped() {
            postmaster.signal(Signal::QUIT);
            if all_gone(place, IMMEDIATE, cancel)? {
                return Ok(());
            }
        }
        return kill_all(place, Found::of(&place.data)?, cancel);
    }
    kill_all(place, found, cancel)
}

/// Waits for a fast shutdown. True: nothing is left. False: it takes too long, or the postmaster is frozen: a stopped
/// process takes no signal but SIGKILL.
fn wait_fast(place: &Place, postmaster: &Process, limit: Duration, cancel: &Cancel) -> Result<bool> {
    let begun = Instant::now();
    let mut shut_down: Option<Instant> = None;
    let mut next_look = begun + Duration::from_millis(300);
    while begun.elapsed() < limit && !postmaster.is_stopped() {
        cancel.check()?;
        if postmaster.wait(PAUSE) {
            return all_gone(place, AFTER_SHUTDOWN, cancel);
        }
        if shut_down.is_some_and(|at| at.elapsed() > AFTER_SHUTDOWN) {
            return kill_all(place, Found::of(&place.data)?, cancel).map(|()| true);
        }
        if shut_down.is_none() && Instant::now() >= next_look {
            let state = super::control::state(place);
            let complete = matches!(state, Ok(ControlState::ShutDown | ControlState::ShutDownInRecovery));
            shut_down = complete.then(Instant::now);
            next_look = Instant::now() + Duration::from_millis(100);
        }
    }
    Ok(false)
}

fn all_gone(place: &Place, limit: Duration, cancel: &Cancel) -> Result<bool> {
    let gone = || Ok(scan(&place.data)?.is_empty().then_some(()));
    Ok(super::bounded::poll(limit, PAUSE, cancel, gone)?.is_some())
}

/// SIGKILL to every process of the instance, the postmaster first so that it starts no other, until a scan finds none. `found`
/// is the first scan; a process that was started since is found by the next one.
fn kill_all(place: &Place, mut found: Found, cancel: &Cancel) -> Result<()> {
    let end = Instant::now() + KILL;
    loop {
        let left = found.all(&place.data);
        if left.is_empty() {
            return Ok(());
        }
        let postmaster = found.postmaster(&place.data);
        let members = found.members.iter().filter_map(|pid| open(*pid, &place.data));
        let killed: Vec<Process> = postmaster.into_iter().chain(members).collect();
        for process in &killed {
            process.signal(Signal::KILL);
        }
        if Instant::now() >= end {
            return Err(uninspected(&place.data, &left).unwrap_or_else(|| stuck(&left)));
        }
        cancel.check()?;
        if killed.is_empty() || !all_end(&killed, PAUSE) || !found.unknown.is_empty() {
            cancel.sleep(PAUSE)?;
        }
        found = Found::of(&place.data)?;
    }
}

/// Waits for the end of all these processes, at most this long; whether they have ended.
fn all_end(processes: &[Process], limit: Duration) -> bool {
    let end = Instant::now() + limit;
    processes.iter().all(|process| process.wait(end.saturating_duration_since(Instant::now())))
}

fn stuck(left: &[i32]) -> Error {
    let states = left.iter().map(|pid| match stat_fields(*pid).map(|(state, _)| state) {
        Some(b'D') => format!("{pid} (waits for a disk, state D)"),
        Some(state) => format!("{pid} (state {})", state as char),
        None => pid.to_string(),
    });
    Error::new(format!("could not end processes {}", states.collect::<Vec<_>>().join(", ")))
        .hint("They do not respond to SIGKILL while they wait for a disk that does not respond.")
}

/// The error for one of these processes that cannot be inspected; `None` if all can.
pub fn uninspected(home: &Path, left: &[i32]) -> Option<Error> {
    let found = Found::of(home).ok()?;
    let pid = left.iter().find(|pid| found.unknown.contains(pid))?;
    let error = Error::new(format!("process {pid} cannot be inspected and may be part of the instance"));
    Some(error.hint(format!(
        "Run as root: ls -l /proc/{pid}/cwd. If the process uses another data directory, remove \"{}\". Otherwise, stop the \
         process.",
        home.join(LOCK_FILE).display()
    )))
}

/// Removes lock files of a dead run that would keep PostgreSQL from starting because the process that they name exists
/// although it is no part of the instance: a recycled number, or a killed postmaster that is not reaped yet. Only where no
/// process of the instance was found. A socket's lock file is removed only if the same postmaster has written it: another
/// mount namespace can share the socket's directory and use the same path for its data directory. Returns what was removed,
/// and the process.
pub fn remove_stale_locks(place: &Place) -> Result<Vec<(PathBuf, i32)>> {
    let main = place.data.join(LOCK_FILE);
    let text = std::fs::read_to_string(&main).unwrap_or_default();
    let mut files = Vec::new();
    if let (Some(port), Some(dir)) = (text.lines().nth(3), text.lines().nth(4).filter(|dir| dir.starts_with('/'))) {
        files.push(Path::new(dir).join(format!(".s.PGSQL.{}.lock", port.trim())));
    }
    files.push(main);
    let mut removed = Vec::new();
    for file in files {
        let lock = std::fs::read_to_string(&file).unwrap_or_default();
        let ours = lock.lines().nth(1).is_some_and(|data| home(Path::new(data)) == place.data)
            && lock.lines().take(3).eq(text.lines().take(3));
        let Some(pid) = first_number(&lock).filter(|pid| ours && stat_fields(*pid).is_some()) else { continue };
        if !scan(&place.data)?.is_empty() {
            break;
        }
        std::fs::remove_file(&file).map_err(|e| Error::io("remove file", &file, e))?;
        removed.push((file, pid));
    }
    Ok(removed)
}

/// Ends what a killed controller has left at work on one of these directories: `pg_rewind`, `pg_basebackup` and a standalone
/// backend, recognised by their executable and a directory among their arguments. Returns when none is left.
///
/// # Errors
/// One cannot be ended.
pub fn end_leftovers(dirs: &[&Path], cancel: &Cancel) -> Result<()> {
    let end = Instant::now() + KILL;
    loop {
        let found: Vec<i32> = all_pids()?.into_iter().filter(|pid| is_leftover(*pid, dirs)).collect();
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(stuck(&found));
        }
        for pid in &found {
            // The handle first, then the look: a recycled number is never signalled.
            let fd = Pid::from_raw(*pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
            if let Some(fd) = fd.filter(|_| is_leftover(*pid, dirs)) {
                let _ = rustix::process::pidfd_send_signal(&fd, Signal::KILL);
            }
        }
        cancel.sleep(PAUSE)?;
    }
}

fn is_leftover(pid: i32, dirs: &[&Path]) -> bool {
    let me = rustix::process::geteuid().as_raw();
    if std::fs::metadata(format!("/proc/{pid}")).map(|m| m.uid()).ok() != Some(me) {
        return false;
    }
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args = arguments(pid);
    let ours = match name.trim_end_matches(" (deleted)") {
        "pg_rewind" | "pg_basebackup" => true,
        "postgres" => args.iter().any(|arg| arg == b"--single"),
        _ => false,
    };
    ours && args.iter().any(|arg| names_one_of(pid, arg, dirs))
}

/// The process that `postmaster.pid` names. Not to be trusted, only to be compared.
pub fn pid_in_file(place: &Place) -> Option<i32> {
    let text = std::fs::read_to_string(place.data.join(LOCK_FILE)).ok()?;
    first_number(&text)
}

/// The process that a lock file names; a standalone backend's is negative there.
fn first_number(lock: &str) -> Option<i32> {
    lock.lines().next()?.trim().parse::<i32>().ok().map(i32::wrapping_abs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_that_ended_a_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        let fd = rustix::process::pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let process = Process { pid, postmaster: true, fd };
        let end = process.end();
        assert_eq!(end.signal(), None, "it runs");
        assert!(process.signal(Signal::KILL));
        // The thread that waits for the end reads it before the parent waits for the process.
        assert!(process.wait(KILL));
        assert_eq!(end.signal(), Some(9));
        assert!(!child.wait().unwrap().success());
        assert_eq!(end.signal(), None, "it has been waited for");
        assert_eq!(process.end().signal(), None);
    }

    #[test]
    fn a_home_is_known_before_it_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let link = real.join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(home(&link.join("data")), real.join("data"));
        std::os::unix::fs::symlink(real.join("none"), real.join("away")).unwrap();
        assert_eq!(home(&link.join("away")), link.join("away"));
        assert_eq!(home(Path::new("/nonexistent/data")), Path::new("/nonexistent/data"));
    }
}
