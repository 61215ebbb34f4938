//! A program whose output is read line by line while it runs: `pg_waldump`, which may write gigabytes, and the trial run of
//! `pg_rewind`. Bounded memory; cancelled within a moment, with its process group.

use crate::error::{Error, Result};
use crate::pg::bounded::Cancel;
use crate::pg::commands;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use rustix::process::{Pid, Signal};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// What is handed over at once, in bytes: whole lines.
const BLOCK: usize = 64 << 10;

/// How often the cancel flag is looked at while nothing is written.
const SLICE: Duration = Duration::from_millis(20);

/// What of its last words is kept, in lines.
const LAST: usize = 20;

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// `None`: it was stopped because enough was read.
    pub status: Option<ExitStatus>,
    /// The end of what it wrote to standard error.
    pub said: String,
}

/// A command without a shell, without secrets of the environment, in the C locale and in UTC.
pub fn command(path: &Path) -> Command {
    let mut command = commands::bare(path);
    command.env("LC_ALL", "C").env("TZ", "UTC").env("PGTZ", "UTC");
    command
}

/// Runs it and gives every line of its standard output and of its standard error to `line` (which says by `false` that it
/// has read enough). Where nothing is written for `silence`, it is ended, and that is an error.
///
/// # Errors
/// It could not be run, it was cancelled, or it said nothing for too long.
pub fn read(
    mut command: Command,
    silence: Duration,
    cancel: &Cancel,
    mut line: impl FnMut(&str) -> bool,
) -> Result<Ended> {
    let path = command.get_program().to_owned();
    let mut child = command.spawn().map_err(|cause| {
        Error::io("run program", Path::new(&path), cause)
            .hint("Check bin_dir, and that PostgreSQL's server programs are installed.")
    })?;
    let (tell, told) = bounded::<(bool, String)>(16);
    if let Some(pipe) = child.stdout.take() {
        blocks(pipe, false, tell.clone());
    }
    if let Some(pipe) = child.stderr.take() {
        blocks(pipe, true, tell.clone());
    }
    drop(tell);
    let mut said = Vec::new();
    let mut heard = Instant::now();
    loop {
        let stop = match told.recv_timeout(SLICE) {
            Ok((error, block)) => {
                heard = Instant::now();
                if error {
                    said.extend(block.lines().map(str::to_owned));
                    said.drain(..said.len().saturating_sub(LAST));
                }
                if block.lines().all(&mut line) { None } else { Some(Ok(())) }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if heard.elapsed() > silence => {
                let name = Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned();
                Some(Err(Error::new(format!("{name} has written nothing for {} s", silence.as_secs()))))
            }
            Err(RecvTimeoutError::Timeout) => None,
        };
        let stop = stop.or_else(|| cancel.check().err().map(Err));
        if let Some(how) = stop {
            end(&mut child);
            return how.map(|()| Ended { status: None, said: said.join("\n") });
        }
    }
    let status = child.wait().map_err(|cause| Error::io("wait for program", Path::new(&path), cause))?;
    Ok(Ended { status: Some(status), said: said.join("\n") })
}

fn end(child: &mut Child) {
    let _ = rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL);
    // A process that hangs in a dying disk does not end; the thread that waits for it then does not either.
    let end = Instant::now() + Duration::from_millis(500);
    while child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a pipe to its end on a thread and hands over blocks of whole lines. It ends when nobody listens any more.
fn blocks(pipe: impl Read + Send + 'static, error: bool, tell: Sender<(bool, String)>) {
    let work = move || {
        let mut reader = BufReader::with_capacity(BLOCK, pipe);
        let mut block = Vec::new();
        loop {
            let read = reader.read_until(b'\n', &mut block).unwrap_or(0);
            // Lines are gathered only while more of them lie ready.
            if read > 0 && block.len() < BLOCK && reader.buffer().contains(&b'\n') {
                continue;
            }
            if !block.is_empty() && tell.send((error, String::from_utf8_lossy(&block).into_owned())).is_err() {
                return;
            }
            block.clear();
            if read == 0 {
                return;
            }
        }
    };
    std::thread::spawn(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = command(Path::new("/bin/sh"));
        shell.args(["-c", script]);
        shell
    }

    #[test]
    fn reads_lines_until_enough_or_cancelled() {
        let long = Duration::from_secs(60);
        let mut sum = 0_u64;
        let add = |line: &str| {
            sum += line.parse::<u64>().unwrap();
            true
        };
        let ended = read(shell("seq 1 100000"), long, &Cancel::never(), add).unwrap();
        assert!(ended.status.unwrap().success() && sum == 5_000_050_000);

        let ended = read(shell("echo a; echo no >&2; exit 3"), long, &Cancel::never(), |_| true).unwrap();
        assert_eq!((ended.status.unwrap().code(), ended.said.as_str()), (Some(3), "no"));

        let begun = Instant::now();
        let ended = read(shell("yes"), long, &Cancel::never(), |line| line != "y").unwrap();
        assert!(ended.status.is_none());
        let silent = read(shell("sleep 60; true"), Duration::from_millis(50), &Cancel::never(), |_| true).unwrap_err();
        assert!(silent.message.contains("written nothing"), "{silent}");
        let (canceller, cancel) = Cancel::new();
        drop(canceller);
        assert!(read(shell("sleep 60; true"), long, &cancel, |_| true).unwrap_err().message.contains("cancelled"));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
