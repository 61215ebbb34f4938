//! The command for each message of type ERROR and above: what an operator pastes first. `mc_ctl explain` and the manual print it.
//!
//! Each is valid in the state that the message reports. If no single command repairs the fault, it is the one that shows the
//! state and, in its hints, the next command. `tests/remedies.txt` names the case that provokes each message and runs it.

/// What `systemctl` does with a unit that runs the controller, in place of the command of `mc_ctl` with the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Starts the controller and its instance.
    Start,
    /// Stops both.
    Stop,
    /// Reads the configuration files again.
    Reload,
}

impl Verb {
    fn text(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Reload => "reload",
        }
    }
}

/// How a command is given on a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// By `mc_ctl`.
    Direct,
    /// By `systemctl`, to the unit of this name.
    Unit(String),
}

impl Form {
    /// The command line.
    pub fn command(&self, verb: Verb) -> String {
        match self {
            Form::Direct => format!("mc_ctl {}", verb.text()),
            Form::Unit(unit) => format!("systemctl {} {unit}", verb.text()),
        }
    }
}

/// What to run, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command {
    /// The message's number.
    pub number: u32,
    /// The command. Words in capital letters stand for a value that the message contains.
    pub line: &'static str,
    /// The host on which it is run.
    pub on: &'static str,
    /// What has the same effect if a unit runs the controller.
    pub verb: Option<Verb>,
}

impl Command {
    /// The command line in this form.
    pub fn line_in(&self, form: &Form) -> String {
        match (form, self.verb) {
            (Form::Unit(_), Some(verb)) => form.command(verb),
            _ => self.line.to_owned(),
        }
    }
}

/// The command for the message of this number; `None` below ERROR.
pub fn find(number: u32) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.number == number)
}

const THIS: &str = "this server";
const ARBITER: &str = "the arbiter's host";

const fn c(number: u32, line: &'static str, on: &'static str) -> Command {
    Command { number, line, on, verb: None }
}

const fn s(number: u32, line: &'static str, on: &'static str, verb: Verb) -> Command {
    Command { number, line, on, verb: Some(verb) }
}

/// By number.
#[rustfmt::skip]
pub static COMMANDS: &[Command] = &[
    c(19, "mc_ctl status", THIS),
    s(152, "mc_ctl start --async-connect-arbiter", THIS, Verb::Start),
    c(1003, "mc_ctl status", "the server whose instance has failed"),
    c(1006, "mc_ctl status", THIS),
    c(1015, "mc_ctl status", THIS),
    c(1020, "mc_ctl start", THIS),
    c(1021, "mc_ctl status", THIS),
    c(1024, "mc_ctl rebuild --method basebackup", "the server whose instance was stopped"),
    c(1028, "mc_ctl status", THIS),
    c(1029, "mc_ctl rebuild", "the server that is to be the standby"),
    c(1036, "mc_ctl status", THIS),
    s(1038, "mc_ctl stop", "the server whose commits are not to be kept", Verb::Stop),
    c(1042, "mc_ctl status", THIS),
    c(1046, "mc_ctl rebuild", THIS),
    c(1053, "mc_ctl status", THIS),
    c(1054, "mc_ctl status", "the standby"),
    c(1055, "mc_ctl start --adopt-data", "the server whose data is to be kept"),
    c(1056, "mc_ctl start --adopt-data", "the server whose data is to be kept"),
    c(1102, "mc_ctl status", THIS),
    c(1103, "mc_ctl status", THIS),
    c(1117, "mc_ctl status", THIS),
    s(1118, "mc_ctl start", THIS, Verb::Start),
    c(1119, "mc_ctl status", THIS),
    c(1132, "mc_arb status", ARBITER),
    c(1133, "mc_arb status", ARBITER),
    c(1135, "mc_arb forget IDENTIFIER", ARBITER),
    c(1136, "mc_arb forget IDENTIFIER", ARBITER),
    c(1171, "mc_ctl status", THIS),
    c(1220, "mc_arb forget IDENTIFIER", ARBITER),
    s(1232, "mc_ctl reload", THIS, Verb::Reload),
    c(1240, "mc_ctl status", THIS),
];

#[cfg(test)]
mod tests {
    use super::super::{Type, catalogue::CATALOGUE};
    use super::*;

    #[test]
    fn every_error_has_a_command() {
        let errors: Vec<u32> = CATALOGUE.iter().filter(|e| e.kind >= Type::Error).map(|e| e.number).collect();
        let numbers: Vec<u32> = COMMANDS.iter().map(|command| command.number).collect();
        assert_eq!(numbers, errors);
    }

    /// The text for `mc_ctl` and the verb of `systemctl` are one command.
    #[test]
    fn both_forms_name_the_same_command() {
        for command in COMMANDS.iter().filter_map(|command| command.verb.map(|verb| (command, verb))) {
            let (command, verb) = command;
            assert!(command.line.starts_with(&Form::Direct.command(verb)), "{command:?}");
            assert_eq!(command.line_in(&Form::Direct), command.line);
            let unit = Form::Unit("mc@nd1".to_owned());
            assert_eq!(command.line_in(&unit), format!("systemctl {} mc@nd1", verb.text()));
        }
        assert_eq!(find(1046).unwrap().line_in(&Form::Unit("mc".to_owned())), "mc_ctl rebuild");
    }
}
