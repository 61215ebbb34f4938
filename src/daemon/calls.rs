//! Calls the operator's commands for the decision thread (mc_hooks(5)), each on a thread of its own, beside whatever
//! the runner does: `fencing_command` and `arbitration_command`, and the hooks beside them. Decides nothing; what a command
//! ended with goes to the inbox. `user_command.rs` runs the program.

use super::{Inbox, lock, spawn, user_command};
use crate::config::Config;
use crate::fsm::event::{Aim, Event, Hook, JobId, Purpose, UserCommand};
use crate::pg::bounded::{Cancel, Canceller};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The last argument of every command: which of two centres this is. There is one (later editions know another).
const CENTRE: &str = "primarycenter";

/// A program and its time limit.
type Program = Option<(PathBuf, Duration)>;

/// The programs of the configuration.
#[derive(Clone, Default)]
pub struct Programs {
    fencing: Program,
    arbitration: Program,
    post_switch: Program,
    pre_detach: Program,
    post_attach: Program,
}

impl Programs {
    /// As the configuration says.
    pub fn of(config: &Config) -> Programs {
        let server = &config.server;
        let program = |path: &Option<PathBuf>, ms| path.clone().map(|path| (path, Duration::from_millis(ms)));
        let hook_ms = server.status_change_command_timeout_ms;
        Programs {
            fencing: program(&server.fencing_command, server.fencing_command_timeout_ms),
            arbitration: program(&server.arbitration_command, server.arbitration_command_timeout_ms),
            post_switch: program(&server.post_switch_command, hook_ms),
            pre_detach: program(&server.pre_detach_command, hook_ms),
            post_attach: program(&server.post_attach_command, hook_ms),
        }
    }
}

/// The programs, and the calls that are in progress. Dropping it ends them.
pub struct Calls {
    /// A reload replaces them.
    programs: Arc<Mutex<Programs>>,
    /// The servers' ids, in the order of `network.conf`.
    ids: [String; 2],
    /// This server's id.
    caller: String,
    data: PathBuf,
    inbox: Inbox,
    /// What goes before something, and the hook: each may run while the other does.
    running: [Option<(JobId, Canceller)>; 2],
    /// Commands of which some process still runs.
    out: Arc<AtomicUsize>,
}

impl Calls {
    /// As the configuration says.
    pub fn new(config: &Config, inbox: Inbox) -> Calls {
        Calls {
            programs: Arc::new(Mutex::new(Programs::of(config))),
            ids: config.network.servers.clone().map(|line| line.id),
            caller: config.id.clone(),
            data: config.server.db_instance.clone(),
            inbox,
            running: [None, None],
            out: Arc::default(),
        }
    }

    /// The programs, to be replaced by a reload.
    pub fn programs(&self) -> Arc<Mutex<Programs>> {
        self.programs.clone()
    }

    /// Calls a command; what comes of it is told by [`Event::CommandDone`], within its time limit.
    pub fn call(&mut self, id: JobId, command: &UserCommand) {
        let programs = lock(&self.programs).clone();
        let (lane, program) = match command.purpose {
            Purpose::Fencing => (0, programs.fencing),
            Purpose::Arbitration => (0, programs.arbitration),
            Purpose::Hook(Hook::PostSwitch) => (1, programs.post_switch),
            Purpose::Hook(Hook::PreDetach) => (1, programs.pre_detach),
            Purpose::Hook(Hook::PostAttach) => (1, programs.post_attach),
        };
        let Some((path, limit)) = program else {
            self.inbox.put(Event::CommandDone(id, Err(format!("{} is not set", command.purpose.parameter()))));
            return;
        };
        let (arguments, environment) = (self.arguments(command), self.environment(command));
        let (canceller, cancel) = Cancel::new();
        self.running[lane] = Some((id, canceller));
        let inbox = self.inbox.clone();
        let out = self.out.clone();
        out.fetch_add(1, Ordering::SeqCst);
        let work = move || {
            let ended = user_command::run(&path, &arguments, &environment, limit, &cancel);
            out.fetch_sub(1, Ordering::SeqCst);
            inbox.put(Event::CommandDone(id, ended.map_err(|error| error.to_string())));
        };
        if let Err(error) = spawn("user-command", work) {
            self.out.fetch_sub(1, Ordering::SeqCst);
            self.inbox.put(Event::CommandDone(id, Err(error.to_string())));
        }
    }

    /// Ends a command, if it still runs.
    pub fn call_off(&mut self, id: JobId) {
        for lane in &mut self.running {
            // Dropping the canceller cancels.
            drop(lane.take_if(|(running, _)| *running == id));
        }
    }

    /// Ends what runs, and waits until it is gone; at most so long.
    pub fn finish(mut self, limit: Duration) {
        self.running = [None, None];
        let deadline = Instant::now() + limit;
        while self.out.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn arguments(&self, command: &UserCommand) -> Vec<String> {
        let mode = if command.by_operator { "command" } else { "monitor" };
        let aim = match command.aim {
            Aim::Switch => "switch",
            Aim::Detach => "detach",
            Aim::Attach => "attach",
        };
        let target = self.ids[command.target.index()].as_str();
        // Of a hook that is about the standby, the target is that.
        let role = if target == self.caller { "standby" } else { "primary" };
        let arguments: &[&str] = match command.purpose {
            Purpose::Fencing => &[mode, aim, &self.caller, target, CENTRE],
            Purpose::Arbitration => &[&self.caller, target, CENTRE],
            Purpose::Hook(Hook::PostSwitch) => &[target, CENTRE],
            Purpose::Hook(Hook::PreDetach | Hook::PostAttach) => &[&self.caller, role, target, CENTRE],
        };
        arguments.iter().map(|&argument| argument.to_owned()).collect()
    }

    fn environment(&self, command: &UserCommand) -> Vec<(String, String)> {
        vec![
            ("MC_COMMAND".to_owned(), command.purpose.parameter().to_owned()),
            ("MC_TERM".to_owned(), command.term.to_string()),
            ("MC_REASON".to_owned(), command.reason.clone()),
            ("MC_DATA_DIRECTORY".to_owned(), self.data.display().to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{Server, Term};
    use std::path::Path;

    /// Written by another process: see `user_command.rs`.
    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("command");
        let write = "printf '%s' \"$1\" > \"$0\" && chmod 700 \"$0\"";
        let written = std::process::Command::new("sh").args(["-c", write]).arg(&path).arg(text).status();
        assert!(written.unwrap().success());
        path
    }

    /// What a script that says its arguments and environment is called with, by way of the reason for its failure.
    fn called(purpose: Purpose, by_operator: bool, aim: Aim, target: Server) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let text =
            "#!/bin/sh\necho \"$* by $MC_COMMAND term $MC_TERM reason $MC_REASON data $MC_DATA_DIRECTORY\"\nexit 7\n";
        let program = Some((script(dir.path(), text), Duration::from_secs(20)));
        let (inbox, events) = Inbox::new();
        let mut calls = Calls {
            programs: Arc::new(Mutex::new(Programs {
                fencing: program.clone(),
                arbitration: program.clone().filter(|_| by_operator),
                post_switch: program.clone(),
                pre_detach: program.clone(),
                post_attach: program,
            })),
            ids: ["nd1".into(), "nd2".into()],
            caller: "nd2".into(),
            data: "/data/pg".into(),
            inbox,
            running: [None, None],
            out: Arc::default(),
        };
        let reason = "so it is".to_owned();
        let command = UserCommand { purpose, by_operator, aim, target, term: Term(4), reason };
        calls.call(JobId(3), &command);
        match events.recv_timeout(Duration::from_secs(20)).unwrap().1 {
            Event::CommandDone(JobId(3), ended) => ended,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_commands_are_called_with() {
        let (one, two) = (Server::First, Server::Second);
        let check = |purpose, by_operator, aim, target, expected: &str| {
            let why = called(purpose, by_operator, aim, target).unwrap_err();
            let name = Purpose::parameter(purpose);
            let rest = format!("primarycenter by {name} term 4 reason so it is data /data/pg");
            assert!(why.ends_with(&format!("ended with exit code 7: {expected} {rest}")), "{why}");
        };
        check(Purpose::Fencing, false, Aim::Switch, one, "monitor switch nd2 nd1");
        check(Purpose::Fencing, true, Aim::Detach, one, "command detach nd2 nd1");
        check(Purpose::Arbitration, true, Aim::Switch, one, "nd2 nd1");
        check(Purpose::Hook(Hook::PostSwitch), false, Aim::Switch, two, "nd2");
        check(Purpose::Hook(Hook::PreDetach), false, Aim::Detach, one, "nd2 primary nd1");
        check(Purpose::Hook(Hook::PostAttach), false, Aim::Attach, two, "nd2 standby nd2");
        let unset = called(Purpose::Arbitration, false, Aim::Switch, one);
        assert_eq!(unset, Err("arbitration_command is not set".into()));
    }
}
