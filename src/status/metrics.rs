//! The status as metrics in Prometheus' text exposition format. Names are an interface: metrics are added, never renamed.

use super::{Level, Space, Status, WORDS};
use crate::fsm::report::Word;
use std::fmt::{Display, Write};

/// Metrics as they are written.
struct Metrics(String);

impl Metrics {
    /// One metric: its values by labels, which come with their braces.
    fn put(&mut self, name: &str, help: &str, values: &[(String, f64)]) {
        let _ = writeln!(self.0, "# HELP mirroring_{name} {help}\n# TYPE mirroring_{name} gauge");
        for (labels, value) in values {
            let _ = writeln!(self.0, "mirroring_{name}{labels} {value}");
        }
    }

    fn one(&mut self, name: &str, help: &str, value: f64) {
        self.put(name, help, &[(String::new(), value)]);
    }

    fn flag(&mut self, name: &str, help: &str, is: bool) {
        self.one(name, help, number(is));
    }
}

fn number(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

/// `{name="value"}`
fn label(name: &str, value: impl Display) -> String {
    let value = value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

impl Status {
    /// Prometheus' text exposition format.
    pub fn prometheus(&self) -> String {
        let mut to = Metrics(String::new());
        self.put_pair(&mut to);
        self.put_servers(&mut to);
        self.put_space(&mut to);
        self.put_rebuild(&mut to);
        self.put_backups(&mut to);
        let controller = &self.controller;
        to.put("build_info", "The version of the controller.", &[(label("version", &controller.version), 1.0)]);
        to.one(
            "controller_uptime_seconds",
            "The time since the start of the controller.",
            controller.uptime_seconds as f64,
        );
        let age = controller.decision_age_seconds;
        to.one(
            "controller_decision_age_seconds",
            "The time since the decision thread last responded; above 2, the controller \
                                                   hangs.",
            age,
        );
        to.0
    }

    fn put_pair(&self, to: &mut Metrics) {
        let is = |word: Word| (label("status", word.text()), number(word == self.mirroring_status));
        to.put("status", "The mirroring status: 1 for the present one.", &WORDS.map(is));
        to.flag("failover_enabled", "Automatic switch and disconnection are enabled.", self.failover_enabled);
        to.flag("commits_waiting", "Commits wait for the standby.", self.commits_waiting);
        let weakened = self.durability_warnings.len() as f64;
        to.one("durability_warnings", "Settings of this server that can lose acknowledged commits.", weakened);
        let failing = self.connection_failures.len() as f64;
        to.one("connection_failures", "Connections that this server requires and that fail at present.", failing);
        if let Some(view) = &self.view {
            to.one("view_term", "The number of changes of view.", view.term as f64);
            to.flag("view_mirrored", "The view: 1 while mirrored, 0 while degraded.", view.mode == "mirrored");
            if let Some(seconds) = view.seconds {
                to.one("view_seconds", "The time since the last change of view.", seconds as f64);
            }
        }
        if let Some(bytes) = self.lag_bytes {
            to.one("lag_bytes", "The WAL that the standby has not flushed yet.", bytes as f64);
        }
        if let Some(seconds) = self.lag_seconds {
            to.one("lag_seconds", "The time for which the standby has not caught up.", seconds);
        }
        if let Some(arbiter) = &self.arbiter {
            to.flag("arbiter_online", "The arbiter responds.", arbiter.status == "online");
            to.flag("arbiter_disk_full", "The arbiter's directory is full.", arbiter.disk_status == "full");
            let failing = arbiter.ledger_error.is_some();
            to.flag("arbiter_ledger_error", "The arbiter cannot write its ledger, and cannot consent.", failing);
        }
        to.flag("ledger_error", "This server's ledger cannot be written.", self.ledger_error.is_some());
        let health = &self.health;
        let paths = [("primary", health.primary), ("standby", health.standby), ("healthy", health.healthy)];
        let is = |(path, is)| (label("path", path), number(is));
        to.put("health", "The result of the health endpoint of this server: 1 for 200, 0 for 503.", &paths.map(is));
    }

    fn put_servers(&self, to: &mut Metrics) {
        let each = |is: fn(&super::ServerStatus) -> bool| {
            self.servers.each_ref().map(|server| (label("server_id", &server.server_id), number(is(server))))
        };
        to.put("server_primary", "The server is the primary.", &each(|s| s.host_role == "primary"));
        to.put("server_standby", "The server is a standby.", &each(|s| s.host_role == "standby"));
        to.put("server_host_normal", "The controller of the server responds.", &each(|s| s.host_status == "normal"));
        to.put("server_db_normal", "The instance of the server is healthy.", &each(|s| s.db_proc_status == "normal"));
        to.put("server_disk_normal", "The disks of the server are healthy.", &each(|s| s.disk_status == "normal"));
    }

    fn put_space(&self, to: &mut Metrics) {
        let full =
            self.servers.each_ref().map(|s| (label("server_id", &s.server_id), number(!s.full_directories.is_empty())));
        to.put("server_disk_full", "A disk of the server is full.", &full);
        if self.disk_space.is_empty() {
            return;
        }
        let each = |value: fn(&Space) -> f64| {
            self.disk_space.iter().map(|s| (label("directory", &s.directory), value(s))).collect::<Vec<_>>()
        };
        to.put(
            "disk_free_bytes",
            "The number of bytes that can still be written to the directory.",
            &each(|s| s.free_bytes as f64),
        );
        to.put("disk_size_bytes", "The size of its file system, bytes.", &each(|s| s.size_bytes as f64));
        to.put(
            "disk_full",
            "The directory has no space for the next write.",
            &each(|s| number(s.state == Level::Full)),
        );
        let nearly = each(|s| number(s.state == Level::NearlyFull));
        to.put("disk_nearly_full", "The directory has little space left.", &nearly);
    }

    fn put_rebuild(&self, to: &mut Metrics) {
        let failed = self.rebuild.as_ref().is_some_and(|rebuild| rebuild.failed.is_some());
        to.flag("rebuild_running", "A rebuild of this server is in progress.", self.rebuild.is_some() && !failed);
        to.flag("rebuild_failed", "The last rebuild of this server failed.", failed);
        if let Some(rebuild) = &self.rebuild {
            to.one("rebuild_bytes_done", "The number of bytes that it has copied.", rebuild.bytes_done as f64);
            if let Some(total) = rebuild.bytes_total {
                to.one("rebuild_bytes_total", "The number of bytes that it has to copy.", total as f64);
            }
        }
    }

    fn put_backups(&self, to: &mut Metrics) {
        let Some(backups) = &self.backups else { return };
        let problems = backups.problems.len() as f64;
        to.one("backup_problems", "The number of problems that \"mc_ctl status\" shows for backups.", problems);
        if let Some(age) = backups.newest_age_seconds {
            to.one("backup_age_seconds", "The age of the newest verified backup of both servers.", age as f64);
        }
        if let Some(newest) = &backups.newest {
            let missing = newest.wal_missing.is_some();
            to.flag("backup_wal_missing", "A WAL segment after the newest backup is missing.", missing);
        }
        if let Some(age) = backups.archived_age_seconds {
            to.one(
                "wal_archived_age_seconds",
                "The age of the newest archived WAL after the newest backup.",
                age as f64,
            );
        }
        if let Some(bytes) = backups.unarchived_bytes {
            to.one("wal_unarchived_bytes", "The WAL after it, which a loss of both servers loses.", bytes as f64);
        }
        to.one("backups", "The number of complete backups of this server.", backups.own_backups as f64);
        if let Some(free) = backups.free_bytes {
            to.one("backup_free_bytes", "The bytes that can be written to backup_destination.", free as f64);
        }
        if let Some(needed) = backups.needed_bytes {
            to.one("backup_needed_bytes", "The bytes that the next backup is expected to need.", needed as f64);
        }
        if let Some(archiver) = &backups.archiver {
            to.flag("archiver_failing", "The last attempt of the instance to archive failed.", archiver.failing);
            let failures = archiver.failed_count as f64;
            to.one("archiver_failures", "The failed attempts to archive that pg_stat_archiver counts.", failures);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Snapshot;
    use crate::status::tests::{failed, snapshot};

    fn check(snapshot: &Snapshot, lines: &[&str]) {
        let text = Status::new(snapshot).prometheus();
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "{line} is missing in\n{text}");
        }
        // Each metric is announced once, and then told.
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let types = text.lines().filter(|l| *l == format!("# TYPE {name} gauge")).count();
            assert_eq!(types, 1, "{name}");
        }
    }

    #[test]
    fn a_well_pair() {
        check(
            &snapshot(),
            &[
                "mirroring_status{status=\"switchable\"} 1",
                "mirroring_health{path=\"primary\"} 1",
                "mirroring_health{path=\"standby\"} 0",
                "mirroring_build_info{version=\"0.1.0\"} 1",
                "mirroring_controller_uptime_seconds 90",
                "mirroring_controller_decision_age_seconds 0.01",
                "mirroring_view_seconds 4",
                "mirroring_view_mirrored 1",
                "mirroring_lag_bytes 256",
                "mirroring_lag_seconds 1.5",
            ],
        );
    }

    #[test]
    fn a_full_disk() {
        let mut s = snapshot();
        s.space = vec![crate::status::space::tests::space("data", 4096, Level::Full)];
        s.report.servers[0].full = "data".into();
        s.ledger_error = Some("could not write".into());
        s.arbiter = Some(crate::status::MemberName { id: "arb".into(), host: "h".into() });
        s.report.arbiter = Some(true);
        (s.report.arbiter_disk.full, s.report.arbiter_disk.failure) = ("management".into(), "no".into());
        check(
            &s,
            &[
                "mirroring_arbiter_disk_full 1",
                "mirroring_arbiter_ledger_error 1",
                "mirroring_ledger_error 1",
                "mirroring_server_disk_normal{server_id=\"nd1\"} 0",
                "mirroring_server_disk_full{server_id=\"nd1\"} 1",
                "mirroring_server_disk_full{server_id=\"nd2\"} 0",
                "mirroring_disk_free_bytes{directory=\"data\"} 4096",
                "mirroring_disk_size_bytes{directory=\"data\"} 104857600",
                "mirroring_disk_full{directory=\"data\"} 1",
                "mirroring_disk_nearly_full{directory=\"data\"} 0",
                "mirroring_health{path=\"primary\"} 0",
            ],
        );
    }

    #[test]
    fn a_failed_one() {
        check(
            &failed(),
            &[
                "mirroring_status{status=\"switched\"} 1",
                "mirroring_status{status=\"switchable\"} 0",
                "mirroring_server_primary{server_id=\"nd2\"} 1",
                "mirroring_view_term 3",
                "mirroring_arbiter_online 0",
                "mirroring_health{path=\"primary\"} 0",
            ],
        );
    }

    #[test]
    fn labels_are_quoted() {
        assert_eq!(label("a", "b\\c\"d"), r#"{a="b\\c\"d"}"#);
    }

    /// A status in which every field has a value that can have one here.
    fn all() -> Status {
        let mut s = failed();
        s.report.lag_bytes = Some(1);
        s.report.rebuilding = crate::fsm::report::Rebuilding::Copying;
        s.report.disconnected = Some(crate::fsm::report::Disconnected::ByOperator);
        s.rebuild = Some(crate::rebuild::Progress { step: "copying".into(), total: 2, ..Default::default() });
        s.checkpoint = Some(crate::status::Checkpoint { number: 1, count: 2, bytes_written: Some(1), elapsed_ms: 1 });
        s.space = vec![crate::status::space::tests::space("data", 4096, Level::Full)];
        s.connections = vec![crate::status::ConnectionFailure::new(crate::status::Purpose::Replication, "e".into())];
        let abandoned = vec![crate::backup::Abandoned::default()];
        s.backups = Some(crate::backup::Survey { abandoned, ..crate::backup::sample_survey() });
        Status::new(&s)
    }

    /// The first two cells of each row of the table in this section of mc_http(5).
    fn manual(section: &str) -> Vec<(String, String)> {
        let text = include_str!("../../man/mc_http.5");
        let (_, rest) = text.split_once(&format!("\n.Sh {section}\n")).unwrap();
        let rows = rest.split("\n.Sh ").next().unwrap().lines().filter_map(|line| line.strip_prefix(".It Va "));
        let mut found: Vec<_> = rows
            .map(|row| {
                let mut cells = row.split(" Ta");
                let mut cell = || cells.next().unwrap().trim().to_owned();
                (cell(), cell())
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn the_manual_lists_each_metric_with_its_label() {
        let text = all().prometheus();
        let mut found: Vec<(String, String)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("mirroring_"))
            .map(|line| {
                let name = line.split(['{', ' ']).next().unwrap();
                let label = line.split_once('{').map_or("", |(_, label)| label.split('=').next().unwrap());
                (name.to_owned(), label.to_owned())
            })
            .collect();
        found.sort();
        found.dedup();
        assert_eq!(manual("METRICS"), found);
    }

    #[test]
    fn the_manual_lists_each_field_of_the_json_with_its_type() {
        fn walk(path: &str, value: &serde_json::Value, found: &mut Vec<(String, String)>) {
            use serde_json::Value;
            let kind = match value {
                Value::Object(fields) => {
                    let dot = if path.is_empty() { "" } else { "." };
                    return fields.iter().for_each(|(name, value)| walk(&format!("{path}{dot}{name}"), value, found));
                }
                Value::Array(values) if values.is_empty() => "string",
                Value::Array(values) => {
                    return values.iter().for_each(|value| walk(&format!("{path}[]"), value, found));
                }
                Value::Null => "null",
                Value::String(_) => "string",
                Value::Number(_) => "number",
                Value::Bool(_) => "boolean",
            };
            let empty = if value.is_array() { "[]" } else { "" };
            found.push((format!("{path}{empty}"), kind.into()));
        }
        let mut found = Vec::new();
        walk("", &serde_json::to_value(all()).unwrap(), &mut found);
        let manual = manual("JSON");
        for (name, kind) in &found {
            let documented = manual.iter().find(|(field, _)| field == name);
            let (_, documented) = documented.unwrap_or_else(|| panic!("mc_http(5) does not list {name}"));
            assert!(kind == "null" || kind == documented, "{name} is a {kind}, not a {documented}");
        }
        for (name, _) in &manual {
            assert!(found.iter().any(|(field, _)| field == name), "there is no field {name}");
        }
    }
}
