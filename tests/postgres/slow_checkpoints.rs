//! The checkpoints of a proof (R9) that take long, and one that never ends.

use crate::harness::client::Style;
use crate::harness::host::{Process, signal};
use crate::harness::pair::{Pair, Setup};
use crate::harness::{major, s, wait_for};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a checkpointer may make no progress: 20 detection times of [`Setup::fast_network`].
const PATIENCE: Duration = Duration::from_millis(20 * 800);

/// A pair whose standby is down, and whose primary has this much to write, in MiB.
fn without_its_standby(megabytes: u32) -> (Pair, Process) {
    let setup = Setup::default().fast_network().pg("shared_buffers = 256MB").pg("checkpoint_timeout = 1h");
    // A checkpointer that is stopped can hold a lock that the controller's queries need.
    let setup = setup.conf("db_instance_timeout_action = message");
    let pair = setup.pg("max_wal_size = 4GB").pg("bgwriter_lru_maxpages = 0").up();
    pair.mc(1, &["stop"]).expect(0, "mc_ctl stop");
    if megabytes > 0 {
        pair.fill(0, megabytes);
    }
    let checkpointer = pair.host(0).backend("checkpointer").expect("a checkpointer runs");
    (pair, checkpointer)
}

/// A checkpointer that is stopped most of the time, as on a slow disk.
struct Slow {
    pid: u32,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Slow {
    fn begin(pid: u32) -> Slow {
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let io = move || std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let thread = std::thread::spawn(move || {
            while !ended.load(SeqCst) {
                signal(pid, Signal::STOP);
                std::thread::sleep(s(3));
                let before = io();
                signal(pid, Signal::CONT);
                let resumed = Instant::now();
                while io() == before && resumed.elapsed() < Duration::from_millis(50) {}
            }
        });
        Slow { pid, end, thread: Some(thread) }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.end.store(true, SeqCst);
        self.thread.take().map(JoinHandle::join);
        signal(self.pid, Signal::CONT);
    }
}

/// A checkpoint that progresses is waited for, however long it takes. The status and the log report how far it is.
#[test]
fn one_that_progresses_is_waited_for() {
    let (pair, checkpointer) = without_its_standby(200);
    let at = Instant::now();
    let slow = Slow::begin(checkpointer.pid);
    let mut start = pair.mc_command(1, &["start", "-w", "-f"]).spawn().expect("could not start");
    wait_for("the status shows the checkpoint", s(40), || {
        let text = pair.mc(0, &["status"]).text();
        let shows = text.contains("waiting for checkpoint 1 of 2 on nd1: ") && text.contains("MiB written in ");
        shows.then_some(())
    });
    wait_for("the standby's status names the primary", s(20), || {
        let text = pair.mc(1, &["status"]).text();
        text.contains("the primary makes the checkpoints").then_some(())
    });
    let longer = (PATIENCE + s(6)).as_millis() as u64;
    wait_for("the first checkpoint takes longer than a stuck one may", s(120), || {
        let shown = pair.json(0)?["checkpoint"].clone();
        assert_ne!(shown["number"].as_u64(), Some(2), "the first checkpoint is not slow: {shown}");
        (shown["elapsed_ms"].as_u64()? > longer).then_some(())
    });
    pair.wait_log(0, at, "MCA01200", s(1));
    drop(slow);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    assert_eq!(pair.host(0).syslog.find(at, "was abandoned"), None);
    assert!(pair.json(0).expect("the status as JSON")["checkpoint"].is_null());
    start.wait().expect("could not wait");
}

/// A checkpointer that makes no progress is given up, with its condition. The proof is repeated, and succeeds once the
/// checkpointer continues.
#[test]
fn one_that_is_stuck_is_given_up() {
    let (pair, checkpointer) = without_its_standby(0);
    let at = Instant::now();
    signal(checkpointer.pid, Signal::STOP);
    let mut start = pair.mc_command(1, &["start", "-w", "-f"]).spawn().expect("could not start");
    let waits =
        || pair.sql(0, "SELECT pid FROM pg_stat_activity WHERE query = 'CHECKPOINT' ORDER BY backend_start LIMIT 1");
    let session = wait_for("the proof orders a checkpoint", s(40), || Some(waits()).filter(|pid| !pid.is_empty()));
    pair.wait_log(0, at, "for 16 s the checkpointer has made no progress; it is stopped (SIGSTOP)", PATIENCE + s(60));
    assert_eq!(pair.host(0).syslog.find(at, "cancelled"), None);
    if major() >= 14 {
        wait_for("the session of the checkpoint ends", s(60), || (waits() != session).then_some(()));
    }
    assert_ne!(pair.status(0).expect("a status").word, "switchable");
    signal(checkpointer.pid, Signal::CONT);
    pair.wait_roles(0, "switchable", ["primary", "standby"]);
    start.wait().expect("could not wait");
}

/// The standby dies while the proof waits for a checkpoint: commits would wait for the standby, so the proof is cancelled.
#[test]
fn one_whose_standby_dies_is_cancelled() {
    let (mut pair, checkpointer) = without_its_standby(0);
    let at = Instant::now();
    signal(checkpointer.pid, Signal::STOP);
    let mut start = pair.mc_command(1, &["start", "-w", "-f"]).spawn().expect("could not start");
    wait_for("the proof orders a checkpoint", s(40), || pair.json(0)?["checkpoint"].is_object().then_some(()));
    pair.host_mut(1).power_off();
    start.wait().expect("could not wait");
    pair.wait_log(0, at, "the controller cancelled the operation", s(40));
    assert_eq!(pair.host(0).syslog.find(at, "was abandoned"), None);
    signal(checkpointer.pid, Signal::CONT);
    let client = pair.client(Style::OneSession);
    client.check(&pair, 0, &[0]);
}
