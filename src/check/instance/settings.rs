//! Findings of the settings that durability, replication and a rebuild need. Both servers are held to all of them: either may be
//! the primary tomorrow.

use super::super::{Entry, Facts as Server, Finding};
use super::facts::Facts;
use super::set;
use crate::pg::version::Major;

/// Replication connections that are needed: the standby's, and two of a base backup that streams.
const SENDERS: i64 = 3;
/// Sessions that the controller may have at one time, of which the reserved ones are for it.
const SESSIONS: i64 = 3;
/// So many times the detection time is long for a timeout of replication.
const LONG: i64 = 4;

pub(super) const WAL_LEVEL: Entry = Entry::error("wal-level", "With wal_level = minimal there is no replication.");
pub(super) const MAX_WAL_SENDERS: Entry = Entry::error(
    "max-wal-senders",
    "max_wal_senders must be enough for the standby and the two connections of a base backup, besides those of other programs.",
);
pub(super) const HOT_STANDBY: Entry = Entry::error(
    "hot-standby",
    "With hot_standby = off a standby accepts no connections, so that the controller cannot monitor it.",
);
pub(super) const FSYNC: Entry =
    Entry::error("fsync-off", "With fsync = off acknowledged commits are lost when a host fails.");
pub(super) const FULL_PAGE_WRITES: Entry = Entry::warning(
    "full-page-writes-off",
    "With full_page_writes = off pg_rewind does not work, and a crash may leave torn pages.",
);
pub(super) const NO_HINTS: Entry = Entry::warning(
    "no-rewind",
    "Neither data checksums nor wal_log_hints are enabled, so that pg_rewind does not work and a rebuild copies all data.",
);
pub(super) const SYNCHRONOUS_COMMIT: Entry = Entry::warning(
    "synchronous-commit",
    "synchronous_commit is lower than on by default: a commit is acknowledged before it is safe on the standby, and a failover \
     loses it.",
);
pub(super) const SYNCHRONOUS_COMMIT_SET: Entry = Entry::warning(
    "synchronous-commit-role",
    "synchronous_commit is lower than on for a role or a database: a failover may lose its commits.",
);
pub(super) const MAX_CONNECTIONS: Entry = Entry::warning(
    "max-connections",
    "Nearly all connections are in use: the instance may reject clients and the connections of a rebuild.",
);
pub(super) const RESERVED_CONNECTIONS: Entry = Entry::warning(
    "reserved-connections",
    "superuser_reserved_connections is too small: the controller cannot monitor an instance whose other connections are all in \
     use.",
);
pub(super) const STANDBY_SETTINGS: Entry = Entry::error(
    "standby-settings",
    "A setting of the standby is lower than that of the primary, which the WAL records: the standby does not start, or pauses.",
);
pub(super) const WAL_KEEP: Entry = Entry::warning(
    "wal-keep",
    "Neither wal_keep_size nor a slot retains WAL for a disconnected standby: after a longer absence, the standby must be \
     rebuilt with a full copy.",
);
pub(super) const WAL_SENDER_TIMEOUT_OFF: Entry = Entry::warning(
    "wal-sender-timeout-off",
    "With wal_sender_timeout = 0 a stop of the primary waits indefinitely for a standby that hangs.",
);
pub(super) const WAL_SENDER_TIMEOUT_LONG: Entry = Entry::notice(
    "wal-sender-timeout-long",
    "wal_sender_timeout is much longer than the detection time: a stop of the primary may wait that long for a standby that \
     hangs.",
);
pub(super) const WAL_RECEIVER_TIMEOUT_OFF: Entry = Entry::warning(
    "wal-receiver-timeout-off",
    "With wal_receiver_timeout = 0 a standby does not detect that its connection to the primary is broken.",
);
pub(super) const WAL_RECEIVER_TIMEOUT_LONG: Entry = Entry::notice(
    "wal-receiver-timeout-long",
    "wal_receiver_timeout is much longer than the detection time: after a network failure, the pair may become mirrored again \
     only after that time.",
);
pub(super) const ARCHIVE_OFF: Entry = Entry::notice(
    "archive-off",
    "WAL is not archived: point-in-time recovery is not possible, and a DROP TABLE, which the standby replays, cannot be undone.",
);
pub(super) const ARCHIVE_COMMAND: Entry = Entry::warning(
    "archive-command",
    "archive_mode is not off, and neither archive_command nor archive_library is set: WAL is retained until the disk is full.",
);
pub(super) const ARCHIVE_ON: Entry = Entry::warning(
    "archive-on",
    "With archive_mode = on only the primary archives. Segments that it had not archived when it failed are never archived, \
     and a recovery from the archive ends before them. With archive_mode = always the standby archives them too.",
);
pub(super) const ARCHIVE_TIMEOUT: Entry = Entry::notice(
    "archive-timeout",
    "With archive_timeout = 0 a segment is archived when it is full: if both servers are lost, so are all commits since the last \
     archived segment, however old they are.",
);
pub(super) const ARCHIVE_FAILING: Entry = Entry::warning(
    "archive-failing",
    "The last attempt to archive failed: WAL accumulates, and a stop of the instance may wait for the archiver.",
);
pub(super) const RESTORE_COMMAND: Entry = Entry::notice(
    "restore-command",
    "restore_command is set: a standby runs it before each promotion, and a slow command delays the failover.",
);
pub(super) const RECOVERY_TARGET: Entry = Entry::error(
    "recovery-target",
    "A recovery target is set: a standby would stop, pause or be promoted at that point.",
);
pub(super) const APPLY_DELAY: Entry = Entry::warning(
    "recovery-min-apply-delay",
    "With recovery_min_apply_delay the standby replays late, and a promotion waits until it has replayed everything.",
);
pub(super) const PROMOTE_TRIGGER: Entry = Entry::warning(
    "promote-trigger-file",
    "promote_trigger_file allows any user who can create that file to promote the standby without the controller.",
);

/// A finding about one setting, at its place.
fn about(server: &Server, entry: &Entry, name: &str, value: &str, restart: bool) -> Finding {
    let setting = server.instance.setting(name);
    let fix = match setting.command_line {
        true => format!("remove {name} from the postmaster's command line, and restart the instance"),
        false => set(&server.instance, name, value, restart),
    };
    entry.found(&server.id, format!("{name} is \"{}\"", setting.value), fix).at(setting.file, setting.line)
}

/// A finding about one setting, at its place, in other words.
fn worded(server: &Server, entry: &Entry, name: &str, what: String, fix: &str) -> Finding {
    let setting = server.instance.setting(name);
    entry.found(&server.id, what, fix).at(setting.file, setting.line)
}

pub(super) fn examine(server: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let is = |name: &str, value: &str| facts.value(name) == value;
    if is("wal_level", "minimal") {
        found.push(about(server, &WAL_LEVEL, "wal_level", "replica", true));
    }
    senders(server, found);
    let simple: [(&Entry, &str, &str, &str, bool); 3] = [
        (&HOT_STANDBY, "hot_standby", "off", "on", true),
        (&FSYNC, "fsync", "off", "on", false),
        (&FULL_PAGE_WRITES, "full_page_writes", "off", "on", false),
    ];
    for (entry, name, bad, good, restart) in simple {
        if is(name, bad) {
            found.push(about(server, entry, name, good, restart));
        }
    }
    if is("archive_mode", "off") {
        // Without a command, any other mode keeps WAL until the disk is full: there is no line that could be pasted.
        let fix = match server.backups.destination.is_empty() {
            true => format!(
                "on both servers, set archive_command (or archive_library) to a command that stores a segment on another host, \
                 and archive_mode to always; restart the instances, the standby's first: \"Backups\" in mirroring-controller(7); \
                 {BOTH_ARCHIVE}"
            ),
            false => format!(
                "on both servers, set archive_mode = always and archive_command = 'mc_ctl archive-wal -M {} \"%p\" \"%f\"', and \
                 restart the instances, the standby's first: \"Backups\" in mirroring-controller(7)",
                facts.own.dir
            ),
        };
        found.push(worded(server, &ARCHIVE_OFF, "archive_mode", "archive_mode is \"off\"".to_owned(), &fix));
    }
    if is("wal_log_hints", "off") && facts.files.control.as_ref().is_some_and(|control| !control.checksums) {
        found.push(about(server, &NO_HINTS, "wal_log_hints", "on", true));
    }
    if lower_than_on(&facts.value("synchronous_commit")) {
        found.push(about(server, &SYNCHRONOUS_COMMIT, "synchronous_commit", "on", false));
    }
    connections(server, found);
    standby_settings(server, found);
    wal_keep(server, found);
    timeouts(server, found);
    archive(server, found);
    recovery(server, found);
}

fn lower_than_on(value: &str) -> bool {
    ["off", "local", "remote_write", "false", "no", "0"].contains(&value.to_ascii_lowercase().as_str())
}

fn senders(server: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let peers = |name: &str| name.eq_ignore_ascii_case(&facts.own.peer) || name.starts_with("pg_basebackup");
    let senders = facts.told.iter().flat_map(|told| &told.senders);
    let others = senders.filter(|sender| !peers(&sender.name)).count() as i64;
    let needed = SENDERS + others;
    if facts.number("max_wal_senders") < needed {
        let mut finding = about(server, &MAX_WAL_SENDERS, "max_wal_senders", &needed.max(10).to_string(), true);
        finding.what += &format!(", and {needed} are required");
        found.push(finding);
    }
}

fn connections(server: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let (max, reserved) = (facts.number("max_connections"), facts.number("superuser_reserved_connections"));
    if reserved < SESSIONS {
        let name = "superuser_reserved_connections";
        found.push(about(server, &RESERVED_CONNECTIONS, name, &SESSIONS.to_string(), true));
    }
    let Some(told) = &facts.told else { return };
    let used = i64::try_from(told.clients).unwrap_or(i64::MAX);
    if told.superuser && max - reserved - used < SESSIONS {
        let what = format!("{used} of max_connections = {max} are in use, and {reserved} are reserved");
        let fix = "increase max_connections, on the standby first, and restart; or use a connection pool";
        found.push(worded(server, &MAX_CONNECTIONS, "max_connections", what, fix));
    }
}

fn standby_settings(server: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let control = facts.files.control.as_ref().filter(|_| facts.is_standby());
    for (name, needed) in control.iter().flat_map(|control| &control.needed) {
        let needed = i64::try_from(*needed).unwrap_or(i64::MAX);
        if facts.number(name) < needed {
            let mut finding = about(server, &STANDBY_SETTINGS, name, &needed.to_string(), true);
            finding.what += &format!(" on the standby, and {needed} on the primary");
            found.push(finding);
        }
    }
}

fn wal_keep(server: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let (name, megabytes) = Major(facts.own.major).wal_keep_setting();
    let slots = facts.told.as_ref().is_some_and(|told| !told.slots.is_empty());
    if facts.number(name) == 0 && !slots {
        let value = if megabytes { "1GB" } else { "64" };
        found.push(about(server, &WAL_KEEP, name, value, false));
    }
}

fn timeouts(server: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let detection = i64::try_from(facts.own.detection_ms).unwrap_or(i64::MAX);
    for (name, off, long) in [
        ("wal_sender_timeout", &WAL_SENDER_TIMEOUT_OFF, &WAL_SENDER_TIMEOUT_LONG),
        ("wal_receiver_timeout", &WAL_RECEIVER_TIMEOUT_OFF, &WAL_RECEIVER_TIMEOUT_LONG),
    ] {
        let value = facts.number(name);
        let better = format!("{}s", detection.saturating_mul(2).div_euclid(1000) + 1);
        if value == 0 {
            found.push(about(server, off, name, &better, false));
        } else if value > detection.saturating_mul(LONG) {
            let mut finding = about(server, long, name, &better, false);
            // Each server has the line for itself, and a notice of both is listed once.
            finding.fix = format!("on each server: {}", finding.fix);
            finding.what = format!("{name} is {value} ms, and the detection time of the heartbeats {detection} ms");
            found.push(finding);
        }
    }
}

/// What `archive_mode = always` requires.
const BOTH_ARCHIVE: &str = "both servers then archive each segment: archive_command must succeed if the file already exists \
                            with the same contents, and fail if it exists with different contents";

fn archive(server: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let mode = facts.value("archive_mode");
    if mode == "on" {
        let fix = format!(
            "set archive_mode = always on both servers, and restart the instances, the standby's first; {BOTH_ARCHIVE}"
        );
        let what = "archive_mode is \"on\"".to_owned();
        found.push(worded(server, &ARCHIVE_ON, "archive_mode", what, &fix));
    }
    if mode == "off" {
        return;
    }
    if facts.value("archive_command").is_empty() && facts.value("archive_library").is_empty() {
        let what = format!("archive_mode is \"{mode}\" and nothing archives");
        let fix = "set archive_command or archive_library, or archive_mode = off";
        found.push(worded(server, &ARCHIVE_COMMAND, "archive_mode", what, fix));
    } else if facts.value("archive_timeout") == "0" {
        found.push(about(server, &ARCHIVE_TIMEOUT, "archive_timeout", "5min", false));
    }
    if let Some(archiver) = facts.told.as_ref().map(|told| &told.archiver).filter(|archiver| archiver.failing) {
        let what = format!("archiving fails, last of \"{}\"", archiver.wal);
        let fix = "see the log of the instance; psql -c 'SELECT * FROM pg_stat_archiver'";
        found.push(worded(server, &ARCHIVE_FAILING, "archive_command", what, fix));
    }
}

fn recovery(server: &Server, found: &mut Vec<Finding>) {
    let facts = &server.instance;
    let remove = |facts: &Facts, name: &str| match facts.told {
        Some(_) => format!("psql -c \"ALTER SYSTEM RESET {name}\", remove it from the other files, and restart"),
        None => format!("remove {name} from the file"),
    };
    let mut set = |entry: &Entry, name: &str, nothing: &str| {
        let value = facts.value(name);
        if !value.is_empty() && value != nothing {
            let shown = if value == "(set)" { format!("{name} is set") } else { format!("{name} is \"{value}\"") };
            found.push(worded(server, entry, name, shown, &remove(facts, name)));
        }
    };
    set(&RESTORE_COMMAND, "restore_command", "");
    for kind in ["", "_lsn", "_name", "_time", "_xid"] {
        set(&RECOVERY_TARGET, &format!("recovery_target{kind}"), "");
    }
    set(&APPLY_DELAY, "recovery_min_apply_delay", "0");
    set(&PROMOTE_TRIGGER, "promote_trigger_file", "");
    let rows = facts.told.iter().flat_map(|told| &told.role_settings);
    for row in rows.filter(|row| row.name == "synchronous_commit" && lower_than_on(&row.value)) {
        let (scope, fix) = match (row.role.as_str(), row.database.as_str()) {
            (role, "") => (format!("role \"{role}\""), format!("ALTER ROLE \"{role}\" RESET synchronous_commit")),
            ("", database) => {
                (format!("database \"{database}\""), format!("ALTER DATABASE \"{database}\" RESET synchronous_commit"))
            }
            (role, database) => (
                format!("role \"{role}\" in database \"{database}\""),
                format!("ALTER ROLE \"{role}\" IN DATABASE \"{database}\" RESET synchronous_commit"),
            ),
        };
        let what = format!("synchronous_commit is \"{}\" for {scope}", row.value);
        // The standby has the same rows.
        if !facts.is_standby() {
            found.push(SYNCHRONOUS_COMMIT_SET.found(&server.id, what, format!("on the primary: {fix}")));
        }
    }
}
