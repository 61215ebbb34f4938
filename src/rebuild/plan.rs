//! What a rebuild would do, found out by reading alone.

use super::{Lost, Setup};
use crate::error::{Error, Result};
use crate::fsm::event::Rebuild;
use crate::pg::bounded::Cancel;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How the data directory becomes the other server's standby.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chosen {
    /// It has not diverged: it is started as a standby.
    Follow,
    /// `pg_rewind`.
    Rewind,
    /// `pg_basebackup`.
    BaseBackup,
}

/// Room on one filesystem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Room {
    /// A directory on it.
    pub path: PathBuf,
    /// Bytes needed.
    pub needed: u64,
    /// Bytes free for this user.
    pub free: u64,
}

/// What would be done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// How.
    pub chosen: Chosen,
    /// Why so, in a sentence.
    pub why: String,
    /// Bytes to copy, about; `None` where that shows only later.
    pub bytes: Option<u64>,
    /// Room for it; a filesystem a line.
    pub room: Vec<Room>,
    /// What this server has and the other one has not.
    pub lost: Option<Lost>,
    /// The steps, in order, a sentence each.
    pub steps: Vec<String>,
    /// Why it cannot be done after all; empty: it can. A sentence with its remedy each.
    pub obstacles: Vec<String>,
}

/// Finds out what a rebuild would do. Changes nothing, on either server.
///
/// # Errors
/// Something could not be found out: the other instance does not let this server in, a disk does not answer.
pub fn plan(_setup: &Setup, _what: &Rebuild, _cancel: &Cancel) -> Result<Plan> {
    Err(Error::new("not yet"))
}
