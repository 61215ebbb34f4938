//! The controller process: its threads and the loop of the decision thread.
//!
//! Threads talk to the decision thread through its [`Inbox`] alone and never to each other. The decision thread is
//! `decision.rs`; everything that can block (disk, network, child processes, PostgreSQL) is on a thread of its own.
pub mod arbiter;
pub mod archive_link;
pub mod backup_watch;
mod boot;
mod calls;
pub mod checkpoint;
pub mod connection_probe;
pub mod connections;
pub mod control;
pub mod db_probe;
mod decision;
pub mod disk_probe;
pub mod disk_space;
mod full_disk_stop;
mod health;
mod high_water;
pub(crate) mod http;
pub mod inspect;
pub mod jobs;
mod launch;
pub mod links;
mod listening;
pub mod names;
pub mod noise;
mod notify;
pub mod pace;
pub mod peer_probe;
pub(crate) mod pidfile;
mod reasons;
pub mod reload;
mod reserve;
pub mod resolver;
pub mod runner;
pub(crate) mod sockets;
mod startup_log;
pub mod store;
mod unit_mark;
pub mod user_command;
pub mod watcher;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::fsm::event::{Event, Rebuild, StartedBy};
use crate::fsm::types::{Member, Time};
use crate::messages::Tell;
use crate::pg::Place;
use crate::pg::bounded::Cancel;
use crate::rebuild;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use unit_mark::Mark;

/// Stack of every thread, in bytes: nothing here recurses or keeps large buffers on the stack.
pub const STACK: usize = 256 * 1024;

/// How many events may wait for the decision thread.
const INBOX_LENGTH: usize = 1024;

/// The present time: `CLOCK_BOOTTIME` in milliseconds, so that a suspend counts.
pub fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    Time(time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000)
}

/// Excludes this process from core files, and forbids other processes of this user to read its memory, which contains the
/// key and passwords (`PR_SET_DUMPABLE`, prctl(2)). The programs that it executes are not affected. Called first by every
/// program that reads the configuration.
pub fn protect_memory() {
    // It fails only with a wrong argument.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Makes a panic of any thread end this process, as it does in the release build: a program that continues without one of
/// its threads does only a part of its work. Called first by every program, so that the profile of the tests can leave the panic
/// strategy alone: with `panic = "abort"` Cargo builds every crate once for the programs and once more for the tests.
pub fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        std::process::abort();
    }));
}

/// What a mutex holds, also where a thread has panicked with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way into the decision thread's inbox; one clone for each thread. Events are stamped with the time at which they
/// are put in.
#[derive(Clone, Debug)]
pub struct Inbox {
    sender: Sender<(Time, Event)>,
}

impl Inbox {
    /// An inbox, and the end from which the decision thread takes.
    pub fn new() -> (Inbox, Receiver<(Time, Event)>) {
        let (sender, receiver) = crossbeam_channel::bounded(INBOX_LENGTH);
        (Inbox { sender }, receiver)
    }

    /// For readings, which the next one replaces, and messages, which may be lost: dropped where the inbox is full.
    /// False once the decision thread is gone: the caller's thread ends.
    pub fn offer(&self, event: Event) -> bool {
        !matches!(self.sender.try_send((now(), event)), Err(TrySendError::Disconnected(_)))
    }

    /// For answers that must not be lost (`Done`, `Stored`, `Request`, `Died`): waits for room. False once the decision
    /// thread is gone: the caller's thread ends.
    pub fn put(&self, event: Event) -> bool {
        self.sender.send((now(), event)).is_ok()
    }
}

/// Starts a thread with a small stack. The name shows in `ps -L` (at most 15 bytes).
///
/// # Errors
/// The system refuses another thread.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(body)
        .map_err(|cause| crate::error::Error::new(format!("could not start thread \"{name}\": {cause}")))
}

/// Whether the arbiter of `network.conf` can be reached now, within `arbiter_connect_timeout` and `limit`. Called by
/// `mc_ctl start` before anything is started.
///
/// # Errors
/// What is to be told (MCA00152), and the reason.
pub fn reach_arbiter(config: &Config, limit: Duration) -> std::result::Result<(), Box<(Tell, Error)>> {
    let Some(arbiter) = &config.network.arbiter else { return Ok(()) };
    let limit = limit.min(Duration::from_millis(config.server.arbiter_connect_timeout_ms));
    let reached = links::reach(&decision::link_settings(config), Member::Arbiter, limit);
    reached.map_err(|links::Unreached { timed_out, why }| {
        let event = if timed_out { "timeout" } else { "communication error" };
        Box::new((Tell::NoArbiter { arbiter: arbiter.id.clone(), event }, why))
    })
}

/// What a rebuild of this server would do if it were ordered now; `exactly`, where that may take a while. Only reads. Called
/// by `mc_ctl rebuild`.
///
/// # Errors
/// As [`rebuild::plan`].
pub fn plan_rebuild(config: &Config, what: &Rebuild, exactly: bool) -> Result<rebuild::Plan> {
    let name = boot::own_name(&Place::new(config), &config.run_dir()).unwrap_or_else(|| config.own().id.clone());
    let setup = jobs::rebuild_setup(config, &name);
    let plan = if exactly { rebuild::plan_exactly } else { rebuild::plan };
    plan(&setup, what, &Cancel::never())
}

/// Whether a rebuild of this server was ordered and has not ended: a controller that is started continues it.
pub fn is_being_rebuilt(config: &Config) -> bool {
    let loaded = store::load(&config.run_dir());
    loaded.is_ok_and(|loaded| loaded.durable.is_some_and(|durable| durable.notes.rebuild.is_some()))
}

/// Runs the controller in this process, without a watcher, until it is told to end; returns the exit code. Called by
/// `mc_ctl start --foreground`. `start_id` is random; a restart by the service manager keeps that of the controller that died. A detached one is started by [`watcher::start_detached`].
///
/// # Errors
/// What keeps the controller from starting: another one runs, a ledger that is not to be trusted, a port in use.
pub fn run(config: Config, by: StartedBy, start_id: u64) -> Result<u8> {
    let (mark, by) = Mark::read(&config.id, &config.run_dir(), by, start_id);
    let start_id = mark.start_id();
    decision::run(config, by, start_id, watcher::Alive::of_unit(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_thread_ends_the_process() {
        if std::env::var_os("MC_TEST_PANIC").is_some() {
            abort_on_panic();
            let _ = std::thread::spawn(|| panic!("as the test asks")).join();
            return;
        }
        let mut itself = std::process::Command::new(std::env::current_exe().unwrap());
        itself.args(["--exact", "daemon::tests::a_panic_of_a_thread_ends_the_process", "--nocapture"]);
        let ended = itself.env("MC_TEST_PANIC", "1").output().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&ended.status);
        assert_eq!(signal, Some(rustix::process::Signal::ABORT.as_raw()), "{ended:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("as the test asks"), "{ended:?}");
    }
}
