//! Runs a command, without a shell, with its lines as they come, a time limit and a limit of its output.

use crate::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest line that is kept whole, in bytes.
const MAX_LINE: usize = 64 << 10;
/// The longest output, in bytes.
const MAX_OUTPUT: usize = 2 << 20;
/// How long the end of a command may pass unseen.
const LOOK: Duration = Duration::from_millis(20);
/// The exit status of a command that was ended because of its time limit.
pub const TIMED_OUT: u8 = 5;

/// What came of a command.
#[derive(Default, Debug)]
pub struct Ended {
    /// Its exit status; 128 and the number of a signal.
    pub exit: u8,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// The message and the hint on standard error.
    pub fn failure(&self) -> (String, String) {
        let text = self.err.trim().trim_start_matches("mc_ctl: ");
        let text = if text.is_empty() { self.out.trim() } else { text };
        let (message, hint) = text.split_once("\nHINT: ").unwrap_or((text, ""));
        (message.to_owned(), hint.to_owned())
    }
}

/// `mc_ctl`, beside this program.
pub fn mc_ctl() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("mc_ctl")));
    beside.filter(|path| path.exists()).unwrap_or_else(|| "mc_ctl".into())
}

/// `mc_ctl` for a management directory.
pub fn of_mc_ctl(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(mc_ctl());
    command.args(words).env("MCCONTROLDIR", dir).env("NO_COLOR", "1");
    command
}

/// Runs it to its end. `input`, of at most 64 KiB, is its standard input; `limit`: how long it may run; `on_line`: each line of
/// its output.
///
/// # Errors
/// It cannot be started.
pub fn run(
    mut command: Command,
    input: &[u8],
    limit: Option<Duration>,
    mut on_line: impl FnMut(&str),
) -> Result<Ended> {
    let begin = Instant::now();
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let program = command.get_program().to_owned();
    let failed = |cause: std::io::Error| Error::io("run", Path::new(&program), cause);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut to) = child.stdin.take() {
        // Fits into the pipe.
        let _ = to.write_all(input);
    }
    let mut ended = Ended::default();
    let out = child.stdout.take().map(OwnedFd::from);
    let err = child.stderr.take().map(OwnedFd::from);
    let mut streams = [Stream::new(out), Stream::new(err)];
    let status = loop {
        wait(&streams);
        // What it has written before its end is there when its end shows. A process that it has left behind may hold its output
        // open for longer.
        let status = child.try_wait().map_err(failed)?;
        for (stream, to) in streams.iter_mut().zip([&mut ended.out, &mut ended.err]) {
            stream.read(|line| {
                on_line(line);
                if to.len() + line.len() < MAX_OUTPUT {
                    *to += line;
                    to.push('\n');
                }
            });
        }
        match status {
            Some(status) => break status,
            None if limit.is_some_and(|limit| begin.elapsed() > limit) => {
                return Ok(end(child, ended, begin.elapsed()));
            }
            None => (),
        }
    };
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    ended.exit = u8::try_from(code).unwrap_or(255);
    Ok(ended)
}

/// One output of a command, read without waiting.
struct Stream {
    /// `None` at its end.
    from: Option<File>,
    /// The begin of a line.
    rest: Vec<u8>,
}

impl Stream {
    fn new(fd: Option<OwnedFd>) -> Stream {
        let from = fd.filter(|fd| rustix::io::ioctl_fionbio(fd, true).is_ok()).map(File::from);
        Stream { from, rest: Vec::new() }
    }

    /// Takes what is there.
    fn read(&mut self, mut on_line: impl FnMut(&str)) {
        let mut line = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            // The bar of a rebuild returns to the begin of its line.
            let text = text.trim_end_matches(['\n', '\r']);
            on_line(text.rsplit('\r').next().unwrap_or_default());
        };
        while let Some(from) = &mut self.from {
            let mut chunk = [0; 8192];
            match from.read(&mut chunk) {
                Ok(0) => self.from = None,
                Ok(length) => self.rest.extend_from_slice(&chunk[..length]),
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => break,
                Err(cause) if cause.kind() == ErrorKind::Interrupted => (),
                Err(_) => self.from = None,
            }
            while let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                line(&self.rest[..at]);
                self.rest.drain(..=at);
            }
            if self.rest.len() > MAX_LINE || self.from.is_none() && !self.rest.is_empty() {
                line(&std::mem::take(&mut self.rest));
            }
        }
    }
}

/// Waits for output, or until it is time to see whether the command has ended.
fn wait(streams: &[Stream]) {
    let mut fds: Vec<PollFd<'_>> =
        streams.iter().filter_map(|stream| stream.from.as_ref()).map(|from| PollFd::new(from, PollFlags::IN)).collect();
    let limit = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
    let _ = poll(&mut fds, Some(&limit));
}

fn end(mut child: Child, mut ended: Ended, after: Duration) -> Ended {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.wait();
    ended.exit = TIMED_OUT;
    ended.err = format!("the command did not end within {} s", after.as_secs());
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Option<Duration>) -> (Ended, Vec<String>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut lines = Vec::new();
        let ended = run(command, b"input", limit, |line| lines.push(line.to_owned())).unwrap();
        (ended, lines)
    }

    #[test]
    fn output_exit_and_limit() {
        let (ended, lines) = sh("cat; echo; echo 'mc_ctl: no\nHINT: do' >&2; exit 4", None);
        assert_eq!((ended.exit, ended.out.as_str()), (4, "input\n"));
        assert_eq!(ended.failure(), ("no".into(), "do".into()));
        assert_eq!(lines.len(), 3);
        assert_eq!(sh("sleep 100", Some(Duration::from_millis(10))).0.exit, TIMED_OUT);
        // The output of a process that is left behind is not waited for.
        assert_eq!(sh("sleep 30 & echo done; exit 0", None).0.out, "done\n");
        assert_eq!(sh("printf 'one\\ntwo'", None).1, ["one", "two"]);
    }
}
