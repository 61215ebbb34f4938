//! Running a program to its end, within a time limit.

use super::host::{children, signal};
use rustix::process::Signal;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a program answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// From start to exit.
    pub took: Duration,
}

impl Answer {
    /// The same answer, or a failure with all that it said.
    #[track_caller]
    pub fn expect(self, code: i32, what: &str) -> Answer {
        assert!(self.code == code, "{what}: exit code {} instead of {code}\n{}{}", self.code, self.out, self.err);
        self
    }

    /// Output and errors together.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

fn collect(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (done, end) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = done.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    end
}

/// Runs it to its end. One that lasts longer than `limit`, or whose children keep its output open (so that a script's
/// `$(…)` would hang), is a failure.
#[track_caller]
pub fn run(mut command: Command, limit: Duration) -> Answer {
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("could not run {command:?}: {e}"));
    let out = collect(child.stdout.take().expect("piped"));
    let err = collect(child.stderr.take().expect("piped"));
    let status = loop {
        if let Some(status) = child.try_wait().expect("could not wait") {
            break status;
        }
        if begin.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            let said = |end: mpsc::Receiver<String>| end.recv_timeout(Duration::from_millis(200)).unwrap_or_default();
            panic!("still running after {limit:?}: {command:?}\n{}{}", said(out), said(err));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = begin.elapsed();
    let closed = |end: mpsc::Receiver<String>| {
        end.recv_timeout(Duration::from_secs(3))
            .unwrap_or_else(|_| panic!("ended, but what it started keeps its output open: {command:?}"))
    };
    let (out, err) = (closed(out), closed(err));
    Answer { code: status.code().unwrap_or(-1), out, err, took }
}

/// A program that runs beside a test, on a host or not, and is killed when this is dropped.
pub struct Beside(Child);

impl Beside {
    /// Starts it, with nothing to read and nobody who reads what it answers.
    pub fn start(mut command: Command) -> Beside {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Beside(command.spawn().unwrap_or_else(|e| panic!("could not run {command:?}: {e}")))
    }

    /// Its number; on a host that of nsenter, whose child it is.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("could not wait")
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        children(self.pid()).into_iter().for_each(|pid| signal(pid, Signal::KILL));
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a step of the harness's own, which must succeed.
#[track_caller]
pub fn must(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    run(command, Duration::from_secs(60)).expect(0, &format!("{program} {}", arguments.join(" "))).out
}
