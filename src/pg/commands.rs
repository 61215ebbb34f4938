//! PostgreSQL's programs: how they are called, a call with a time limit, and one that is followed line by line. No shell
//! of ours, no password in an argument, a process group of their own, bounded output. Called by the runner, by the rebuild,
//! and by readers of control data.

use super::Place;
use super::bounded::Cancel;
use crate::config::not_for_shell;
use crate::error::{Error, Result};
use crossbeam_channel::RecvTimeoutError;
use rustix::process::{Pid, Signal};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is kept of a program's output, in bytes; the rest is read and dropped.
const MAX_OUTPUT: usize = 64 << 10;

/// How often a wait looks at its cancel flag.
const SLICE: Duration = Duration::from_millis(5);

/// The same while a program is followed that may run for hours.
const FOLLOWED: Duration = Duration::from_millis(20);

/// How many lines of a followed program are kept for its error.
const LAST_LINES: usize = 20;

/// How long a program that was killed may take to be gone.
const KILLED: Duration = Duration::from_secs(2);

/// A program with its arguments.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    c_locale: bool,
    password: Option<String>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program {{ {:?} {:?} }}", self.path, self.args)
    }
}

/// `pg_controldata`.
pub fn controldata(place: &Place) -> Program {
    program(place, "pg_controldata", ["-D".into(), place.data.clone().into_os_string()])
}

/// `pg_ctl start`, without waiting, which opens `log` for appending. The postmaster gets a session of its own from pg_ctl, and the environment of the
/// controller but for passwords and for a name that its WAL receiver would take.
pub fn start(place: &Place, log: &Path) -> Result<Program> {
    let mut args: Vec<OsString> = vec!["start".into(), "-W".into(), "-s".into(), "-D".into()];
    args.push(place.data.clone().into_os_string());
    args.push("-l".into());
    args.push(log.as_os_str().to_owned());
    // A file that a link or a rebuild has brought in since the configuration was read.
    for path in [&*place.data, &place.bin_dir, &place.config_file, log] {
        if let Some(c) = not_for_shell(path) {
            let path = path.display();
            return Err(Error::new(format!("path \"{path}\" contains {c:?}, which pg_ctl cannot pass to a shell")));
        }
    }
    if place.config_elsewhere() {
        args.push("-o".into());
        args.push(format!("-c config_file='{}'", place.config_file.display()).into());
    }
    Ok(Program { c_locale: false, ..program(place, "pg_ctl", args) })
}

/// `pg_ctl promote`, without waiting. It trusts `postmaster.pid`: compare that first.
pub fn promote(place: &Place) -> Program {
    let mut args: Vec<OsString> = ["promote", "-W", "-s", "-D"].into_iter().map(Into::into).collect();
    args.push(place.data.clone().into_os_string());
    program(place, "pg_ctl", args)
}

/// A program of the instance's, in the C locale.
pub fn program(place: &Place, name: &str, args: impl IntoIterator<Item = OsString>) -> Program {
    Program { path: place.bin_dir.join(name), args: args.into_iter().collect(), c_locale: true, password: None }
}

/// Without what the service manager gave this process to talk to it: a postmaster would say that the service is ready, or
/// stops.
pub fn without_service_manager(command: &mut Command) {
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
}

/// A command in a process group of its own, its outputs piped, without what the environment says of connections and of
/// a service manager.
pub fn bare(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for secret in ["PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "PGDATA", "PGOPTIONS", "PGAPPNAME"] {
        command.env_remove(secret);
    }
    without_service_manager(&mut command);
    command
}

impl Program {
    /// Runs it, and returns its standard output. A program that takes longer than the limit, or is cancelled, is killed
    /// with its process group. Errors carry the end of what it wrote to standard error.
    pub fn run(&self, limit: Duration, cancel: Option<&Cancel>) -> Result<String> {
        let mut child = self.spawn()?;
        let out = child.stdout.take().map(collect);
        let err = child.stderr.take().map(collect);
        let status = wait(&mut child, limit, cancel).map_err(|why| self.error(&why, ""))?;
        let text = |pipe: Option<Collected>| pipe.map(take).unwrap_or_default();
        let (out, err) = (text(out), text(err));
        if status.success() { Ok(out) } else { Err(self.error(&status.to_string(), &format!("{err}{out}"))) }
    }

    /// The same with this password, in its environment.
    pub fn password(mut self, password: Option<&str>) -> Program {
        self.password = password.map(str::to_owned);
        self
    }

    /// Runs it to its end, however long that takes, and gives `line` each line that it writes to either output, as they
    /// come. Cancelled, it is killed with its process group. `line` says whether a line is worth an error's text (progress is
    /// not).
    ///
    /// # Errors
    /// It failed, with the last lines that it wrote; or was cancelled.
    pub fn follow(&self, cancel: &Cancel, line: impl FnMut(&str) -> bool) -> Result<()> {
        self.follow_to_end(cancel, line).0
    }

    /// The same, and whether surely every line that it wrote was given: not where a process that it left behind still holds
    /// its output, or where this host is too slow.
    pub fn follow_to_end(&self, cancel: &Cancel, mut line: impl FnMut(&str) -> bool) -> (Result<()>, bool) {
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => return (Err(error), true),
        };
        let (tell, told) = crossbeam_channel::bounded(256);
        if let Some(pipe) = child.stdout.take() {
            lines(pipe, tell.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            lines(pipe, tell);
        }
        let mut last = VecDeque::new();
        let mut read = |text: String| {
            if line(&text) {
                last.push_back(text);
                if last.len() > LAST_LINES {
                    last.pop_front();
                }
            }
        };
        let status = wait_reading(&mut child, cancel, &told, &mut read);
        // What it wrote last; a grandchild that holds the pipe is not waited for.
        let all = loop {
            match told.recv_timeout(Duration::from_millis(200)) {
                Ok(text) => read(text),
                Err(end) => break end == RecvTimeoutError::Disconnected,
            }
        };
        let ended = match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.error(&status.to_string(), &Vec::from(last).join("\n"))),
            Err(why) => Err(self.error(&why, "")),
        };
        (ended, all)
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = bare(&self.path);
        command.args(&self.args);
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        if self.c_locale {
            command.env("LC_ALL", "C");
        }
        command.spawn().map_err(|e| {
            Error::io("run program", &self.path, e)
                .hint("Check bin_dir, and that PostgreSQL's server programs are installed.")
        })
    }

    fn error(&self, why: &str, said: &str) -> Error {
        let verb = self.args.first().map(|arg| arg.to_string_lossy()).filter(|arg| !arg.starts_with('-'));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let verb = verb.map(|v| format!(" {v}")).unwrap_or_default();
        let said = said.trim();
        Error::new(format!("{name}{verb} failed: {why}{}{said}", if said.is_empty() { "" } else { ": " }))
    }
}

/// Waits for a child. At the limit, or cancelled, its whole process group is killed.
fn wait(child: &mut Child, limit: Duration, cancel: Option<&Cancel>) -> std::result::Result<ExitStatus, String> {
    let end = Instant::now() + limit;
    let pid = Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    let mut why = None;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return why.map_or(Ok(status), Err);
        }
        let over = Instant::now() >= end;
        let cancelled = cancel.is_some_and(Cancel::is_set);
        if why.is_none() && (over || cancelled) {
            why = Some(if cancelled {
                "the controller cancelled the operation".into()
            } else {
                format!("no end within {limit:?}")
            });
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        } else if Instant::now() >= end + KILLED {
            return Err(format!("process {pid:?} cannot be killed"));
        }
        match &pidfd {
            Ok(fd) => _ = super::process::wait_readable(fd, SLICE),
            Err(_) => std::thread::sleep(SLICE),
        }
    }
}

/// Waits for a child that is followed, and gives `read` what it writes meanwhile.
fn wait_reading(
    child: &mut Child,
    cancel: &Cancel,
    told: &crossbeam_channel::Receiver<String>,
    read: &mut impl FnMut(String),
) -> std::result::Result<ExitStatus, String> {
    let pid = Pid::from_child(child);
    let mut killed: Option<Instant> = None;
    loop {
        match told.recv_timeout(FOLLOWED) {
            Ok(text) => read(text),
            // Both pipes are closed: it ends, or has closed them and continues.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(SLICE),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return if killed.is_some() { Err("the controller cancelled the operation".into()) } else { Ok(status) };
        }
        match killed {
            None if cancel.is_set() => {
                killed = Some(Instant::now());
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            Some(at) if at.elapsed() > KILLED => return Err(format!("process {pid:?} cannot be killed")),
            _ => {}
        }
    }
}

/// Reads a pipe on a thread, line by line; a carriage return ends a line as well, and a longer one than 4 kB is cut.
fn lines(mut pipe: impl Read + Send + 'static, tell: crossbeam_channel::Sender<String>) {
    std::thread::spawn(move || {
        let (mut line, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            for byte in &buffer[..n] {
                match byte {
                    b'\n' | b'\r' if line.is_empty() => {}
                    b'\n' | b'\r' => {
                        let _ = tell.send(String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned());
                    }
                    _ if line.len() < buffer.len() => line.push(*byte),
                    _ => {}
                }
            }
        }
        if !line.is_empty() {
            let _ = tell.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

type Collected = crossbeam_channel::Receiver<Vec<u8>>;

/// Reads a pipe to its end on a thread, so that the child never blocks on a full one.
fn collect(mut pipe: impl Read + Send + 'static) -> Collected {
    let (tell, told) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            let room = MAX_OUTPUT.saturating_sub(kept.len());
            kept.extend_from_slice(&buffer[..n.min(room)]);
        }
        let _ = tell.send(kept);
    });
    told
}

/// What was read; nothing where a grandchild still holds the pipe.
fn take(pipe: Collected) -> String {
    let bytes = pipe.recv_timeout(Duration::from_millis(200)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &str, args: &[&str]) -> Program {
        Program { path: path.into(), args: args.iter().map(Into::into).collect(), c_locale: true, password: None }
    }

    #[test]
    fn is_followed_line_by_line() {
        let mut seen = Vec::new();
        let wordy = program("/bin/sh", &["-c", "printf 'a\\rb\\n'; echo $PGPASSWORD >&2"]).password(Some("pw"));
        assert!(!format!("{wordy:?}").contains("pw\""));
        wordy
            .follow(&Cancel::never(), |line| {
                seen.push(line.to_owned());
                true
            })
            .unwrap();
        seen.sort();
        assert_eq!(seen, ["a", "b", "pw"]);
        let failing = program("/bin/sh", &["-c", "seq 1 100; echo no; exit 2"]);
        let failed = failing.follow(&Cancel::never(), |line| line.parse::<u32>().is_err()).unwrap_err();
        assert_eq!(failed.message, "sh failed: exit status: 2: no");
        assert!(failing.follow_to_end(&Cancel::never(), |_| true).1);
        let (failed, all) = program("/bin/sh", &["-c", "sleep 1 & exit 2"]).follow_to_end(&Cancel::never(), |_| true);
        assert!(failed.is_err() && !all);
        let (canceller, cancel) = Cancel::new();
        let mut held = Some(canceller);
        let begun = Instant::now();
        let endless = program("/bin/sh", &["-c", "echo go; sleep 30; true"]);
        let stopped = endless.follow(&cancel, |_| held.take().is_some()).unwrap_err();
        assert!(stopped.message.contains("cancelled") && begun.elapsed() < Duration::from_secs(5), "{stopped}");
    }

    #[test]
    fn runs_with_a_limit() {
        let long = Duration::from_secs(20);
        assert_eq!(program("/bin/echo", &["a"]).run(long, None), Ok("a\n".into()));
        let failed = program("/bin/sh", &["-c", "echo no >&2; exit 3"]).run(long, None).unwrap_err();
        assert_eq!(failed.message, "sh failed: exit status: 3: no");
        let begun = Instant::now();
        let late = program("/bin/sh", &["-c", "sleep 30; true"]).run(Duration::from_millis(20), None).unwrap_err();
        assert!(late.message.contains("no end within 20ms") && begun.elapsed() < Duration::from_secs(5), "{late}");
        let (canceller, cancel) = Cancel::new();
        drop(canceller);
        let stopped = program("/bin/sleep", &["30"]).run(long, Some(&cancel)).unwrap_err();
        assert!(stopped.message.contains("cancelled"), "{stopped}");
        assert!(
            program("/nonexistent/x", &[]).run(long, None).unwrap_err().message.starts_with("could not run program")
        );
        let wordy = program("/bin/sh", &["-c", "yes | head -c 300000"]).run(long, None).unwrap();
        assert_eq!(wordy.len(), MAX_OUTPUT);
    }
}
