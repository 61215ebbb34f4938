//! The configuration that a running controller uses, as the controller reports it to commands that cannot read the files.
//!
//! Texts in the form of both files, without passwords. Commands rebuild from them what they need to know.
//!
//! With the password, the same is saved in `DIR/ID`: a controller that dies while the files contain a mistake is started again
//! with it.

use super::network::Network;
use super::params::{Kind, Row};
use super::server_file::{ServerFile, Surroundings};
use super::{Config, Key, Remark, check_run_dir, management_directory, own_key, perms};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The file in `DIR/ID` that contains the configuration which the controller read last.
const SAVED: &str = "configuration";

/// The configuration that a controller uses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InEffect {
    /// The server's identifier.
    pub id: String,
    /// `network.conf`.
    pub network: String,
    /// `ID.conf`: the parameters that it set, except passwords.
    pub server: String,
}

impl InEffect {
    /// What this configuration is made of.
    pub fn of(config: &Config) -> InEffect {
        let mut server = String::new();
        for parameter in config.server.parameters.iter().filter(|parameter| parameter.source.starts_with("line ")) {
            if Row::find(parameter.name).is_some_and(|row| row.kind != Kind::Secret) {
                assign(&mut server, parameter.name, &parameter.value);
            }
        }
        InEffect { id: config.id.clone(), network: config.network.to_string(), server }
    }

    /// The configuration for a command that only talks to the controller of management directory `dir`; as after
    /// [`Config::load_for_client`], and without passwords and the server's own key.
    ///
    /// # Errors
    /// `mc.key` cannot be read, or the controller is of a version that uses other parameters.
    pub fn for_client(&self, dir: &Path) -> Result<Config> {
        self.read(dir, false)
    }

    fn read(&self, dir: &Path, instance: bool) -> Result<Config> {
        let dir = management_directory(dir)?;
        let network = Network::parse(&dir.join("network.conf"), &self.network)?;
        let me = super::local::named(&dir.join("network.conf"), &network, &self.id)?;
        let own = &network.servers[me.index()];
        check_run_dir(&dir.join(&own.id))?;
        let path = dir.join("mc.key");
        let key = Key::parse(&path, &perms::read_private(&path, "")?)?;
        let path = dir.join(format!("{}.conf", own.id));
        let around = Surroundings { path: &path, dir: &dir, own, arbiter: network.arbiter.is_some(), instance };
        let (server, _) = ServerFile::read(&self.server, &around)?;
        Ok(Config { id: own.id.clone(), dir, me, network, server, key, own_key: None, remarks: Vec::new() })
    }
}

/// Adds a line that sets a parameter.
fn assign(text: &mut String, name: &str, value: &str) {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    let _ = writeln!(text, "{name} = \"{value}\"");
}

impl Config {
    /// Saves this configuration for [`Config::load_saved`].
    ///
    /// # Errors
    /// The file cannot be written. An older one is removed.
    pub fn save(&self) -> Result<()> {
        let mut saved = InEffect::of(self);
        if let Some(password) = &self.server.db_instance_password {
            assign(&mut saved.server, "db_instance_password", password.expose());
        }
        let text = Zeroizing::new(serde_json::to_string(&saved).unwrap_or_default());
        drop(Zeroizing::new(saved.server));
        let path = self.run_dir().join(SAVED);
        if std::fs::read(&path).is_ok_and(|old| Zeroizing::new(old).as_slice() == text.as_bytes()) {
            return Ok(());
        }
        replace(&path, text.as_bytes()).map_err(|cause| {
            let _ = std::fs::remove_file(&path);
            Error::io("write file", &path, cause)
        })
    }

    /// The configuration that the controller of server `id` last read from files without a mistake; `instance`: as after
    /// [`Config::load`], else as after [`Config::load_for_client`]. A controller that dies while the files contain a mistake is
    /// started again with it.
    ///
    /// # Errors
    /// The mistake, if none is saved or it cannot be used.
    pub fn load_saved(dir: &Path, id: &str, instance: bool, mistake: Error) -> Result<Config> {
        let read = || -> Result<Config> {
            let path = dir.join(id).join(SAVED);
            let text = Zeroizing::new(perms::read_private(&path, "")?);
            let saved: InEffect =
                serde_json::from_str(&text).map_err(|cause| Error::io("understand file", &path, cause))?;
            let mut config = saved.read(dir, instance)?;
            config.own_key = own_key(&config.dir, config.own(), "mc_ctl init")?;
            Ok(config)
        };
        let Ok(mut config) = read() else { return Err(mistake) };
        let text = format!(
            "the controller uses the configuration that it read before, because of an error: {}",
            mistake.message
        );
        config.remarks.push(Remark::warning(text, "Correct the file, then run \"mc_ctl reload\"."));
        Ok(config)
    }
}

/// Puts a file with this content, which only its owner can read, into the place of another one.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new: PathBuf = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&new, path));
    written.inspect_err(|_| {
        let _ = std::fs::remove_file(&new);
    })
}
