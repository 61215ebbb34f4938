//! The commands that the program's own output names, run as an operator pastes them: in a shell, with the directory in the
//! environment.

use super::pair::{Pair, program};
use super::run::{Answer, run};
use super::{arbiter, s, wait_for};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// What is confirmed on a terminal.
const CONFIRMED: [&str; 3] = ["--force", "--adopt-data", "mc_ctl rebuild"];

fn shell(mut command: Command, programs: &Path, directory: &str, line: &str) -> Answer {
    let yes = if CONFIRMED.iter().any(|part| line.contains(part)) { " --yes" } else { "" };
    command.arg(directory);
    command.arg(format!("PATH={}:/usr/bin:/bin", programs.parent().expect("a directory").display()));
    command.args(["sh", "-c", &format!("{line}{yes}")]);
    run(command, s(600))
}

/// The commands in quotation marks.
pub fn commands(text: &str) -> Vec<String> {
    let quoted = text.match_indices('"').step_by(2).filter_map(|(at, _)| text[at + 1..].split('"').next());
    let ours =
        |text: &&str| ["mc_ctl ", "mc_arb ", "psql ", "systemctl ", "mv "].iter().any(|start| text.starts_with(start));
    quoted.filter(ours).map(str::to_owned).collect()
}

impl Pair {
    /// Runs a line on the server.
    #[track_caller]
    pub fn paste(&self, server: usize, line: &str) -> Answer {
        let directory = format!("MCCONTROLDIR={}", self.servers[server].management.display());
        shell(self.host(server).admin("env"), program(), &directory, line)
    }

    /// Runs a line on the arbiter's host.
    #[track_caller]
    pub fn paste_to_arbiter(&self, line: &str) -> Answer {
        let directory = format!("ARBCONTROLDIR={}", self.arbiter_dir().display());
        shell(self.third().admin("env"), arbiter::program(), &directory, line)
    }

    /// The command that `mc_ctl explain` names for the message.
    #[track_caller]
    pub fn explained(&self, server: usize, number: u32) -> String {
        let text = self.paste(server, &format!("mc_ctl explain MCA{number:05}")).expect(0, "mc_ctl explain").out;
        let line = text.lines().find_map(|line| line.strip_prefix("Command:"));
        line.unwrap_or_else(|| panic!("no command in {text}")).trim().to_owned()
    }

    /// Waits until the server has logged the message since `at`, and runs its command there, which must succeed.
    #[track_caller]
    pub fn run_explained(&self, server: usize, at: Instant, number: u32) -> Answer {
        self.wait_log(server, at, &format!("(MCA{number:05})"), s(30));
        let line = self.explained(server, number);
        self.paste(server, &line).expect(0, &line)
    }

    /// The last command of the hint of `mc_ctl status` on the server that contains the text.
    #[track_caller]
    pub fn hinted(&self, server: usize, about: &str) -> String {
        wait_for(&format!("a hint with a command: {about}"), s(45), || {
            let text = self.mc(server, &["status"]).err;
            let hint = text.lines().find(|line| line.starts_with("HINT: ") && line.contains(about))?;
            commands(hint).pop()
        })
    }

    /// Runs that command on the server, which must succeed.
    #[track_caller]
    pub fn run_hinted(&self, server: usize, about: &str) -> Answer {
        let line = self.hinted(server, about);
        self.paste(server, &line).expect(0, &line)
    }
}
