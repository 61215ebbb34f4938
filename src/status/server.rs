//! One server in the status.

use super::MemberName;
use crate::fsm::report::{HostRole, HostStatus, Report, ServerReport};
use serde::Serialize;

/// One server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerStatus {
    /// Its id.
    pub server_id: String,
    /// `primary`, `standby`, `none(...)`.
    pub host_role: &'static str,
    /// Its host in `network.conf`.
    pub host: String,
    /// `normal`, `abnormal`, `unknown`.
    pub host_status: &'static str,
    /// `normal`, `abnormal(...)` joined by `,`, or `unknown`.
    pub db_proc_status: String,
    /// `normal`, `full`, `abnormal(...)`, `unknown`.
    pub disk_status: String,
    /// Which of its directories are full, joined by `, `; empty for none.
    pub full_directories: String,
    /// Primary: flushed. Standby: received. As `high/low`.
    pub lsn: Option<String>,
    /// Standby: replayed.
    pub replayed_lsn: Option<String>,
    /// Its timeline.
    pub timeline: Option<u32>,
}

impl ServerStatus {
    pub(super) fn new(name: &MemberName, report: &ServerReport) -> ServerStatus {
        ServerStatus {
            server_id: name.id.clone(),
            host: name.host.clone(),
            host_role: shown_role(report),
            host_status: match report.host {
                HostStatus::Normal => "normal",
                HostStatus::Abnormal => "abnormal",
                HostStatus::Unknown => "unknown",
            },
            db_proc_status: match &report.processes {
                None => "unknown".into(),
                Some(failed) if failed.is_empty() => "normal".into(),
                Some(failed) => failed.iter().map(|p| format!("abnormal({p})")).collect::<Vec<_>>().join(","),
            },
            disk_status: match report.disk.as_deref() {
                None => "unknown".into(),
                Some("") if !report.full.is_empty() => "full".into(),
                Some("") => "normal".into(),
                Some(what) => format!("abnormal({what})"),
            },
            full_directories: report.full.clone(),
            lsn: report.lsn.map(|lsn| lsn.to_string()),
            replayed_lsn: report.replayed.map(|lsn| lsn.to_string()),
            timeline: report.timeline.map(|t| t.0),
        }
    }

    pub(super) fn columns(&self) -> [&str; 6] {
        let ServerStatus { server_id, host_role, host, host_status, db_proc_status, disk_status, .. } = self;
        [server_id, host_role, host, host_status, db_proc_status, disk_status]
    }
}

/// A role as it is shown.
fn role_text(role: HostRole) -> &'static str {
    match role {
        HostRole::Primary => "primary",
        HostRole::Standby => "standby",
        HostRole::InactivatedPrimary => "none(inactivated primary)",
        HostRole::InactivatedStandby => "none(inactivated standby)",
        HostRole::Unknown => "none(unknown)",
    }
}

/// The status word and this server's role, for `systemctl status`.
pub fn in_short(report: &Report) -> String {
    format!("{}, {}", report.word.text(), shown_role(&report.servers[report.me.index()]))
}

/// The role of a server. Of an instance that runs, it is not known before the first reading; one that has lost its role is stopped.
fn shown_role(report: &ServerReport) -> &'static str {
    let inactivated = matches!(report.role, HostRole::InactivatedPrimary | HostRole::InactivatedStandby);
    let stopped = report.postmaster_runs() == Some(false);
    role_text(if inactivated && report.host == HostStatus::Normal && !stopped {
        HostRole::Unknown
    } else {
        report.role
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::snapshot;
    use super::super::{Snapshot, Status};
    use super::*;

    #[test]
    fn the_role_of_an_instance_that_was_not_read_is_unknown() {
        let mut s = snapshot();
        let role = |s: &Snapshot| (Status::new(s).servers[0].host_role, in_short(&s.report));
        s.report.servers[0].role = HostRole::InactivatedPrimary;
        for unread in [None, Some(vec![])] {
            s.report.servers[0].processes = unread;
            assert_eq!(role(&s), ("none(unknown)", "switchable, none(unknown)".into()));
        }
        s.report.servers[0].processes = Some(vec!["postmaster".into()]);
        assert_eq!(role(&s).0, "none(inactivated primary)");
        s.report.servers[0].processes = None;
        // The last known role of a server that does not respond.
        s.report.servers[0].host = HostStatus::Abnormal;
        assert_eq!(role(&s).0, "none(inactivated primary)");
    }
}
