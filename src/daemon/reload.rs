//! Reads the configuration again while the controller runs (`mc_ctl reload`, SIGHUP).
//!
//! Parameters that only other threads than the decision thread use take effect at once. Every other change is reported by
//! name and takes effect at the next start. Files with a mistake change nothing. Runs on a thread that may wait; the decision
//! thread is not involved.

use super::archive_link::ArchiveLink;
use super::calls::{Calls, Programs};
use super::inspect::Inspector;
use super::runner::Runner;
use super::{connection_probe, db_probe, lock};
use crate::config::{Config, InEffect, Parameter};
use crate::error::{Error, Result};
use crate::messages::{self, Tell};
use crate::pg::bounded::{self, Cancel};
use crate::pg::connect::Target;
use crate::status::ConnectionFailure;
use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long the configuration may take to be read.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The parameters that change at once.
pub const CHANGEABLE: &[&str] = &[
    "db_instance_username",
    "db_instance_password",
    "target_db",
    "remote_call_timeout",
    "fencing_command_timeout",
    "arbitration_command_timeout",
    "status_change_command_timeout",
    "backup_command",
    "recover_command",
    "backup_destination",
    "backup_generations",
    "backup_max_age",
    "backup_max_rate",
];

/// Programs: the path changes at once. The decision core knows whether there is a program, so that adding or removing one
/// needs a restart.
pub const PROGRAMS: &[&str] =
    &["fencing_command", "arbitration_command", "post_switch_command", "pre_detach_command", "post_attach_command"];

/// What a reload has changed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    /// The parameters that have a new value.
    pub changed: Vec<String>,
    /// What has changed in the files and takes effect at the next start.
    pub at_restart: Vec<String>,
    /// The password was written to `primary_conninfo` of this standby.
    #[serde(default)]
    pub password_written: bool,
    /// What does not work with the configuration in effect, a sentence each.
    #[serde(default)]
    pub failures: Vec<String>,
}

/// How the threads that use the configuration get a new one.
pub struct Reloader {
    /// The configuration in effect. Locked while a reload is under way.
    config: Mutex<Config>,
    probe: Sender<db_probe::Command>,
    connect: Box<dyn Fn(&Config) + Send + Sync>,
    programs: Arc<Mutex<Programs>>,
    inspector: Inspector,
    archive: ArchiveLink,
    connections: connection_probe::Handle,
    /// What commands are sent that cannot read the files.
    in_effect: Mutex<InEffect>,
    remote_call_ms: AtomicU64,
}

fn remote_call_ms(config: &Config) -> u64 {
    config.server.remote_call_timeout_ms.unwrap_or(u64::MAX)
}

impl Reloader {
    /// For the threads of a controller that was started with `config`.
    pub(super) fn new(
        config: &Config,
        probe: Sender<db_probe::Command>,
        runner: &Runner,
        calls: &Calls,
        (inspector, archive): (Inspector, ArchiveLink),
        connections: connection_probe::Handle,
    ) -> Reloader {
        Reloader {
            config: Mutex::new(config.clone()),
            probe,
            connect: Box::new(runner.connections()),
            programs: calls.programs(),
            inspector,
            archive,
            connections,
            in_effect: Mutex::new(InEffect::of(config)),
            remote_call_ms: AtomicU64::new(remote_call_ms(config)),
        }
    }

    /// The configuration in effect, as commands are sent it.
    pub fn in_effect(&self) -> InEffect {
        lock(&self.in_effect).clone()
    }

    /// Reads the files and takes over what can change. Logs what it does.
    ///
    /// # Errors
    /// The files contain a mistake, cannot be read in time, or another reload is under way. Nothing has changed.
    pub fn reload(&self) -> Result<Reloaded> {
        let reloaded = self.read_and_apply();
        match &reloaded {
            Ok(Reloaded { changed, at_restart, .. }) => {
                messages::tell(&Tell::Reloaded { changed: list(changed) });
                at_restart.iter().for_each(|what| messages::tell(&Tell::NeedsRestart { what: what.clone() }));
            }
            Err(error) => messages::tell(&Tell::NotReloaded { why: error.clone() }),
        }
        reloaded
    }

    fn read_and_apply(&self) -> Result<Reloaded> {
        let mut config = match self.config.try_lock() {
            Ok(config) => config,
            Err(std::sync::TryLockError::Poisoned(config)) => config.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return Err(Error::new("another reload is in progress")),
        };
        let (dir, id) = (config.dir.clone(), config.id.clone());
        let read = move || Config::load(&dir, Some(&id));
        let new = bounded::call("read the configuration", LIMIT, &Cancel::never(), read)?;
        if let Err(error) = new.save() {
            messages::tell(&Tell::Warning(error));
        }
        let mut reloaded = compare(&config, &new);
        if !reloaded.changed.is_empty() {
            take_over(&mut config, &new, &reloaded.changed);
            self.apply(&config, &reloaded.changed);
        }
        // Also if nothing has changed: a password file or a certificate may have.
        match self.connections.check(connection_probe::LIMIT) {
            Some(checked) => {
                reloaded.password_written = checked.written;
                reloaded.failures = checked.failures.iter().map(ConnectionFailure::sentence).collect();
            }
            None => reloaded.failures.push("the connections to the instances could not be checked in time".to_owned()),
        }
        Ok(reloaded)
    }

    fn apply(&self, config: &Config, changed: &[String]) {
        *lock(&self.programs) = Programs::of(config);
        if changed.iter().any(|name| name.starts_with("db_instance_") || name == "target_db") {
            let _ = self.probe.send(db_probe::Command::Target(target(config)));
            (self.connect)(config);
            self.connections.uses(config);
        }
        self.inspector.uses(config);
        self.archive.uses(config);
        *lock(&self.in_effect) = InEffect::of(config);
        self.remote_call_ms.store(remote_call_ms(config), Ordering::Relaxed);
    }

    /// `remote_call_timeout`, ms. Does not wait for a reload.
    pub(super) fn remote_call_timeout_ms(&self) -> u64 {
        self.remote_call_ms.load(Ordering::Relaxed)
    }
}

/// As whom the instance of this configuration is connected to.
pub fn target(config: &Config) -> Target {
    let server = &config.server;
    let password = server.db_instance_password.as_ref().map(|password| password.expose().to_owned());
    Target::new(&server.db_instance_username, password, &server.target_db, &server.db_instance)
}

/// A list for a message.
fn list(names: &[String]) -> String {
    if names.is_empty() { "no parameter has a new value".to_owned() } else { format!("new: {}", names.join(", ")) }
}

/// What differs between the configuration in effect and the files.
fn compare(old: &Config, new: &Config) -> Reloaded {
    let mut reloaded = Reloaded::default();
    let set = |parameter: &Parameter| parameter.source.starts_with("line ");
    for (was, is) in old.server.parameters().iter().zip(new.server.parameters()) {
        let password = was.name == "db_instance_password";
        let differs =
            was.value != is.value || password && old.server.db_instance_password != new.server.db_instance_password;
        // Derived values follow what they are derived from.
        if !differs || !(set(was) || set(is)) {
            continue;
        }
        let both = !was.value.is_empty() && !is.value.is_empty();
        if CHANGEABLE.contains(&was.name) || PROGRAMS.contains(&was.name) && both {
            reloaded.changed.push(was.name.to_owned());
        } else {
            reloaded.at_restart.push(format!("parameter \"{}\"", was.name));
        }
    }
    let members = |config: &Config| -> Vec<String> { config.network.to_string().lines().map(str::to_owned).collect() };
    let (was, is) = (members(old), members(new));
    for line in was.iter().chain(&is).filter(|line| !was.contains(line) || !is.contains(line)) {
        let what = format!("the line of \"{}\" in network.conf", line.split(' ').next().unwrap_or_default());
        if !reloaded.at_restart.contains(&what) {
            reloaded.at_restart.push(what);
        }
    }
    if was != is && reloaded.at_restart.iter().all(|what| !what.ends_with("network.conf")) {
        reloaded.at_restart.push("the order of the lines in network.conf".to_owned());
    }
    let public = |config: &Config| config.own_key.as_ref().map(crate::config::PrivateKey::public);
    if old.key != new.key {
        reloaded.at_restart.push("the key in mc.key".to_owned());
    }
    if public(old) != public(new) {
        reloaded.at_restart.push(format!("the key in {}.private", old.id));
    }
    reloaded
}

/// Takes over the values of these parameters.
fn take_over(config: &mut Config, new: &Config, changed: &[String]) {
    let (old, new) = (&mut config.server, &new.server);
    for name in changed {
        match name.as_str() {
            "db_instance_username" => old.db_instance_username.clone_from(&new.db_instance_username),
            "db_instance_password" => old.db_instance_password.clone_from(&new.db_instance_password),
            "target_db" => old.target_db.clone_from(&new.target_db),
            "remote_call_timeout" => old.remote_call_timeout_ms = new.remote_call_timeout_ms,
            "fencing_command_timeout" => old.fencing_command_timeout_ms = new.fencing_command_timeout_ms,
            "arbitration_command_timeout" => old.arbitration_command_timeout_ms = new.arbitration_command_timeout_ms,
            "status_change_command_timeout" => {
                old.status_change_command_timeout_ms = new.status_change_command_timeout_ms;
            }
            "backup_command" => old.backup_command.clone_from(&new.backup_command),
            "recover_command" => old.recover_command.clone_from(&new.recover_command),
            "backup_destination" => old.backup_destination.clone_from(&new.backup_destination),
            "backup_generations" => old.backup_generations = new.backup_generations,
            "backup_max_age" => old.backup_max_age = new.backup_max_age,
            "backup_max_rate" => old.backup_max_rate.clone_from(&new.backup_max_rate),
            "fencing_command" => old.fencing_command.clone_from(&new.fencing_command),
            "arbitration_command" => old.arbitration_command.clone_from(&new.arbitration_command),
            "post_switch_command" => old.post_switch_command.clone_from(&new.post_switch_command),
            "pre_detach_command" => old.pre_detach_command.clone_from(&new.pre_detach_command),
            "post_attach_command" => old.post_attach_command.clone_from(&new.post_attach_command),
            _ => continue,
        }
        old.show_as(new, name);
    }
}
