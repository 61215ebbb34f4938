//! What PostgreSQL and its files say: settings and where each comes from, rules of `pg_hba.conf`, roles, indexes, versions.
//!
//! [`files`] reads what lies on the disk, which works before the first start; [`session`] asks a running instance, which
//! knows better. What is found in them is in [`settings`], [`replication`], [`access`] and [`data`].

mod access;
mod data;
mod facts;
mod files;
mod hba;
mod replication;
mod session;
mod settings;

pub use facts::{
    Archiver, Control, Database, Facts, Files, NamesLine, Own, Place, Problem, Remark, RoleSetting, Sender, Setting,
    Slot, Told, Upstream,
};
pub use hba::Rule;

use super::{Entry, Finding, Seen};
use crate::config::Config;
use crate::pg::bounded::{self, Cancel};
use std::time::{Duration, Instant};

/// What there can be found here.
pub const CATALOGUE: &[Entry] = &[
    data::UNREAD,
    data::CONFIGURATION_WARNING,
    data::CONFIGURATION_NOTICE,
    data::NO_DATA_DIRECTORY,
    data::SAME_FILESYSTEM,
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
    access::SESSION_REFUSED,
    access::INSTANCE_SILENT,
    access::NOT_SUPERUSER,
    access::ROLE_LIMITS,
    access::LISTEN_ADDRESSES,
    access::HBA_ERRORS,
    access::HBA_REPLICATION,
    access::HBA_REBUILD,
    access::HBA_PASSWORD,
    access::HBA_TRUST,
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
    settings::ARCHIVE_ALWAYS,
    settings::ARCHIVE_FAILING,
    settings::RESTORE_COMMAND,
    settings::RECOVERY_TARGET,
    settings::APPLY_DELAY,
    settings::PROMOTE_TRIGGER,
    replication::NAMES_ELSEWHERE,
    replication::NAMES_TWICE,
    replication::NAMES_NOT_ONE,
    replication::NAMES_NOT_PEER,
    replication::IMPOSTOR,
    replication::CONNINFO_NAME,
    replication::CONNINFO_ELSEWHERE,
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
    session::try_rebuild(config, &mut facts, left().min(Duration::from_secs(3)));
    facts
}

/// What is wrong on both servers.
pub fn examine(seen: &Seen, found: &mut Vec<Finding>) {
    data::examine_pair(seen, found);
    for (server, other) in seen.each() {
        data::examine(server, found);
        if server.instance.own.no_data.is_some() {
            continue;
        }
        access::examine(server, other, found);
        settings::examine(server, found);
        replication::examine(server, other, found);
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
