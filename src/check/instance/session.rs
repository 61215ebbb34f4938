//! What the running instance says, asked by sessions of the controller's own kind, each question within what is left of the
//! time. Changes nothing.

use super::facts::{Archiver, Database, Facts, Place, Problem, RoleSetting, Sender, Setting, Slot, Told, Trial};
use super::files::{self, WANTED};
use super::hba::{MAX_RULES, Rule};
use crate::config::Config;
use crate::pg::connect::{Refusal, Remote, Row, Session, Target};
use crate::pg::tls::Tls;
use crate::pg::{self, follow};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long opening a session may take.
const OPEN: Duration = Duration::from_secs(3);
/// How long a question may take.
const QUERY: Duration = Duration::from_secs(2);
/// So many rows of anything are told.
const MAX_ROWS: usize = 50;
/// So many databases are looked into.
const MAX_DATABASES: usize = 20;

/// Asks the instance, where it runs.
pub(super) fn ask(config: &Config, facts: &mut Facts, deadline: Instant) {
    let file = &config.server;
    let password = file.db_instance_password.as_ref().map(|secret| secret.expose().to_owned());
    let data = pg::Place::new(config).data;
    let mut target = Target::new(&file.db_instance_username, password, &file.target_db, data);
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut session = match Session::open(&target, OPEN.min(left()), "a check") {
        Ok(session) => session,
        Err(Refusal::NotRunning) => return,
        Err(Refusal::Silent) => return facts.silent = true,
        Err(Refusal::Closed(why) | Refusal::Password(why)) => return facts.refused = Some(why),
        Err(other) => return facts.unread.push(other.to_string()),
    };
    let mut asker = Asker { session: &mut session, deadline, unread: &mut facts.unread };
    let Some(mut told) = asker.told() else { return };
    let names = if told.superuser { asker.databases() } else { Vec::new() };
    // Half of the answers would look like faults of the instance.
    if session.is_closed() {
        return;
    }
    for name in names {
        let limit = QUERY.min(left());
        if limit.is_zero() {
            facts.unread.push("the time limit was reached before all databases were checked".into());
            break;
        }
        target.dbname.clone_from(&name);
        let looked =
            Session::open(&target, limit, "a check").and_then(|mut session| look_into(&mut session, name, limit));
        told.databases.extend(looked.ok().filter(|found| found.unlogged + found.invalid > 0));
    }
    facts.told = Some(told);
}

/// Opens the session that a rebuild would open to the primary, and closes it.
pub(super) fn try_rebuild(config: &Config, facts: &mut Facts, limit: Duration) {
    let Some(upstream) = facts.files.upstream.as_ref().filter(|_| facts.is_standby()) else { return };
    let Ok(port) = upstream.port.parse() else { return };
    let host = upstream.host.clone();
    if !host.is_empty() && !host.starts_with('/') {
        try_session(config, facts, (&host, port), limit);
    }
}

/// Opens the session that a rebuild would open to the instance at this host and port, and closes it.
pub(super) fn try_session(config: &Config, facts: &mut Facts, (host, port): (&str, u16), limit: Duration) {
    if limit.is_zero() {
        return;
    }
    let file = &config.server;
    let tls = match Tls::parse(&follow::present_keys(&pg::Place::new(config)), file.major_version) {
        Ok(tls) => tls,
        Err(error) => return facts.rebuild_session = Some(Trial::Refused(error.message)),
    };
    let remote = Remote {
        user: file.db_instance_username.clone(),
        password: file.db_instance_password.as_ref().map(|secret| secret.expose().to_owned()),
        dbname: file.target_db.clone(),
        host: host.to_owned(),
        port,
        tls,
    };
    facts.rebuild_session = match Session::open_remote(&remote, limit, limit, "a check") {
        Ok(_) => Some(Trial::Opened),
        Err(Refusal::Password(why)) => Some(Trial::PasswordRejected(why)),
        Err(Refusal::Closed(why)) => Some(Trial::Refused(why)),
        // An instance that is down, or cannot be reached, is found elsewhere.
        Err(_) => None,
    };
}

/// Rows with all columns as text; what is missing is empty.
struct Rows(Vec<Row>);

impl Rows {
    fn map<T>(self, read: impl Fn(&dyn Fn(usize) -> String) -> T) -> Vec<T> {
        let each = |row: Row| read(&|index| row.get(index).cloned().flatten().unwrap_or_default());
        self.0.into_iter().map(each).collect()
    }
}

struct Asker<'a> {
    session: &'a mut Session,
    deadline: Instant,
    unread: &'a mut Vec<String>,
}

impl Asker<'_> {
    /// The answer; none, and a line of what could not be read, where there is none.
    fn rows(&mut self, what: &str, sql: &str) -> Rows {
        let limit = QUERY.min(self.deadline.saturating_duration_since(Instant::now()));
        if self.session.is_closed() {
            return Rows(Vec::new());
        }
        match self.session.query(sql, limit) {
            Ok(rows) => Rows(rows),
            Err(why) => {
                self.unread.push(format!("{what}: {why}"));
                Rows(Vec::new())
            }
        }
    }

    fn one(&mut self, what: &str, sql: &str) -> String {
        self.rows(what, sql).map(|column| column(0)).into_iter().next().unwrap_or_default()
    }

    fn told(&mut self) -> Option<Told> {
        let sql = "SELECT pg_is_in_recovery(), current_setting('server_version_num'), \
                   (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)";
        let first = self.rows("the instance's version", sql).map(|column| Told {
            standby: column(0) == "t",
            version_num: column(1).parse().unwrap_or(0),
            superuser: column(2) == "t",
            ..Told::default()
        });
        let mut told = first.into_iter().next()?;
        told.settings = self.settings();
        if !told.superuser {
            return Some(told);
        }
        told.pending = self.pending();
        told.errors = self.errors();
        told.hba = self.hba(told.version_num);
        told.role_settings = self.role_settings();
        let sql = format!(
            "SELECT application_name, coalesce(host(client_addr), '') FROM pg_stat_replication LIMIT {MAX_ROWS}"
        );
        let sender = |column: &dyn Fn(usize) -> String| Sender { name: column(0), address: column(1) };
        told.senders = self.rows("pg_stat_replication", &sql).map(sender);
        let receiving = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        told.receiving = self.one("pg_stat_wal_receiver", receiving) == "1";
        let clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        told.clients = self.one("pg_stat_activity", clients).parse().unwrap_or(0);
        told.slots = self.slots();
        let sql = "SELECT failed_count > 0 AND (last_archived_time IS NULL OR last_failed_time > last_archived_time), \
                   coalesce(last_failed_wal, '') FROM pg_stat_archiver";
        let archiver = |column: &dyn Fn(usize) -> String| Archiver { failing: column(0) == "t", wal: column(1) };
        told.archiver = self.rows("pg_stat_archiver", sql).map(archiver).into_iter().next().unwrap_or_default();
        Some(told)
    }

    fn settings(&mut self) -> BTreeMap<String, Setting> {
        let names = WANTED.iter().map(|(name, ..)| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT name, setting, source, coalesce(sourcefile, ''), coalesce(sourceline, 0) FROM pg_settings \
             WHERE name IN ({names}) AND name <> 'synchronous_commit'"
        );
        let one = |column: &dyn Fn(usize) -> String| {
            // The unit is the view's own.
            let value = files::normal(&column(0), &column(1), files::Unit::Plain);
            let from_file = !column(3).is_empty();
            let file = if from_file || column(2) != "command line" { column(3) } else { "command line".into() };
            let line = column(4).parse().unwrap_or(0);
            (column(0), Setting { value, file, line, command_line: column(2) == "command line" })
        };
        self.rows("pg_settings", &sql).map(one).into_iter().collect()
    }

    fn pending(&mut self) -> Vec<Problem> {
        let sql = format!(
            "SELECT s.name, f.setting, f.sourcefile, f.sourceline FROM pg_settings s LEFT JOIN LATERAL \
             (SELECT * FROM pg_file_settings f WHERE f.name = s.name ORDER BY seqno DESC LIMIT 1) f ON true \
             WHERE s.pending_restart ORDER BY 1 LIMIT {MAX_ROWS}"
        );
        self.rows("pg_file_settings", &sql).map(|column| Problem {
            text: column(0),
            place: Place { file: column(2), line: column(3).parse().unwrap_or(0) },
        })
    }

    fn errors(&mut self) -> Vec<Problem> {
        let sql = format!(
            "SELECT concat_ws(': ', f.name, f.error), f.sourcefile, f.sourceline FROM pg_file_settings f \
             WHERE error IS NOT NULL AND NOT (error = 'setting could not be applied' \
             AND EXISTS (SELECT FROM pg_settings s WHERE s.name = f.name AND s.context = 'postmaster')) LIMIT {MAX_ROWS}"
        );
        self.rows("pg_file_settings", &sql).map(|column| Problem {
            text: column(0),
            place: Place { file: column(1), line: column(2).parse().unwrap_or(0) },
        })
    }

    /// The file of a rule is told from version 16 on.
    fn hba(&mut self, version_num: u32) -> Vec<Rule> {
        let file = if version_num >= 160_000 { "file_name" } else { "current_setting('hba_file')" };
        let list = |name: &str| format!("array_to_string({name}, E'\\n')");
        let sql = format!(
            "SELECT {file}, line_number, type, {}, {}, concat_ws('/', address, netmask), auth_method, error FROM pg_hba_file_rules \
             LIMIT {MAX_RULES}",
            list("database"),
            list("user_name")
        );
        let words = |text: String| text.lines().map(str::to_owned).collect();
        self.rows("pg_hba_file_rules", &sql).map(|column| Rule {
            file: column(0),
            line: column(1).parse().unwrap_or(0),
            kind: column(2),
            databases: words(column(3)),
            users: words(column(4)),
            address: column(5),
            method: column(6),
            error: column(7),
        })
    }

    fn role_settings(&mut self) -> Vec<RoleSetting> {
        let sql = format!(
            "SELECT coalesce(d.datname, ''), coalesce(r.rolname, ''), split_part(s, '=', 1), \
             substr(s, strpos(s, '=') + 1) \
             FROM pg_db_role_setting rs LEFT JOIN pg_database d ON d.oid = setdatabase \
             LEFT JOIN pg_roles r ON r.oid = setrole CROSS JOIN unnest(setconfig) s \
             WHERE split_part(s, '=', 1) IN ('synchronous_commit', 'statement_timeout', 'lock_timeout', \
             'idle_session_timeout', 'transaction_timeout', 'default_transaction_read_only') \
             ORDER BY 1, 2, 3 LIMIT {MAX_ROWS}"
        );
        self.rows("pg_db_role_setting", &sql).map(|column| RoleSetting {
            database: column(0),
            role: column(1),
            name: column(2),
            value: column(3),
        })
    }

    fn slots(&mut self) -> Vec<Slot> {
        // "synced" exists since version 17.
        let sql = format!(
            "SELECT slot_name, active, slot_type = 'logical', \
             pg_is_in_recovery() AND coalesce(to_jsonb(s) ->> 'synced' = 'true', false), \
             coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
             ELSE pg_current_wal_lsn() END - restart_lsn, 0)::bigint FROM pg_replication_slots s WHERE NOT temporary \
             ORDER BY 1 LIMIT {MAX_ROWS}"
        );
        self.rows("pg_replication_slots", &sql).map(|column| Slot {
            name: column(0),
            active: column(1) == "t",
            logical: column(2) == "t",
            synced: column(3) == "t",
            bytes: column(4).parse().unwrap_or(0),
        })
    }

    fn databases(&mut self) -> Vec<String> {
        let sql = format!(
            "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1 LIMIT {MAX_DATABASES}"
        );
        self.rows("pg_database", &sql).map(|column| column(0))
    }
}

fn look_into(session: &mut Session, name: String, limit: Duration) -> Result<Database, Refusal> {
    let counted = |class: &str| format!("SELECT count(*), min(format('%I.%I', nspname, relname)) FROM {class}");
    let unlogged = counted("pg_class c JOIN pg_namespace n ON n.oid = relnamespace")
        + " WHERE relpersistence = 'u' AND relkind = 'r'";
    let invalid = counted("pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_namespace n ON n.oid = relnamespace")
        + " WHERE NOT indisvalid";
    let rows = Rows(session.query(&format!("{unlogged} UNION ALL {invalid}"), limit)?);
    let mut found = rows.map(|column| (column(0).parse().unwrap_or(0), column(1))).into_iter();
    let (unlogged, unlogged_table) = found.next().unwrap_or_default();
    let (invalid, invalid_index) = found.next().unwrap_or_default();
    Ok(Database { name, unlogged, unlogged_table, invalid, invalid_index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_in_a_row_is_empty() {
        let rows = Rows(vec![vec![Some("a".into()), None]]);
        assert_eq!(rows.map(|column| format!("{}|{}|{}", column(0), column(1), column(2))), ["a||"]);
        // The questions name settings as the table does.
        assert!(WANTED.iter().all(|(name, ..)| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
