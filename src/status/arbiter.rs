//! The arbiter in the status.

use super::MemberName;
use crate::fsm::report::Report;
use serde::Serialize;

/// The arbiter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ArbiterStatus {
    /// Its id.
    pub arbiter_id: String,
    /// Its host in `network.conf`.
    pub host: String,
    /// `online`, `offline`.
    pub status: &'static str,
    /// `normal`, `nearly_full`, `full`; `unknown` while it is offline.
    pub disk_status: &'static str,
    /// The space of its directory in a sentence; `null` if it is enough.
    pub disk_space: Option<String>,
    /// Why its ledger cannot be written, so that it cannot consent; `null` if it can.
    pub ledger_error: Option<String>,
}

impl ArbiterStatus {
    pub(super) fn new(name: &MemberName, report: &Report) -> ArbiterStatus {
        let (online, disk) = (report.arbiter == Some(true), &report.arbiter_disk);
        let given = |text: &String| Some(text.clone()).filter(|text| online && !text.is_empty());
        ArbiterStatus {
            arbiter_id: name.id.clone(),
            host: name.host.clone(),
            status: if online { "online" } else { "offline" },
            disk_status: match (online, disk.full.is_empty(), disk.space.is_empty()) {
                (false, ..) => "unknown",
                (true, false, _) => "full",
                (true, true, false) => "nearly_full",
                (true, true, true) => "normal",
            },
            disk_space: given(&disk.space),
            ledger_error: given(&disk.failure),
        }
    }

    /// What is wrong with it although it is online, in two or three words.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match (&self.ledger_error, self.disk_status) {
            (Some(_), _) => Some("cannot grant"),
            (None, "full") => Some("disk full"),
            (None, "nearly_full") => Some("disk nearly full"),
            _ => None,
        }
    }

    /// The status as the table shows it.
    pub(super) fn cell(&self) -> String {
        match self.problem() {
            Some(problem) => format!("{}({problem})", self.status),
            None => self.status.to_owned(),
        }
    }

    /// What an operator should do.
    pub(super) fn advice(&self) -> Option<String> {
        let id = &self.arbiter_id;
        let space = self.disk_space.as_ref().map(|space| format!(": {space}")).unwrap_or_default();
        match (&self.ledger_error, self.disk_status) {
            (Some(why), _) => Some(format!(
                "arbiter \"{id}\" cannot write its ledger and cannot consent to a change ({why}): free space on its host{space}"
            )),
            (None, "full" | "nearly_full") => Some(format!("free space on the host of arbiter \"{id}\"{space}")),
            _ => None,
        }
    }
}
