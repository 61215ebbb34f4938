//! The watcher: starts the controller again when it dies, or when its decision thread stops, without touching the
//! instance. Also how a detached controller is started and ended.
//!
//! `mc_ctl start` runs `mc_ctl --watcher`, which runs `mc_ctl --controller`; each reads the other's first line on a pipe
//! that is the child's standard output: ready, or what kept it from starting. After that the controller's decision
//! thread writes a byte a second; without one for `agent_alive_timeout` the controller is killed and started anew. A
//! watcher that is killed takes nothing with it: the controller finds the pipe broken and becomes the watcher itself, by
//! replacing its program, and starts a controller anew, which for everybody else is as if it had crashed.

use super::launch::{FirstLine, Found, Launch};
use super::notify::Notify;
use super::store::{CONTROLLER_LOCK, Lock, WATCHER_LOCK};
use super::unit_mark::Mark;
use super::{now, pidfile};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fsm::event::StartedBy;
use crate::messages::{self, Facility, Output as Sink, Tell};
use crate::pg::bounded::{self, Cancel};
use crate::random;
use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The file in `DIR/ID` that contains why the last attempt to start the controller failed.
const FAILURE: &str = "start_failure";

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

/// How long messages may take to be written before the program is replaced.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);

/// How long the configuration may take to be read.
const LOAD_LIMIT: Duration = Duration::from_secs(10);

// ------------------------------------------------------------------------------------------------------------- process

/// A program that is watched: the controller, or the arbiter.
pub(super) struct Program {
    /// As `ps` shows it.
    pub name: &'static str,
    /// What its watcher needs to know.
    pub watched: fn(&Launch) -> Result<Watched>,
    /// Its life: what it does between its start and its end.
    pub control: fn(&Launch, Alive) -> Result<u8>,
    /// It ended unexpectedly, in this way.
    pub died: fn(&str, String) -> Tell,
    /// It stood still for so many ms.
    pub hung: fn(&str, u64) -> Tell,
}

/// What a watcher needs to know of what it watches.
pub(super) struct Watched {
    /// What it is called in messages.
    pub id: String,
    /// Its run-time directory.
    pub run_dir: PathBuf,
    /// Where its messages go.
    pub output: Sink,
    /// 0: the decision thread is not watched.
    pub alive_timeout_ms: u64,
}

/// `mc_ctl`.
static CONTROLLER: Program = Program {
    name: "mc_ctl",
    watched: |launch| {
        let config = match launch.by {
            StartedBy::Watcher => load_after_crash(launch)?,
            StartedBy::Operator { .. } | StartedBy::Rebuild => Config::load_for_client(&launch.dir, Some(&launch.id))?,
        };
        let output = Sink {
            facility: Facility::local(config.server.syslog_facility),
            ident: config.server.syslog_ident.clone(),
            file: Some(config.run_dir().join("log")),
            stderr: false,
        };
        let alive_timeout_ms = config.server.agent_alive_timeout_ms.unwrap_or(0);
        Ok(Watched { id: config.id.clone(), run_dir: config.run_dir(), output, alive_timeout_ms })
    },
    control: |launch, mut alive| {
        let config = load(launch)?;
        if let Alive::Watched(pulse) = &mut alive {
            pulse.launch.found = Found::of(&config);
        }
        super::decision::run(config, launch.by, launch.start_id, alive)
    },
    died: |server, how| Tell::ControllerDied { server: server.to_owned(), how },
    hung: |server, ms| Tell::ControllerHung { server: server.to_owned(), ms },
};

/// Takes over where this process was started as a watcher or controller by [`start_detached`]: returns its exit code
/// when it ends, `None` in every other process. `main` of `mc_ctl` calls it before it parses the command line.
pub fn dispatch() -> Option<u8> {
    dispatch_as(&CONTROLLER)
}

pub(super) fn dispatch_as(program: &'static Program) -> Option<u8> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let (what, rest) = arguments.split_first()?;
    let entry: fn(&'static Program, Launch, &mut File) -> Result<u8> = match what.to_str()? {
        WATCHER_ARGUMENT => watch,
        CONTROLLER_ARGUMENT => control,
        _ => return None,
    };
    let launch = Launch::parse(rest)?;
    let mut output = match take_stdout() {
        Ok(output) => output,
        Err(_) => return Some(1),
    };
    Some(entry(program, launch, &mut output).unwrap_or_else(|error| {
        FirstLine::of(&error).write(&mut output);
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
    Ok(u64::from_ne_bytes(random::bytes()?).max(1))
}

// -------------------------------------------------------------------------------------------------- start and end it

/// Starts a watcher, which starts a controller, both detached from this terminal. Returns once the controller answers
/// on its control socket.
///
/// # Errors
/// What kept the controller from starting, in its own words, or nothing heard of it within `limit`.
pub fn start_detached(config: &Config, by: StartedBy, limit: Duration) -> Result<()> {
    let launch =
        Launch { dir: config.dir.clone(), id: config.id.clone(), start_id: random()?, by, found: Found::default() };
    start_detached_as(&CONTROLLER, &launch, limit)
}

pub(super) fn start_detached_as(program: &Program, launch: &Launch, limit: Duration) -> Result<()> {
    let mut child = launch
        .command(program.name, WATCHER_ARGUMENT)
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
                    .hint(format!("it is still starting; see syslog and \"{} status\"", program.name)));
            }
            Heard::Nothing => (),
            Heard::End => {
                return Err(Error::new("the controller ended while it started").hint("see the system log"));
            }
        }
    }
    output.line.map_or(Ok(()), FirstLine::result)
}

/// Ends watcher and controller at once and leaves the instance alone (`mc_ctl stop -e`). False where neither runs.
///
/// # Errors
/// They cannot be ended.
pub fn kill(run_dir: &Path) -> Result<bool> {
    let mut any = false;
    // A controller that has just found its watcher ended may have become one, with another controller.
    while pidfile::kill(run_dir, pidfile::WATCHER)? | pidfile::kill(run_dir, pidfile::CONTROLLER)? {
        any = true;
    }
    Ok(any)
}

/// Why the watcher's last attempt to start the controller failed; `None` if it did not, or no watcher runs.
pub fn failure(run_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(run_dir.join(FAILURE)).ok();
    text.filter(|_| pidfile::is_alive(run_dir, pidfile::WATCHER))
}

/// Has a watcher that pauses between two attempts to start the controller make the next one at once. False if none runs.
///
/// # Errors
/// It cannot be signalled.
pub fn start_now(run_dir: &Path) -> Result<bool> {
    let _ = std::fs::remove_file(run_dir.join(FAILURE));
    pidfile::signal(run_dir, pidfile::WATCHER, Signal::HUP)
}

/// Whether the last controller of this server died.
pub fn controller_died(run_dir: &Path) -> bool {
    pidfile::died(run_dir, pidfile::CONTROLLER)
}

/// Whether there is a watcher, or a controller: one that does not answer now may do so soon.
pub fn is_there(run_dir: &Path) -> bool {
    pidfile::is_alive(run_dir, pidfile::WATCHER) || pidfile::is_alive(run_dir, pidfile::CONTROLLER)
}

// --------------------------------------------------------------------------------------------------------- controller

/// The controller's life: [`Program::control`], telling the watcher when it is ready and that it is alive.
fn control(program: &'static Program, launch: Launch, output: &mut File) -> Result<u8> {
    // Without effect until the decision thread takes signals; the default would end this process.
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default())
        .map_err(|cause| Error::new(format!("could not handle signals: {cause}")))?;
    let output =
        output.try_clone().map_err(|cause| Error::new(format!("could not keep the watcher's pipe: {cause}")))?;
    let next = Launch { by: StartedBy::Watcher, ..launch.clone() };
    (program.control)(&launch, Alive::Watched(Pulse::new(output, program, next)))
}

/// After a crash the instance's directories may lie on a disk that has failed, or be gone, and the files may contain a mistake:
/// the controller is then needed the more, and uses what an earlier one has found out.
fn load(launch: &Launch) -> Result<Config> {
    let (dir, id) = (launch.dir.clone(), launch.id.clone());
    let whole =
        bounded::call("read the configuration", LOAD_LIMIT, &Cancel::never(), move || Config::load(&dir, Some(&id)));
    let again = launch.by == StartedBy::Watcher;
    let mut config = match whole {
        Ok(config) if !again || config.server.no_data.is_none() => return Ok(config),
        Ok(config) if launch.found == Found::default() => return Ok(config),
        Ok(config) => config,
        Err(_) if again => load_after_crash(launch)?,
        Err(error) => return Err(error),
    };
    let Found { config_file, bin_dir, major_version } = launch.found.clone();
    let server = &mut config.server;
    (server.config_file, server.bin_dir, server.major_version) = (config_file, bin_dir, major_version);
    Ok(config)
}

/// The files without the instance, or if they contain a mistake, what the controller read last.
fn load_after_crash(launch: &Launch) -> Result<Config> {
    Config::load_for_client(&launch.dir, Some(&launch.id))
        .or_else(|mistake| Config::load_saved(&launch.dir, &launch.id, false, mistake))
}

/// How the decision thread shows that it lives.
pub enum Alive {
    /// To a watcher.
    Watched(Pulse),
    /// To a service manager, where one has started it with `--foreground`; else to nobody.
    Foreground(Notify, Mark),
}

/// The pipe to the watcher.
pub struct Pulse {
    pipe: File,
    last: u64,
    program: &'static Program,
    /// How the next controller is to be started.
    launch: Launch,
}

impl Pulse {
    fn new(pipe: File, program: &'static Program, launch: Launch) -> Pulse {
        // A watcher that is stopped must not stop the controller.
        let _ = rustix::fs::fcntl_getfl(&pipe)
            .and_then(|flags| rustix::fs::fcntl_setfl(&pipe, flags | rustix::fs::OFlags::NONBLOCK));
        Pulse { pipe, last: 0, program, launch }
    }

    /// Takes the place of a watcher that was killed. Comes back only where that is not possible; the controller then
    /// continues without one.
    fn replace_watcher(&self) {
        messages::tell(&Tell::Warning(Error::new(
            "the watcher has ended; the controller restarts itself and its watcher",
        )));
        messages::flush(FLUSH_LIMIT);
        let cause =
            self.launch.command(self.program.name, WATCHER_ARGUMENT).stdout(Stdio::null()).current_dir("/").exec();
        messages::tell(&Tell::Error(Error::new(format!("could not start a watcher: {cause}"))));
    }
}

impl Alive {
    /// `--foreground`, under a service manager or not.
    pub fn foreground() -> Alive {
        Alive::of_unit(Mark::default())
    }

    /// The same, with the mark of this start in the unit's directory.
    pub(super) fn of_unit(mark: Mark) -> Alive {
        Alive::Foreground(Notify::from_environment(), mark)
    }

    /// The controller has started.
    pub fn ready(&mut self) {
        match self {
            Alive::Watched(pulse) => FirstLine::Ready { found: pulse.launch.found.clone() }.write(&mut pulse.pipe),
            Alive::Foreground(notify, mark) => {
                mark.set();
                notify.ready();
            }
        }
    }

    /// It is about to end, as it was told to.
    pub fn stopping(&mut self) {
        if let Alive::Foreground(notify, mark) = self {
            mark.clear();
            notify.stopping();
        }
    }

    /// What `systemctl status` shows; made only where somebody is told.
    pub fn status(&mut self, status: impl FnOnce() -> String) {
        if let Alive::Foreground(notify, _) = self {
            notify.status(&status());
        }
    }

    /// The decision thread goes round.
    pub fn beat(&mut self) {
        let at = now().0;
        match self {
            Alive::Watched(pulse) if at.saturating_sub(pulse.last) >= ROUND_MS => {
                pulse.last = at;
                if pulse.pipe.write(b".").is_err_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe) {
                    pulse.replace_watcher();
                }
            }
            Alive::Watched(_) => (),
            Alive::Foreground(notify, _) => notify.beat(at),
        }
    }

    /// Without a watcher of ours, attached to a terminal or a service manager.
    pub fn is_foreground(&self) -> bool {
        matches!(self, Alive::Foreground(..))
    }

    /// The mark of this start in the unit's directory.
    pub(super) fn mark(&self) -> Mark {
        match self {
            Alive::Foreground(_, mark) => mark.clone(),
            Alive::Watched(_) => Mark::default(),
        }
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

fn watch(program: &'static Program, launch: Launch, output: &mut File) -> Result<u8> {
    let _ = rustix::process::setsid();
    let watched = (program.watched)(&launch)?;
    let run_dir = watched.run_dir;
    let running = || {
        Error::new(format!(
            "{} is already running",
            if program.name == "mc_arb" { "the arbiter" } else { "the controller" }
        ))
        .hint(format!("\"{} status\" shows its state", program.name))
    };
    let _lock = Lock::try_take(&run_dir, WATCHER_LOCK)?.ok_or_else(running)?;
    // A controller whose watcher was killed runs on: two would fight for everything. Its own lock tells.
    drop(Lock::try_take(&run_dir, CONTROLLER_LOCK)?.ok_or_else(running)?);
    let pid_file = pidfile::write(&run_dir, pidfile::WATCHER)?;
    messages::init(watched.output);
    let watcher = Watcher {
        program,
        id: watched.id,
        alive_timeout_ms: watched.alive_timeout_ms,
        child: Arc::default(),
        ending: Arc::default(),
        wake: crossbeam_channel::bounded(1),
        failure: run_dir.join(FAILURE),
    };
    let _ = std::fs::remove_file(&watcher.failure);
    watcher.pass_signals_on()?;
    let result = watcher.run(launch, output);
    let _ = std::fs::remove_file(&watcher.failure);
    let _ = std::fs::remove_file(pid_file);
    result
}

struct Watcher {
    program: &'static Program,
    id: String,
    /// 0: the controller's decision thread is not watched.
    alive_timeout_ms: u64,
    /// The controller's pid; 0 while none runs.
    child: Arc<AtomicU32>,
    /// The watcher was asked to end.
    ending: Arc<AtomicBool>,
    /// Ends the pause before the next attempt to start the controller.
    wake: (Sender<()>, Receiver<()>),
    /// The file that contains why the last attempt failed.
    failure: PathBuf,
}

impl Watcher {
    /// SIGTERM and SIGINT end the controller in an orderly way, which leaves the instance alone, and then the watcher. SIGHUP
    /// has the controller read its configuration again; if none runs, the next attempt to start it is made at once.
    fn pass_signals_on(&self) -> Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
            .map_err(|cause| Error::new(format!("could not handle signals: {cause}")))?;
        let (child, ending, wake) = (self.child.clone(), self.ending.clone(), self.wake.0.clone());
        super::spawn("signals", move || {
            for signal in signals.forever() {
                let signal = if signal == SIGHUP { Signal::HUP } else { Signal::TERM };
                ending.fetch_or(signal == Signal::TERM, Ordering::SeqCst);
                match pid(child.load(Ordering::SeqCst)) {
                    Some(pid) => {
                        let _ = rustix::process::kill_process(pid, signal);
                    }
                    None => {
                        let _ = wake.try_send(());
                    }
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
            let mut found = None;
            let end = self.run_once(&launch, |line| {
                if first {
                    line.write(output);
                }
                if let FirstLine::Ready { found: news } = line {
                    found = Some(news.clone());
                    let _ = std::fs::remove_file(&self.failure);
                }
            });
            launch.found = found.unwrap_or(launch.found);
            match end {
                End::Done => return Ok(0),
                End::NotStarted(error) if first => return Err(error),
                _ if self.ending.load(Ordering::SeqCst) => return Ok(0),
                End::NotStarted(error) => {
                    // Read by commands. Without the file they report only that the controller does not run.
                    let _ = std::fs::write(&self.failure, error.to_string());
                    messages::tell(&Tell::Error(error));
                }
                End::Hung(ms) => messages::tell(&(self.program.hung)(&self.id, ms)),
                End::Died(how) => messages::tell(&(self.program.died)(&self.id, how)),
            }
            if now().0.saturating_sub(started) >= LIVED_MS {
                pause_ms = SHORTEST_PAUSE_MS;
            }
            let _ = self.wake.1.recv_timeout(Duration::from_millis(pause_ms));
            if self.ending.load(Ordering::SeqCst) {
                return Ok(0);
            }
            pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
            // Until there is a ledger, it is still the operator's start that founds the pair.
            if launch.dir.join(&launch.id).join("ledger").exists() {
                launch.by = StartedBy::Watcher;
            }
            first = false;
        }
    }

    fn run_once(&self, launch: &Launch, mut started: impl FnMut(&FirstLine)) -> End {
        let mut child = match launch.command(self.program.name, CONTROLLER_ARGUMENT).spawn() {
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
            if let Some(ready @ FirstLine::Ready { .. }) = &output.line
                && !told
            {
                told = true;
                started(ready);
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
            Some(FirstLine::Ready { .. }) if status.success() => End::Done,
            _ => End::Died(status.to_string()),
        }
    }
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}
