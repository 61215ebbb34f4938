//! How far a rebuild is: written by whoever performs it, read for `mc_ctl status` and `mc_ctl rebuild`.

use super::Chosen;
use super::journal::{now_ms, stamp};
use crate::pg::slots::Removed;
use crate::shared::Shared;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// From how many bytes on the log is begun anew.
const MAX_LOG: u64 = 1 << 20;

/// How far it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// How; `None` while that is being found out.
    pub chosen: Option<Chosen>,
    /// Why so.
    pub why: String,
    /// An earlier attempt had made the copy, which only had to be renamed.
    #[serde(default)]
    pub continued: bool,
    /// What is being done, in a few words.
    pub step: String,
    /// Bytes copied, of the step that copies.
    pub done: u64,
    /// Of how many; 0 where that is not known.
    pub total: u64,
    /// How long the copying has continued, ms.
    pub elapsed_ms: u64,
    /// What only this server had, once it is kept.
    pub lost: Option<super::Lost>,
    /// Files of this server's configuration that are kept, where `postgresql.conf` was missing and is made.
    #[serde(skip)]
    pub kept_configuration: Vec<PathBuf>,
    /// Replication slots of the data directory that the copy does not have.
    #[serde(skip)]
    pub removed_slots: Vec<Removed>,
}

/// The progress of a rebuild, for `mc_ctl status`; `None` before the first one.
pub type Board = Shared<Option<Progress>>;

/// Tells what a rebuild does: on the board, and line by line in `DIR/ID/rebuild.log`.
pub(super) struct Teller<'a> {
    board: &'a Board,
    log: Option<File>,
}

impl Teller<'_> {
    /// Begins a log that is already long anew. Best effort: nothing depends on it.
    pub fn new<'a>(board: &'a Board, run_dir: &Path) -> Teller<'a> {
        board.write(Some(Progress::default()));
        let path = run_dir.join("rebuild.log");
        if path.metadata().is_ok_and(|log| log.len() > MAX_LOG) {
            let _ = std::fs::rename(&path, run_dir.join("rebuild.log.1"));
        }
        Teller { board, log: OpenOptions::new().append(true).create(true).mode(0o600).open(path).ok() }
    }

    /// What is being done now.
    pub fn step(&self, step: &str) {
        self.update(|progress| step.clone_into(&mut progress.step));
        self.line(step);
    }

    /// A line of the log.
    pub fn line(&self, line: &str) {
        if let Some(mut log) = self.log.as_ref() {
            let _ = writeln!(log, "{} {line}", stamp(now_ms()));
        }
    }

    /// Changes what is on the board.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.board.update(|written| change(written.get_or_insert_default()));
    }

    /// Takes a line that a program wrote, which began then; whether it is progress, that is on the board alone.
    pub fn said(&self, line: &str, begun: Instant) -> bool {
        let Some((done, total)) = copied(line) else {
            self.line(line);
            return false;
        };
        self.update(|progress| {
            (progress.done, progress.total) = (done, total);
            progress.elapsed_ms = begun.elapsed().as_millis() as u64;
        });
        true
    }
}

/// Bytes of a line of `pg_rewind --progress` or `pg_basebackup --progress`: ` 12/3456 kB (0%) copied`.
pub fn copied(line: &str) -> Option<(u64, u64)> {
    let (done, total) = line.split_once(" kB")?.0.trim().split_once('/')?;
    Some((done.trim().parse::<u64>().ok()? * 1024, total.trim().parse::<u64>().ok()? * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        let check = |line: &str, expected: Option<(u64, u64)>| assert_eq!(copied(line), expected, "{line}");
        check("  1024/30720 kB (3%) copied", Some((1 << 20, 30 << 20)));
        check(" 7/7 kB (100%), 2/2 tablespaces", Some((7168, 7168)));
        check("need to copy 30 MB (total source directory size is 47 MB)", None);
        check("0/x kB", None);
        check("", None);
    }
}
