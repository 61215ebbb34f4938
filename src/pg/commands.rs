//! PostgreSQL's programs: how they are called, and a call with a time limit. No shell of ours, no password in an
//! argument, a process group of their own, bounded output. Called by the runner and by readers of control data.

use super::Place;
use super::bounded::Cancel;
use crate::error::{Error, Result};
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is kept of a program's output, in bytes; the rest is read and dropped.
const MAX_OUTPUT: usize = 64 << 10;

/// How often a wait looks at its cancel flag.
const SLICE: Duration = Duration::from_millis(5);

/// A program with its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    c_locale: bool,
}

/// `pg_controldata`.
pub fn controldata(place: &Place) -> Program {
    let data = place.data.clone().into_os_string();
    Program { path: place.bin_dir.join("pg_controldata"), args: vec!["-D".into(), data], c_locale: true }
}

/// `pg_ctl start`, without waiting. The postmaster gets a session of its own from pg_ctl, and the environment of the
/// controller but for passwords and for a name that its WAL receiver would take.
pub fn start(place: &Place) -> Result<Program> {
    let mut args: Vec<OsString> = vec!["start".into(), "-W".into(), "-s".into(), "-D".into()];
    args.push(place.data.clone().into_os_string());
    args.push("-l".into());
    args.push(place.startup_log.clone().into_os_string());
    if place.config_elsewhere() {
        // pg_ctl hands options to a shell.
        let file = place.config_file.to_string_lossy();
        if file.contains(['\'', '"', '\\', '$', '`']) {
            return Err(Error::new(format!(
                "the path of file \"{file}\" holds a character that pg_ctl cannot pass on"
            )));
        }
        args.push("-o".into());
        args.push(format!("-c config_file='{file}'").into());
    }
    Ok(Program { path: place.bin_dir.join("pg_ctl"), args, c_locale: false })
}

/// `pg_ctl promote`, without waiting. It trusts `postmaster.pid`: compare that first.
pub fn promote(place: &Place) -> Program {
    let mut args: Vec<OsString> = ["promote", "-W", "-s", "-D"].into_iter().map(Into::into).collect();
    args.push(place.data.clone().into_os_string());
    Program { path: place.bin_dir.join("pg_ctl"), args, c_locale: true }
}

impl Program {
    /// Runs it, and returns its standard output. A program that takes longer than the limit, or is cancelled, is killed
    /// with its process group. Errors carry the end of what it wrote to standard error.
    pub fn run(&self, limit: Duration, cancel: Option<&Cancel>) -> Result<String> {
        let mut command = std::process::Command::new(&self.path);
        command.args(&self.args).current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for secret in ["PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE", "PGDATA", "PGOPTIONS", "PGAPPNAME"] {
            command.env_remove(secret);
        }
        if self.c_locale {
            command.env("LC_ALL", "C");
        }
        let mut child = command.spawn().map_err(|e| {
            Error::io("run program", &self.path, e)
                .hint("Check bin_dir, and that PostgreSQL's server programs are installed.")
        })?;
        let out = child.stdout.take().map(collect);
        let err = child.stderr.take().map(collect);
        let status = wait(&mut child, limit, cancel).map_err(|why| self.error(&why, ""))?;
        let text = |pipe: Option<Collected>| pipe.map(take).unwrap_or_default();
        let (out, err) = (text(out), text(err));
        if status.success() { Ok(out) } else { Err(self.error(&status.to_string(), &format!("{err}{out}"))) }
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
            why =
                Some(if cancelled { "cancelled by a later order".into() } else { format!("no end within {limit:?}") });
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        } else if Instant::now() >= end + Duration::from_secs(2) {
            return Err(format!("process {pid:?} cannot be killed"));
        }
        match &pidfd {
            Ok(fd) => _ = super::process::wait_readable(fd, SLICE),
            Err(_) => std::thread::sleep(SLICE),
        }
    }
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
        Program { path: path.into(), args: args.iter().map(Into::into).collect(), c_locale: true }
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
