//! Where an instance lives on this host: its directories and files. A plain value, made from the configuration.

use super::process;
use crate::config::Config;
use std::path::PathBuf;

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
