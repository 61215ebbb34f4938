//! The instance administrator user of the tests that run `mc_ctl`, which refuses root: `postgres` where root runs them, else
//! whoever does.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

pub struct User(Option<u32>);

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn uid_of_postgres() -> u32 {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:"));
    let line = line.expect("run as root, these tests need the OS user \"postgres\": apt-get install postgresql-common");
    line.split(':').nth(2).unwrap().parse().unwrap()
}

impl User {
    pub fn new() -> User {
        User(is_root().then(uid_of_postgres))
    }

    /// Gives a file or directory to this user.
    pub fn own(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        if let Some(uid) = self.0 {
            chown(path, Some(uid), None).unwrap();
        }
    }

    /// Copies `mc_ctl` to where this user can run it. By a process of its own: were the copy's file open for writing in this
    /// one, a child that another test forks meanwhile would keep it so, and it could not be run ("Text file busy").
    pub fn copy_mc_ctl(&self, to: &Path) {
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_mc_ctl")).arg(to).status();
        assert!(copied.unwrap().success());
        self.own(to, 0o755);
    }

    /// A program as this user, with nothing in its environment but a PATH.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = match self.0 {
            None => Command::new(program),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &uid.to_string(), "--clear-groups"]).arg(program);
                command
            }
        };
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}
