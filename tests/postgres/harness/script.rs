//! Commands of the user's: real scripts that write down how they were called.

use super::host::Host;
use super::pair::own;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A script on a host.
pub struct Script {
    path: PathBuf,
    log: PathBuf,
}

impl Script {
    /// One that writes down its arguments and environment, then does this.
    pub fn new(host: &Host, name: &str, then: &str) -> Script {
        let dir = host.dir.join("scripts");
        std::fs::create_dir_all(&dir).expect("could not create a directory");
        let script = Script { path: dir.join(name), log: dir.join(format!("{name}.log")) };
        script.set(then);
        std::fs::write(&script.log, "").expect("could not write");
        own(&dir);
        script
    }

    /// What it does from now on, after it has written down how it was called.
    pub fn set(&self, then: &str) {
        let note = "echo \"$*|$MC_TERM|$MC_REASON|$MC_DATA_DIRECTORY|$(pwd)\"";
        let text = format!("#!/bin/sh\n{note} >> '{}'\n{then}\n", self.log.display());
        // as a whole, since it may be started at any time
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).expect("could not write");
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).expect("could not chmod");
        own(&new);
        std::fs::rename(&new, &self.path).expect("could not rename");
    }

    /// The line that names it in a configuration file.
    pub fn line(&self, key: &str) -> String {
        format!("{key} = '{}'", self.path.display())
    }

    /// How it was called, each time: arguments, then `MC_TERM`, `MC_REASON`, `MC_DATA_DIRECTORY` and its directory.
    pub fn calls(&self) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(|line| line.split('|').map(ToString::to_string).collect()).collect()
    }

    /// Its arguments, each time.
    pub fn arguments(&self) -> Vec<String> {
        self.calls().iter().map(|call| call[0].clone()).collect()
    }
}
