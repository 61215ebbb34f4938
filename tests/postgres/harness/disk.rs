//! A management directory on a small file system, which a test fills.

use super::pair::Pair;
use super::{s, wait_for};

/// The size of the space that a controller reserves for its ledger, in bytes.
const RESERVE: u64 = 1 << 20;

impl Pair {
    /// Puts the management directory of a server on a file system of 64 MB of its own, before its controller starts:
    /// large enough for what a rebuild keeps there, at least a segment of WAL.
    pub fn small_management(&self, server: usize) {
        let options = "size=64m,mode=700,uid=postgres,gid=postgres";
        let script =
            format!("cp -a $0 $0.kept && mount -t tmpfs -o {options} none $0 && cp -a $0.kept/. $0/ && rm -r $0.kept");
        self.in_management(server, &script);
    }

    /// Fills it, when the controller has reserved its space.
    pub fn fill_management(&self, server: usize) {
        let reserve = self.host(server).path(&self.run_dir(server).join("reserve"));
        wait_for("the space for the ledger is reserved", s(30), || {
            reserve.metadata().is_ok_and(|file| file.len() == RESERVE).then_some(())
        });
        self.in_management(server, "dd if=/dev/zero of=$0/filler bs=1k 2>/dev/null; true");
    }

    /// Removes the reserved space and fills what that frees, before the controller can reserve it again.
    pub fn fill_the_reserve(&self, server: usize) {
        let id = self.servers[server].id;
        self.in_management(
            server,
            &format!("rm $0/{id}/reserve && {{ dd if=/dev/zero of=$0/filler.more bs=1k 2>/dev/null; true; }}"),
        );
    }

    /// Removes what fills it.
    pub fn empty_management(&self, server: usize) {
        self.in_management(server, "rm $0/filler*");
    }

    /// Runs a script of the shell as root, which finds the management directory in `$0`.
    fn in_management(&self, server: usize, script: &str) {
        let dir = self.servers[server].management.to_str().expect("ASCII");
        self.as_root(server, &["sh", "-c", script, dir]);
    }
}
