//! Findings of the configuration, the data directory, its files and versions.

use super::super::{Entry, Facts as Server, Finding, Seen};
use super::facts::Problem;
use crate::pg::version;

pub(super) const NOT_CHECKED: Entry = Entry::warning(
    "not-checked",
    "Some information could not be read within the time limit, and was not checked. The usual cause is a disk or an instance \
     that does not respond.",
);
pub(super) const CONFIGURATION_WARNING: Entry = Entry::warning(
    "configuration-warning",
    "The configuration is valid, but accepts a risk that could be avoided. Each start of the controller issues the same warning.",
);
pub(super) const CONFIGURATION_NOTICE: Entry = Entry::notice(
    "configuration-notice",
    "A setting has no effect or deserves attention. Each start of the controller issues the same notice.",
);
pub(super) const NO_DATA_DIRECTORY: Entry = Entry::notice(
    "no-data-directory",
    "The data directory is missing or empty. This is correct for a standby that has not been created yet.",
);
pub(super) const SAME_FILE_SYSTEM: Entry = Entry::warning(
    "same-file-system",
    "The management directory is on the file system of the data directory. If that file system fails, this server cannot write \
     its ledger, and therefore cannot consent to a takeover by the other server.",
);
pub(super) const CONF_NOT_WRITABLE: Entry = Entry::error(
    "conf-not-writable",
    "The controller replaces postgresql.conf by renaming a new file to it, to set or comment out synchronous_standby_names. \
     The file and its directory must be writable for the controller.",
);
pub(super) const CONF_ERRORS: Entry = Entry::error(
    "conf-errors",
    "The configuration files of the instance contain an error: a reload has no effect, and a start fails.",
);
pub(super) const PENDING_RESTART: Entry = Entry::warning(
    "pending-restart",
    "A setting was changed in the files and requires a restart. This check examines the old value; the next failover or start \
     applies the new value.",
);
pub(super) const STARTUP_RACE: Entry = Entry::error(
    "startup-race",
    "The minor version may acknowledge commits before synchronous_standby_names takes effect while it starts; the controller \
     refuses to start (fixed in 17.5, 16.9, 15.13, 14.18 and 13.21; not in 12).",
);
pub(super) const STARTUP_RACE_ACCEPTED: Entry =
    Entry::warning("startup-race-accepted", "As startup-race; accept_startup_race = 'on' accepts the risk.");
pub(super) const MAJOR_VERSIONS: Entry = Entry::error(
    "major-versions",
    "The servers have different major versions of PostgreSQL. Streaming replication requires the same major version.",
);
pub(super) const MINOR_VERSIONS: Entry = Entry::notice(
    "minor-versions",
    "The servers have different minor versions of PostgreSQL, as during a rolling update.",
);
pub(super) const SYSTEM_IDENTIFIERS: Entry = Entry::error(
    "system-identifiers",
    "The data directories belong to different clusters (initdb was run on both), so that neither server can follow the other.",
);
pub(super) const UNLOGGED_TABLES: Entry =
    Entry::notice("unlogged-tables", "Unlogged tables are not replicated: they are empty after a switch.");
pub(super) const INVALID_INDEX: Entry = Entry::warning(
    "invalid-index",
    "An index is invalid and not used: it was left by a failed CREATE INDEX CONCURRENTLY, or is a hash index that pg_upgrade \
     transferred from a version before 10, where hash indexes were not replicated.",
);

/// `15.18` of 150018.
fn shown(version_num: u32) -> String {
    format!("{}.{}", version_num / 10000, version_num % 10000)
}

/// Of the running instance, else of the program.
fn version_of(server: &Server) -> u32 {
    let told = server.instance.told.as_ref().map(|told| told.version_num).filter(|number| *number > 0);
    told.unwrap_or(server.instance.files.version_num)
}

/// What takes both servers.
pub(super) fn examine_pair(seen: &Seen, found: &mut Vec<Finding>) {
    let Some([one, two]) = seen.both() else { return };
    let (majors, numbers) = ([one, two].map(|s| s.instance.own.major), [one, two].map(version_of));
    let both = |values: [String; 2]| format!("{} has {}, {} has {}", one.id, values[0], two.id, values[1]);
    if majors[0] != majors[1] && !majors.contains(&0) {
        let what = format!("the major versions of PostgreSQL differ: {}", both(majors.map(|m| m.to_string())));
        found.push(MAJOR_VERSIONS.found("", what, "install the same major version on both, and set bin_dir"));
    } else if numbers[0] != numbers[1] && !numbers.contains(&0) {
        let what = format!("the minor versions of PostgreSQL differ: {}", both(numbers.map(shown)));
        found.push(MINOR_VERSIONS.found(
            "",
            what,
            "update the server with the older version: the standby first, then mc_ctl switch, then the other server",
        ));
    }
    let systems = [one, two].map(|s| s.instance.files.control.as_ref().map_or(0, |control| control.system));
    if systems[0] != systems[1] && !systems.contains(&0) {
        let what = format!("the system identifiers differ: {}", both(systems.map(|s| s.to_string())));
        let fix =
            "mc_ctl rebuild on the server that is not the primary; it keeps the old data directory beside the copy";
        found.push(SYSTEM_IDENTIFIERS.found("", what, fix));
    }
}

/// What one server shows by itself.
pub(super) fn examine(server: &Server, found: &mut Vec<Finding>) {
    let (id, facts) = (&server.id, &server.instance);
    found.extend(
        facts
            .unread
            .iter()
            .map(|why| NOT_CHECKED.found(id, why, "check the disk and the instance, or increase the time limit (-t)")),
    );
    for remark in &facts.own.remarks {
        let entry = if remark.warning { CONFIGURATION_WARNING } else { CONFIGURATION_NOTICE };
        let file = format!("{}/{}.conf", facts.own.dir, id);
        let file = if remark.text.contains(".conf\"") { String::new() } else { file };
        let fix = if remark.hint.is_empty() { "remove the line" } else { &remark.hint };
        found.push(entry.found(id, &remark.text, fix).at(file, 0));
    }
    if facts.files.same_filesystem {
        let what = format!(
            "management directory \"{}\" is on the file system of data directory \"{}\"",
            facts.own.dir, facts.own.data
        );
        let fix = "move it to another file system while this server is the standby: \"Moving the management directory\" in \
                    mirroring-controller(7)";
        found.push(SAME_FILE_SYSTEM.found(id, what, fix));
    }
    startup_race(server, found);
    if let Some(why) = &facts.own.no_data {
        let fix = format!("run \"mc_ctl rebuild\" on \"{id}\" while the other server is the primary");
        found.push(NO_DATA_DIRECTORY.found(id, why, fix));
        return;
    }
    if let Some(why) = &facts.files.unwritable {
        let fix = format!("as root: chown {} the file and its directory, chmod u+w them", facts.own.user);
        found.push(CONF_NOT_WRITABLE.found(id, why, fix).at(&facts.own.config_file, 0));
    }
    let told = facts.told.as_ref();
    let problems = |list: Option<&Vec<Problem>>| list.cloned().unwrap_or_default();
    let errors = if told.is_some() { problems(told.map(|told| &told.errors)) } else { facts.files.errors.clone() };
    for problem in errors {
        let fix = "correct the line, and reload: psql -c \"SELECT pg_reload_conf()\"";
        found.push(CONF_ERRORS.found(id, problem.text, fix).at(problem.place.file, problem.place.line));
    }
    for problem in problems(told.map(|told| &told.pending)) {
        let what = format!("{} was changed and requires a restart", problem.text);
        let fix = "if the change is not intended, undo it (ALTER SYSTEM RESET); otherwise mc_ctl stop and mc_ctl start, the \
                   standby first";
        found.push(PENDING_RESTART.found(id, what, fix).at(problem.place.file, problem.place.line));
    }
    for database in told.filter(|told| !told.standby).map_or(&[][..], |told| &told.databases) {
        let name = &database.name;
        if database.unlogged > 0 {
            let table = &database.unlogged_table;
            let what = format!("database \"{name}\" has {} unlogged table(s), such as {table}", database.unlogged);
            let fix = format!("psql -d {name} -c 'ALTER TABLE {table} SET LOGGED', if its rows must survive a switch");
            found.push(UNLOGGED_TABLES.found(id, what, fix));
        }
        if database.invalid > 0 {
            let index = &database.invalid_index;
            let what = format!("database \"{name}\" has {} invalid index(es), such as {index}", database.invalid);
            found.push(INVALID_INDEX.found(id, what, format!("psql -d {name} -c 'REINDEX INDEX {index}', or drop it")));
        }
    }
}

/// Settings that a reload changes; the others that are looked at require a restart.
const RELOADED: [&str; 8] = [
    "archive_command",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "wal_keep_segments",
    "wal_keep_size",
    "wal_receiver_timeout",
    "wal_sender_timeout",
];

/// A setting whose value in the file has not taken effect yet.
pub(super) fn pending(server: &Server, name: &str) -> Finding {
    let (facts, used) = (&server.instance, server.instance.value(name));
    let file = facts.files.settings.get(name).cloned().unwrap_or_default();
    let (what, fix) = match RELOADED.contains(&name) {
        true => ("a reload", "psql -c \"SELECT pg_reload_conf()\""),
        false if server.pace.is_some() => ("a restart", "mc_ctl stop and mc_ctl start, the standby first"),
        false => ("a restart", "restart the instance"),
    };
    let what = format!("{name} is \"{used}\", was changed to \"{}\" and requires {what}", file.value);
    PENDING_RESTART.found(&server.id, what, fix).at(file.file, file.line)
}

fn startup_race(server: &Server, found: &mut Vec<Finding>) {
    let number = version_of(server);
    if number == 0 || !version::has_startup_race(number) {
        return;
    }
    let what = format!(
        "PostgreSQL {} may acknowledge commits before synchronous_standby_names takes effect while it starts",
        shown(number)
    );
    let fix = "install the newest minor version (the standby first)";
    match server.instance.own.accept_startup_race {
        true => found.push(STARTUP_RACE_ACCEPTED.found(&server.id, what, fix)),
        false => found.push(STARTUP_RACE.found(&server.id, what, fix)),
    }
}
