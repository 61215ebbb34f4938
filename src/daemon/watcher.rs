//! The watcher: starts the controller again when it dies, or when its decision thread stops, without touching the
//! instance. Also how a detached controller is started and ended.
//!
//! `mc_ctl start` runs `mc_ctl --watcher`, which runs `mc_ctl --controller`; each reads the other's first line on a pipe
//! that is the child's standard output: ready, or what kept it from starting. After that the controller's decision
//! thread writes a byte a second; without one for `agent_alive_timeout` the controller is killed and started anew. A
//! watcher that is killed takes nothing with it: the controller goes on, unwatched until the next `mc_ctl start`.

use super::store::{CONTROLLER_LOCK, Lock, WATCHER_LOCK};
use super::{now, pidfile};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fsm::event::StartedBy;
use crate::messages::{self, Facility, Output as Sink, Tell};
use crate::pg::bounded::{self, Cancel};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const WATCHER_ARGUMENT: &str = "--watcher";
const CONTROLLER_ARGUMENT: &str = "--controller";

/// Time between two looks of the watcher, ms.
const ROUND_MS: u64 = 1000;

/// A round that took longer than this was a pause of the watcher (PROTOCOL R12), ms.
const PAUSED_MS: u64 = 3000;

/// The pause before the first new start, and the longest one, ms.
const SHORTEST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 10_000;

/// A controller that has lived this long starts the pauses anew, ms.
const LIVED_MS: u64 = 60_000;

/// How long the configuration may take to be read.
const LOAD_LIMIT: Duration = Duration::from_secs(10);

/// The first line that a watcher or controller writes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum FirstLine {
    Ready,
    Failed { message: String, hint: String },
}

impl FirstLine {
    fn write(&self, to: &mut impl Write) {
        if let Ok(mut line) = serde_json::to_vec(self) {
            line.push(b'\n');
            let _ = to.write_all(&line);
        }
    }

    fn of(result: &Result<()>) -> FirstLine {
        match result {
            Ok(()) => FirstLine::Ready,
            Err(error) => FirstLine::Failed { message: error.message.clone(), hint: error.hint.clone() },
        }
    }

    fn result(self) -> Result<()> {
        match self {
            FirstLine::Ready => Ok(()),
            FirstLine::Failed { message, hint } => Err(Error { message, hint }),
        }
    }
}

// ------------------------------------------------------------------------------------------------------- command line

/// What the hidden arguments say: `--watcher|--controller DIR ID START_ID instance|mc-only|again on|off|keep`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Launch {
    dir: PathBuf,
    id: String,
    start_id: u64,
    by: StartedBy,
}

impl Launch {
    fn arguments(&self) -> [std::ffi::OsString; 5] {
        let (how, failover) = match self.by {
            StartedBy::Operator { instance: true, failover } => ("instance", failover),
            StartedBy::Operator { instance: false, failover } => ("mc-only", failover),
            StartedBy::Watcher => ("again", None),
        };
        let failover = match failover {
            Some(true) => "on",
            Some(false) => "off",
            None => "keep",
        };
        let start_id = self.start_id.to_string();
        [self.dir.clone().into(), self.id.clone().into(), start_id.into(), how.into(), failover.into()]
    }

    fn parse(arguments: &[std::ffi::OsString]) -> Option<Launch> {
        let [dir, id, start_id, how, failover] = arguments else { return None };
        let failover = match failover.to_str()? {
            "on" => Some(true),
            "off" => Some(false),
            "keep" => None,
            _ => return None,
        };
        let by = match how.to_str()? {
            "instance" => StartedBy::Operator { instance: true, failover },
            "mc-only" => StartedBy::Operator { instance: false, failover },
            "again" => StartedBy::Watcher,
            _ => return None,
        };
        Some(Launch { dir: dir.into(), id: id.to_str()?.to_owned(), start_id: start_id.to_str()?.parse().ok()?, by })
    }

    /// This program, as `as_what`. By its path where that still names it, so that `ps` shows it.
    fn command(&self, as_what: &str) -> Command {
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        let mut command = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()));
        command.arg0("mc_ctl").arg(as_what).args(self.arguments());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }
}

/// Takes over where this process was started as a watcher or controller by [`start_detached`]: returns its exit code
/// when it ends, `None` in every other process. `main` of `mc_ctl` calls it before it parses the command line.
pub fn dispatch() -> Option<u8> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let (what, rest) = arguments.split_first()?;
    let entry: fn(Launch, &mut File) -> Result<u8> = match what.to_str()? {
        WATCHER_ARGUMENT => watch,
        CONTROLLER_ARGUMENT => control,
        _ => return None,
    };
    let launch = Launch::parse(rest)?;
    let mut output = match take_stdout() {
        Ok(output) => output,
        Err(_) => return Some(1),
    };
    Some(entry(launch, &mut output).unwrap_or_else(|error| {
        FirstLine::of(&Err(error)).write(&mut output);
        1
    }))
}

/// The pipe that standard output is, for this process alone: no child inherits it.
fn take_stdout() -> std::io::Result<File> {
    let pipe = std::io::stdout().as_fd().try_clone_to_owned()?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(File::from(pipe))
}

/// A random number that is not 0.
///
/// # Errors
/// `/dev/urandom` cannot be read.
pub fn random() -> Result<u64> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|cause| Error::io("read", path, cause))?;
    Ok(u64::from_ne_bytes(bytes).max(1))
}

// -------------------------------------------------------------------------------------------------- start and end it

/// Starts a watcher, which starts a controller, both detached from this terminal. Returns once the controller answers
/// on its control socket.
///
/// # Errors
/// What kept the controller from starting, in its own words, or nothing heard of it within `limit`.
pub fn start_detached(config: &Config, by: StartedBy, limit: Duration) -> Result<()> {
    let launch = Launch { dir: config.dir.clone(), id: config.id.clone(), start_id: random()?, by };
    let mut child = launch
        .command(WATCHER_ARGUMENT)
        .current_dir("/")
        .spawn()
        .map_err(|cause| Error::new(format!("could not start the watcher: {cause}")))?;
    let Some(output) = child.stdout.take() else { return Err(Error::new("could not listen to the watcher")) };
    let mut output = Output { pipe: File::from(std::os::fd::OwnedFd::from(output)), first: Vec::new(), line: None };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match output.wait(left) {
            Heard::Bytes | Heard::Nothing if output.line.is_some() => break,
            Heard::Bytes => (),
            Heard::Nothing if left.is_zero() => {
                return Err(Error::new("the controller did not start in time")
                    .hint("it goes on starting; see the system log and \"mc_ctl status\""));
            }
            Heard::Nothing => (),
            Heard::End => {
                return Err(Error::new("the controller ended while it started").hint("see the system log"));
            }
        }
    }
    output.line.unwrap_or(FirstLine::Ready).result()
}

/// Ends watcher and controller at once and leaves the instance alone (`mc_ctl stop -e`). False where neither runs.
///
/// # Errors
/// They cannot be ended.
pub fn kill(run_dir: &Path) -> Result<bool> {
    let watcher = pidfile::kill(run_dir, pidfile::WATCHER)?;
    let controller = pidfile::kill(run_dir, pidfile::CONTROLLER)?;
    Ok(watcher || controller)
}

// --------------------------------------------------------------------------------------------------------- controller

/// The controller's life: [`super::decision`], telling the watcher when it is ready and that it is alive.
fn control(launch: Launch, output: &mut File) -> Result<u8> {
    let config = load(&launch)?;
    let output =
        output.try_clone().map_err(|cause| Error::new(format!("could not keep the watcher's pipe: {cause}")))?;
    super::decision::run(config, launch.by, launch.start_id, Alive::Watched(Pulse::new(output)))
}

/// After a crash the instance's directories may lie on a disk that has failed: the controller is then needed the more.
fn load(launch: &Launch) -> Result<Config> {
    let (dir, id) = (launch.dir.clone(), launch.id.clone());
    let whole =
        bounded::call("read the configuration", LOAD_LIMIT, &Cancel::never(), move || Config::load(&dir, Some(&id)));
    match whole {
        Err(_) if launch.by == StartedBy::Watcher => Config::load_for_client(&launch.dir, Some(&launch.id)),
        whole => whole,
    }
}

/// How the decision thread shows that it lives.
pub enum Alive {
    /// To a watcher.
    Watched(Pulse),
    /// To nobody: `--foreground`.
    Foreground,
}

/// The pipe to the watcher.
pub struct Pulse {
    pipe: File,
    last: u64,
}

impl Pulse {
    fn new(pipe: File) -> Pulse {
        // A watcher that is stopped must not stop the controller.
        let _ = rustix::fs::fcntl_getfl(&pipe)
            .and_then(|flags| rustix::fs::fcntl_setfl(&pipe, flags | rustix::fs::OFlags::NONBLOCK));
        Pulse { pipe, last: 0 }
    }
}

impl Alive {
    /// The controller has started.
    pub fn ready(&mut self) {
        if let Alive::Watched(pulse) = self {
            FirstLine::Ready.write(&mut pulse.pipe);
        }
    }

    /// The decision thread goes round.
    pub fn beat(&mut self) {
        let at = now().0;
        if let Alive::Watched(pulse) = self
            && at.saturating_sub(pulse.last) >= ROUND_MS
        {
            pulse.last = at;
            let _ = pulse.pipe.write(b".");
        }
    }

    /// Without a watcher, attached to a terminal or a service manager.
    pub fn is_foreground(&self) -> bool {
        matches!(self, Alive::Foreground)
    }
}

// ------------------------------------------------------------------------------------------------------------ watcher

/// A child's output: one line of JSON, then bytes that only say that it lives.
struct Output {
    pipe: File,
    first: Vec<u8>,
    line: Option<FirstLine>,
}

enum Heard {
    Bytes,
    Nothing,
    End,
}

impl Output {
    fn wait(&mut self, limit: Duration) -> Heard {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        match poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&limit)) {
            Ok(0) | Err(_) => return Heard::Nothing,
            Ok(_) => (),
        }
        let mut bytes = [0; 512];
        match self.pipe.read(&mut bytes) {
            Ok(0) | Err(_) => return Heard::End,
            Ok(length) if self.line.is_none() => self.first.extend_from_slice(&bytes[..length]),
            Ok(_) => (),
        }
        if self.line.is_none()
            && let Some(end) = self.first.iter().position(|byte| *byte == b'\n')
        {
            self.line = serde_json::from_slice(&self.first[..end]).ok();
            self.first = Vec::new();
        }
        Heard::Bytes
    }
}

/// How a controller ended.
enum End {
    /// By itself, as it was told to.
    Done,
    /// Before it had started, saying why.
    NotStarted(Error),
    /// It was killed, because its decision thread had been silent for this long, ms.
    Hung(u64),
    /// In any other way.
    Died(String),
}

fn watch(launch: Launch, output: &mut File) -> Result<u8> {
    let _ = rustix::process::setsid();
    let config = Config::load_for_client(&launch.dir, Some(&launch.id))?;
    let run_dir = config.run_dir();
    let _lock = Lock::take(&run_dir, WATCHER_LOCK)?;
    // A controller whose watcher was killed runs on: two would fight for everything. Its own lock tells.
    drop(Lock::take(&run_dir, CONTROLLER_LOCK)?);
    let pid_file = pidfile::write(&run_dir, pidfile::WATCHER)?;
    messages::init(Sink {
        facility: Facility::local(config.server.syslog_facility),
        ident: config.server.syslog_ident.clone(),
        file: Some(run_dir.join("log")),
        stderr: false,
    });
    let watcher = Watcher {
        id: config.id.clone(),
        alive_timeout_ms: config.server.agent_alive_timeout_ms.unwrap_or(0),
        child: Arc::default(),
        ending: Arc::default(),
    };
    watcher.pass_signals_on()?;
    let result = watcher.run(launch, output);
    let _ = std::fs::remove_file(pid_file);
    result
}

struct Watcher {
    id: String,
    /// 0: the controller's decision thread is not watched.
    alive_timeout_ms: u64,
    /// The controller's pid; 0 while none runs.
    child: Arc<AtomicU32>,
    /// The watcher was asked to end.
    ending: Arc<AtomicBool>,
}

impl Watcher {
    /// SIGTERM and SIGINT end the controller in an orderly way, which leaves the instance alone, and then the watcher.
    fn pass_signals_on(&self) -> Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
            .map_err(|cause| Error::new(format!("could not handle signals: {cause}")))?;
        let (child, ending) = (self.child.clone(), self.ending.clone());
        super::spawn("signals", move || {
            for signal in signals.forever() {
                if signal == SIGHUP {
                    continue;
                }
                ending.store(true, Ordering::SeqCst);
                if let Some(pid) = pid(child.load(Ordering::SeqCst)) {
                    let _ = rustix::process::kill_process(pid, Signal::TERM);
                }
            }
        })?;
        Ok(())
    }

    fn run(&self, mut launch: Launch, output: &mut File) -> Result<u8> {
        let mut pause_ms = SHORTEST_PAUSE_MS;
        let mut first = true;
        loop {
            let started = now().0;
            let end = self.run_once(&launch, |line| {
                if first {
                    line.write(output);
                }
            });
            match end {
                End::Done => return Ok(0),
                End::NotStarted(error) if first => return Err(error),
                _ if self.ending.load(Ordering::SeqCst) => return Ok(0),
                End::NotStarted(error) => messages::tell(&Tell::Error(error)),
                End::Hung(ms) => messages::tell(&Tell::ControllerHung { server: self.id.clone(), ms }),
                End::Died(how) => messages::tell(&Tell::ControllerDied { server: self.id.clone(), how }),
            }
            if now().0.saturating_sub(started) >= LIVED_MS {
                pause_ms = SHORTEST_PAUSE_MS;
            }
            std::thread::sleep(Duration::from_millis(pause_ms));
            if self.ending.load(Ordering::SeqCst) {
                return Ok(0);
            }
            pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
            launch.by = StartedBy::Watcher;
            first = false;
        }
    }

    fn run_once(&self, launch: &Launch, mut started: impl FnMut(&FirstLine)) -> End {
        let mut child = match launch.command(CONTROLLER_ARGUMENT).spawn() {
            Ok(child) => child,
            Err(cause) => return End::NotStarted(Error::new(format!("could not start the controller: {cause}"))),
        };
        self.child.store(child.id(), Ordering::SeqCst);
        let end = self.supervise(&mut child, &mut started);
        self.child.store(0, Ordering::SeqCst);
        end
    }

    fn supervise(&self, child: &mut Child, started: &mut impl FnMut(&FirstLine)) -> End {
        let Some(pipe) = child.stdout.take() else { return End::Died("no pipe".to_owned()) };
        let mut output = Output { pipe: File::from(std::os::fd::OwnedFd::from(pipe)), first: Vec::new(), line: None };
        let mut told = false;
        let mut silent_ms = 0;
        let mut hung = false;
        loop {
            let before = now().0;
            let heard = output.wait(Duration::from_millis(ROUND_MS));
            let round_ms = now().0.saturating_sub(before);
            match heard {
                Heard::End => break,
                Heard::Bytes => silent_ms = 0,
                Heard::Nothing if round_ms > PAUSED_MS => silent_ms = 0,
                Heard::Nothing => silent_ms += round_ms,
            }
            if let Some(FirstLine::Ready) = output.line
                && !told
            {
                told = true;
                started(&FirstLine::Ready);
            }
            // Before it is ready it does what may take long on a slow disk, within limits of its own.
            if told && !hung && self.alive_timeout_ms > 0 && silent_ms >= self.alive_timeout_ms {
                hung = true;
                let _ = child.kill();
            }
        }
        let status = match child.wait() {
            Ok(status) => status,
            Err(cause) => return End::Died(cause.to_string()),
        };
        match output.line {
            _ if hung => End::Hung(silent_ms),
            Some(FirstLine::Failed { message, hint }) => End::NotStarted(Error { message, hint }),
            Some(FirstLine::Ready) if status.success() => End::Done,
            _ => End::Died(status.to_string()),
        }
    }
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_arguments_come_back() {
        for by in [
            StartedBy::Operator { instance: true, failover: Some(true) },
            StartedBy::Operator { instance: false, failover: Some(false) },
            StartedBy::Operator { instance: true, failover: None },
            StartedBy::Watcher,
        ] {
            let launch = Launch { dir: "/mc".into(), id: "nd1".into(), start_id: u64::MAX, by };
            assert_eq!(Launch::parse(&launch.arguments()), Some(launch));
        }
        assert_eq!(Launch::parse(&["/mc".into(), "nd1".into()]), None);
    }

    #[test]
    fn first_lines_come_back() {
        let failed = Error::new("x\n\"y\"").hint("z");
        for result in [Ok(()), Err(failed)] {
            let mut bytes = Vec::new();
            FirstLine::of(&result).write(&mut bytes);
            assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<FirstLine>(&bytes).unwrap().result(), result);
        }
    }
}
