//! The block of text by which the other members join a pair: `network.conf`, `mc.key`, and where the first server has its
//! data. `init` on the first server prints it, and `--join` on the others reads it, so that no file has to be copied.
//!
//! The block contains the cluster's key. It never contains a private key or a password: each member makes its own private key.

use crate::config::{Config, Key, Network, Secret, read_private};
use crate::error::{Error, Result};
use snow::params::HashChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use std::fmt::Write as _;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

const BEGIN: &str = "-----BEGIN MIRRORING CONTROLLER CLUSTER-----";
const END: &str = "-----END MIRRORING CONTROLLER CLUSTER-----";

/// The longest block, in bytes: `network.conf` has a few lines.
const LONGEST: u64 = 64 * 1024;

/// What the other members need to join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    /// The text of `network.conf`.
    pub network: String,
    /// The text of `mc.key`.
    pub key: Secret,
    /// The data directory of the first server.
    pub data: PathBuf,
    /// Its `postgresql.conf`.
    pub config_file: PathBuf,
    /// Its major version.
    pub version: u32,
    /// Its `rebuild_action` is `auto`.
    pub rebuild_auto: bool,
}

impl Join {
    /// That of a server with this configuration.
    ///
    /// # Errors
    /// `network.conf` or `mc.key` cannot be read.
    pub fn of(config: &Config) -> Result<Join> {
        let read = |name: &str| read_private(&config.dir.join(name), "");
        Ok(Join {
            network: read("network.conf")?,
            key: Secret::new(read("mc.key")?.trim()),
            data: config.server.db_instance.clone(),
            config_file: config.server.config_file.clone(),
            version: config.server.major_version,
            rebuild_auto: config.server.rebuild_auto,
        })
    }

    /// The block.
    pub fn text(&self) -> String {
        let mut body = format!("mc.key: {}\n", self.key.expose());
        let _ = writeln!(body, "data: {}\nconfig: {}", self.data.display(), self.config_file.display());
        let _ = writeln!(body, "version: {}\nrebuild_action: {}", self.version, action(self.rebuild_auto));
        self.network.lines().for_each(|line| _ = writeln!(body, "{}", format!("network.conf: {line}").trim_end()));
        let sum = checksum(&body);
        format!("{BEGIN}\n{body}checksum: {sum}\n{END}\n")
    }

    /// Reads a block to its last line. What precedes it, and white space around lines, does not count.
    ///
    /// # Errors
    /// There is none, a line is missing or changed, or it contains no network and no key. The error quotes no line.
    pub fn read(input: &mut impl BufRead) -> Result<Join> {
        let lines = block(input)?;
        let all = |name: &'static str| lines.iter().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':'));
        let one = |name: &'static str| {
            all(name).next().map(str::trim).ok_or_else(|| damaged(&format!("it has no line \"{name}\"")))
        };
        let body: Vec<&String> = lines.iter().filter(|line| !line.starts_with("checksum:")).collect();
        let body: String = body.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        if one("checksum")? != checksum(&body) {
            return Err(damaged("its checksum does not match"));
        }
        let network: String = all("network.conf").flat_map(|line| [line.trim(), "\n"]).collect();
        Network::parse(Path::new("network.conf"), &network)?;
        let key = Secret::new(one("mc.key")?);
        Key::parse(Path::new("mc.key"), key.expose())?;
        Ok(Join {
            network,
            key,
            data: one("data")?.into(),
            config_file: one("config")?.into(),
            version: one("version")?.parse().map_err(|_| damaged("its version is not a number"))?,
            rebuild_auto: one("rebuild_action")? == action(true),
        })
    }
}

/// The lines between the first and the last one of a block, without white space around them.
fn block(input: &mut impl BufRead) -> Result<Vec<String>> {
    let mut input = input.take(LONGEST);
    let mut lines = Vec::new();
    let mut inside = false;
    loop {
        let mut line = String::new();
        let read =
            input.read_line(&mut line).map_err(|cause| Error::new(format!("could not read the block: {cause}")))?;
        match line.trim() {
            END if inside => return Ok(lines),
            BEGIN => {
                inside = true;
                lines.clear();
            }
            line if inside && !line.is_empty() => lines.push(line.to_owned()),
            _ => {}
        }
        if read == 0 {
            let part = if inside { "its last line is missing" } else { "its first line was not found" };
            return Err(damaged(part));
        }
    }
}

fn action(auto: bool) -> &'static str {
    if auto { "auto" } else { "manual" }
}

fn damaged(what: &str) -> Error {
    Error::new(format!("the block for --join is incomplete: {what}")).hint(format!(
        "Copy all lines from \"{BEGIN}\" to \"{END}\". \"mc_ctl init --show-join\" on the first server prints them again."
    ))
}

/// Detects a line that was lost or changed on the way; it protects against nothing else.
fn checksum(body: &str) -> String {
    // The feature "use-blake2" of Cargo.toml is what this returns.
    let Some(mut hash) = DefaultResolver.resolve_hash(&HashChoice::Blake2s) else {
        unreachable!("BLAKE2s is compiled in")
    };
    let mut sum = [0; 32];
    hash.input(body.as_bytes());
    hash.result(&mut sum);
    sum[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join() -> Join {
        Join {
            network: "# two\nnd1  192.0.2.100  27540\nnd2  192.0.2.110  27540\n".into(),
            key: Secret::new("0123456789abcdef".repeat(4)),
            data: "/data".into(),
            config_file: "/etc/pg/postgresql.conf".into(),
            version: 15,
            rebuild_auto: true,
        }
    }

    #[test]
    fn a_block_comes_back() {
        let text = join().text();
        let pasted = format!("$ mc_ctl init\n  {}\nsesame\n", text.replace('\n', "\r\n   "));
        let mut input = pasted.as_bytes();
        assert_eq!(Join::read(&mut input).unwrap(), join());
        // What follows the block is left for the next question.
        assert_eq!(std::io::read_to_string(&mut input).unwrap().split_whitespace().collect::<Vec<_>>(), ["sesame"]);
    }

    #[test]
    fn a_block_that_is_not_whole_is_refused() {
        let text = join().text();
        let lines: Vec<&str> = text.lines().collect();
        for missing in 0..lines.len() {
            let part: Vec<&str> =
                lines.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, line)| *line).collect();
            let error = Join::read(&mut part.join("\n").as_bytes()).unwrap_err();
            assert!(error.message.contains("is incomplete") && !error.to_string().contains("0123456789"), "{error}");
        }
        for (from, to) in [("100", "101"), ("0123", "0124"), ("/data", "/date")] {
            assert!(Join::read(&mut text.replacen(from, to, 1).as_bytes()).is_err(), "{from}");
        }
        assert!(Join::read(&mut &b""[..]).unwrap_err().message.contains("first line"));
    }
}
