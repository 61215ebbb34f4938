//! The command line of `mc_ctl`: what was typed, and the exit code it ends with (mc_ctl(8)).
//!
//! Results go to standard output; errors, hints and what is waited for to standard error. Decides nothing: every change
//! is a request to the controller of this host, which may refuse it. Must start fast: a command that only talks to the
//! controller reads `network.conf` and `ID.conf` and opens one socket. Called by `bin/mc_ctl.rs`.

pub mod arb;
mod archive;
mod args;
mod backup;
mod backup_command;
mod call;
mod check;
mod completions;
mod conninfo;
mod explain;
mod follow;
mod history;
mod init;
pub mod mc_std;
mod rebuild;
mod recover;
mod reload;
mod running;
mod service_form;
mod start;
mod status;
mod stop;
pub mod web;
mod what_if;

pub use args::{Cli, command};

use crate::config::{Config, PublicKey, Remark};
use crate::error::Error;
use crate::fsm::event::{Request, Transient};
use args::{Common, Verb};
use clap::Parser;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// How a command ends (mc_ctl(8), EXIT STATUS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It failed; the message says why.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The controller does not run.
    NotRunning = 3,
    /// The present state does not allow it.
    Refused = 4,
    /// It did not end in time.
    TimedOut = 5,
    /// Of a `restore_command`: PostgreSQL aborts the recovery, while it takes any status up to 125 for the end of WAL.
    AbortsRecovery = 126,
}

/// A command that did not succeed: its exit code, and what is said on standard error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    exit: Exit,
    error: Error,
    /// The controller refuses the request for a moment.
    transient: Option<Transient>,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, error: Error::new(message), transient: None }
    }

    /// A request that is refused for a moment.
    fn transient(why: Transient) -> Failure {
        Failure { transient: Some(why), ..Failure::new(Exit::Refused, why.text()) }
    }

    fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.error.hint = hint.into();
        self
    }

    fn usage(error: Error) -> Failure {
        Failure { exit: Exit::Usage, error, transient: None }
    }

    fn failed(error: Error) -> Failure {
        Failure { exit: Exit::Failed, error, transient: None }
    }
}

/// What a verb comes to: the exit code of the process.
pub(crate) type Ended = std::result::Result<u8, Failure>;

/// `mc_ctl`, whole: reads the command line, does it, and returns the exit code.
pub fn main() -> ExitCode {
    parse_and_run("mc_ctl", |cli: Cli| run(&cli.verb))
}

/// What both programs do with their command line.
fn parse_and_run<C: Parser>(program: &str, run: impl FnOnce(C) -> Ended) -> ExitCode {
    let cli = match C::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // --help and --version end here too, with 0.
            let _ = told.print();
            return ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            say(&format!("{program}: {}\n", failure.error));
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(verb: &Verb) -> Ended {
    match verb {
        Verb::Explain(args) => return explain::run(args),
        Verb::Completions(args) => return completions::run("mc_ctl", &command(), args),
        Verb::Attach { .. } => {
            return Err(Failure::new(Exit::Usage, "there is no command \"attach\"")
                .hint("To attach a detached standby, run \"mc_ctl start\" on it."));
        }
        _ => (),
    }
    // A check that cannot ask says UNKNOWN, and for monitoring systems 2 is CRITICAL.
    let checks = matches!(verb, Verb::Status(args) if args.check) || matches!(verb, Verb::Check(_));
    if rustix::process::geteuid().is_root() && !checks {
        return Err(Failure::new(Exit::Usage, "cannot be run as root").hint(
            "Run it as the instance administrator user, who owns the data directory: su - USER -c 'mc_ctl ...'",
        ));
    }
    match verb {
        Verb::Start(args) => start::run(args),
        Verb::Stop(args) => stop::run(args),
        Verb::Status(args) => status::run(args),
        Verb::Switch(args) => call::change("switch", args, Request::Switch, "switched"),
        Verb::Detach(args) => call::change("detach", args, Request::Detach, "the standby is detached"),
        Verb::EnableFailover(common) => call::failover(common, true),
        Verb::DisableFailover(common) => call::failover(common, false),
        Verb::Rebuild(args) => rebuild::run(args),
        Verb::Reload(common) => reload::run(common),
        Verb::History(args) => history::run(args),
        Verb::Explain(_) | Verb::Completions(_) | Verb::Attach { .. } => Ok(0),
        Verb::Init(args) => init::run(args),
        Verb::Check(args) => check::run(args),
        Verb::WhatIf(args) => what_if::run(args),
        Verb::Conninfo(args) => conninfo::run(args),
        Verb::Backup(args) => backup::run(args),
        Verb::Recover(args) => recover::run(args),
        Verb::ArchiveWal(args) => archive::archive(args),
        Verb::RestoreWal(args) => archive::restore(args),
    }
}

impl Common {
    fn directory(&self) -> Result<PathBuf, Failure> {
        let given = self.directory.clone().or_else(|| std::env::var_os("MCCONTROLDIR").map(PathBuf::from));
        given.filter(|d| !d.as_os_str().is_empty()).ok_or_else(|| {
            Failure::new(Exit::Usage, "no management directory specified and environment variable MCCONTROLDIR unset")
                .hint("Specify it with -M DIR.")
        })
    }

    /// The whole configuration, checked.
    fn config(&self) -> Result<Config, Failure> {
        Config::load(&self.directory()?, self.local_server.as_deref()).map_err(Failure::usage)
    }

    /// As much of it as talking to the controller takes, from the files; for commands that may start a controller.
    fn file_config(&self) -> Result<Config, Failure> {
        Config::load_for_client(&self.directory()?, self.local_server.as_deref()).map_err(Failure::usage)
    }

    /// The same, for commands that only talk to the controller: if the files contain a mistake, from a controller that runs.
    fn client_config(&self) -> Result<Config, Failure> {
        self.client_config_and_mistake().map(|(config, _)| config)
    }

    /// The same, with the mistake.
    fn client_config_and_mistake(&self) -> Result<(Config, Option<Error>), Failure> {
        let (directory, local_server) = (self.directory()?, self.local_server.as_deref());
        match Config::load_for_client(&directory, local_server) {
            Ok(config) => Ok((config, None)),
            Err(mistake) => {
                running::configuration(&directory, local_server, &mistake).map(|config| (config, Some(mistake)))
            }
        }
    }

    /// The same without a warning, for a program that repeats it.
    fn client_config_quietly(&self) -> Result<(Config, Option<Error>), Failure> {
        let (directory, local_server) = (self.directory()?, self.local_server.as_deref());
        match Config::load_for_client(&directory, local_server) {
            Ok(config) => Ok((config, None)),
            Err(mistake) => running::configuration_quietly(&directory, local_server, &mistake)
                .map(|(_, config)| (config, Some(mistake))),
        }
    }

    /// The identifier and the directory of run-time files of this server, for a command that does not talk to the controller.
    fn controller(&self) -> Result<(String, PathBuf), Failure> {
        let directory = self.directory()?;
        match Config::load_for_client(&directory, self.local_server.as_deref()) {
            Ok(config) => Ok((config.id.clone(), config.run_dir())),
            Err(mistake) => running::controller(&directory, self.local_server.as_deref(), mistake),
        }
    }
}

/// Writes a result. A reader who has gone away (`| head`) is no failure of ours.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(i32::from(Exit::Done as u8));
    }
}

/// Writes a result for machines.
fn print_json(value: &impl serde::Serialize) {
    // Strings, numbers, lists and structs of them always have a JSON text.
    print(&(serde_json::to_string_pretty(value).unwrap_or_default() + "\n"));
}

/// How a member's public key comes into `network.conf`.
fn unlisted_key(id: &str, key: &PublicKey) -> String {
    format!(
        "\nOptional: network.conf does not list the public key of {id}. When every member has a key, add each key to the end of the \
         member's line, and copy the file to all members (see network.conf(5)):\n  key={key}\n"
    )
}

/// Writes to standard error.
fn say(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn say_remark(program: &str, remark: &Remark) {
    let level = match remark.level {
        crate::config::Level::Notice => "NOTICE",
        crate::config::Level::Warning => "WARNING",
    };
    let hint = if remark.hint.is_empty() { String::new() } else { format!("\nHINT: {}", remark.hint) };
    say(&format!("{program}: {level}: {}{hint}\n", remark.text));
}

/// Whether results may be coloured: a terminal, and <https://no-color.org>.
fn coloured() -> crate::status::Colour {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    match std::io::stdout().is_terminal() && !plain && std::env::var_os("TERM").is_none_or(|t| t != "dumb") {
        true => crate::status::Colour::Always,
        false => crate::status::Colour::Never,
    }
}
