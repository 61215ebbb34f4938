//! How quickly heartbeats and probes were answered, as histograms, against the detection times; and who is heard at all.

use super::{Entry, Finding, Seen};
use serde::{Deserialize, Serialize};

/// What there can be found here.
pub const CATALOGUE: &[Entry] = &[];

/// What a controller has measured since its start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {}

/// What is wrong between the members.
pub fn examine(_seen: &Seen, _found: &mut Vec<Finding>) {}
