//! Runs a command, without a shell, with its lines as they come, a time limit and a limit of its output.

use crate::error::{Error, Result};
use crossbeam_channel::RecvTimeoutError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest line that is kept whole, in bytes.
const MAX_LINE: u64 = 64 << 10;
/// The longest output, in bytes.
const MAX_OUTPUT: usize = 2 << 20;
/// How often a child is looked at whose output is quiet, or is held open by a process of its own.
const LOOK: Duration = Duration::from_millis(50);
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

/// Runs it to its end. `input` is its standard input; `limit`: how long it may run; `on_line`: each line of its output.
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
    let mut child = command.spawn().map_err(|cause| Error::io("run", Path::new(&program), cause))?;
    if let Some(mut to) = child.stdin.take() {
        let _ = to.write_all(input);
    }
    let (sender, lines) = crossbeam_channel::bounded::<(bool, String)>(256);
    let mut ended = Ended::default();
    for (is_err, from) in [(false, child.stdout.take().map(boxed)), (true, child.stderr.take().map(boxed))] {
        let (sender, Some(from)) = (sender.clone(), from) else { continue };
        let _ =
            crate::daemon::spawn("web-output", move || read_lines(from, |line| sender.send((is_err, line)).is_ok()));
    }
    drop(sender);
    let mut take = |ended: &mut Ended, (is_err, line): (bool, String)| {
        on_line(line.trim_end());
        let to = if is_err { &mut ended.err } else { &mut ended.out };
        if to.len() + line.len() <= MAX_OUTPUT {
            *to += &line;
        }
    };
    loop {
        match lines.recv_timeout(LOOK) {
            Ok(line) => take(&mut ended, line),
            Err(RecvTimeoutError::Disconnected) => break,
            // A process that it has left behind may hold its output open.
            Err(RecvTimeoutError::Timeout) if child.try_wait().is_ok_and(|status| status.is_some()) => break,
            Err(RecvTimeoutError::Timeout) => (),
        }
        if limit.is_some_and(|limit| begin.elapsed() > limit) {
            return Ok(end(child, ended, begin.elapsed()));
        }
    }
    lines.try_iter().for_each(|line| take(&mut ended, line));
    let status = child.wait().map_err(|cause| Error::io("wait for", Path::new(&program), cause))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    ended.exit = u8::try_from(code).unwrap_or(255);
    Ok(ended)
}

fn boxed(from: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    Box::new(from)
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

fn read_lines(from: impl Read, mut send: impl FnMut(String) -> bool) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(length) if length > 0 => (),
            _ => return,
        }
        // The bar of a rebuild returns to the begin of its line.
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']).rsplit('\r').next().unwrap_or_default();
        if !send(format!("{text}\n")) {
            return;
        }
    }
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
        assert_eq!(sh("sleep 3 & exit 0", None).0.exit, 0);
    }
}
