//! The machine: files and modes, free space, ports, services that start an instance, clocks, versions of the programs.

use super::{Entry, Finding, Seen};
use crate::config::Config;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// What there can be found here.
pub const CATALOGUE: &[Entry] = &[];

/// What is read.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The running controller cannot load its files anew: why, and what mends it. Only of a server that is seen from the other.
    pub refused: Option<(String, String)>,
}

/// Reads it, by `deadline` at the latest.
pub fn collect(_config: &Config, _deadline: Instant) -> Facts {
    Facts::default()
}

/// What is wrong on both servers.
pub fn examine(_seen: &Seen, _found: &mut Vec<Finding>) {}
