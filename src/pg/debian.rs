//! What Debian's postgresql-common keeps of a cluster in `/etc/postgresql/VERSION/NAME`, as `pg_createcluster` makes it. The
//! texts and modes are those of postgresql-common 248.

use super::conf;
use super::files::{self, entries};
use crate::error::{Error, Result};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const CLUSTERS: &str = "/etc/postgresql";
/// What is written to `environment` in place of the text below.
const ENVIRONMENT: &str = "/etc/postgresql-common/environment";
/// The directory of the logs, and the group that reads them.
const LOGS: &str = "/var/log/postgresql";
const READERS: &str = "adm";

const START_CONF: &str = "# Automatic startup configuration
#   auto: automatically start the cluster
#   manual: manual startup with pg_ctlcluster/postgresql@.service only
#   disabled: refuse to start cluster
# See pg_createcluster(1) for details. When running from systemd,
# invoke 'systemctl daemon-reload' after editing this file.

manual
";
const PG_CTL_CONF: &str = "# Automatic pg_ctl configuration
# This configuration file contains cluster specific options to be passed to
# pg_ctl(1).

pg_ctl_options = ''
";
const NO_ENVIRONMENT: &str = "# environment variables for postgres processes
# This file has the same syntax as postgresql.conf:
#  VARIABLE = simple_value
#  VARIABLE2 = 'any value!'
# I. e. you need to enclose any value which does not only consist of letters,
# numbers, and '-', '_', '.' in single quotes. Shell commands are not
# evaluated.
";

/// The clusters: the directory of each one's configuration, and its data directory.
pub fn clusters() -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let clusters = entries(Path::new(CLUSTERS)).into_iter().flat_map(|version| entries(&version));
    clusters.filter_map(|cluster| {
        let data = conf::effective("data_directory", &cluster.join("postgresql.conf"), Path::new("/nonexistent"))?;
        Some((cluster, data.into()))
    })
}

/// The directory of a cluster's configuration, which need not exist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster(PathBuf);

impl Cluster {
    /// The one to which this `postgresql.conf` belongs; `None` if it is elsewhere than Debian's are.
    pub fn of(config_file: &Path) -> Option<Cluster> {
        let dir = config_file.parent()?;
        (dir.parent()?.parent()? == Path::new(CLUSTERS)).then(|| Cluster(dir.to_owned()))
    }

    /// The file that says whether Debian's service starts it.
    pub fn start_conf(&self) -> PathBuf {
        self.0.join("start.conf")
    }

    /// Makes what is missing beside `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf`. Only the controller starts the instance.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn make_rest(&self) -> Result<()> {
        let environment = std::fs::read_to_string(ENVIRONMENT);
        let environment = environment.map_or(NO_ENVIRONMENT.to_owned(), |text| self.replace_names(&text));
        for (name, text) in
            [("environment", environment.as_str()), ("pg_ctl.conf", PG_CTL_CONF), ("start.conf", START_CONF)]
        {
            let file = self.0.join(name);
            if file.symlink_metadata().is_err() {
                files::create(&file, text.as_bytes(), 0o644)?;
            }
        }
        Ok(())
    }

    /// Version and name in the place of `%v` and `%c`.
    fn replace_names(&self, text: &str) -> String {
        let name =
            |path: Option<&Path>| path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let (version, cluster) = (name(self.0.parent()), name(Some(&self.0)));
        text.split("%%").map(|part| part.replace("%v", &version).replace("%c", &cluster)).collect::<Vec<_>>().join("%")
    }

    /// Whether `start.conf` contains `auto`.
    pub fn starts_automatically(&self) -> bool {
        std::fs::read_to_string(self.start_conf()).is_ok_and(|text| manual(&text) != text)
    }

    /// Changes `auto` in `start.conf` to `manual`.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn start_manually(&self) -> Result<()> {
        files::edit(&self.start_conf(), |text| Ok(manual(&String::from_utf8_lossy(text)).into_bytes())).map(drop)
    }
}

/// `start.conf` with `manual` in the place of `auto`.
fn manual(text: &str) -> String {
    let line = |line: &str| match line.trim_start().strip_prefix("auto") {
        Some(rest) if !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') => format!("manual{rest}"),
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The mode of a file that is made with the configuration.
pub fn mode(file: &Path) -> u32 {
    if file.file_name().is_some_and(|name| name == "postgresql.conf") { 0o644 } else { 0o640 }
}

/// Makes a directory of a configuration, with its parents.
///
/// # Errors
/// One cannot be made.
pub fn make_dirs(dir: &Path) -> Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    std::fs::create_dir_all(dir).map_err(|cause| Error::io("create directory", dir, cause))?;
    for dir in missing {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir, mode).map_err(|cause| Error::io("set the mode of", dir, cause))?;
    }
    Ok(())
}

/// Lets those read a new log whom Debian lets read its logs. Only root, or a member of that group, can do that.
pub fn share_log(log: &Path) {
    if log.parent() == Some(Path::new(LOGS))
        && let Some(group) = readers()
    {
        let _ = std::os::unix::fs::chown(log, None, Some(group));
    }
}

/// What lets those read a log whom Debian lets read its logs; `None` if they can, or it is no log of Debian's.
pub fn share_log_command(log: &Path) -> Option<String> {
    let group = readers().filter(|_| log.parent() == Some(Path::new(LOGS)))?;
    let found = log.metadata().ok()?;
    (found.gid() != group).then(|| format!("chgrp {READERS} {}", log.display()))
}

fn readers() -> Option<u32> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    let group = |line: &str| line.strip_prefix(READERS)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok();
    text.lines().find_map(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_below_its_version() {
        let of = |path: &str| Cluster::of(Path::new(path));
        let cluster = of("/etc/postgresql/15/main/postgresql.conf").expect("a cluster");
        assert_eq!(cluster.replace_names("A = %v-%c-100%%c"), "A = 15-main-100%c");
        assert_eq!(of("/etc/postgresql/postgresql.conf"), None);
        assert_eq!(of("/etc/postgresql/15/main/conf.d/postgresql.conf"), None);
        assert_eq!(of("/srv/15/main/postgresql.conf"), None);
    }

    #[test]
    fn auto_becomes_manual() {
        assert_eq!(manual("# auto: so\n\nauto # by hand\n"), "# auto: so\n\nmanual # by hand\n");
        for text in [START_CONF, "disabled\n", "automatic\n", ""] {
            assert_eq!(manual(text), text);
        }
    }
}
