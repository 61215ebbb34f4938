//! What precedes the stop of a primary whose disk is full, on a signal of a service manager, which cannot be refused.
//!
//! A planned switch begins with a checkpoint, for which there is no space. The standby has all commits: the instance is stopped
//! without a checkpoint, and the standby takes over as after a failure. Only then does the controller stop.

use super::control::Board;
use crate::error::Error;
use crate::messages::{self, Tell};
use crate::pg::process;
use crate::status;
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the standby may take to take over before the controller stops all the same.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// Returns when the standby has taken over; at once where a planned switch is possible, or there is nothing to switch.
pub fn run(board: &Board, data: &Path) {
    let snapshot = board.snapshot();
    let Some(full) = status::only_without_checkpoint(&snapshot) else { return };
    let what =
        format!("the instance is stopped without a checkpoint, so that the standby takes over: {}", full.sentence());
    messages::tell(&Tell::Warning(Error::new(what)));
    let postmaster = process::postmaster(&process::home(data)).ok().flatten();
    // An immediate shutdown.
    if !postmaster.is_some_and(|process| process.signal(Signal::QUIT)) {
        return;
    }
    let end = Instant::now() + LIMIT;
    let leads = || {
        let report = board.snapshot().report;
        report.view.is_some_and(|view| view.primary == report.me)
    };
    while leads() && Instant::now() < end {
        std::thread::sleep(LOOK);
    }
}
