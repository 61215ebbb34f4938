//! The status as one line with an exit code, for monitoring.

use super::{ArbiterStatus, Disconnection, Level, Status};
use crate::fsm::report::Word;
use std::fmt::Write;

impl Status {
    /// One line in the form of monitoring plugins, and the exit code that belongs to it.
    pub fn check(&self) -> (String, u8) {
        let arbiter_lost = self.arbiter.as_ref().is_some_and(|a| a.status != "online");
        let full = self.servers.iter().filter(|server| !server.full_directories.is_empty());
        let nearly = self.disk_space.iter().filter(|space| space.state == Level::NearlyFull);
        let arbiter_ill = self.arbiter.as_ref().and_then(ArbiterStatus::problem);
        let cannot_grant = self.arbiter.as_ref().is_some_and(|arbiter| arbiter.ledger_error.is_some());
        let critical = full.clone().count() > 0 || self.ledger_error.is_some() || cannot_grant;
        let warned = arbiter_lost
            || arbiter_ill.is_some()
            || !self.durability_warnings.is_empty()
            || !self.connection_failures.is_empty()
            || !self.peer_connection_failures.is_empty()
            || self.disconnection.is_some()
            || self.configuration_error.is_some()
            || self.commits_waiting_seconds.is_some()
            || self.backups.as_ref().is_some_and(|backups| !backups.problems.is_empty())
            || nearly.clone().count() > 0;
        let (state, code) = match self.mirroring_status {
            _ if critical => ("CRITICAL", 2),
            Word::Switchable if !warned => ("OK", 0),
            Word::Switchable | Word::Switching | Word::FailoverDisabled => ("WARNING", 1),
            Word::Switched | Word::NotSwitchable | Word::SplitBrain => ("CRITICAL", 2),
            Word::Unknown => ("UNKNOWN", 3),
        };
        let mut line = format!("MIRRORING {state} - {}", self.mirroring_status.text());
        for s in &self.servers {
            let _ = write!(line, ", {} {}", s.server_id, s.host_role);
        }
        if arbiter_lost {
            line.push_str(", arbiter offline");
        }
        if let Some(problem) = arbiter_ill {
            let _ = write!(line, ", arbiter {problem}");
            if let Some(why) = self.arbiter.as_ref().and_then(|arbiter| arbiter.ledger_error.as_ref()) {
                let _ = write!(line, ": {why}");
            }
        }
        if let Some(why) = &self.ledger_error {
            let _ = write!(line, ", the ledger of {} cannot be written: {why}", self.local_server);
        }
        for warning in &self.durability_warnings {
            let _ = write!(line, ", {warning}");
        }
        for failure in &self.connection_failures {
            let _ = write!(line, ", {}", failure.sentence());
        }
        for failure in &self.peer_connection_failures {
            let _ = write!(line, ", {failure}");
        }
        if let Some(Disconnection { text, remedy, .. }) = &self.disconnection {
            let _ = write!(line, ", {text}; {remedy}");
        }
        if let Some(takeover) = &self.takeover {
            let _ = write!(line, ", {takeover}");
        }
        if let Some(mistake) = &self.configuration_error {
            let _ = write!(line, ", configuration error: {mistake}");
        }
        for server in full {
            let _ = write!(line, ", {} disk full ({})", server.server_id, server.full_directories);
        }
        for space in nearly {
            let free = crate::rebuild::human(space.free_bytes);
            let _ = write!(line, ", {} disk nearly full ({}: {free} free", self.local_server, space.directory);
            if let Some(left) = space.time_left() {
                let _ = write!(line, ", {left} left");
            }
            line.push(')');
        }
        for problem in self.backups.iter().flat_map(|backups| &backups.problems) {
            let _ = write!(line, ", backups: {problem}");
        }
        if let Some(seconds) = self.commits_waiting_seconds {
            let _ = write!(line, ", commits have waited for the standby for {seconds} s");
        }
        // `|` begins the performance data. "U": not known.
        let line = line.replace('|', "/").replace('\n', " ");
        match self.lag_bytes {
            Some(bytes) => (format!("{line} | lag_bytes={bytes}B;;;0\n"), code),
            None => (format!("{line} | lag_bytes=U\n"), code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::Server;
    use crate::status::tests::{failed, snapshot};
    use crate::status::{Colour, ConnectionFailure, Form, Purpose, Snapshot, WORDS};

    #[test]
    fn check_lines() {
        let check = |s: &Snapshot| Status::new(s).check();
        assert_eq!(
            check(&snapshot()),
            ("MIRRORING OK - switchable, nd1 primary, nd2 standby | lag_bytes=256B;;;0\n".into(), 0)
        );
        let text = "MIRRORING CRITICAL - switched, nd1 none(inactivated primary), nd2 primary, arbiter offline | lag_bytes=U\n";
        let mut unexplained = failed();
        unexplained.report.view = None;
        assert_eq!(check(&unexplained), (text.into(), 2));
        // Every commit waits for a moment.
        let mut s = snapshot();
        (s.report.waiting, s.report.waits_ms) = (true, Some(999));
        assert_eq!((check(&s).1, check(&s).0.contains("commits")), (0, false));
        s.report.waits_ms = Some(2_300);
        let (line, code) = check(&s);
        let text =
            "MIRRORING WARNING - switchable, nd1 primary, nd2 standby, commits have waited for the standby for 2 s |";
        assert!(code == 1 && line.starts_with(text), "{line}");
        for (word, code) in WORDS.into_iter().zip([0, 1, 2, 2, 1, 2, 3]) {
            let mut s = snapshot();
            s.report.word = word;
            assert_eq!(check(&s).1, code, "{word:?}");
        }
        let mut s = failed();
        s.report.word = Word::Switchable;
        assert_eq!(check(&s).1, 1, "arbiter offline");
    }

    #[test]
    fn a_full_disk_is_critical_and_little_space_a_warning() {
        use crate::status::space::tests::space;
        let mut s = snapshot();
        s.space = vec![space("data", 50 << 20, Level::Normal), space("tran_log", 3 << 20, Level::NearlyFull)];
        s.space[1].seconds_left = Some(1800);
        let (line, code) = Status::new(&s).check();
        assert!(line.contains(", nd1 disk nearly full (tran_log: 3.0 MB free, 30 minutes left)"), "{line}");
        s.space[1].seconds_left = Some(100);
        assert!(Status::new(&s).check().0.contains("free, 2 minutes left)"));
        assert_eq!((code, Status::new(&s).servers[0].disk_status.as_str()), (1, "normal"));
        let advice = Status::new(&s).advice.join("\n");
        assert!(advice.contains("is nearly full") && advice.contains("never delete files in pg_wal"), "{advice}");
        (s.space[0].state, s.report.servers[0].full) = (Level::Full, "data".into());
        let (line, code) = Status::new(&s).check();
        assert!(code == 2 && line.starts_with("MIRRORING CRITICAL - switchable"), "{line}");
        assert!(line.contains(", nd1 disk full (data), "), "{line}");
        assert!(Status::new(&s).text(false, Colour::Never).contains("normal          full\n"));
        // The other server's row shows it too, and a failed disk comes first.
        s.report.me = Server::Second;
        s.space.clear();
        assert_eq!((Status::new(&s).check().1, Status::new(&s).servers[0].disk_status.as_str()), (2, "full"));
        assert!(Status::new(&s).advice.join("\n").contains("the disk of server \"nd1\" is full (data)"));
        s.report.servers[0].disk = Some("data".into());
        assert_eq!(Status::new(&s).servers[0].disk_status, "abnormal(data)");
    }

    #[test]
    fn an_arbiter_without_space_is_a_warning_and_one_that_cannot_grant_critical() {
        let mut s = failed();
        (s.report.word, s.report.arbiter) = (Word::Switchable, Some(true));
        s.report.arbiter_disk.space = "the file system \"/a\" is nearly full".into();
        let check = |s: &Snapshot, code, text: &str, advice: &str| {
            let status = Status::new(s);
            let shown = status.text(true, Colour::Never);
            assert!(shown.matches(&format!("online({text})")).count() == 2, "{shown}");
            let (line, actual) = status.check();
            assert!(actual == code && line.contains(&format!(", arbiter {text}")), "{line}");
            assert!(status.advice.iter().any(|hint| hint.contains(advice)), "{:?}", status.advice);
        };
        check(&s, 1, "disk nearly full", "free space on the host of arbiter \"arb\": the file system \"/a\"");
        s.report.arbiter_disk.full = "management".into();
        check(&s, 1, "disk full", "free space on the host of arbiter \"arb\"");
        s.report.arbiter_disk.failure = "no space".into();
        assert!(Status::new(&s).check().0.contains(", arbiter cannot grant: no space"));
        check(&s, 2, "cannot grant", "cannot consent to a change (no space): free space on its host");
        s.report.arbiter = Some(false);
        assert_eq!(Status::new(&s).arbiter.map(|arbiter| arbiter.disk_status), Some("unknown"));
    }

    #[test]
    fn a_configuration_error_is_a_warning() {
        let mut status = Status::new(&snapshot());
        status.configuration_error = Some("\"/srv/mc/nd1.conf\", line 7: unknown parameter \"retry\"".into());
        let (line, code) = status.check();
        let text = ", configuration error: \"/srv/mc/nd1.conf\", line 7: unknown parameter \"retry\" | ";
        assert!(code == 1 && line.starts_with("MIRRORING WARNING - switchable") && line.contains(text), "{line}");
    }

    #[test]
    fn a_connection_that_fails_is_a_warning() {
        let mut s = snapshot();
        assert_eq!(Status::new(&s).check().1, 0);
        let error = "password authentication failed for user \"mc\"".to_owned();
        s.connections = vec![ConnectionFailure::new(Purpose::Replication, error)];
        let status = Status::new(&s);
        let text = "this standby cannot connect to the primary: password authentication failed for user \"mc\"";
        assert!(status.text(false, Colour::Never).contains(&format!("\nWARNING: {text}\n")));
        let (line, code) = status.check();
        assert!(code == 1 && line.starts_with("MIRRORING WARNING - switchable") && line.contains(text), "{line}");
        assert_eq!(status.advice.len(), 1);
        assert!(status.advice[0].starts_with("set db_instance_password in ID.conf of both servers"), "{status:?}");
        let advice = Status::in_form(&s, || Form::Unit("mc".to_owned())).advice.join("\n");
        assert!(advice.contains("run \"systemctl reload mc\" on both") && !advice.contains("mc_ctl"), "{advice}");
        // The primary shows what its standby reports.
        let mut primary = snapshot();
        primary.peer_failing = vec![text.to_owned()];
        let status = Status::new(&primary);
        let (line, code) = status.check();
        assert!(code == 1 && line.contains(&format!(", server \"nd2\" reports: {text} | ")), "{line}");
        assert!(status.text(false, Colour::Never).contains("\nWARNING: server \"nd2\" reports: "));
        assert_eq!(status.advice, ["\"mc_ctl status\" on server \"nd2\" shows what corrects its connections"]);
        let mut no_line = s.clone();
        no_line.connections = vec![ConnectionFailure::new(Purpose::Replication, "no pg_hba.conf entry".to_owned())];
        assert!(Status::new(&no_line).advice[0].ends_with("run \"mc_ctl reload\" here"));
        for error in ["timeout expired", "connection to server at \"nd1\", port 5432 failed: Connection refused"] {
            let mut s = s.clone();
            s.connections = vec![ConnectionFailure::new(Purpose::Replication, error.to_owned())];
            assert_eq!(Status::new(&s).advice, [""; 0]);
        }
        let mut lacks = s.clone();
        lacks.connections = vec![ConnectionFailure::missing_wal("000000010000000000000003")];
        assert!(Status::new(&lacks).advice[0].ends_with("run \"mc_ctl rebuild\" on this server"));
        s.report.rebuilding = crate::fsm::report::Rebuilding::Starting;
        assert_eq!(Status::new(&s).rebuild.map(|rebuild| rebuild.step).as_deref(), Some(text));
    }
}
