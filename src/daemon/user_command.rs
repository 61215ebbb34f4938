//! Runs a command of the user's (mc_hooks(5)): never through a shell, with a time limit, its output logged.
//!
//! Blocks its caller for at most the limit, so it is called on a thread that may wait: a server's runner, the arbiter's.
//! The command gets a process group of its own, which is killed whole at the limit or when the caller is cancelled.
//! What its exit code means is the caller's business.

use crate::error::{Error, Result};
use crate::messages::{self, Tell};
use crate::pg::bounded::Cancel;
use crate::pg::commands;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::io::{PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The longest time between two looks at the limit and the cancel flag.
const ROUND: Duration = Duration::from_millis(50);

/// How long a killed command may take to be gone.
const GONE: Duration = Duration::from_secs(2);

/// A longer line of output is cut, in bytes.
const MAX_LINE: usize = 1024;

/// Lines that are logged of one run.
const MAX_LINES: usize = 200;

/// Runs `program` to its end. `Ok` for exit code 0.
///
/// # Errors
/// It cannot be started, ends with another exit code or by a signal, does not end before `limit`, or `cancel` was set.
pub fn run(
    program: &Path,
    arguments: &[String],
    environment: &[(String, String)],
    limit: Duration,
    cancel: &Cancel,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    let (reader, writer) = std::io::pipe().map_err(|cause| Error::new(format!("could not make a pipe: {cause}")))?;
    let mut output = Output::new(program, reader)?;
    let child = {
        let errors = writer.try_clone().map_err(|cause| Error::new(format!("could not copy a pipe: {cause}")))?;
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        commands::without_service_manager(&mut command);
        command.stdin(Stdio::null()).stdout(writer).stderr(errors).process_group(0).current_dir("/");
        command.spawn().map_err(|cause| {
            Error::io("run command", program, cause)
                .hint("it must be a program, or a script with a #! line, that this user may execute")
        })?
    };
    let ended = wait(child, &mut output, deadline, cancel);
    output.finish();
    let status = ended.map_err(|why| Error::new(format!("command \"{}\" {why}", program.display())))?;
    if status.success() {
        return Ok(());
    }
    let how = match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was ended by a signal ({status})"),
    };
    let last = if output.last.is_empty() { String::new() } else { format!(": {}", output.last) };
    Err(Error::new(format!("command \"{}\" {how}{last}", program.display())))
}

/// Waits for the end of the child and takes its output meanwhile; else says what it did and kills its group.
fn wait(
    mut child: Child,
    output: &mut Output,
    deadline: Instant,
    cancel: &Cancel,
) -> std::result::Result<ExitStatus, String> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // Without a descriptor for its end (a very old kernel) the rounds find it.
    let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let begin = Instant::now();
    let mut killed: Option<(String, Instant)> = None;
    loop {
        output.take(process.as_ref(), ROUND);
        match (child.try_wait(), &killed) {
            (Ok(Some(status)), None) => return Ok(status),
            (Ok(Some(_)), Some((why, _))) => return Err(why.clone()),
            (Ok(None), Some((why, at))) if at.elapsed() >= GONE => {
                return Err(format!("{why}, but has not ended yet"));
            }
            (Ok(None), _) => (),
            (Err(cause), _) => return Err(format!("could not be waited for: {cause}")),
        }
        if killed.is_some() {
            continue;
        }
        let why = match () {
            () if cancel.is_set() => "was killed: a later request cancelled it".to_owned(),
            () if Instant::now() >= deadline => {
                format!("was killed: it did not end within {} ms", begin.elapsed().as_millis())
            }
            () => continue,
        };
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        killed = Some((why, Instant::now()));
    }
}

/// The command's standard output and error, logged line by line as far as the bounds go.
struct Output {
    program: String,
    /// `None` once every writer has closed it.
    pipe: Option<PipeReader>,
    line: Vec<u8>,
    lines: usize,
    /// The last line that is not empty.
    last: String,
}

impl Output {
    fn new(program: &Path, pipe: PipeReader) -> Result<Output> {
        rustix::io::ioctl_fionbio(&pipe, true)
            .map_err(|cause| Error::new(format!("could not make a pipe non-blocking: {cause}")))?;
        let program = program.display().to_string();
        Ok(Output { program, pipe: Some(pipe), line: Vec::new(), lines: 0, last: String::new() })
    }

    /// Waits for output or the end of the process, at most `limit`, and takes what is there.
    fn take(&mut self, process: Option<&rustix::fd::OwnedFd>, limit: Duration) {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        let mut fds: Vec<PollFd<'_>> = process.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)).collect();
        fds.extend(self.pipe.iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let _ = poll(&mut fds, Some(&limit));
        self.read();
    }

    /// At most a pipe's fill, so that a command that never stops writing does not keep the limit from being looked at.
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut bytes) {
                Ok(length) if length > 0 => self.split(&bytes[..length]),
                Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => (),
                Ok(_) | Err(_) => self.pipe = None,
            }
        }
    }

    fn split(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < MAX_LINE => self.line.push(*byte),
                _ => (),
            }
        }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if text.is_empty() {
            return;
        }
        self.last.clone_from(&text);
        self.lines += 1;
        let line = match self.lines {
            ..=MAX_LINES => text,
            lines if lines == MAX_LINES + 1 => "(further output is not logged)".to_owned(),
            _ => return,
        };
        messages::tell(&Tell::Output { program: self.program.clone(), line });
    }

    /// Takes what is left. What a process left behind still writes is lost to it, and not waited for.
    fn finish(&mut self) {
        self.read();
        self.end_line();
        self.pipe = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Written by another process: a file that a thread of this one has open for writing while a test next door forks
    /// could not be run ("text file busy").
    fn script(dir: &Path, text: &str) -> std::path::PathBuf {
        let path = dir.join("command");
        let write = "printf '%s' \"$1\" > \"$0\" && chmod 700 \"$0\"";
        let written = Command::new("sh").args(["-c", write]).arg(&path).arg(text).status();
        assert!(written.unwrap().success());
        path
    }

    fn check(text: &str, limit_ms: u64) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), text);
        let arguments = ["a b".to_owned(), "$(c)".to_owned()];
        let environment = [("MC_TERM".to_owned(), "7".to_owned())];
        run(&program, &arguments, &environment, Duration::from_millis(limit_ms), &Cancel::never())
    }

    #[test]
    fn exit_codes_arguments_and_environment() {
        check("#!/bin/sh\n[ \"$1$2$MC_TERM\" = 'a b$(c)7' ]\n", 5000).unwrap();
        let error = check("#!/bin/sh\necho one; echo two >&2; exit 3\n", 5000).unwrap_err();
        assert!(error.message.ends_with("ended with exit code 3: two"), "{error}");
        let error = check("#!/bin/sh\nkill -TERM $$\n", 5000).unwrap_err();
        assert!(error.message.contains("ended by a signal"), "{error}");
    }

    #[test]
    fn what_cannot_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        let run = |path: &Path| run(path, &[], &[], Duration::from_secs(5), &Cancel::never()).unwrap_err();
        assert!(run(&none).message.contains("could not run command"));
        std::fs::write(&none, "x").unwrap();
        std::fs::set_permissions(&none, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(run(&none).hint.contains("execute"));
    }

    #[test]
    fn the_whole_group_is_killed_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let text = format!("#!/bin/sh\n(sleep 1; touch {}) &\nwhile :; do echo x; done\n", mark.display());
        let begin = Instant::now();
        let error = check(&text, 200).unwrap_err();
        assert!(error.message.contains("did not end within"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(2));
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!mark.exists(), "its child lived on");
    }

    #[test]
    fn a_process_left_behind_is_not_waited_for() {
        let begin = Instant::now();
        check("#!/bin/sh\nsleep 3 &\n", 5000).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn it_can_be_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), "#!/bin/sh\nsleep 30\n");
        let (canceller, cancel) = Cancel::new();
        let thread = std::thread::spawn(move || run(&program, &[], &[], Duration::from_secs(60), &cancel));
        std::thread::sleep(Duration::from_millis(100));
        drop(canceller);
        assert!(thread.join().unwrap().unwrap_err().message.contains("cancelled"));
    }
}
