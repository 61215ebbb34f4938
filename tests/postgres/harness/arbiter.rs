//! The arbiter of a pair: its directory on a host of its own, and `mc_arb`.

use super::host::{Host, Process};
use super::pair::{Pair, Setup, own, readable, write_private};
use super::run::{Answer, run};
use super::wait_for;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// The arbiter's program, where the user postgres can read it.
pub fn program() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| readable(Path::new(env!("CARGO_BIN_EXE_mc_arb"))))
}

impl Pair {
    /// The arbiter's host.
    #[track_caller]
    pub fn third(&self) -> &Host {
        self.arbiter.as_ref().expect("this pair has an arbiter")
    }

    /// The arbiter's directory.
    pub fn arbiter_dir(&self) -> PathBuf {
        self.third().dir.join("mc")
    }

    pub(super) fn install_arbiter(&self, setup: &Setup, key: &str) {
        let dir = self.arbiter_dir();
        std::fs::create_dir_all(&dir).expect("could not create a directory");
        let conf: String = setup.arbiter_conf.iter().map(|line| format!("{line}\n")).collect();
        write_private(&dir.join("network.conf"), &self.network_conf(setup));
        write_private(&dir.join("arbitration.conf"), &conf);
        write_private(&dir.join("mc.key"), key);
        own(&dir);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).expect("could not chmod");
    }

    /// One more line in `arbitration.conf`, before it is started.
    pub fn arbiter_line(&self, line: &str) {
        let path = self.arbiter_dir().join("arbitration.conf");
        let text = std::fs::read_to_string(&path).expect("could not read");
        write_private(&path, &format!("{text}{line}\n"));
    }

    /// Runs `mc_arb`.
    #[track_caller]
    pub fn arb(&self, words: &[&str]) -> Answer {
        let mut command = self.third().admin(program().to_str().expect("ASCII"));
        command.args(words).arg("-M").arg(self.arbiter_dir());
        run(command, Duration::from_secs(60))
    }

    /// `mc_arb start`, which must succeed.
    #[track_caller]
    pub fn start_arbiter(&self) {
        self.arb(&["start", "-w"]).expect(0, "mc_arb start");
    }

    /// The arbiter's processes, parents first.
    pub fn arbiters(&self) -> Vec<Process> {
        self.third().running("mc_arb")
    }

    /// Waits until the view names an arbiter, and both servers see it.
    #[track_caller]
    pub fn wait_arbiter_named(&self) {
        wait_for("the pair is mirrored with its arbiter named", Duration::from_secs(45), || {
            let named = |n: usize| {
                let view = self.view(n)?;
                (view["arbiter_ledger"].is_string() && view["mode"] == "mirrored").then_some(())
            };
            named(0)?;
            named(1)
        });
    }

    /// The view as the server tells it.
    pub fn view(&self, server: usize) -> Option<serde_json::Value> {
        self.json(server).map(|told| told["view"].clone()).filter(serde_json::Value::is_object)
    }

    /// `mc_ctl status --format json` of the server.
    pub fn json(&self, server: usize) -> Option<serde_json::Value> {
        let answer = self.mc(server, &["status", "--format", "json"]);
        (answer.code == 0).then(|| serde_json::from_str(&answer.out).ok()).flatten()
    }

    /// Whether the server sees the arbiter: the third column of `mc_ctl status --arbiter`.
    pub fn arbiter_status(&self, server: usize) -> Option<String> {
        let answer = self.mc(server, &["status", "--arbiter"]);
        let line = answer.out.lines().find(|l| l.starts_with("arb "))?;
        line.split_whitespace().last().map(ToString::to_string)
    }
}
