//! The journal of a rebuild: what was begun and how far it came, in the run-time directory (`DIR/ID/rebuild.json`), so that
//! whoever comes after a kill or a power loss knows. Each phase is durable before its first change is made. Written by
//! [`super::perform`] and [`super::abandon`], read by the plan. [`load`], [`write`] and [`remove`] are the same for any journal.

use super::Chosen;
use crate::error::{Error, Result};
use crate::fsm::types::OldData;
use crate::pg::files;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

const FILE: &str = "rebuild.json";

/// Version of the file's format; another one is not read.
const FORMAT: u32 = 1;

/// How far a rebuild came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Of the data directory only `PG_VERSION` may have changed; a copy may lie in the staging directories. It can be
    /// undone, unless the directory was ruined before.
    Copying,
    /// `pg_rewind` may have begun, or the deletion of the old directory: nothing of it can ever be started again, and only
    /// a base backup can follow.
    Rewinding,
    /// The new content is whole and durable. Renames, configuration and `PG_VERSION` are missing: to be continued, never
    /// undone.
    Swapping,
}

/// A directory outside of the data directory whose content is replaced: `pg_wal` on another disk, a tablespace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// The symbolic link in the data directory, relative to it: `pg_wal`, `pg_tblspc/16385`.
    pub link: PathBuf,
    /// Where it points to, before and after.
    pub at: PathBuf,
    /// Where the new content is staged: beside `at`, or in it where that cannot be renamed.
    pub staged: PathBuf,
    /// Where the old content is put.
    pub old: PathBuf,
    /// A directory was there before.
    pub was_there: bool,
}

/// The journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Journal {
    /// How.
    pub method: Chosen,
    /// How far.
    pub phase: Phase,
    /// When it began, as [`stamp`]: part of the names under which old content is kept.
    pub stamp: String,
    /// The data directory that was there cannot be gone back to: half rewound, or half deleted. It stays guarded for ever.
    pub ruined: bool,
    /// What becomes of it.
    pub old_data: OldData,
    /// A data directory was there, with content.
    pub existed: bool,
    /// This server's `application_name`: the data directory may tell the other one's meanwhile.
    #[serde(default)]
    pub name: String,
    /// The data directory, by its real path: it cannot be found out while it is renamed.
    pub data: PathBuf,
    /// Where the new data directory is staged (base backup).
    pub staging: PathBuf,
    /// Where the old one is put (base backup).
    pub old: PathBuf,
    /// What lies outside of it (base backup).
    pub moves: Vec<Move>,
    /// All renames are done (base backup).
    pub swapped: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored<J> {
    format: u32,
    journal: J,
}

impl Journal {
    /// Where it lies, while a rebuild is under way.
    pub fn path(run_dir: &Path) -> PathBuf {
        run_dir.join(FILE)
    }

    /// Reads it; `None` where no rebuild is under way.
    ///
    /// # Errors
    /// It cannot be read or makes no sense. Then nothing must be done: not even whether the data directory is whole is known.
    pub fn load(run_dir: &Path) -> Result<Option<Journal>> {
        load(&Journal::path(run_dir), "rebuild")
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// It could not be written.
    pub fn write(&self, run_dir: &Path) -> Result<()> {
        write(&Journal::path(run_dir), self, "rebuild")
    }

    /// Removes it, durably; it may be gone already.
    ///
    /// # Errors
    /// It could not be removed.
    pub fn remove(run_dir: &Path) -> Result<()> {
        files::remove(&Journal::path(run_dir))
    }

    /// The server's `application_name`, while a rebuild is under way.
    pub fn kept_name(run_dir: &Path) -> Option<String> {
        Journal::load(run_dir).ok().flatten().map(|journal| journal.name).filter(|name| !name.is_empty())
    }

    /// Whether only a base backup can make the data directory whole.
    pub fn needs_base_backup(&self) -> bool {
        self.ruined || self.phase == Phase::Rewinding
    }
}

/// Reads the journal of `what`; `None` where there is none.
///
/// # Errors
/// It cannot be read or makes no sense.
pub fn load<J: DeserializeOwned>(path: &Path, what: &str) -> Result<Option<J>> {
    let failed = format!("read the journal of the {what}");
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io(&failed, path, cause)),
    };
    let bad = |cause: String| {
        Error::io(&failed, path, cause).hint(format!(
            "If the data directory is no longer needed, move it and this file away, and run the {what} again."
        ))
    };
    let stored: Stored<serde_json::Value> = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    if stored.format != FORMAT {
        return Err(bad(format!("its format is {}, but {FORMAT} is required", stored.format)));
    }
    serde_json::from_value(stored.journal).map(Some).map_err(|e| bad(e.to_string()))
}

/// Writes the journal of `what`, durably.
///
/// # Errors
/// It could not be written.
pub fn write(path: &Path, journal: &impl Serialize, what: &str) -> Result<()> {
    let text = serde_json::to_vec_pretty(&Stored { format: FORMAT, journal })
        .map_err(|cause| Error::io(&format!("write the journal of the {what}"), path, cause))?;
    files::replace(path, &text, None)
}

/// A time, ms since the epoch, as part of a file name: `20261123T171145Z`, in UTC.
pub fn stamp(time_ms: u64) -> String {
    let (days, seconds) = ((time_ms / 86_400_000) as i64, time_ms / 1000 % 86_400);
    // Days to a date of the Gregorian calendar: eras of 400 years that begin on the first of March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The time, ms since the epoch.
pub fn now_ms() -> u64 {
    UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        let check = |seconds: u64, expected: &str| assert_eq!(stamp(seconds * 1000), expected);
        check(0, "19700101T000000Z");
        check(951_782_399, "20000228T235959Z");
        check(951_782_400, "20000229T000000Z");
        check(1_795_453_905, "20261123T171145Z");
        check(4_107_542_400, "21000301T000000Z");
    }

    #[test]
    fn is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Journal::load(dir.path()), Ok(None));
        let journal = Journal {
            method: Chosen::BaseBackup,
            phase: Phase::Copying,
            stamp: stamp(now_ms()),
            ruined: false,
            old_data: OldData::Keep,
            existed: true,
            name: "nd1".into(),
            data: "/d".into(),
            staging: "/d.rebuild-new".into(),
            old: "/d.old".into(),
            moves: vec![Move {
                link: "pg_wal".into(),
                at: "/w".into(),
                staged: "/w.n".into(),
                old: "/w.o".into(),
                was_there: true,
            }],
            swapped: false,
        };
        journal.write(dir.path()).unwrap();
        assert_eq!(Journal::load(dir.path()), Ok(Some(journal)));
        std::fs::write(dir.path().join(FILE), "{\"format\": 2, \"journal\": 1}").unwrap();
        assert!(Journal::load(dir.path()).unwrap_err().message.contains("its format is 2"));
        std::fs::write(dir.path().join(FILE), "").unwrap();
        assert!(Journal::load(dir.path()).is_err());
        Journal::remove(dir.path()).unwrap();
        Journal::remove(dir.path()).unwrap();
        assert_eq!(Journal::load(dir.path()), Ok(None));
    }
}
