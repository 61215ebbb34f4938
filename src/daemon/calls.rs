//! Calls the operator's commands for the decision thread: `fencing_command` and `arbitration_command` (CONTRACT section
//! 7), each on a thread of its own, beside whatever the runner does. Decides nothing; what a command ended with goes to
//! the inbox. `user_command.rs` runs the program.

use super::{Inbox, spawn, user_command};
use crate::config::Config;
use crate::fsm::event::{Aim, Event, JobId, Purpose, UserCommand};
use crate::pg::bounded::{Cancel, Canceller};
use std::path::PathBuf;
use std::time::Duration;

/// The last argument of every command: which of two centres this is. There is one (later editions know another).
const CENTRE: &str = "primarycenter";

/// A program and its time limit.
type Program = Option<(PathBuf, Duration)>;

/// What is called, and what runs now. Dropping it ends what runs.
pub struct Calls {
    fencing: Program,
    arbitration: Program,
    /// The servers' ids, in the order of `network.conf`.
    ids: [String; 2],
    /// This server's id.
    caller: String,
    data: PathBuf,
    inbox: Inbox,
    running: Option<Canceller>,
}

impl Calls {
    /// As the configuration says.
    pub fn new(config: &Config, inbox: Inbox) -> Calls {
        let server = &config.server;
        let program = |path: &Option<PathBuf>, ms| path.clone().map(|path| (path, Duration::from_millis(ms)));
        Calls {
            fencing: program(&server.fencing_command, server.fencing_command_timeout_ms),
            arbitration: program(&server.arbitration_command, server.arbitration_command_timeout_ms),
            ids: config.network.servers.clone().map(|line| line.id),
            caller: config.id.clone(),
            data: server.db_instance.clone(),
            inbox,
            running: None,
        }
    }

    /// Calls a command; what comes of it is told by [`Event::CommandDone`], within its time limit.
    pub fn call(&mut self, id: JobId, command: &UserCommand) {
        let (name, program) = match command.purpose {
            Purpose::Fencing => ("fencing_command", &self.fencing),
            Purpose::Arbitration => ("arbitration_command", &self.arbitration),
        };
        let Some((path, limit)) = program.clone() else {
            self.inbox.put(Event::CommandDone(id, Err(format!("{name} is not set"))));
            return;
        };
        let (arguments, environment) = (self.arguments(command), self.environment(command));
        let (canceller, cancel) = Cancel::new();
        self.running = Some(canceller);
        let inbox = self.inbox.clone();
        let work = move || {
            let ended = user_command::run(&path, &arguments, &environment, limit, &cancel);
            inbox.put(Event::CommandDone(id, ended.map_err(|error| error.to_string())));
        };
        if let Err(error) = spawn("user-command", work) {
            self.inbox.put(Event::CommandDone(id, Err(error.to_string())));
        }
    }

    fn arguments(&self, command: &UserCommand) -> Vec<String> {
        let mode = if command.by_operator { "command" } else { "monitor" };
        let aim = match command.aim {
            Aim::Switch => "switch",
            Aim::Detach => "detach",
        };
        let target = self.ids[command.target.index()].as_str();
        let arguments: &[&str] = match command.purpose {
            Purpose::Fencing => &[mode, aim, &self.caller, target, CENTRE],
            Purpose::Arbitration => &[&self.caller, target, CENTRE],
        };
        arguments.iter().map(|&argument| argument.to_owned()).collect()
    }

    fn environment(&self, command: &UserCommand) -> Vec<(String, String)> {
        vec![
            ("MC_TERM".to_owned(), command.term.to_string()),
            ("MC_REASON".to_owned(), command.reason.to_owned()),
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
    fn called(purpose: Purpose, by_operator: bool, aim: Aim) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let text = "#!/bin/sh\necho \"$* term $MC_TERM reason $MC_REASON data $MC_DATA_DIRECTORY\"\nexit 7\n";
        let program = Some((script(dir.path(), text), Duration::from_secs(20)));
        let (inbox, events) = Inbox::new();
        let mut calls = Calls {
            fencing: program.clone(),
            arbitration: program.filter(|_| by_operator),
            ids: ["nd1".into(), "nd2".into()],
            caller: "nd2".into(),
            data: "/data/pg".into(),
            inbox,
            running: None,
        };
        let command =
            UserCommand { purpose, by_operator, aim, target: Server::First, term: Term(4), reason: "so it is" };
        calls.call(JobId(3), &command);
        match events.recv_timeout(Duration::from_secs(20)).unwrap().1 {
            Event::CommandDone(JobId(3), ended) => ended,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_commands_are_called_with() {
        let check = |purpose, by_operator, aim, expected: &str| {
            let why = called(purpose, by_operator, aim).unwrap_err();
            assert!(why.ends_with(&format!("ended with exit code 7: {expected}")), "{why}");
        };
        let rest = "nd2 nd1 primarycenter term 4 reason so it is data /data/pg";
        check(Purpose::Fencing, false, Aim::Switch, &format!("monitor switch {rest}"));
        check(Purpose::Fencing, true, Aim::Detach, &format!("command detach {rest}"));
        check(Purpose::Arbitration, true, Aim::Switch, rest);
        assert_eq!(called(Purpose::Arbitration, false, Aim::Switch), Err("arbitration_command is not set".into()));
    }
}
