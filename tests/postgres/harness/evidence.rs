//! What a failed soak leaves behind: logs and management directories of all members.

use super::pair::Pair;
use super::run::run;
use super::s;
use std::path::Path;
use std::process::Command;

impl Pair {
    /// Saves what all members have logged, PostgreSQL's logs and the management directories in a directory. Nothing here
    /// fails: it is called after a failure.
    pub fn save_logs(&self, dir: &Path) {
        let _ = std::fs::create_dir_all(dir);
        let _ = std::fs::write(dir.join("syslog"), self.all_logged().join("\n"));
        for server in &self.servers {
            let log = server.data.join("log/postgresql.log");
            let _ = std::fs::copy(log, dir.join(format!("{}.postgresql.log", server.id)));
        }
        for host in self.hosts.iter().chain(&self.arbiter) {
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(host.dir.join("mc")).arg(dir.join(format!("{}.mc", host.name)));
            run(copy, s(30));
            let processes: Vec<_> = host.processes().iter().map(|p| format!("{p:?}")).collect();
            let _ = std::fs::write(dir.join(format!("{}.processes", host.name)), processes.join("\n"));
        }
    }
}
