//! How a watcher and a controller are told what to do, and what they tell their parents first.
//!
//! Called by `watcher.rs` alone.

use crate::config::{Config, ServerFile};
use crate::error::{Error, Result};
use crate::fsm::event::StartedBy;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The first line that a watcher or controller writes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FirstLine {
    Ready { found: Found },
    Failed { message: String, hint: String },
}

/// What a controller found out about its instance, for the next one: by then the disk may have failed.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Found {
    pub config_file: PathBuf,
    pub bin_dir: PathBuf,
    pub major_version: u32,
}

impl Found {
    pub fn of(config: &Config) -> Found {
        let ServerFile { config_file, bin_dir, major_version, .. } = &config.server;
        Found { config_file: config_file.clone(), bin_dir: bin_dir.clone(), major_version: *major_version }
    }
}

impl FirstLine {
    pub fn write(&self, to: &mut impl Write) {
        if let Ok(mut line) = serde_json::to_vec(self) {
            line.push(b'\n');
            let _ = to.write_all(&line);
        }
    }

    pub fn of(error: &Error) -> FirstLine {
        FirstLine::Failed { message: error.message.clone(), hint: error.hint.clone() }
    }

    pub fn result(self) -> Result<()> {
        match self {
            FirstLine::Ready { .. } => Ok(()),
            FirstLine::Failed { message, hint } => Err(Error { message, hint }),
        }
    }
}

/// What the hidden arguments say: `--watcher|--controller DIR ID START_ID instance|mc-only|rebuild|again on|off|keep FOUND`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Launch {
    pub dir: PathBuf,
    pub id: String,
    pub start_id: u64,
    pub by: StartedBy,
    /// Empty where no controller has started yet.
    pub found: Found,
}

impl Launch {
    fn arguments(&self) -> [std::ffi::OsString; 6] {
        let (how, failover) = match self.by {
            StartedBy::Operator { instance: true, failover } => ("instance", failover),
            StartedBy::Operator { instance: false, failover } => ("mc-only", failover),
            StartedBy::Rebuild => ("rebuild", None),
            StartedBy::Watcher => ("again", None),
        };
        let failover = match failover {
            Some(true) => "on",
            Some(false) => "off",
            None => "keep",
        };
        let start_id = self.start_id.to_string();
        // Paths that are not UTF-8 are not passed on; the next controller finds them by itself.
        let found = serde_json::to_string(&self.found).unwrap_or_default();
        [self.dir.clone().into(), self.id.clone().into(), start_id.into(), how.into(), failover.into(), found.into()]
    }

    pub fn parse(arguments: &[std::ffi::OsString]) -> Option<Launch> {
        let [dir, id, start_id, how, failover, found] = arguments else { return None };
        let failover = match failover.to_str()? {
            "on" => Some(true),
            "off" => Some(false),
            "keep" => None,
            _ => return None,
        };
        let by = match how.to_str()? {
            "instance" => StartedBy::Operator { instance: true, failover },
            "mc-only" => StartedBy::Operator { instance: false, failover },
            "rebuild" => StartedBy::Rebuild,
            "again" => StartedBy::Watcher,
            _ => return None,
        };
        let (id, start_id) = (id.to_str()?.to_owned(), start_id.to_str()?.parse().ok()?);
        let found = serde_json::from_str(found.to_str()?).unwrap_or_default();
        Some(Launch { dir: dir.into(), id, start_id, by, found })
    }

    /// This program, called `name`, as `as_what`. By its path where that still names it, so that `ps` shows it.
    pub fn command(&self, name: &str, as_what: &str) -> Command {
        let program = std::env::current_exe().ok().filter(|path| path.exists());
        let mut command = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()));
        command.arg0(name).arg(as_what).args(self.arguments());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_arguments_come_back() {
        for by in [
            StartedBy::Operator { instance: true, failover: Some(true) },
            StartedBy::Operator { instance: false, failover: Some(false) },
            StartedBy::Operator { instance: true, failover: None },
            StartedBy::Rebuild,
            StartedBy::Watcher,
        ] {
            let found = Found { config_file: "/etc/pg/\"x\".conf".into(), bin_dir: "/b".into(), major_version: 15 };
            let launch = Launch { dir: "/mc".into(), id: "nd1".into(), start_id: u64::MAX, by, found };
            assert_eq!(Launch::parse(&launch.arguments()), Some(launch));
        }
        assert_eq!(Launch::parse(&["/mc".into(), "nd1".into()]), None);
    }

    #[test]
    fn first_lines_come_back() {
        let failed = Error::new("x\n\"y\"").hint("z");
        for line in [FirstLine::Ready { found: Found::default() }, FirstLine::of(&failed)] {
            let mut bytes = Vec::new();
            line.write(&mut bytes);
            assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<FirstLine>(&bytes).unwrap(), line);
        }
    }
}
