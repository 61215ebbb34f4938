//! `ID.conf`: one server's parameters (mc_server.conf(5)), from text to checked values with the defaults filled in.

use super::assignments::{self, Assignment};
use super::instance;
use super::key::Secret;
use super::network::{MemberLine, in_line};
use super::params::{Kind, Parameter, Preset, Row, TABLE, Value, host_and_port, suggest};
use super::{Remark, perms};
use crate::error::{Error, Result};
use crate::fsm::event::{OnInstanceSilence, OnSilence};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file in `DIR/ID` that receives PostgreSQL's log if there is no other place for it.
pub const STARTUP_LOG: &str = "startup.log";

/// `ID.conf`, checked, with defaults in place of what it does not set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerFile {
    /// The data directory, absolute.
    pub db_instance: PathBuf,
    /// Database user; the OS user by default.
    pub db_instance_username: String,
    /// Its password.
    pub db_instance_password: Option<Secret>,
    /// Database to connect to.
    pub target_db: String,
    /// `postgresql.conf`, in the data directory or where Debian keeps it. Empty after [`super::Config::load_for_client`]
    /// unless set.
    pub config_file: PathBuf,
    /// The directory of `postgres` and `pg_ctl`, of the data directory's version. Empty after
    /// [`super::Config::load_for_client`] unless set.
    pub bin_dir: PathBuf,
    /// PostgreSQL's log if `logging_collector` is off. Empty after [`super::Config::load_for_client`] unless set.
    pub log_file: PathBuf,
    /// Of `PG_VERSION`: 12 or later. 0 after [`super::Config::load_for_client`].
    pub major_version: u32,
    /// The data directory is missing or empty, so that there is nothing to start; why, and what to do. `config_file`,
    /// `bin_dir` and `major_version` are then what they will be as far as can be told.
    pub no_data: Option<Error>,
    /// Time between two heartbeats, ms.
    pub heartbeat_interval_ms: u64,
    /// Time after which an unanswered heartbeat has failed, ms.
    pub heartbeat_timeout_ms: u64,
    /// Failures beyond the first that are tolerated.
    pub heartbeat_retry: u32,
    /// What is done when heartbeats are lost.
    pub heartbeat_error_action: OnSilence,
    /// `isolated_primary_action = stop`.
    pub isolated_primary_stops: bool,
    /// `isolated_restart = on`.
    pub isolated_restart: bool,
    /// `startup_wait`, ms.
    pub startup_wait_ms: u64,
    /// `accept_startup_race = on`.
    pub accept_startup_race: bool,
    /// Host under which clients reach this instance.
    pub client_address: String,
    /// Host under which the other instance reaches this one.
    pub replication_address: String,
    /// Time between two probes of the instance, ms.
    pub db_instance_check_interval_ms: u64,
    /// Time after which an unanswered probe has failed, ms.
    pub db_instance_check_timeout_ms: u64,
    /// Failures beyond the first that are tolerated.
    pub db_instance_check_retry: u32,
    /// What is done about an instance that does not answer.
    pub db_instance_timeout_action: OnInstanceSilence,
    /// Time between two probes of the disks, ms.
    pub disk_check_interval_ms: u64,
    /// Time after which an unanswered probe has failed, ms.
    pub disk_check_timeout_ms: u64,
    /// Failures beyond the first that are tolerated.
    pub disk_check_retry: u32,
    /// `tablespace_directory_error_action = failover`: a failed tablespace is a failed disk; else it is only reported.
    pub tablespace_error_is_failure: bool,
    /// `rebuild_action = auto`.
    pub rebuild_auto: bool,
    /// Program that isolates the other server.
    pub fencing_command: Option<PathBuf>,
    /// `fencing_command_timeout`, ms.
    pub fencing_command_timeout_ms: u64,
    /// Program that decides whether the other server is dead.
    pub arbitration_command: Option<PathBuf>,
    /// `arbitration_command_timeout`, ms.
    pub arbitration_command_timeout_ms: u64,
    /// `post_switch_command`.
    pub post_switch_command: Option<PathBuf>,
    /// `pre_detach_command`.
    pub pre_detach_command: Option<PathBuf>,
    /// `post_attach_command`.
    pub post_attach_command: Option<PathBuf>,
    /// `status_change_command_timeout`, ms; of each of the three.
    pub status_change_command_timeout_ms: u64,
    /// Where the health endpoint listens; `None`: nowhere.
    pub health_check_address: Option<ListenAddress>,
    /// `shutdown_detached_synchronous_standby = on`.
    pub shutdown_detached_synchronous_standby: bool,
    /// Time limit of a command's call to the other members, ms; `None` for no limit.
    pub remote_call_timeout_ms: Option<u64>,
    /// Time after which the watcher restarts a controller whose decision thread has stopped, ms; `None` for never.
    pub agent_alive_timeout_ms: Option<u64>,
    /// Time between two heartbeats to the arbiter, ms.
    pub arbiter_alive_interval_ms: u64,
    /// Time after which an unanswered one has failed, ms.
    pub arbiter_alive_timeout_ms: u64,
    /// Failures beyond the first that are tolerated.
    pub arbiter_alive_retry: u32,
    /// Time limit of a connection to the arbiter, ms.
    pub arbiter_connect_timeout_ms: u64,
    /// The program that makes backups; `None`: `pg_basebackup`.
    pub backup_command: Option<PathBuf>,
    /// The program that restores backups for a recovery; `None`: `mc_ctl recover` does, from `backup_destination`.
    pub recover_command: Option<PathBuf>,
    /// Where backups and the WAL archive are written; `None`: nowhere.
    pub backup_destination: Option<PathBuf>,
    /// How many backups are kept, at least 1.
    pub backup_generations: u32,
    /// The age of the newest backup from which it is reported, hours.
    pub backup_max_age: u32,
    /// The limit of `pg_basebackup --max-rate`, with its unit; `None` for no limit.
    pub backup_max_rate: Option<String>,
    /// 0 to 7, for `LOCAL0` to `LOCAL7`.
    pub syslog_facility: u8,
    /// The program's name in the system log.
    pub syslog_ident: String,
    /// Directory for core files.
    pub core_file_path: PathBuf,
    /// What [`super::Config::parameters`] shows.
    pub(super) parameters: Vec<Parameter>,
}

/// A parameter that names a place to listen on, and where it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenAddress {
    /// A name or an address, without brackets.
    pub host: String,
    /// From 1.
    pub port: u16,
    file: PathBuf,
    line: usize,
}

impl ListenAddress {
    pub(super) fn new(host: &str, port: u16, file: &Path, line: usize) -> ListenAddress {
        ListenAddress { host: host.to_owned(), port, file: file.to_owned(), line }
    }

    /// An error about it, which names the file and the line.
    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        in_line(&self.file, self.line, what)
    }
}

/// The values of a file by key, and where each came from.
struct Values<'a> {
    path: &'a Path,
    of: BTreeMap<&'static str, (Value, String)>,
    remarks: Vec<Remark>,
}

/// What [`ServerFile::read`] needs to know besides the text.
pub(super) struct Surroundings<'a> {
    /// The file's path, for errors.
    pub path: &'a Path,
    /// The management directory.
    pub dir: &'a Path,
    /// This server's line of `network.conf`.
    pub own: &'a MemberLine,
    /// `network.conf` has an arbiter.
    pub arbiter: bool,
    /// Look at the data directory and the programs.
    pub instance: bool,
}

impl ServerFile {
    /// Every parameter, in the order of the manual. Passwords are hidden.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Shows a parameter as `other` does, whose value was taken over.
    pub fn show_as(&mut self, other: &ServerFile, name: &str) {
        let pairs = self.parameters.iter_mut().zip(&other.parameters);
        pairs.filter(|(own, _)| own.name == name).for_each(|(own, theirs)| own.clone_from(theirs));
    }

    /// Reads and checks the text of `ID.conf`.
    pub(super) fn read(text: &str, around: &Surroundings<'_>) -> Result<(ServerFile, Vec<Remark>)> {
        let mut values = Values::read(around.path, text)?;
        let db_instance = normal(&values.text("db_instance"));
        if !values.has("db_instance_username") {
            values.fill("db_instance_username", perms::running_user()?, "the OS user");
        }
        for name in ["client_address", "replication_address"] {
            if !values.has(name) {
                values.fill(name, around.own.hosts.first().cloned().unwrap_or_default(), "network.conf");
            }
        }
        if !values.has("core_file_path") {
            values.fill("core_file_path", around.dir.display().to_string(), "the management directory");
        }
        let heartbeat_error_action = values.on_silence(around.arbiter)?;
        if around.instance {
            values.check_programs()?;
        }
        let remarks = values.remark_on_effects(heartbeat_error_action, around.arbiter);
        values.remarks.extend(remarks);
        let (major_version, no_data) = if around.instance { values.find_instance(&db_instance)? } else { (0, None) };
        if around.instance {
            values.find_log_file(around);
            values.check_paths(around.dir)?;
        }
        let mut file = values.build(db_instance, major_version, heartbeat_error_action);
        file.no_data = no_data;
        Ok((file, values.remarks))
    }
}

/// The path without a slash at its end or two in a row.
fn normal(path: &str) -> PathBuf {
    Path::new(path).components().collect()
}

impl<'a> Values<'a> {
    /// Checks each assignment by its row and fills in the table's defaults.
    fn read(path: &'a Path, text: &str) -> Result<Values<'a>> {
        let mut values = Values { path, of: BTreeMap::new(), remarks: Vec::new() };
        for assignment in assignments::parse(path, text)? {
            values.set(&assignment)?;
        }
        for row in TABLE {
            match row.preset {
                _ if values.has(row.name) => {}
                Preset::Required => {
                    return Err(Error::new(format!("file \"{}\": {} is not set", path.display(), row.name))
                        .hint(format!("It must be set; {}.", row.allowed())));
                }
                Preset::Is(text) => {
                    let value = row.read(text).unwrap_or_else(|| unreachable!("the default of {}", row.name));
                    values.of.insert(row.name, (value, "default".into()));
                }
                Preset::Like(other) => {
                    let value = values.value(other).clone();
                    values.of.insert(row.name, (value, other.into()));
                }
                Preset::Elsewhere => {}
            }
        }
        Ok(values)
    }

    fn set(&mut self, assignment: &Assignment) -> Result<()> {
        let Assignment { key, value, line } = assignment;
        let Some(row) = Row::find(key) else {
            let hint = match suggest(key) {
                Some(name) => format!("Perhaps you meant {name}."),
                None => "All parameters are in mc_server.conf(5).".into(),
            };
            return Err(in_line(self.path, *line, format!("unknown parameter \"{key}\"")).hint(hint));
        };
        let read = row.read(value).filter(|value| key != "agent_alive_timeout" || is_patient(value));
        let Some(read) = read else {
            let shown = if row.kind == Kind::Secret { "the value".into() } else { format!("\"{value}\"") };
            let also = if key == "agent_alive_timeout" { "; 0, or at least 1 second" } else { "" };
            return Err(in_line(self.path, *line, format!("{key}: {shown} is not valid ({}{also})", row.allowed())));
        };
        if row.kind == Kind::Windows {
            let text = format!("parameter {key} of file \"{}\" has no effect on this system", self.path.display());
            self.remarks.push(Remark::notice(text, ""));
        }
        self.of.insert(row.name, (read, format!("line {line}")));
        Ok(())
    }

    /// `heartbeat_error_action`, which depends on the presence of an arbiter.
    fn on_silence(&mut self, arbiter: bool) -> Result<OnSilence> {
        let name = "heartbeat_error_action";
        if !self.has(name) {
            let word = if arbiter { "arbitration" } else { "fallback" };
            self.fill(name, word.into(), "default");
        }
        let word = self.text(name);
        let line = self.line(name);
        let refused = |why: &str| in_line(self.path, line, format!("{name}: \"{word}\" {why}"));
        match (word.as_str(), arbiter) {
            ("message", _) => Ok(OnSilence::Message),
            ("arbitration", true) => Ok(OnSilence::Arbitration),
            ("arbitration", false) => Err(refused("requires an arbiter, and network.conf has none")
                .hint("Add its line to network.conf on all members, or use 'switch', 'disconnect', 'command', 'message' or 'fallback'.")),
            ("command", _) if self.has("arbitration_command") => Ok(OnSilence::Command),
            ("command", _) => Err(refused("requires arbitration_command, which is not set")
                .hint("Set arbitration_command to a program that determines whether the other server is down.")),
            ("switch", false) => Ok(OnSilence::Switch),
            ("disconnect", false) => Ok(OnSilence::Disconnect),
            ("switch" | "disconnect", true) => {
                Err(refused("is intended for two servers without an arbiter").hint("Use \"arbitration\"."))
            }
            ("fallback", true) => {
                self.remarks.push(Remark::warning(
                    "heartbeat_error_action is \"fallback\", so the arbiter is not used when the other server does not \
                     respond: if only the network between the servers fails, both may continue alone, and commits \
                     acknowledged by one of them are lost",
                    "Set heartbeat_error_action = 'arbitration' on both servers, or remove the line.",
                ));
                Ok(OnSilence::Fallback)
            }
            _ => {
                self.remarks.extend(Remark::fallback(line > 0, OnSilence::Fallback));
                Ok(OnSilence::Fallback)
            }
        }
    }

    /// The user's commands must be there when the controller starts, not only when they are needed.
    fn check_programs(&self) -> Result<()> {
        for Row { name, .. } in TABLE.iter().filter(|row| row.kind == Kind::Command) {
            let Some(path) = self.optional(name) else { continue };
            perms::check_program(Path::new(&path)).map_err(|error| {
                in_line(self.path, self.line(name), format!("{name}: {}", error.message)).hint(error.hint)
            })?;
        }
        Ok(())
    }

    /// The paths that `pg_ctl start` hands to a shell.
    fn check_paths(&self, management: &Path) -> Result<()> {
        let what = |path: &str, c| format!("path {path:?} contains {c:?}, which pg_ctl cannot pass to a shell");
        for name in ["db_instance", "bin_dir", "config_file", "log_file"] {
            let path = self.text(name);
            if let Some(c) = instance::not_for_shell(Path::new(&path)) {
                let error = in_line(self.path, self.line(name), format!("{name}: {}", what(&path, c)));
                return Err(error.hint("Move it to a path without $, `, quotes, backslashes and line breaks."));
            }
        }
        let path = management.to_string_lossy();
        match instance::not_for_shell(management) {
            Some(c) => Err(Error::new(format!("management directory: {}", what(&path, c)))
                .hint("Move it to a path without $, `, quotes, backslashes and line breaks.")),
            None => Ok(()),
        }
    }

    /// What is set and has no effect, or less than may be thought.
    fn remark_on_effects(&self, action: OnSilence, arbiter: bool) -> Vec<Remark> {
        let file = self.path.display();
        let word = self.text("heartbeat_error_action");
        let mut remarks = Vec::new();
        let mut notice = |name: &str, why: &str, hint: &str| {
            remarks.push(Remark::notice(format!("parameter {name} of file \"{file}\" {why}"), hint));
        };
        match (action, self.has("arbitration_command"), self.has("fencing_command")) {
            (OnSilence::Command, _, false) => notice(
                "arbitration_command",
                "is the only protection: no command fences the other server before this server continues alone",
                "Set fencing_command too, unless exit status 0 of arbitration_command means that it is fenced.",
            ),
            (OnSilence::Command, ..) => {}
            (_, true, _) => {
                let why = format!("has no effect, because heartbeat_error_action is \"{word}\"");
                notice("arbitration_command", &why, "Set heartbeat_error_action = 'command' to use it.");
            }
            _ => {}
        }
        if self.has("fencing_command")
            && matches!(action, OnSilence::Fallback | OnSilence::Switch | OnSilence::Disconnect)
        {
            let why = format!("is used only by --force, because heartbeat_error_action is \"{word}\"");
            notice("fencing_command", &why, "");
        }
        for row in TABLE.iter().filter(|row| row.name.starts_with("arbiter_") && self.line(row.name) > 0) {
            match (arbiter, row.name) {
                (false, _) => notice(row.name, "has no effect, because network.conf has no arbiter", ""),
                (true, "arbiter_alive_retry") => {
                    notice(
                        row.name,
                        "has no effect: the interval and the timeout determine how long the arbiter may be silent",
                        "",
                    );
                }
                (true, _) => {}
            }
        }
        remarks
    }

    /// The line that sets a key; 0 where none does.
    fn line(&self, name: &str) -> usize {
        self.source(name).strip_prefix("line ").and_then(|line| line.parse().ok()).unwrap_or(0)
    }

    /// Version, `postgresql.conf` and programs of the data directory; and why there is none, where one can still be made.
    fn find_instance(&mut self, data: &Path) -> Result<(u32, Option<Error>)> {
        let found = instance::major_version(data).map_err(|error| {
            let place =
                format!("db_instance is set in file \"{}\", line {}.", self.path.display(), self.line("db_instance"));
            let hint = if error.hint.is_empty() { place } else { format!("{} {place}", error.hint) };
            error.hint(hint)
        });
        let (major_version, no_data) = match found {
            Ok(version) => (version, None),
            Err(why) if instance::is_vacant(data) => {
                if let Ok(meta) = data.metadata() {
                    perms::check_data_directory(data, &meta)?;
                }
                let bin_dir = self.optional("bin_dir").map(PathBuf::from);
                (instance::coming_version(data, bin_dir.as_deref())?, Some(why))
            }
            Err(error) => return Err(error),
        };
        match self.optional("config_file") {
            // The rebuild makes it.
            Some(path) if no_data.is_some() && !Path::new(&path).exists() => {}
            Some(path) if !Path::new(&path).is_file() => {
                let what = format!("config_file: \"{path}\" does not exist or is not a file");
                return Err(in_line(self.path, self.line("config_file"), what).hint(
                    "Specify the instance's postgresql.conf, or remove the line; the file is then searched for.",
                ));
            }
            Some(_) => {}
            None => {
                let found = instance::find_config_file(data, major_version, Path::new("/etc/postgresql"));
                let found = match no_data {
                    Some(_) => found.unwrap_or_else(|_| data.join("postgresql.conf")),
                    None => found?,
                };
                self.fill("config_file", found.display().to_string(), "found");
            }
        }
        let set = self.optional("bin_dir").map(PathBuf::from);
        let found = instance::find_bin_dir(major_version, set.as_deref()).map_err(|error| match set {
            Some(_) => in_line(self.path, self.line("bin_dir"), format!("bin_dir: {}", error.message)).hint(
                "Specify the directory of that version's programs, or remove the line; they are then searched for.",
            ),
            None => error,
        })?;
        if set.is_none() {
            self.fill("bin_dir", found.display().to_string(), "found");
        }
        Ok((major_version, no_data))
    }

    /// Debian's place for the log, or the run-time directory.
    fn find_log_file(&mut self, around: &Surroundings<'_>) {
        if self.has("log_file") {
            return;
        }
        let config_file = PathBuf::from(self.text("config_file"));
        match instance::find_log_file(&config_file, Path::new("/etc/postgresql"), Path::new("/var/log/postgresql")) {
            Some(found) => self.fill("log_file", found.display().to_string(), "found"),
            None => {
                let own = around.dir.join(&around.own.id).join(STARTUP_LOG);
                self.fill("log_file", own.display().to_string(), "default");
            }
        }
    }

    fn build(&self, db_instance: PathBuf, major_version: u32, heartbeat_error_action: OnSilence) -> ServerFile {
        let limit = |name| Some(self.ms(name)).filter(|ms| *ms > 0);
        let path = |name| normal(&self.optional(name).unwrap_or_default());
        let program = |name| self.optional(name).map(PathBuf::from);
        ServerFile {
            db_instance,
            db_instance_username: self.text("db_instance_username"),
            db_instance_password: self.optional("db_instance_password").map(Secret::new),
            target_db: self.text("target_db"),
            config_file: path("config_file"),
            bin_dir: path("bin_dir"),
            log_file: path("log_file"),
            major_version,
            no_data: None,
            heartbeat_interval_ms: self.ms("heartbeat_interval"),
            heartbeat_timeout_ms: self.ms("heartbeat_timeout"),
            heartbeat_retry: self.count("heartbeat_retry"),
            heartbeat_error_action,
            isolated_primary_stops: self.text("isolated_primary_action") == "stop",
            isolated_restart: self.text("isolated_restart") == "on",
            startup_wait_ms: self.ms("startup_wait"),
            accept_startup_race: self.text("accept_startup_race") == "on",
            client_address: self.text("client_address"),
            replication_address: self.text("replication_address"),
            db_instance_check_interval_ms: self.ms("db_instance_check_interval"),
            db_instance_check_timeout_ms: self.ms("db_instance_check_timeout"),
            db_instance_check_retry: self.count("db_instance_check_retry"),
            db_instance_timeout_action: match self.text("db_instance_timeout_action").as_str() {
                "none" => OnInstanceSilence::None,
                "message" => OnInstanceSilence::Message,
                _ => OnInstanceSilence::Failover,
            },
            disk_check_interval_ms: self.ms("disk_check_interval"),
            disk_check_timeout_ms: self.ms("disk_check_timeout"),
            disk_check_retry: self.count("disk_check_retry"),
            tablespace_error_is_failure: self.text("tablespace_directory_error_action") == "failover",
            rebuild_auto: self.text("rebuild_action") == "auto",
            fencing_command: program("fencing_command"),
            fencing_command_timeout_ms: self.ms("fencing_command_timeout"),
            arbitration_command: program("arbitration_command"),
            arbitration_command_timeout_ms: self.ms("arbitration_command_timeout"),
            post_switch_command: program("post_switch_command"),
            pre_detach_command: program("pre_detach_command"),
            post_attach_command: program("post_attach_command"),
            status_change_command_timeout_ms: self.ms("status_change_command_timeout"),
            health_check_address: self.listen_address("health_check_address"),
            shutdown_detached_synchronous_standby: self.text("shutdown_detached_synchronous_standby") == "on",
            remote_call_timeout_ms: limit("remote_call_timeout"),
            agent_alive_timeout_ms: limit("agent_alive_timeout"),
            arbiter_alive_interval_ms: self.ms("arbiter_alive_interval"),
            arbiter_alive_timeout_ms: self.ms("arbiter_alive_timeout"),
            arbiter_alive_retry: self.count("arbiter_alive_retry"),
            arbiter_connect_timeout_ms: self.ms("arbiter_connect_timeout"),
            backup_command: program("backup_command"),
            recover_command: program("recover_command"),
            backup_destination: self.optional("backup_destination").map(|path| normal(&path)),
            backup_generations: self.count("backup_generations"),
            backup_max_age: self.count("backup_max_age"),
            backup_max_rate: self.optional("backup_max_rate"),
            syslog_facility: self.text("syslog_facility").bytes().last().map_or(0, |digit| digit.saturating_sub(b'0')),
            syslog_ident: self.text("syslog_ident"),
            core_file_path: path("core_file_path"),
            parameters: self.parameters(),
        }
    }

    fn parameters(&self) -> Vec<Parameter> {
        let show = |row: &Row| match self.of.get(row.name) {
            Some((value, source)) => Parameter { name: row.name, value: row.show(value), source: source.clone() },
            None => Parameter { name: row.name, value: String::new(), source: "default".into() },
        };
        TABLE.iter().map(show).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.of.contains_key(name)
    }

    fn fill(&mut self, name: &'static str, text: String, source: &str) {
        self.of.insert(name, (Value::Text(text), source.into()));
    }

    fn value(&self, name: &str) -> &Value {
        match self.of.get(name) {
            Some((value, _)) => value,
            None => unreachable!("parameter {name} has neither a value nor a default"),
        }
    }

    fn source(&self, name: &str) -> &str {
        self.of.get(name).map_or("", |(_, source)| source)
    }

    fn optional(&self, name: &str) -> Option<String> {
        self.has(name).then(|| self.text(name))
    }

    fn listen_address(&self, name: &str) -> Option<ListenAddress> {
        let text = self.optional(name)?;
        let (host, port) = host_and_port(&text)?;
        Some(ListenAddress::new(host, port, self.path, self.line(name)))
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text.clone(),
            other => unreachable!("parameter {name} is no text but {other:?}"),
        }
    }

    fn ms(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Ms(ms) => *ms,
            other => unreachable!("parameter {name} is no duration but {other:?}"),
        }
    }

    fn count(&self, name: &str) -> u32 {
        match self.value(name) {
            Value::Count(count) => *count,
            other => unreachable!("parameter {name} is no count but {other:?}"),
        }
    }
}

/// A watcher with less patience than this would restart a controller that only waited for the processor.
fn is_patient(value: &Value) -> bool {
    !matches!(value, Value::Ms(1..1000))
}
