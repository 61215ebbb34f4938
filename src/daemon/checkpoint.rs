//! `CHECKPOINT` on the own instance. It has no limit while the checkpointer makes progress (PROTOCOL R9): on a slow disk one
//! takes many minutes. Called by the jobs.

use super::jobs::{QUERY, Setup, in_session};
use crate::error::{Error, Result};
use crate::messages::{self, Tell};
use crate::pg::bounded::{self, Cancel};
use crate::pg::checkpointer::Signs;
use crate::pg::connect::Session;
use crate::pg::queries;
use crate::shared::Shared;
use crate::status::Checkpoint;
use std::time::{Duration, Instant};

/// The time between two looks at the checkpointer.
const LOOK: Duration = Duration::from_millis(500);

/// How many detection times a checkpointer may make no progress.
const DETECTION_TIMES: u64 = 20;

/// The least of that time, ms.
const LEAST_MS: u64 = 10_000;

/// How long a checkpointer may make no progress before its checkpoint is given up.
pub fn patience(detection_ms: u64) -> Duration {
    Duration::from_millis(detection_ms.saturating_mul(DETECTION_TIMES).max(LEAST_MS))
}

/// The progress of a checkpoint, for `mc_ctl status`; `None` while there is none.
pub type Board = Shared<Option<Checkpoint>>;

/// Makes one of `count` checkpoints.
pub fn perform(setup: &Setup, number: u32, count: u32, cancel: &Cancel) -> Result<()> {
    let mut watch = Watch::begin(setup, number, count, cancel);
    let (given_up, seen) = Cancel::new();
    let target = setup.target.clone();
    let work = move || {
        let mut session = Session::open(&target, QUERY, "checkpoint")?;
        Ok(queries::checkpoint_while(&mut session, QUERY, || !seen.is_set())?)
    };
    let made = bounded::watch("make a checkpoint", LOOK, cancel, || watch.look(), work);
    // The session ends, if it still waits.
    drop(given_up);
    made
}

/// The watch over one checkpoint.
struct Watch<'a> {
    setup: &'a Setup,
    cancel: &'a Cancel,
    number: u32,
    count: u32,
    began: Instant,
    /// When the checkpointer was last seen to make progress.
    moved: Instant,
    /// When the log last said how far it is.
    logged: Instant,
    first: Signs,
    last: Signs,
}

impl Watch<'_> {
    fn begin<'a>(setup: &'a Setup, number: u32, count: u32, cancel: &'a Cancel) -> Watch<'a> {
        let (now, first) = (Instant::now(), Signs::read(&setup.place.data));
        let last = first.clone();
        Watch { setup, cancel, number, count, began: now, moved: now, logged: now, first, last }
    }

    /// Shows how far the checkpoint is; an error if the checkpointer has made no progress for too long.
    fn look(&mut self) -> Result<()> {
        let (signs, patience) = (Signs::read(&self.setup.place.data), self.setup.checkpoint_patience);
        if signs.progress_since(&self.last) {
            self.moved = Instant::now();
        }
        self.last = signs;
        if self.moved.elapsed() >= patience {
            return Err(self.given_up());
        }
        let written = self.last.written().zip(self.first.written());
        let shown = Checkpoint {
            number: self.number,
            count: self.count,
            bytes_written: written.map(|(now, first)| now.saturating_sub(first)),
            elapsed_ms: self.began.elapsed().as_millis() as u64,
        };
        if self.logged.elapsed() >= patience / 2 {
            self.logged = Instant::now();
            messages::tell(&Tell::CheckpointRuns { number: self.number, count: self.count, far: shown.far() });
        }
        self.setup.checkpoints.write(Some(shown));
        Ok(())
    }

    fn given_up(&self) -> Error {
        let seconds = self.setup.checkpoint_patience.as_secs();
        let mut condition = self.last.condition();
        if !self.last.is_held_from_outside() {
            let ask = |session: &mut Session, _: &Cancel| Ok(queries::checkpointer_waits_for(session, QUERY)?);
            let found = in_session(self.setup, "find what the checkpointer waits for", QUERY * 2, self.cancel, ask);
            condition += &found.ok().flatten().map(|event| format!(" and waits for {event}")).unwrap_or_default();
        }
        Error::new(format!(
            "the checkpoint was abandoned: for {seconds} s the checkpointer has made no progress; it {condition}"
        ))
        .hint("Check the disk, and whether processes of the instance are stopped.")
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.setup.checkpoints.write(None);
    }
}
