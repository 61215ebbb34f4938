//! The journal of a recovery (`DIR/ID/recover.json`). Each phase is durable before its first change.

use super::Target;
use crate::error::Result;
use crate::pg::files;
use crate::rebuild;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The newest timeline that the archive has, as PostgreSQL finds it.
pub const NEWEST: u32 = 0;

const FILE: &str = "recover.json";
const WHAT: &str = "recovery";

/// How far a recovery has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The backup is restored and recovered beside the data directory. The pair is not affected.
    Copying,
    /// The copy can be recovered to the target. The pair is being stopped.
    Stopping,
    /// The instance is down, and nothing can start it. The copy is recovered, and becomes the beginning of a timeline.
    Recovering,
    /// The copy replaces the data directory. From here on the recovery is continued, and never undone.
    Swapping,
    /// The copy has replaced it. This server gets the right to run alone with it.
    Adopting,
    /// This server serves. The other server is rebuilt.
    Rebuilding,
}

/// The journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Journal {
    /// How far.
    pub phase: Phase,
    /// To what the recovery leads.
    pub target: Target,
    /// The name of the backup; empty for the one that `program` selects.
    pub backup: String,
    /// The program of `recover_command` that restores it; `None` of a backup in `backup_destination`.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// The timeline on which the recovery ends, or [`NEWEST`].
    pub timeline: u32,
    /// The operator has selected that timeline, which need not be the newest one.
    #[serde(default)]
    pub selected: bool,
    /// This server served before, or was a standby.
    pub served: bool,
    /// The plan knew the archive of the other server.
    #[serde(default)]
    pub both: bool,
    /// This server was the primary before.
    #[serde(default)]
    pub primary: bool,
    /// The operator has confirmed that the other server is down.
    #[serde(default)]
    pub forced: bool,
    /// The other server may have the right to run alone: its consent was not required. If its controller started with its ledger, it would win the split.
    #[serde(default)]
    pub rival: bool,
    /// Automatic switch and disconnection were enabled before.
    pub failover: bool,
    /// The replacement of the data directory: where the copy is, and where the old content is kept.
    pub replacement: rebuild::Journal,
}

impl Journal {
    /// Where it is while a recovery is in progress.
    pub fn path(run_dir: &Path) -> PathBuf {
        run_dir.join(FILE)
    }

    /// Reads it; `None` if no recovery is in progress.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn load(run_dir: &Path) -> Result<Option<Journal>> {
        rebuild::load_journal(&Journal::path(run_dir), WHAT)
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// It could not be written.
    pub fn write(&self, run_dir: &Path) -> Result<()> {
        rebuild::write_journal(&Journal::path(run_dir), self, WHAT)
    }

    /// Begins the next phase, durably.
    ///
    /// # Errors
    /// It could not be written.
    pub fn enter(&mut self, phase: Phase, run_dir: &Path) -> Result<()> {
        self.phase = phase;
        self.write(run_dir)
    }

    /// Whether the old data directory is one, and is whole: it is guarded, so that no program starts it, and can be returned to.
    pub fn guards(&self) -> bool {
        self.replacement.existed && !self.replacement.ruined
    }

    /// Whether a recovery needs the data directory as it is, or is about to replace it. A rebuild would do the same.
    pub fn forbids_rebuild(run_dir: &Path) -> bool {
        Journal::exists(run_dir)
            && !matches!(Journal::load(run_dir), Ok(None | Some(Journal { phase: Phase::Rebuilding, .. })))
    }

    /// Removes it, durably.
    ///
    /// # Errors
    /// It could not be removed.
    pub fn remove(run_dir: &Path) -> Result<()> {
        files::remove(&Journal::path(run_dir))
    }

    /// Whether a recovery is in progress, also if its journal cannot be read.
    pub fn exists(run_dir: &Path) -> bool {
        Journal::path(run_dir).symlink_metadata().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rebuild::Chosen;

    #[test]
    fn is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Journal::load(dir.path()), Ok(None));
        let replacement = rebuild::Journal {
            method: Chosen::BaseBackup,
            phase: rebuild::Phase::Copying,
            stamp: "20261130T121500Z".into(),
            ruined: false,
            old_data: crate::fsm::types::OldData::Keep,
            existed: true,
            name: "nd1".into(),
            data: "/d".into(),
            staging: "/d.rebuild-new".into(),
            old: "/d.old-20261130T121500Z".into(),
            moves: vec![],
            swapped: false,
        };
        let mut journal = Journal {
            phase: Phase::Copying,
            target: Target::time("2026-11-30 14:05Z").unwrap(),
            backup: "20261130T121500Z".into(),
            program: None,
            timeline: 2,
            selected: true,
            served: true,
            both: true,
            primary: true,
            forced: false,
            rival: false,
            failover: true,
            replacement,
        };
        journal.enter(Phase::Stopping, dir.path()).unwrap();
        assert!(Journal::exists(dir.path()));
        assert_eq!(Journal::load(dir.path()), Ok(Some(journal)));
        Journal::remove(dir.path()).unwrap();
        assert!(!Journal::exists(dir.path()));
    }
}
