//! Where an instance lives on this host: its directories and files, a plain value made from the configuration; and where Debian
//! keeps what it knows of.

use super::files::entries;
use super::{conf, process};
use crate::config::Config;
use std::path::{Path, PathBuf};

/// The paths of one instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The data directory, absolute and without symbolic links, as the kernel names it in `/proc`.
    pub data: PathBuf,
    /// `postgresql.conf`; may be a symbolic link, and may lie outside the data directory.
    pub config_file: PathBuf,
    /// The directory of `postgres` and `pg_ctl`.
    pub bin_dir: PathBuf,
    /// Major version, 12 or later.
    pub major: u32,
    /// What the postmaster writes before its own logging works.
    pub startup_log: PathBuf,
}

/// The clusters of Debian's layout: the directory of each one's configuration (`/etc/postgresql/VERSION/NAME`), and its data
/// directory.
pub fn debian_clusters() -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let clusters = entries(Path::new("/etc/postgresql")).into_iter().flat_map(|version| entries(&version));
    clusters.filter_map(|cluster| {
        let data = conf::effective("data_directory", &cluster.join("postgresql.conf"), Path::new("/nonexistent"))?;
        Some((cluster, data.into()))
    })
}

impl Place {
    /// The place of the instance of this configuration.
    pub fn new(config: &Config) -> Place {
        Place {
            data: process::home(&config.server.db_instance),
            config_file: config.server.config_file.clone(),
            bin_dir: config.server.bin_dir.clone(),
            major: config.server.major_version,
            startup_log: config.run_dir().join("startup.log"),
        }
    }

    /// Whether `postgresql.conf` is not where the postmaster looks for it by itself.
    pub fn config_elsewhere(&self) -> bool {
        self.config_file != self.data.join("postgresql.conf")
    }
}
