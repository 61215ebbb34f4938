//! The text of `ID.conf` that `init` makes: the data directory, what a server without one takes over from the first server, and
//! what the operator is offered.

use super::{Join, Wanted, find};
use crate::config::{self, MemberLine};
use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const REBUILD_AUTO: &str = "# A server that has lost its role becomes the standby automatically: pg_rewind or pg_basebackup \
                            change its data\n# directory without confirmation. WAL that only this server has is saved (mc_ctl \
                            history).\nrebuild_action = 'auto'\n";

const REBUILD_MANUAL: &str = "# After a failover the old primary waits until \"mc_ctl rebuild\" makes it the standby. With \
                              'auto' it does so\n# automatically: pg_rewind or pg_basebackup change its data directory \
                              without confirmation. WAL that only it has is saved.\n#rebuild_action = 'auto'\n";

/// The text of `ID.conf`, and what it needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OwnFile {
    /// The text.
    pub text: String,
    /// The directory in which the data directory will be, where that is missing too.
    pub parent: Option<PathBuf>,
}

/// What `ID.conf` is to be; `None` where it is there.
///
/// # Errors
/// No data directory is found, the file that is there contradicts what was typed, or this user cannot make what is missing.
pub(super) fn own_file(
    dir: &Path,
    own: &MemberLine,
    peer: &MemberLine,
    wanted: &Wanted,
    joins: bool,
    arbiter: bool,
) -> Result<Option<OwnFile>> {
    let path = dir.join(format!("{}.conf", own.id));
    if path.symlink_metadata().is_ok() {
        let has = config::db_instance(&path)?;
        let given = wanted.data.as_deref().map(std::path::absolute).transpose().unwrap_or_default();
        if let Some(given) = given.filter(|given| has.as_ref() != Some(given)) {
            let has = has.map_or("nothing".into(), |has| format!("\"{}\"", has.display()));
            return Err(Error::new(format!(
                "file \"{}\" already exists, and its db_instance is {has}, not \"{}\"",
                path.display(),
                given.display()
            ))
            .hint("Omit --data, or correct the file. Nothing was changed."));
        }
        if wanted.password.is_some() {
            return Err(Error::new(format!("file \"{}\" already exists, and is not changed", path.display()))
                .hint("Add the password to it: db_instance_password = 'PASSWORD'."));
        }
        return Ok(None);
    }
    let others = dir.join(format!("{}.conf", peer.id));
    let taken = if others.exists() { config::db_instance(&others)? } else { None };
    let told = wanted.join.as_ref().map(|join| join.data.as_path());
    let data = find::data_directory(wanted.data.as_deref(), taken.as_deref(), joins, told)?;
    let mut text = "# Every parameter is in mc_server.conf(5).\n".to_owned();
    let _ = writeln!(text, "db_instance = {}", quoted(&data.display().to_string()));
    if let Some(dir) = find::programs_of_running(&data) {
        let _ = writeln!(text, "bin_dir = {}", quoted(&dir.display().to_string()));
    }
    if let Some(join) = &wanted.join {
        text += &of_a_copy(&data, join)?;
    }
    if let Some(password) = &wanted.password {
        let _ = writeln!(text, "db_instance_password = {}", quoted(password.expose()));
    }
    if !arbiter {
        text += "# Without an arbiter: if the other server does not respond, only the standby acts, so that both servers never \
                 serve.\n# The old primary stops, so that clients that still reach it connect to the new \
                 primary.\nheartbeat_error_action = 'switch'\nisolated_primary_action = 'stop'\n";
    }
    text += match wanted.rebuild_auto.or(wanted.join.as_ref().map(|join| join.rebuild_auto)) {
        Some(true) => REBUILD_AUTO,
        _ => REBUILD_MANUAL,
    };
    let parent = data.parent().filter(|parent| told == Some(data.as_path()) && !parent.exists()).map(Path::to_owned);
    Ok(Some(OwnFile { text, parent }))
}

/// Where there is no data directory yet: `postgresql.conf` is where the first server has it, if that is outside of its data
/// directory; the rebuild makes it. And the programs are those of its version.
fn of_a_copy(data: &Path, join: &Join) -> Result<String> {
    let mut text = String::new();
    if data.join("PG_VERSION").exists() {
        return Ok(text);
    }
    if config::coming_version(data, None).ok() != Some(join.version) {
        let dir = config::find_bin_dir(join.version, None)?;
        let _ = writeln!(text, "bin_dir = {}", quoted(&dir.display().to_string()));
    }
    let found = config::find_config_file(data, join.version, Path::new("/etc/postgresql")).is_ok();
    if found || join.config_file.starts_with(&join.data) || join.config_file.exists() {
        return Ok(text);
    }
    if let Some(dir) = join.config_file.parent() {
        let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        if !find::is_writable(there) {
            let what = format!("the configuration directory \"{}\" of the first server is missing here", dir.display());
            return Err(Error::new(what).hint(super::install_hint(dir)));
        }
    }
    let _ = writeln!(
        text,
        "# mc_ctl rebuild creates it from that of the first server.\nconfig_file = {}",
        quoted(&join.config_file.display().to_string())
    );
    Ok(text)
}

/// A value in the quotes of `ID.conf`.
fn quoted(value: &str) -> String {
    match value.contains('\'') {
        false => format!("'{value}'"),
        true => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(quoted("a\\b"), "'a\\b'");
        assert_eq!(quoted("it's \"a\\b\""), "\"it's \\\"a\\\\b\\\"\"");
    }
}
