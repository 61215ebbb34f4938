//! What an old primary had and the new one has not: kept aside and summarised before anything is overwritten.

use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// WAL that only the server that lost its role has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// When it was kept, ms since the epoch.
    pub time_ms: u64,
    /// Its timeline.
    pub timeline: u32,
    /// Where the two diverged, and where this server's WAL ends.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// Committed transactions in it.
    pub transactions: u64,
    /// Time of the first and of the last commit, as pg_waldump tells them; empty for none.
    pub first_commit: String,
    /// See `first_commit`.
    pub last_commit: String,
    /// Relations that were changed: `database.schema.name`, or the file's numbers where the name is not known.
    pub relations: Vec<String>,
    /// There are more than `relations` holds.
    pub more_relations: bool,
    /// A forced view lies behind it, so that some may have been acknowledged.
    pub maybe_acknowledged: bool,
    /// The directory in which the WAL is kept; empty before it is.
    pub kept: PathBuf,
}

/// All that was kept by rebuilds of this server, oldest first.
///
/// # Errors
/// The run-time directory cannot be read.
pub fn list(_run_dir: &Path) -> Result<Vec<Lost>> {
    Ok(Vec::new())
}
