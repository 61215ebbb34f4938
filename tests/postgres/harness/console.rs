//! The web console on the servers of a pair: `mc_web`, its users, and a browser that is logged in.

use super::browser::Browser;
use super::host::{Process, signal};
use super::pair::{Pair, program as mc_ctl, readable, write_private};
use super::run::run;
use super::{s, wait_for};
use rustix::process::Signal;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Its address on each server.
pub const URL: &str = "http://127.0.0.1:27515/";
/// The password of every user of the tests.
pub const PASSWORD: &str = "correct horse battery staple";

fn program() -> &'static Path {
    static COPY: OnceLock<std::path::PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        mc_ctl(); // beside it: the console runs mc_ctl of its own directory
        readable(Path::new(env!("CARGO_BIN_EXE_mc_web")))
    })
}

impl Pair {
    /// Starts the consoles of both servers, which can reach each other, with an operator `dba` and a viewer `guest`.
    #[track_caller]
    pub fn start_consoles(&self) {
        for server in [0, 1] {
            write_private(&self.servers[server].management.join("web.conf"), "peer_port = 27516\n");
            for (user, role) in [("dba", "operator"), ("guest", "viewer")] {
                let script = format!(
                    "printf '%s\\n' '{PASSWORD}' | {} passwd -M {} --role {role} {user}",
                    program().display(),
                    self.servers[server].management.display()
                );
                let mut command = self.host(server).admin("sh");
                command.args(["-c", &script]);
                run(command, s(60)).expect(0, "mc_web passwd");
            }
            self.start_console(server);
        }
    }

    /// `mc_web start`.
    #[track_caller]
    pub fn start_console(&self, server: usize) {
        let mut command = self.host(server).admin(program().to_str().expect("ASCII"));
        command.arg("start").arg("-M").arg(&self.servers[server].management);
        run(command, s(60)).expect(0, "mc_web start");
    }

    /// The processes of the console of a server.
    pub fn console(&self, server: usize) -> Vec<Process> {
        self.host(server).running("mc_web")
    }

    /// Sends a signal to each of them.
    pub fn signal_console(&self, server: usize, which: Signal) {
        self.console(server).iter().for_each(|process| signal(process.pid, which));
    }
}

impl Browser<'_> {
    /// Opens the console and logs in.
    #[track_caller]
    pub fn log_in(&self, user: &str) {
        self.go(URL);
        self.enter("#user", user);
        self.enter("#password", PASSWORD);
        self.click("#login button");
        self.wait_count("#console", 1);
        self.wait_text("#live", "live");
    }

    /// Clicks an action, confirms it, and waits until it has ended well.
    #[track_caller]
    pub fn act(&self, action: &str) {
        self.open_action(action);
        self.run_action();
        self.finish_action();
    }

    /// Opens the dialog of an action, as soon as the action is possible, and waits for its plan.
    #[track_caller]
    pub fn open_action(&self, action: &str) {
        let button = format!("#action-list [data-action={action}]:not([aria-disabled])");
        self.wait_count(&button, 1);
        self.click(&button);
        self.wait_count("dialog .cmd", 1);
    }

    /// Runs what the dialog shows. If it asks for the name of a server, it runs nothing before that name is entered.
    #[track_caller]
    pub fn run_action(&self) {
        if self.count("#confirm") == 1 {
            let name = self.text("dialog label strong");
            for part in [&name[..1], &name[1..]] {
                assert_eq!(self.count("#run:disabled"), 1, "a dangerous action runs without the name of the server");
                self.enter("#confirm", part);
            }
        }
        self.wait_count("#run:enabled", 1);
        self.click("#run");
    }

    /// Waits for the end of the action, closes the dialog, and returns whether the action succeeded, and its output.
    #[track_caller]
    pub fn end_action(&self) -> (bool, String) {
        let end = wait_for("the action ends", Duration::from_secs(180), || {
            let text = self.text("dialog [role=status]");
            ["Done.", "Failed"].iter().any(|end| text.contains(end)).then_some(text)
        });
        let output = self.text("dialog pre");
        self.click("#job-close");
        self.wait_count("dialog[open]", 0);
        (end.contains("Done."), output)
    }

    /// The same for an action that must succeed.
    #[track_caller]
    pub fn finish_action(&self) -> String {
        let (done, output) = self.end_action();
        assert!(done, "the action failed: {output}");
        output
    }
}
