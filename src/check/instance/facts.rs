//! The facts of an instance, as they are passed on to the other server. No passwords, and no commands of the user's, which may
//! hold some.

use super::Rule;
use crate::config::{Config, Level, detection_ms};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is read.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// What the controller's configuration says.
    pub own: Own,
    /// What lies on the disk.
    pub files: Files,
    /// What the running instance says; `None` where it does not run or does not let us in.
    pub told: Option<Told>,
    /// Why it does not let us in.
    pub refused: Option<String>,
    /// It runs and does not answer.
    pub silent: bool,
    /// What could not be read, and why.
    pub unread: Vec<String>,
    /// The result of opening the session to the other server that a rebuild needs; `None` if that was not tried, or if the other
    /// instance did not respond.
    pub rebuild_session: Option<Trial>,
}

/// What came of opening a session.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Trial {
    /// It was opened.
    Opened,
    /// The password was rejected, with this error.
    PasswordRejected(String),
    /// The session was rejected for another reason.
    Refused(String),
}

/// What the controller's configuration says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Own {
    /// This server.
    pub id: String,
    /// The other one.
    pub peer: String,
    /// This server's first host in `network.conf`.
    pub host: String,
    /// The other one's.
    pub peer_host: String,
    /// `client_address`.
    pub client_address: String,
    /// `replication_address`.
    pub replication_address: String,
    /// `db_instance_username`.
    pub user: String,
    /// `target_db`.
    pub target_db: String,
    /// `db_instance_password` is set.
    pub password: bool,
    /// The management directory.
    pub dir: String,
    /// The data directory.
    pub data: String,
    /// `postgresql.conf`.
    pub config_file: String,
    /// Major version of the data directory, or of what it will be.
    pub major: u32,
    /// There is no data directory, and what to do.
    pub no_data: Option<String>,
    /// `accept_startup_race`.
    pub accept_startup_race: bool,
    /// The detection time of the heartbeats, ms.
    pub detection_ms: u64,
    /// What is allowed in the configuration but may surprise.
    pub remarks: Vec<Remark>,
}

/// Something about a configuration that is in order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Remark {
    /// Something can go wrong.
    pub warning: bool,
    /// What.
    pub text: String,
    /// What to do.
    pub hint: String,
}

/// What lies on the disk.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Files {
    /// Of the program `postgres`, such as 150018; 0 where it does not tell.
    pub version_num: u32,
    /// `pg_control`.
    pub control: Option<Control>,
    /// `standby.signal` is there.
    pub standby: bool,
    /// A rebuild of the data directory has begun and not ended.
    pub incomplete: bool,
    /// The management directory lies on the data directory's filesystem.
    pub same_filesystem: bool,
    /// Settings by name.
    pub settings: BTreeMap<String, Setting>,
    /// Every line that sets `synchronous_standby_names`.
    pub names: Vec<NamesLine>,
    /// Errors in the files, where the instance does not run.
    pub errors: Vec<Problem>,
    /// `pg_hba.conf`.
    pub hba_file: String,
    /// Its rules.
    pub hba: Vec<Rule>,
    /// Why `postgresql.conf` cannot be replaced by the controller.
    pub unwritable: Option<String>,
    /// The addresses of the other server's first host in `network.conf`.
    pub peer_addresses: Vec<String>,
    /// The addresses of `replication_address`.
    pub replication_addresses: Vec<String>,
    /// The addresses of `client_address`.
    pub client_addresses: Vec<String>,
    /// The addresses of the host of `primary_conninfo`.
    pub upstream_addresses: Vec<String>,
    /// `primary_conninfo`, where it is set and can be read.
    pub upstream: Option<Upstream>,
    /// PostgreSQL's log.
    pub log: Log,
}

/// What the postmaster writes to its standard error.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// The file that the next start opens for it.
    pub file: String,
    /// Why that cannot be written.
    pub unwritable: Option<String>,
    /// What the postmaster has opened, as the kernel names it; empty if it does not run.
    pub opened: String,
    /// The command that lets the group `adm` read it, as Debian does; `None` if it can, or the log is not Debian's.
    pub share: Option<String>,
}

/// `pg_control`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    /// System identifier.
    pub system: u64,
    /// Data checksums are on.
    pub checksums: bool,
    /// What a standby must have at least as much of: the primary's settings, by name.
    pub needed: BTreeMap<String, u64>,
}

/// The value of a setting, in the unit of `pg_settings`, and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Setting {
    /// The value; `(set)` for commands that are not passed on.
    pub value: String,
    /// The file; empty for a default.
    pub file: String,
    /// The line in it.
    pub line: u32,
    /// It comes from the postmaster's command line.
    pub command_line: bool,
}

/// A line that sets `synchronous_standby_names`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NamesLine {
    /// The file.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The value there.
    pub value: String,
    /// It is in `postgresql.conf` itself.
    pub ours: bool,
}

/// A place in a file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line; 0 where it is not known.
    pub line: u32,
}

/// An error in a file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// What is wrong.
    pub text: String,
    /// Where.
    pub place: Place,
}

/// `primary_conninfo` without its password.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Upstream {
    /// It is set, but a URI or broken.
    pub unreadable: bool,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: String,
    /// The name under which this server connects: of it, else `cluster_name`; empty for none.
    pub application_name: String,
    /// It has a password, or a password file is there.
    pub password: bool,
    /// The database user.
    pub user: String,
    /// Where it is set.
    pub place: Place,
}

/// What the running instance says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// It is in recovery.
    pub standby: bool,
    /// `server_version_num`.
    pub version_num: u32,
    /// The session's role is a superuser. The rest is only asked by one.
    pub superuser: bool,
    /// Settings by name.
    pub settings: BTreeMap<String, Setting>,
    /// Settings that wait for a restart.
    pub pending: Vec<Problem>,
    /// Errors in the configuration files.
    pub errors: Vec<Problem>,
    /// The rules of `pg_hba.conf` as the instance reads them.
    pub hba: Vec<Rule>,
    /// Settings by role and database.
    pub role_settings: Vec<RoleSetting>,
    /// Who receives WAL.
    pub senders: Vec<Sender>,
    /// It receives WAL from a primary.
    pub receiving: bool,
    /// Sessions of clients.
    pub clients: u64,
    /// Persistent replication slots.
    pub slots: Vec<Slot>,
    /// The archiver.
    pub archiver: Archiver,
    /// Databases in which something was found.
    pub databases: Vec<Database>,
}

/// A setting that applies to a role, a database or both.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RoleSetting {
    /// Database; empty for all.
    pub database: String,
    /// Role; empty for all.
    pub role: String,
    /// Setting.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sender {
    /// `application_name`.
    pub name: String,
    /// Address; empty for a Unix socket.
    pub address: String,
}

/// A replication slot.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Slot {
    /// Name.
    pub name: String,
    /// Somebody uses it.
    pub active: bool,
    /// Bytes of WAL that it keeps.
    pub bytes: u64,
    /// A logical slot.
    pub logical: bool,
    /// PostgreSQL maintains it on this standby: it cannot be dropped there, and nothing is to be done about it.
    pub synced: bool,
}

/// `pg_stat_archiver`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Archiver {
    /// The last attempt failed.
    pub failing: bool,
    /// The file that could not be archived.
    pub wal: String,
}

/// What was found in a database.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Database {
    /// Name.
    pub name: String,
    /// Unlogged tables, how many.
    pub unlogged: u64,
    /// One of them.
    pub unlogged_table: String,
    /// Invalid indexes, how many.
    pub invalid: u64,
    /// One of them.
    pub invalid_index: String,
}

impl Own {
    /// What a configuration says.
    pub fn new(config: &Config) -> Own {
        let file = &config.server;
        let first = |hosts: &[String]| hosts.first().cloned().unwrap_or_default();
        let remark = |remark: &crate::config::Remark| Remark {
            warning: remark.level == Level::Warning,
            text: remark.text.clone(),
            hint: remark.hint.clone(),
        };
        Own {
            id: config.id.clone(),
            peer: config.peer().id.clone(),
            host: first(&config.own().hosts),
            peer_host: first(&config.peer().hosts),
            client_address: file.client_address.clone(),
            replication_address: file.replication_address.clone(),
            user: file.db_instance_username.clone(),
            target_db: file.target_db.clone(),
            password: file.db_instance_password.is_some(),
            dir: config.dir.display().to_string(),
            data: file.db_instance.display().to_string(),
            config_file: file.config_file.display().to_string(),
            major: file.major_version,
            no_data: file.no_data.as_ref().map(|why| why.message.clone()),
            accept_startup_race: file.accept_startup_race,
            detection_ms: detection_ms(file.heartbeat_interval_ms, file.heartbeat_timeout_ms, file.heartbeat_retry),
            remarks: config.remarks.iter().map(remark).collect(),
        }
    }

    /// The instances talk over a network of their own.
    pub fn network_apart(&self) -> bool {
        self.replication_address != self.host
    }
}

impl Facts {
    /// It is, or will come up as, a standby.
    pub fn is_standby(&self) -> bool {
        self.told.as_ref().map_or(self.files.standby, |told| told.standby)
    }

    /// A setting: as the running instance has it, else as the files say, else PostgreSQL's default.
    pub fn setting(&self, name: &str) -> Setting {
        let told = self.told.as_ref().and_then(|told| told.settings.get(name));
        let found = told.or_else(|| self.files.settings.get(name)).cloned();
        found.unwrap_or_else(|| Setting { value: super::files::default(name).to_owned(), ..Setting::default() })
    }

    /// The settings for which a running instance uses another value than the one in its files.
    pub fn changed_in_files(&self) -> Vec<&str> {
        let Some(told) = &self.told else { return Vec::new() };
        let differs = |name: &str, file: &Setting| {
            told.settings.get(name).is_some_and(|used| used.value != file.value && !used.command_line)
        };
        let files = self.files.settings.iter().filter(|(name, file)| differs(name, file));
        files.map(|(name, _)| name.as_str()).collect()
    }

    /// Its value.
    pub fn value(&self, name: &str) -> String {
        self.setting(name).value
    }

    /// Its value as a number.
    pub fn number(&self, name: &str) -> i64 {
        self.value(name).parse().unwrap_or(0)
    }

    /// The rules of `pg_hba.conf`.
    pub fn hba(&self) -> &[Rule] {
        // One that reads none, or may not be asked, has those of the file all the same.
        self.told.as_ref().map(|told| &told.hba).filter(|rules| !rules.is_empty()).unwrap_or(&self.files.hba)
    }

    /// The file of those rules; where the instance runs, it says which one it reads.
    pub fn hba_file(&self) -> &str {
        let told = self.told.as_ref().and_then(|told| told.hba.first());
        told.map_or(&self.files.hba_file, |rule| &rule.file)
    }

    /// The name under which it connects to a primary.
    pub fn application_name(&self) -> &str {
        let given = self.files.upstream.as_ref().map(|upstream| upstream.application_name.as_str());
        given.filter(|name| !name.is_empty()).unwrap_or(&self.own.id)
    }
}
