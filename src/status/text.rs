//! The status as text, for people.

use super::{Checkpoint, ServerStatus, Status};
use crate::fsm::report::Word;
use std::fmt::Write;

/// Whether, and what of, the text is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// Plain text.
    Never,
    /// Values that are not normal stand out.
    Always,
}

impl Status {
    /// The text of mc_ctl(8), STATUS, and with `arbiter` its table too.
    pub fn text(&self, arbiter: bool, colour: Colour) -> String {
        let mut out = format!("mirroring status\n-----------------\n{}\n", self.paint_word(colour));
        let header = ["server_id", "host_role", "host", "host_status", "db_proc_status", "disk_status"];
        let rows: Vec<[&str; 6]> = self.servers.iter().map(ServerStatus::columns).collect();
        table(&mut out, &header, &rows, colour);
        let _ = writeln!(out, "\n{}", self.policy());
        if let Some(disconnection) = &self.disconnection {
            let _ = writeln!(out, "\nWARNING: {}", disconnection.text);
        }
        if !self.durability_warnings.is_empty() {
            let _ = writeln!(out, "\ncommits can be lost: {}", self.durability_warnings.join("; "));
        }
        for failure in &self.connection_failures {
            let _ = writeln!(out, "\nWARNING: {}", failure.sentence());
        }
        for failure in &self.peer_connection_failures {
            let _ = writeln!(out, "\nWARNING: {failure}");
        }
        for problem in self.backups.iter().flat_map(|backups| &backups.problems) {
            let _ = writeln!(out, "\nWARNING: backups: {problem}");
        }
        if let Some(rebuild) = self.rebuild.as_ref().filter(|rebuild| rebuild.failed.is_none()) {
            let _ = writeln!(out, "\nrebuild of {}: {}", self.local_server, rebuild.line());
        }
        if let Some(checkpoint) = &self.checkpoint {
            let Checkpoint { number, count, .. } = checkpoint;
            let far = checkpoint.far();
            let _ = writeln!(out, "\nwaiting for checkpoint {number} of {count} on {}: {far}", self.local_server);
        }
        if arbiter {
            match &self.arbiter {
                Some(a) => {
                    out.push('\n');
                    table(&mut out, &["arbiter_id", "host", "status"], &[[&a.arbiter_id, &a.host, &a.cell()]], colour);
                }
                None => out.push_str("\nno arbiter\n"),
            }
        }
        out
    }

    /// What failures lead to, in a line.
    fn policy(&self) -> String {
        let failover = if self.failover_enabled { "enabled" } else { "disabled" };
        let action = self.heartbeat_error_action.map(|action| format!("heartbeat_error_action {action}, "));
        let arbiter = match &self.arbiter {
            Some(arbiter) => format!("arbiter {} {}", arbiter.arbiter_id, arbiter.cell()),
            None => "no arbiter".to_owned(),
        };
        format!("failover {failover}, {}{arbiter}", action.unwrap_or_default())
    }

    fn paint_word(&self, colour: Colour) -> String {
        let word = self.mirroring_status.text();
        match (colour, self.mirroring_status) {
            (Colour::Never, _) | (_, Word::Switchable) => word.into(),
            (_, Word::Switching | Word::FailoverDisabled) => format!("\x1b[33m{word}\x1b[0m"),
            _ => format!("\x1b[31m{word}\x1b[0m"),
        }
    }
}

/// Columns two spaces apart, each as wide as its widest value, under a rule as wide as the table.
fn table<const N: usize>(out: &mut String, header: &[&str; N], rows: &[[&str; N]], colour: Colour) {
    let width = |i: usize| rows.iter().map(|r| r[i].len()).chain([header[i].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    row(out, header, &widths, Colour::Never);
    let _ = writeln!(out, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * (N - 1)));
    for cells in rows {
        row(out, cells, &widths, colour);
    }
}

fn row<const N: usize>(out: &mut String, cells: &[&str; N], widths: &[usize], colour: Colour) {
    for (i, cell) in cells.iter().enumerate() {
        let bad = cell.starts_with("abnormal")
            || cell.starts_with("none(")
            || cell.starts_with("online(")
            || *cell == "offline"
            || *cell == "full";
        let (on, off) = match colour {
            Colour::Always if bad => ("\x1b[31m", "\x1b[0m"),
            Colour::Always if *cell == "unknown" => ("\x1b[33m", "\x1b[0m"),
            _ => ("", ""),
        };
        let pad = if i + 1 < N { widths[i] - cell.len() + 2 } else { 0 };
        let _ = write!(out, "{on}{cell}{off}{:pad$}", "");
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::event::OnSilence;
    use crate::status::tests::{failed, snapshot};
    use crate::status::{MemberName, Snapshot};

    #[test]
    fn the_healthy_pair_reads_as_in_the_contract() {
        let expected = "\
mirroring status
-----------------
switchable
server_id  host_role  host         host_status  db_proc_status  disk_status
---------------------------------------------------------------------------
nd1        primary    192.0.2.100  normal       normal          normal
nd2        standby    192.0.2.110  normal       normal          normal

failover enabled, no arbiter
";
        assert_eq!(Status::new(&snapshot()).text(false, Colour::Never), expected);
        assert_eq!(Status::new(&snapshot()).text(false, Colour::Always), expected);
    }

    #[test]
    fn columns_widen_with_their_values() {
        let expected = "\
mirroring status
-----------------
switched
server_id  host_role                  host         host_status  db_proc_status                             disk_status
-----------------------------------------------------------------------------------------------------------------------------------
nd1        none(inactivated primary)  192.0.2.100  normal       abnormal(wal_sender),abnormal(postmaster)  unknown
nd2        primary                    192.0.2.110  unknown      normal                                     abnormal(tablespace a b)

failover enabled, arbiter arb offline

arbiter_id  host             status
------------------------------------
arb         arbiter.example  offline
";
        assert_eq!(Status::new(&failed()).text(true, Colour::Never), expected);
    }

    #[test]
    fn colour_changes_no_text() {
        let status = Status::new(&failed());
        let coloured = status.text(true, Colour::Always);
        assert!(coloured.contains("\x1b[31mswitched\x1b[0m") && coloured.contains("\x1b[33munknown\x1b[0m"));
        let plain = ["31m", "33m", "0m"].iter().fold(coloured, |t, c| t.replace(&format!("\x1b[{c}"), ""));
        assert_eq!(plain, status.text(true, Colour::Never));
    }

    /// What failures lead to depends on three things, which one line shows.
    #[test]
    fn the_policy_is_shown() {
        let mut s = snapshot();
        let shown = |s: &Snapshot| Status::new(s).text(false, Colour::Never);
        s.report.on_silence = Some(OnSilence::Fallback);
        assert!(shown(&s).ends_with("\nfailover enabled, heartbeat_error_action fallback, no arbiter\n"));
        s.arbiter = Some(MemberName { id: "arb".into(), host: "arbiter.example".into() });
        (s.report.arbiter, s.report.on_silence) = (Some(true), Some(OnSilence::Arbitration));
        let online = "\nfailover enabled, heartbeat_error_action arbitration, arbiter arb online\n";
        assert!(shown(&s).ends_with(online), "{}", shown(&s));
        (s.report.arbiter, s.report.failover) = (Some(false), false);
        let offline = "\nfailover disabled, heartbeat_error_action arbitration, arbiter arb offline\n";
        assert!(shown(&s).ends_with(offline), "{}", shown(&s));
        let json: serde_json::Value = serde_json::from_str(&Status::new(&s).json()).unwrap();
        assert_eq!(
            (&json["heartbeat_error_action"], &json["failover_enabled"]),
            (&"arbitration".into(), &false.into())
        );
    }
}
