//! The arbiter's process, `mc_arb`: any number of clusters in one event loop.
//!
//! ```text
//!  connections ─┐                                     ┌─ ledgers (write, fsync, rename, fsync dir)
//!  probes      ─┼─► hub: one thread, epoll; steps one ┼─ names   (names to addresses)
//!  news of the ─┘   core (`fsm::arbiter`) per cluster └─ fencing (the operator's command)
//!  other threads
//! ```
//!
//! The hub's thread decides and does everything that cannot block; what can is on the other threads, which answer by
//! `News`. A server dials and its arbiter answers on the same connection. Nothing of one cluster is ever mixed with
//! another: a caller is recognised by the key that it holds, and each cluster has a key, a core and a ledger of its own.

mod cluster;
mod connection;
pub mod control;
mod fencing;
mod hub;
mod ledgers;
mod probe;
mod slots;

use super::launch::{Found, Launch};
use super::store::{CONTROLLER_LOCK, Lock, WATCHER_LOCK};
use super::watcher::{self, Alive, Program, Watched};
use super::{pidfile, spawn};
use crate::config::arbiter::{ArbiterConfig, directories};
use crate::error::{Error, Result};
use crate::fsm::event::{Event, JobId, StartedBy};
use crate::fsm::types::SystemId;
use crate::messages::{self, Facility, Output, Tell};
use control::{Answer, Call};
use crossbeam_channel::{Receiver, Sender};
use rustix::event::{EventfdFlags, eventfd};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long what is still to be written, and told to clients, may take at the end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// An arbiter whose loop stands still for this long is ended and started again by its watcher, ms.
const ALIVE_TIMEOUT_MS: u64 = 10_000;

/// `mc_arb`, as its watcher sees it.
static PROGRAM: Program = Program {
    name: "mc_arb",
    watched: |launch| Ok(watched(&ArbiterConfig::load(&launch.dir)?)),
    control: |launch, alive| run(ArbiterConfig::load(&launch.dir)?, alive),
    died: |_, how| Tell::ArbiterDied { how },
    hung: |_, ms| Tell::ArbiterHung { ms },
};

/// What other threads tell the loop.
#[derive(Debug)]
enum News {
    /// Something for the core of the cluster of this number.
    Of(usize, Box<Event>),
    /// What came of a command that this cluster's core of this generation called.
    Called(usize, u64, JobId, std::result::Result<(), String>),
    /// What came of the removal of a ledger.
    Removed(SystemId, Result<bool>),
    /// The addresses of some host name have changed.
    Resolved,
    /// An address is listened on.
    Listening(TcpListener),
    /// A command asks, and waits for the answer.
    Call(Call, Sender<Answer>),
    /// End.
    Stop,
}

/// The way to the loop; one clone for each thread.
#[derive(Clone, Debug)]
struct Notifier {
    sender: Sender<News>,
    wake: Arc<OwnedFd>,
}

impl Notifier {
    fn new() -> Result<(Notifier, Receiver<News>)> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|cause| Error::new(format!("could not create an eventfd: {cause}")))?;
        Ok((Notifier { sender, wake: Arc::new(wake) }, receiver))
    }

    fn tell(&self, news: News) {
        if self.sender.send(news).is_ok() {
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// Takes over where this process was started as a watcher or as the arbiter by [`start_detached`]; see
/// [`watcher::dispatch`]. `main` of `mc_arb` calls it before it parses the command line.
pub fn dispatch() -> Option<u8> {
    watcher::dispatch_as(&PROGRAM)
}

/// Starts a watcher, which starts the arbiter, both detached from this terminal. Returns once it serves.
///
/// # Errors
/// What kept it from starting, in its own words, or nothing heard of it within `limit`.
pub fn start_detached(config: &ArbiterConfig, limit: Duration) -> Result<()> {
    let by = StartedBy::Operator { instance: false, failover: None };
    // The launch's directory and id make the run-time directory.
    let launch = Launch { dir: config.dir.clone(), id: "run".into(), start_id: 1, by, found: Found::default() };
    watcher::start_detached_as(&PROGRAM, &launch, limit)
}

fn watched(config: &ArbiterConfig) -> Watched {
    Watched {
        id: String::new(),
        run_dir: config.run_dir(),
        output: output(config, false),
        alive_timeout_ms: ALIVE_TIMEOUT_MS,
    }
}

fn output(config: &ArbiterConfig, stderr: bool) -> Output {
    Output {
        facility: Facility::local(config.syslog_facility),
        ident: config.syslog_ident.clone(),
        file: Some(config.run_dir().join("log")),
        stderr,
    }
}

/// Removes the ledger of a cluster while no arbiter runs in this directory. False where there is none.
///
/// # Errors
/// An arbiter runs, or a file cannot be removed.
pub fn forget(dir: &Path, system: u64) -> Result<bool> {
    let (_, run_dir) = directories(dir)?;
    let _lock = lock(&run_dir, CONTROLLER_LOCK)?;
    ledgers::remove(&run_dir, SystemId(system))
}

fn lock(run_dir: &Path, name: &str) -> Result<Lock> {
    Lock::try_take(run_dir, name)?
        .ok_or_else(|| Error::new("the arbiter is already running").hint("\"mc_arb status\" shows its state."))
}

/// Runs the arbiter in this process until it is told to end; returns its exit code. `mc_arb start --foreground` calls it
/// with [`Alive::foreground`].
///
/// # Errors
/// What keeps it from starting: another one runs, an address in use.
pub fn run(config: ArbiterConfig, mut alive: Alive) -> Result<u8> {
    messages::init(output(&config, alive.is_foreground()));
    let started = start(&config, &alive);
    let (mut hub, leftovers, _locks) = started.inspect_err(|error| {
        messages::tell(&Tell::Fatal(error.clone()));
        messages::flush(END_LIMIT);
    })?;
    alive.ready();
    hub.go_round(&mut alive);
    alive.stopping();
    let clients = hub.clients();
    hub.end(END_LIMIT);
    let deadline = Instant::now() + Duration::from_millis(300);
    while clients.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    for path in leftovers {
        let _ = std::fs::remove_file(path);
    }
    messages::tell(&Tell::ArbiterStopped);
    messages::flush(END_LIMIT);
    Ok(0)
}

fn start(config: &ArbiterConfig, alive: &Alive) -> Result<(hub::Hub, [PathBuf; 2], Vec<Lock>)> {
    let run_dir = config.run_dir();
    let mut locks = vec![lock(&run_dir, CONTROLLER_LOCK)?];
    if alive.is_foreground() {
        locks.push(lock(&run_dir, WATCHER_LOCK)?);
    }
    let pid_file = pidfile::write(&run_dir, pidfile::CONTROLLER)?;
    // Where core files go.
    if let Err(cause) = std::env::set_current_dir(&config.core_file_path) {
        messages::tell(&Tell::Warning(Error::io("change directory to", &config.core_file_path, cause)));
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    messages::tell(&Tell::ArbiterStarted { version, clusters: config.clusters.len() });
    for remark in &config.remarks {
        messages::tell(&Tell::Remark(remark.clone()));
    }
    for (name, why) in &config.refused {
        messages::tell(&Tell::ClusterNotServed { cluster: cluster::title(name), why: why.clone() });
    }
    let (notifier, news) = Notifier::new()?;
    let (socket, clients) = control::serve(&run_dir, notifier.clone())?;
    let hub = hub::Hub::start(config, notifier.clone(), news, clients)?;
    take_signals(notifier)?;
    Ok((hub, [socket, pid_file], locks))
}

/// SIGTERM and SIGINT end the arbiter in an orderly way; a second one at once.
fn take_signals(notifier: Notifier) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|cause| Error::new(format!("could not handle signals: {cause}")))?;
    spawn("signals", move || {
        let mut asked = false;
        for _ in signals.forever().filter(|signal| *signal != SIGHUP) {
            if asked {
                messages::flush(END_LIMIT);
                std::process::exit(0);
            }
            asked = true;
            notifier.tell(News::Stop);
        }
    })?;
    Ok(())
}
