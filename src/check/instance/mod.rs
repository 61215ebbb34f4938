//! What PostgreSQL and its files say: settings and where each comes from, rules of `pg_hba.conf`, roles, indexes, versions.
//!
//! [`files`] reads what lies on the disk, which works before the first start; [`session`] asks a running instance, which
//! knows better. What is found in them is in [`settings`], [`replication`], [`access`] and [`data`].

mod access;
mod data;
mod facts;
mod files;
mod hba;
mod log;
mod replication;
mod session;
mod settings;

pub use facts::{
    Archiver, Control, Database, Facts, Files, NamesLine, Own, Place, Problem, Remark, RoleSetting, Sender, Setting,
    Slot, Told, Trial, Upstream,
};
pub use hba::Rule;

use super::{Entry, Facts as Server, Finding, Seen};
use crate::config::Config;
use crate::pg::bounded::{self, Cancel};
use std::time::{Duration, Instant};

/// What there can be found here.
pub const CATALOGUE: &[Entry] = &[
    data::NOT_CHECKED,
    data::CONFIGURATION_WARNING,
    data::CONFIGURATION_NOTICE,
    data::NO_DATA_DIRECTORY,
    data::SAME_FILE_SYSTEM,
    data::CONF_NOT_WRITABLE,
    data::CONF_ERRORS,
    data::PENDING_RESTART,
    data::STARTUP_RACE,
    data::STARTUP_RACE_ACCEPTED,
    data::MAJOR_VERSIONS,
    data::MINOR_VERSIONS,
    data::SYSTEM_IDENTIFIERS,
    data::UNLOGGED_TABLES,
    data::INVALID_INDEX,
    log::SERVER_LOG,
    log::SERVER_LOG_UNWRITABLE,
    access::SESSION_REFUSED,
    access::INSTANCE_NOT_RESPONDING,
    access::NOT_SUPERUSER,
    access::ROLE_LIMITS,
    access::LISTEN_ADDRESSES,
    access::HBA_ERRORS,
    access::HBA_REPLICATION,
    access::HBA_REBUILD,
    access::HBA_PASSWORD,
    access::HBA_TRUST,
    access::HBA_CLIENTS,
    access::REBUILD_SESSION,
    settings::WAL_LEVEL,
    settings::MAX_WAL_SENDERS,
    settings::HOT_STANDBY,
    settings::FSYNC,
    settings::FULL_PAGE_WRITES,
    settings::NO_HINTS,
    settings::SYNCHRONOUS_COMMIT,
    settings::SYNCHRONOUS_COMMIT_SET,
    settings::MAX_CONNECTIONS,
    settings::RESERVED_CONNECTIONS,
    settings::STANDBY_SETTINGS,
    settings::WAL_KEEP,
    settings::WAL_SENDER_TIMEOUT_OFF,
    settings::WAL_SENDER_TIMEOUT_LONG,
    settings::WAL_RECEIVER_TIMEOUT_OFF,
    settings::WAL_RECEIVER_TIMEOUT_LONG,
    settings::ARCHIVE_OFF,
    settings::ARCHIVE_COMMAND,
    settings::ARCHIVE_ON,
    settings::ARCHIVE_TIMEOUT,
    settings::ARCHIVE_FAILING,
    settings::RESTORE_COMMAND,
    settings::RECOVERY_TARGET,
    settings::APPLY_DELAY,
    settings::PROMOTE_TRIGGER,
    replication::STANDBY_NAMES_OVERRIDDEN,
    replication::STANDBY_NAMES_REPEATED,
    replication::STANDBY_NAMES_NOT_ONE,
    replication::STANDBY_NAMES_NOT_PEER,
    replication::FOREIGN_WAL_RECEIVER,
    replication::CONNINFO_NAME,
    replication::CONNINFO_HOST,
    replication::CONNINFO_UNREADABLE,
    replication::SLOT_UNLIMITED,
    replication::SLOT_INACTIVE,
];

/// Reads it, by `deadline` at the latest.
pub fn collect(config: &Config, deadline: Instant) -> Facts {
    let mut facts = Facts { own: Own::new(config), ..Facts::default() };
    let left = || deadline.saturating_duration_since(Instant::now());
    let for_files = config.clone();
    // A disk that hangs must leave time to ask the instance.
    match bounded::call("read the instance's files", left() / 2, &Cancel::never(), move || Ok(files::read(&for_files)))
    {
        Ok(files) => facts.files = files,
        Err(error) => facts.unread.push(error.message),
    }
    if facts.own.no_data.is_none() {
        session::ask(config, &mut facts, deadline);
    }
    session::try_rebuild(config, &mut facts, left().min(TRIAL));
    facts
}

/// How long the session to the other server may take.
const TRIAL: Duration = Duration::from_secs(3);

/// Opens the session that a rebuild would open to the other server, if that has not been tried: a primary needs it as soon as it
/// has lost its role.
pub fn try_other(config: &Config, facts: &mut Facts, other: &Server, deadline: Instant) {
    let host = &other.instance.own.replication_address;
    if facts.rebuild_session.is_none() && !host.is_empty() && other.host.port != 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        session::try_session(config, facts, (host.as_str(), other.host.port), left.min(TRIAL));
        // What else pg_hba.conf of a standby may reject is found in its rules.
        facts.rebuild_session = facts.rebuild_session.take().filter(|trial| !matches!(trial, Trial::Refused(_)));
    }
}

/// What is wrong on both servers.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    data::examine_pair(seen, found);
    for (server, other) in seen.each() {
        // A controller whose files are refused, or that is of another version, tells nothing of its instance.
        if server.instance.own.id.is_empty() {
            continue;
        }
        data::examine(server, found);
        log::examine(server, found);
        if server.instance.own.no_data.is_some() {
            continue;
        }
        let of_settings = |server: &Server| {
            let mut found = Vec::new();
            access::examine(server, other, &mut found);
            settings::examine(server, &mut found);
            found
        };
        let mut now = of_settings(server);
        for name in server.instance.changed_in_files() {
            let configured: Vec<&str> =
                of_settings(&with_file(server, name)).iter().map(|finding| finding.code).collect();
            let before = now.len();
            now.retain(|finding| configured.contains(&finding.code));
            let reported =
                server.instance.told.iter().flat_map(|told| &told.pending).any(|pending| pending.text == name);
            if now.len() < before && !reported {
                found.push(data::pending(server, name));
            }
        }
        found.append(&mut now);
        replication::examine(server, other, found);
    }
}

/// The server as it is when its instance uses the value of the file for this setting.
fn with_file(server: &Server, name: &str) -> Server {
    let mut server = server.clone();
    if let (Some(told), Some(setting)) = (&mut server.instance.told, server.instance.files.settings.get(name)) {
        told.settings.insert(name.to_owned(), setting.clone());
    }
    server
}

/// The addresses from which the other server's instance and its rebuild come; none where that cannot be told.
fn addresses_of_other<'a>(facts: &'a Facts, other: Option<&'a Server>) -> &'a [String] {
    match other {
        Some(other) => &other.instance.files.replication_addresses,
        None if facts.own.network_apart() => &[],
        None => &facts.files.peer_addresses,
    }
}

/// A setting of an instance that runs or not, in words that an administrator can paste.
fn set(server: &Facts, name: &str, value: &str, restart: bool) -> String {
    if server.told.is_none() {
        return format!("write {name} = '{value}' into \"{}\"", server.own.config_file);
    }
    let (port, user, db) = (server.value("port"), &server.own.user, &server.own.target_db);
    let sql = format!("ALTER SYSTEM SET {name} = '{value}'");
    let set = format!("psql -p {port} -U {user} -d {db} -c \"{sql}\" -c \"SELECT pg_reload_conf()\"");
    if restart { format!("{set}; then mc_ctl stop and mc_ctl start, the standby first") } else { set }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server as facts; `change` says in what it differs from one in which nothing is found.
    fn server(id: &str, change: impl FnOnce(&mut Facts)) -> Server {
        let (peer, last, peer_last) = if id == "nd1" { ("nd2", 1, 2) } else { ("nd1", 2, 1) };
        let mut facts = Facts::default();
        let host = |last: u8| format!("192.0.2.{last}");
        facts.own.id = id.into();
        (facts.own.peer, facts.own.host, facts.own.peer_host) = (peer.into(), host(last), host(peer_last));
        (facts.own.client_address, facts.own.replication_address) = (host(last), host(last));
        (facts.own.user, facts.own.target_db) = ("mc".into(), "postgres".into());
        (facts.own.major, facts.own.detection_ms) = (15, 5400);
        facts.files.peer_addresses = vec![host(peer_last)];
        (facts.files.replication_addresses, facts.files.client_addresses) = (vec![host(last)], vec![host(last)]);
        facts.files.version_num = 150_018;
        for (name, value) in [
            ("listen_addresses", "*"),
            ("wal_keep_size", "1024"),
            ("wal_sender_timeout", "10000"),
            ("wal_receiver_timeout", "10000"),
            ("archive_mode", "always"),
            ("archive_timeout", "300"),
            ("archive_command", "(set)"),
            ("wal_log_hints", "on"),
        ] {
            let setting =
                Setting { value: value.into(), file: "/d/postgresql.conf".into(), line: 1, command_line: false };
            facts.files.settings.insert(name.into(), setting);
        }
        let rule = |database: &str| Rule {
            kind: "host".into(),
            databases: vec![database.into()],
            users: vec!["mc".into()],
            address: "192.0.2.0/24".into(),
            method: "cert".into(),
            ..Rule::default()
        };
        facts.files.hba = vec![rule("all"), rule("replication")];
        change(&mut facts);
        Server { id: id.into(), instance: facts, ..Server::default() }
    }

    #[track_caller]
    fn check(own: Server, peer: Result<Server, String>, expected: &[&str]) {
        let mut found = Vec::new();
        examine(&Seen { own, peer, peer_id: "nd2".into(), clock: None, arbiter: None }, &mut found);
        let codes: Vec<String> = found.iter().map(|finding| format!("{} {}", finding.code, finding.member)).collect();
        assert_eq!(codes, expected, "{found:#?}");
    }

    fn plain(id: &str) -> Server {
        server(id, |_| {})
    }

    #[test]
    fn facts_become_findings() {
        check(plain("nd1"), Ok(plain("nd2")), &[]);
        check(plain("nd1"), Err("down".into()), &[]);
        // of another version, or with files that its controller refuses
        check(plain("nd1"), Ok(serde_json::from_str("{\"unheard_of\": 1}").unwrap()), &[]);
        // a network of their own: from where the other one comes is known from itself alone
        let apart = |id: &str, last: u8| {
            server(id, |facts| {
                facts.own.replication_address = format!("198.51.100.{last}");
                facts.files.replication_addresses = vec![format!("198.51.100.{last}")];
            })
        };
        check(apart("nd1", 1), Err("down".into()), &[]);
        let both = ["hba-replication nd1", "hba-rebuild nd1", "hba-replication nd2", "hba-rebuild nd2"];
        check(apart("nd1", 1), Ok(apart("nd2", 2)), &both);
        // a name that was not resolved
        check(server("nd1", |facts| facts.files.peer_addresses.clear()), Err("down".into()), &[]);
    }

    /// An instance that has run since before its files were changed: only the change is a finding.
    #[test]
    fn a_change_that_has_not_taken_effect() {
        let used = [("listen_addresses", "localhost"), ("wal_log_hints", "off"), ("wal_keep_size", "0")];
        let instance = |change: fn(&mut Facts)| {
            server("nd1", |facts| {
                let setting = |value: &str| Setting { value: value.into(), ..Setting::default() };
                let mut settings = facts.files.settings.clone();
                settings.extend(used.map(|(name, value)| (name.to_owned(), setting(value))));
                facts.told = Some(Told { superuser: true, clients: 1, settings, ..Told::default() });
                facts.files.control = Some(Control::default());
                change(facts);
            })
        };
        check(instance(|_| {}), Err("down".into()), &["pending-restart nd1"; 3]);
        let expected = ["listen-addresses nd1", "no-rewind nd1", "wal-keep nd1"];
        check(instance(|facts| facts.files.settings.clear()), Err("down".into()), &expected);
        // The instance reports its restart already.
        let reported = |facts: &mut Facts| {
            let problem = Problem { text: "wal_log_hints".into(), ..Problem::default() };
            facts.told.as_mut().unwrap().pending.push(problem);
        };
        check(instance(reported), Err("down".into()), &["pending-restart nd1"; 3]);
    }

    #[test]
    fn fixes_fit_the_configuration() {
        let fixes = |change: &dyn Fn(&mut Server)| {
            let (mut own, mut found) = (plain("nd1"), Vec::new());
            change(&mut own);
            examine(
                &Seen { own, peer: Err("down".into()), peer_id: "nd2".into(), clock: None, arbiter: None },
                &mut found,
            );
            found.into_iter().map(|finding| finding.fix).collect::<Vec<_>>().join("\n")
        };
        let set = |server: &mut Server, name: &str, value: &str| {
            server.instance.files.settings.get_mut(name).unwrap().value = value.into();
        };
        let off = |server: &mut Server| set(server, "archive_mode", "off");
        assert!(fixes(&off).contains("stores a segment on another host"));
        assert!(fixes(&off).contains("\"Backups\" in mirroring-controller(7)"));
        let timeout = fixes(&|server| set(server, "archive_timeout", "0"));
        assert!(timeout.contains("archive_timeout = '5min'"), "{timeout}");
        let backups = fixes(&|server| {
            off(server);
            server.instance.own.dir = "/srv/mc".into();
            server.backups.destination = "/backup".into();
        });
        assert!(backups.contains("archive_command = 'mc_ctl archive-wal -M /srv/mc \"%p\" \"%f\"'"), "{backups}");
        // A notice of both servers is listed once.
        let long = fixes(&|server| set(server, "wal_sender_timeout", "60000"));
        assert!(long.starts_with("on each server: write wal_sender_timeout = '11s'"), "{long}");
    }

    #[test]
    fn who_receives_wal() {
        let primary = |names: &str, senders: &[(&str, &str)]| {
            let senders =
                senders.iter().map(|(name, address)| Sender { name: (*name).into(), address: (*address).into() });
            let told = Told { superuser: true, senders: senders.collect(), clients: 1, ..Told::default() };
            let names = Setting { value: names.into(), ..Setting::default() };
            server("nd1", |facts| {
                facts.told = Some(told);
                facts.files.settings.insert("synchronous_standby_names".into(), names);
            })
        };
        let standby = |receiving: bool| {
            let told = Told { superuser: true, standby: true, receiving, ..Told::default() };
            server("nd2", |facts| facts.told = Some(told))
        };
        let real = ("nd2", "192.0.2.2");
        check(primary("nd2", &[real]), Ok(standby(true)), &[]);
        check(primary("nd2", &[]), Ok(standby(false)), &[]);
        check(primary("ND2", &[("Nd2", "192.0.2.2")]), Err("down".into()), &[]);
        let foreign = ["foreign-wal-receiver nd1"];
        check(primary("nd2", &[real, ("nd2", "")]), Ok(standby(true)), &foreign);
        check(primary("nd2", &[("nd2", "192.0.2.77")]), Err("down".into()), &foreign);
        check(primary("nd2", &[real]), Ok(standby(false)), &foreign);
        check(primary("*", &[real]), Ok(standby(true)), &["standby-names-not-one nd1"]);
        check(primary("nd3", &[real]), Ok(standby(true)), &["standby-names-not-peer nd1"]);
    }
}
