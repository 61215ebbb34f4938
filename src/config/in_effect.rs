//! The configuration that a running controller uses, as the controller reports it to commands that cannot read the files.
//!
//! Texts in the form of both files, without passwords. Commands rebuild from them what they need to know.

use super::network::Network;
use super::params::{Kind, Row};
use super::server_file::{ServerFile, Surroundings};
use super::{Config, Key, check_run_dir, management_directory, perms};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;

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
                let value = parameter.value.replace('\\', "\\\\").replace('"', "\\\"");
                let _ = writeln!(server, "{} = \"{value}\"", parameter.name);
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
        let dir = management_directory(dir)?;
        let network = Network::parse(&dir.join("network.conf"), &self.network)?;
        let me = super::local::named(&dir.join("network.conf"), &network, &self.id)?;
        let own = &network.servers[me.index()];
        check_run_dir(&dir.join(&own.id))?;
        let path = dir.join("mc.key");
        let key = Key::parse(&path, &perms::read_private(&path, "")?)?;
        let path = dir.join(format!("{}.conf", own.id));
        let around = Surroundings { path: &path, dir: &dir, own, arbiter: network.arbiter.is_some(), instance: false };
        let (server, _) = ServerFile::read(&self.server, &around)?;
        Ok(Config { id: own.id.clone(), dir, me, network, server, key, own_key: None, remarks: Vec::new() })
    }
}
