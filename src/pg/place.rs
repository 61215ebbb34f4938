//! Where an instance lives on this host: its directories and files, a plain value made from the configuration.

use super::{debian, process};
use crate::config::{Config, STARTUP_LOG};
use crate::error::{Error, Result};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
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
    /// What the postmaster writes to its standard error: its log if `logging_collector` is off, else what comes before that
    /// works.
    pub log_file: PathBuf,
    /// The same if that file cannot be opened.
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
            log_file: config.server.log_file.clone(),
            startup_log: config.run_dir().join(STARTUP_LOG),
        }
    }

    /// Opens the file for the log as the shell of `pg_ctl` does. A new one can be read by the group, as Debian's can.
    ///
    /// # Errors
    /// It cannot be opened for appending, or is no file.
    pub fn open_log(&self) -> Result<()> {
        let failed = |cause| Error::io("open PostgreSQL's log file", &self.log_file, cause);
        let new = !self.log_file.exists();
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).mode(0o640).open(&self.log_file).map_err(failed)?;
        if new {
            debian::share_log(&self.log_file);
        }
        let is_file = opened.metadata().map_err(failed)?.is_file();
        if is_file { Ok(()) } else { Err(Error::io("open PostgreSQL's log file", &self.log_file, "it is no file")) }
    }

    /// Whether `postgresql.conf` is not where the postmaster looks for it by itself.
    pub fn config_elsewhere(&self) -> bool {
        self.config_file != self.data.join("postgresql.conf")
    }
}
