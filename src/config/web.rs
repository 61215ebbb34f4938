//! `web.conf`: the parameters of the web console, `mc_web`. A management directory without the file has the defaults.
//!
//! Called by `cli::web`. Reads the file alone.

use super::assignments::{self, Assignment};
use super::network::in_line;
use super::params::{Kind, Preset, Row, Value, host_and_port};
use super::{ListenAddress, management_directory, perms};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The name of the file.
pub const FILE: &str = "web.conf";

/// Every parameter, in the order of the manual.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    Row { name: "listen",          kind: Kind::Address,   preset: Preset::Is("127.0.0.1:27515") },
    Row { name: "tls_certificate", kind: Kind::Path,      preset: Preset::Elsewhere },
    Row { name: "tls_key",         kind: Kind::Path,      preset: Preset::Elsewhere },
    Row { name: "users",           kind: Kind::Path,      preset: Preset::Elsewhere },
    Row { name: "host_names",      kind: Kind::Text(255), preset: Preset::Elsewhere },
    Row { name: "peer_port",       kind: Kind::Number,    preset: Preset::Elsewhere },
];

/// The configuration of a console, checked.
#[derive(Clone, Debug)]
pub struct WebConfig {
    /// The management directory, absolute.
    pub dir: PathBuf,
    /// Where browsers connect.
    pub listen: ListenAddress,
    /// The files of the certificate and of its private key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The file of the users.
    pub users: PathBuf,
    /// Further names under which browsers reach the console.
    pub host_names: Vec<String>,
    /// Where the other server's console connects, and this one to it.
    pub peer_port: Option<u16>,
}

impl WebConfig {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// What is not as it must be, with file, line and key.
    pub fn load(dir: &Path) -> Result<WebConfig> {
        let dir = management_directory(dir)?;
        let path = dir.join(FILE);
        let text = match path.symlink_metadata() {
            Ok(_) => perms::read_private(&path, "")?,
            Err(_) => String::new(),
        };
        WebConfig::parse(dir, &path, &text)
    }

    fn parse(dir: PathBuf, path: &Path, text: &str) -> Result<WebConfig> {
        let mut of: BTreeMap<&str, (String, usize)> = BTreeMap::new();
        for Assignment { key, value, line } in assignments::parse(path, text)? {
            let Some(row) = TABLE.iter().find(|row| row.name == key) else {
                let known: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
                return Err(in_line(path, line, format!("unknown parameter \"{key}\""))
                    .hint(format!("The parameters are: {}.", known.join(", "))));
            };
            let is_port = row.name != "peer_port" || value.parse::<u16>().is_ok_and(|port| port > 0);
            let read = row.read(&value).filter(|_| is_port);
            let Some(read) = read else {
                let allowed = if is_port { row.allowed() } else { "allowed: 1 to 65535".to_owned() };
                return Err(in_line(path, line, format!("{key}: \"{value}\" is not valid ({allowed})")));
            };
            let text = if let Value::Text(text) = read { text } else { value };
            of.insert(row.name, (text, line));
        }
        let text = |name: &str| of.get(name).map(|(value, _)| value.as_str());
        let line = |name: &str| of.get(name).map_or(0, |(_, line)| *line);
        let preset = TABLE.iter().find_map(|row| match row.preset {
            Preset::Is(value) if row.name == "listen" => Some(value),
            _ => None,
        });
        let address = text("listen").or(preset).unwrap_or_default();
        let (host, port) =
            host_and_port(address).ok_or_else(|| Error::new(format!("listen: \"{address}\" is not valid")))?;
        let listen = ListenAddress::new(host, port, path, line("listen"));
        let tls = match (text("tls_certificate"), text("tls_key")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some(_), None) => {
                return Err(in_line(path, line("tls_certificate"), "tls_certificate is set, and tls_key is not")
                    .hint("Set tls_key to the file of the certificate's private key."));
            }
            (None, Some(_)) => {
                return Err(in_line(path, line("tls_key"), "tls_key is set, and tls_certificate is not")
                    .hint("Set tls_certificate to the file of the key's certificate."));
            }
        };
        let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !local && tls.is_none() {
            return Err(listen.error(format!("listen: \"{address}\" is not a loopback address, and requires TLS")).hint(
                "Set tls_certificate and tls_key, or listen on 127.0.0.1 and connect with: ssh -L 27515:127.0.0.1:27515 HOST",
            ));
        }
        Ok(WebConfig {
            users: text("users").map_or_else(|| dir.join("web.users"), PathBuf::from),
            host_names: text("host_names")
                .unwrap_or_default()
                .split(',')
                .filter(|n| !n.is_empty())
                .map(str::to_lowercase)
                .collect(),
            peer_port: text("peer_port").and_then(|port| port.parse().ok()),
            dir,
            listen,
            tls,
        })
    }

    /// The directory of run-time files.
    pub fn run_dir(&self) -> PathBuf {
        run_dir(&self.dir)
    }
}

/// The directory of the console's run-time files in this management directory.
pub fn run_dir(dir: &Path) -> PathBuf {
    dir.join("web")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WebConfig> {
        WebConfig::parse("/srv/mc".into(), Path::new("/srv/mc/web.conf"), text)
    }

    #[test]
    fn defaults_and_values() {
        let config = parse("").unwrap();
        assert_eq!((config.listen.host.as_str(), config.listen.port), ("127.0.0.1", 27515));
        assert_eq!((config.tls, config.peer_port, config.users), (None, None, "/srv/mc/web.users".into()));
        let tls = "listen = '[::]:443'\ntls_certificate = /c\ntls_key = /k\n";
        let config = parse(&format!("{tls}peer_port = 27516\nhost_names = DB,web.example\n")).unwrap();
        assert_eq!((config.listen.host.as_str(), config.peer_port), ("::", Some(27516)));
        assert_eq!(config.host_names, ["db", "web.example"]);
        assert!(parse("listen = localhost:1\n").is_ok() && parse("listen = '[::1]:80'\n").is_ok());
    }

    #[test]
    fn errors_name_file_line_and_remedy() {
        for (text, message, hint) in [
            ("\nlisten = 0.0.0.0:80", "line 2: listen: \"0.0.0.0:80\" is not a loopback address", "ssh -L"),
            ("listen = 192.0.2.1:80", "requires TLS", "tls_certificate"),
            ("port = 1", "line 1: unknown parameter \"port\"", "listen, tls_certificate"),
            ("peer_port = 65536", "peer_port: \"65536\" is not valid (allowed: 1 to 65535)", ""),
            ("listen = 80", "listen: \"80\" is not valid", ""),
            ("tls_key = /k", "tls_certificate is not", "Set tls_certificate"),
            ("tls_certificate = /k", "tls_key is not", "Set tls_key"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains("/srv/mc/web.conf") && error.message.contains(message), "{error}");
            assert!(error.hint.contains(hint), "{error}");
        }
    }
}
