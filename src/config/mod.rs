//! `network.conf`, `ID.conf`, `mc.key` and `ID.private`, read and checked into one configuration.
//!
//! Called once by each program at its start. Reads files and asks this machine about its addresses; changes nothing,
//! logs nothing (what is to be told is returned as [`Remark`]s), and never connects to an instance or a member.

pub mod arbiter;
mod assignments;
mod in_effect;
mod instance;
pub mod key;
mod local;
pub mod network;
pub mod params;
mod perms;
pub mod server_file;
pub mod web;

pub use in_effect::InEffect;
pub use instance::not_for_shell;
pub use instance::{coming_version, find_bin_dir, find_config_file, is_vacant, major_version};
pub use key::{Key, PrivateKey, PublicKey, Secret};
pub use local::{is_local, resolve as which_server, resolve_for_client as client_server};
pub use network::{MemberLine, Network};
pub use params::Parameter;
pub use perms::{read_private, running_user};
pub use server_file::{ListenAddress, STARTUP_LOG, ServerFile};

use crate::error::{Error, Result};
use crate::fsm::event::{Hooks, OnSilence, Settings};
use crate::fsm::types::Server;
use server_file::Surroundings;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// How serious a [`Remark`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Something has no effect, or is worth knowing.
    Notice,
    /// Something can go wrong that the operator could prevent.
    Warning,
}

/// Something about a configuration that is in order, for the caller to log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// How serious.
    pub level: Level,
    /// What, in a sentence.
    pub text: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// The whole configuration of one server's controller, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The management directory, absolute.
    pub dir: PathBuf,
    /// This server's identifier.
    pub id: String,
    /// Which line of `network.conf` this server is.
    pub me: Server,
    /// `network.conf`.
    pub network: Network,
    /// `ID.conf`.
    pub server: ServerFile,
    /// `mc.key`.
    pub key: Key,
    /// `ID.private`; there where `network.conf` lists keys.
    pub own_key: Option<PrivateKey>,
    /// What is to be logged at a start.
    pub remarks: Vec<Remark>,
}

impl Config {
    /// Reads and checks everything, the instance's directories included. `local_server` is the option's identifier.
    pub fn load(dir: &Path, local_server: Option<&str>) -> Result<Config> {
        Config::read(dir, local_server, true)
    }

    /// Whether a start has to wait: no host of `network.conf` is this machine's yet, and only that is wrong with the
    /// configuration. `local_server` is the option's identifier.
    pub fn is_early(dir: &Path, local_server: Option<&str>) -> bool {
        let Ok(dir) = management_directory(dir) else { return false };
        let path = dir.join("network.conf");
        let network = perms::read_private(&path, "").and_then(|text| Network::parse(&path, &text));
        network.is_ok_and(|network| {
            local::resolve_for_start(&dir, &path, &network, local_server).is_err() && !local::is_here(&network)
        })
    }

    /// As [`Config::load`], for commands that only talk to the controller: looks at nothing of the instance, so that
    /// it works when the data directory's disk has failed. `config_file` and `bin_dir` are then as in the file or
    /// empty, and `major_version` is 0.
    pub fn load_for_client(dir: &Path, local_server: Option<&str>) -> Result<Config> {
        Config::read(dir, local_server, false)
    }

    fn read(dir: &Path, local_server: Option<&str>, instance: bool) -> Result<Config> {
        let dir = management_directory(dir)?;
        let make = format!(
            "Run \"mc_ctl init -M {}\" with its arguments, as the README shows, to create the files. If they are in another \
             directory, name it with -M.",
            dir.display()
        );
        let path = dir.join("network.conf");
        let network = Network::parse(&path, &perms::read_private(&path, &make)?)?;
        let me = match instance {
            true => local::resolve_for_start(&dir, &path, &network, local_server)?,
            false => local::resolve_for_client(&dir, &path, &network, local_server)?,
        };
        let own = &network.servers[me.index()];
        check_run_dir(&dir.join(&own.id))?;
        let path = dir.join("mc.key");
        let missing = format!(
            "Copy it from the other server, or create it once for all members: (umask 077; openssl rand -hex 32 > \"{}\")",
            path.display()
        );
        let key = Key::parse(&path, &perms::read_private(&path, &missing)?)?;
        let own_key = own_key(&dir, own, &format!("mc_ctl init -M {}", dir.display()))?;
        let path = dir.join(format!("{}.conf", own.id));
        let text = perms::read_private(&path, &make)?;
        let around = Surroundings { path: &path, dir: &dir, own, arbiter: network.arbiter.is_some(), instance };
        let (server, mut remarks) = ServerFile::read(&text, &around)?;
        remarks.extend(network_remarks(&network));
        Ok(Config { id: own.id.clone(), dir, me, network, server, key, own_key, remarks })
    }

    /// `DIR/ID`: control socket, pid, ledger, history.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join(&self.id)
    }

    /// This server's line of `network.conf`.
    pub fn own(&self) -> &MemberLine {
        &self.network.servers[self.me.index()]
    }

    /// The other server's line of `network.conf`.
    pub fn peer(&self) -> &MemberLine {
        &self.network.servers[self.me.other().index()]
    }

    /// The decision core's part of the configuration.
    pub fn settings(&self, seed: u64) -> Settings {
        let file = &self.server;
        Settings {
            me: self.me,
            arbiter: self.network.arbiter.is_some(),
            heartbeat_interval_ms: file.heartbeat_interval_ms,
            heartbeat_timeout_ms: file.heartbeat_timeout_ms,
            heartbeat_detection_ms: detection_ms(
                file.heartbeat_interval_ms,
                file.heartbeat_timeout_ms,
                file.heartbeat_retry,
            ),
            instance_detection_ms: detection_ms(
                file.db_instance_check_interval_ms,
                file.db_instance_check_timeout_ms,
                file.db_instance_check_retry,
            ),
            disk_detection_ms: detection_ms(
                file.disk_check_interval_ms,
                file.disk_check_timeout_ms,
                file.disk_check_retry,
            ),
            on_silence: file.heartbeat_error_action,
            on_instance_silence: file.db_instance_timeout_action,
            isolated_primary_stops: file.isolated_primary_stops,
            isolated_restart: file.isolated_restart,
            startup_wait_ms: file.startup_wait_ms,
            rebuild_auto: file.rebuild_auto,
            stop_detached_standby: file.shutdown_detached_synchronous_standby,
            fencing: file.fencing_command.is_some(),
            hooks: Hooks {
                post_switch: file.post_switch_command.is_some(),
                pre_detach: file.pre_detach_command.is_some(),
                post_attach: file.post_attach_command.is_some(),
            },
            seed,
        }
    }

    /// Every parameter of `ID.conf` with its value and where that came from, in the order of the manual. Passwords are
    /// hidden.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.server.parameters.clone()
    }
}

/// A member's private key, where there is one; it must be there and be the right one where `network.conf` lists its public
/// key. `make` is the command that makes it.
fn own_key(dir: &Path, own: &MemberLine, make: &str) -> Result<Option<PrivateKey>> {
    let path = dir.join(key::file_name(&own.id));
    if own.key.is_none() && path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let missing = format!("Create it with \"{make}\", and list the public key that it prints in network.conf.");
    let text = Zeroizing::new(perms::read_private(&path, &missing)?);
    let key = PrivateKey::parse(&path, &text)?;
    let (public, file) = (key.public(), dir.join("network.conf"));
    match own.key {
        Some(listed) if listed != public => Err(network::in_line(
            &file,
            own.line,
            format!("the key of member \"{}\" is not the public key of \"{}\"", own.id, path.display()),
        )
        .hint(format!("That is {public}. List it in network.conf on all members."))),
        _ => Ok(Some(key)),
    }
}

/// `db_instance` of an `ID.conf`, whatever else may be wrong with that.
pub fn db_instance(path: &Path) -> Result<Option<PathBuf>> {
    let assignments = assignments::parse(path, &read_private(path, "")?)?;
    Ok(assignments.into_iter().find(|a| a.key == "db_instance").map(|a| PathBuf::from(a.value)))
}

/// The management directory's absolute path, checked.
pub fn management_directory(dir: &Path) -> Result<PathBuf> {
    let absolute = dir.canonicalize().map_err(|cause| {
        Error::io("open management directory", dir, cause).hint("Specify it with -M or in MCCONTROLDIR.")
    })?;
    if !absolute.as_os_str().as_encoded_bytes().iter().all(u8::is_ascii_graphic) {
        return Err(Error::new(format!(
            "management directory \"{}\" has a space or a character beyond ASCII in its path",
            absolute.display()
        )));
    }
    let meta = absolute.metadata().map_err(|cause| Error::io("read the attributes of", &absolute, cause))?;
    perms::check_directory(&absolute, &meta)?;
    Ok(absolute)
}

/// Whether a directory of run-time files may be used: it belongs to the user who runs this, and no other user can write to it.
pub fn is_own_directory(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| perms::check_directory(path, &meta).is_ok())
}

/// The directory of run-time files is made at the first start.
fn check_run_dir(path: &Path) -> Result<()> {
    match path.metadata() {
        Ok(meta) => perms::check_directory(path, &meta),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(path);
            rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).map_err(|cause| {
                Error::io("write to management directory", dir, std::io::Error::from(cause))
                    .hint("The user who runs this command must own it. Run as root: chown USER DIRECTORY.")
            })
        }
        Err(cause) => Err(Error::io("read the attributes of", path, cause)),
    }
}

/// The ports that the kernel picks from for a socket that asks for none.
fn ephemeral_ports() -> Option<std::ops::RangeInclusive<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let (low, high) = text.trim().split_once(char::is_whitespace)?;
    Some(low.parse().ok()?..=high.trim().parse().ok()?)
}

/// The ports that the kernel leaves out of them: `8080,9148-9150`.
fn reserved_ports() -> Vec<std::ops::RangeInclusive<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some(low.parse().ok()?..=high.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// The range of ports that the kernel picks from, where it may pick this one.
pub fn ephemeral(port: u16) -> Option<std::ops::RangeInclusive<u16>> {
    let range = ephemeral_ports().filter(|range| range.contains(&port))?;
    (!reserved_ports().iter().any(|reserved| reserved.contains(&port))).then_some(range)
}

/// What is allowed in `network.conf` but may surprise.
fn network_remarks(network: &Network) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for line in &network.servers {
        for port in &line.ports {
            let Some(range) = ephemeral(*port) else { continue };
            remarks.push(Remark::notice(
                format!(
                    "port {port} of \"{}\" is in the range that the system assigns to any program ({} to {})",
                    line.id,
                    range.start(),
                    range.end()
                ),
                "Choose a port outside this range, or reserve it in net.ipv4.ip_local_reserved_ports.",
            ));
        }
    }
    remarks
}

/// (timeout + interval) x (retry + 1), in ms (guide, table 3.1); saturates, since each may be as large as 2147483647.
pub fn detection_ms(interval_ms: u64, timeout_ms: u64, retry: u32) -> u64 {
    interval_ms.saturating_add(timeout_ms).saturating_mul(u64::from(retry) + 1)
}

impl Remark {
    /// A remark of level NOTICE.
    pub fn notice(text: impl Into<String>, hint: impl Into<String>) -> Remark {
        Remark { level: Level::Notice, text: text.into(), hint: hint.into() }
    }

    /// A remark of level WARNING.
    pub fn warning(text: impl Into<String>, hint: impl Into<String>) -> Remark {
        Remark { level: Level::Warning, text: text.into(), hint: hint.into() }
    }

    /// What can happen where there is no arbiter and nothing else was chosen (PROTOCOL section 6).
    pub fn fallback(set_in_file: bool, action: OnSilence) -> Option<Remark> {
        if set_in_file || action != OnSilence::Fallback {
            return None;
        }
        Some(Remark::warning(
            "heartbeat_error_action is not set and there is no arbiter, so \"fallback\" applies: if only the network between \
             the servers fails, both may continue alone, and commits acknowledged by one of them are lost",
            "Set heartbeat_error_action = 'switch' (only the standby acts if the other server does not respond) or \
             'disconnect' (only the primary acts), with the same value on both servers.",
        ))
    }
}
