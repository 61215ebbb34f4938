//! What `pg_hba.conf` must let in: from either server the replication, and the controller, which asks the primary during a
//! rebuild by a session of its own. Who may connect is the operator's decision: the lines are printed, and added only where
//! `--apply` asks for it.

use super::find;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pg::hba::{self, Database, Rule, Way};
use crate::pg::{conf, files, process};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What is missing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// The file.
    pub file: PathBuf,
    /// The lines, to be added.
    pub lines: Vec<String>,
    /// Above this line, which keeps out what they let in; else at the end.
    pub above: Option<(PathBuf, usize)>,
    /// The controller, or the standby, has to give a password: by a rule that is there, or one of the new ones.
    pub password: bool,
    /// The names of servers that are not resolved, so that no line for them is among these: why.
    pub unresolved: Vec<Error>,
}

/// What is missing in the instance's `pg_hba.conf`. Empty where that is still to come with a copy.
pub fn missing(config: &Config) -> Missing {
    let data = process::home(&config.server.db_instance);
    let file = hba::file(&config.server.config_file, &data);
    let mut missing = Missing { file: file.clone(), ..Missing::default() };
    if !file.exists() && config.server.no_data.is_some() {
        return missing;
    }
    let rules = hba::read(&file).unwrap_or_default();
    let tls =
        conf::effective("ssl", &config.server.config_file, &data).is_some_and(|value| super::settings::is_on(&value));
    let user = &config.server.db_instance_username;
    let (addresses, unresolved) = both(config);
    missing.unresolved = unresolved;
    for database in [Database::Replication, Database::Named(&config.server.target_db)] {
        for &address in &addresses {
            // libpq tries TLS first where the server has it, and then without.
            let ways = [tls.then_some(Way::Tls(address)), Some(Way::Plain(address))];
            let met = ways.into_iter().flatten().map(|way| hba::first_match(&rules, way, database, user));
            let rule = met.fold(None, |before, rule| if before.is_some_and(lets_in) { before } else { rule });
            match rule.map(|rule| rule.method.as_str()) {
                Some("trust") => continue,
                Some("scram-sha-256" | "md5" | "password") => {
                    missing.password = true;
                    continue;
                }
                _ => {}
            }
            missing.lines.push(hba::line(database, user, address));
            missing.password = true;
            if let (Some(rule), None) = (rule, &missing.above) {
                missing.above = Some((rule.file.clone(), rule.line));
            }
        }
    }
    missing
}

/// Whether a rule lets somebody in who has a password, or needs none.
fn lets_in(rule: &Rule) -> bool {
    matches!(rule.method.as_str(), "trust" | "scram-sha-256" | "md5" | "password")
}

/// The addresses of both servers, as far as their names resolve, and why others do not. The standby gets a copy of the file,
/// and may be the primary one day.
fn both(config: &Config) -> (Vec<IpAddr>, Vec<Error>) {
    let own = &config.server.replication_address;
    let mut hosts = vec![own, config.own().hosts.first().unwrap_or(own), config.peer().hosts.first().unwrap_or(own)];
    hosts.dedup();
    let (mut found, mut unresolved) = (Vec::new(), Vec::new());
    for host in hosts {
        let addresses = find::addresses(host).unwrap_or_else(|why| {
            unresolved.push(why);
            Vec::new()
        });
        for address in addresses {
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    (found, unresolved)
}

/// Adds the lines to the end of the file, whose mode, owner and other lines stay, unless they belong above one that is there.
/// Returns whether they were added.
///
/// # Errors
/// The file cannot be read or replaced.
pub fn apply(missing: &Missing) -> Result<bool> {
    if missing.lines.is_empty() || missing.above.is_some() {
        return Ok(false);
    }
    files::edit(&missing.file, |text| {
        let lines = std::iter::once(super::settings::HEAD).chain(missing.lines.iter().map(String::as_str));
        Ok(lines.fold(text.to_vec(), |text, line| conf::append_line(&text, line.as_bytes())))
    })
}

/// Lines as a command that adds them to the end of a file.
pub fn add_command(file: &Path, lines: &[String]) -> String {
    format!("cat >>'{}' <<'END'\n{}\nEND\n", file.display(), lines.join("\n"))
}
