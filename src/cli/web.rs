//! The command line of `mc_web`: what was typed, and the exit code it ends with (mc_web(8)).
//!
//! As with `mc_ctl`: results go to standard output, the rest to standard error. Called by `bin/mc_web.rs`.

use super::args::Common as Controlled;
use super::init::Silence;
use super::{Ended, Exit, Failure, parse_and_run, print, say, status as controller_status};
use crate::config::Network;
use crate::config::web::WebConfig;
use crate::daemon::pidfile;
use crate::daemon::store::{CONTROLLER_LOCK, Lock};
use crate::error::Error;
use crate::messages::{self, Facility, Output};
use crate::status::Status;
use crate::web::{self, Console, Failed, users};
use clap::{Args, CommandFactory, Parser, Subcommand};
use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long a start, and the end, may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How often its end is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// What the detached process writes when it serves.
const READY: &str = "ready";

/// Serves the web console of Mirroring Controller, which shows and operates a pair of PostgreSQL servers.
#[derive(Parser, Debug)]
#[command(name = "mc_web", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

/// The whole command line, for tests that compare it with the manual.
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Start the web console of this server
    Start(Start),
    /// Stop it
    Stop(Common),
    /// Show whether it runs, and its address
    Status(Common),
    /// Set a user's password, and add or remove users
    Passwd(Passwd),
}

#[derive(Args, Debug)]
struct Common {
    /// Management directory [default: $MCCONTROLDIR]
    #[arg(short = 'M', value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Start {
    #[command(flatten)]
    common: Common,
    /// Stay in the foreground, and also write messages to standard error
    #[arg(long)]
    foreground: bool,
    /// As the process that serves in the background
    #[arg(long, hide = true)]
    detached: bool,
}

#[derive(Args, Debug)]
struct Passwd {
    #[command(flatten)]
    common: Common,
    /// What the user may do [default: as before; for a new user viewer]
    #[arg(long, value_name = "ROLE", value_parser = ["viewer", "operator"])]
    role: Option<String>,
    /// Remove the user
    #[arg(long, conflicts_with = "role")]
    delete: bool,
    /// The user's name
    #[arg(value_name = "USER")]
    user: String,
}

/// `mc_web`, whole: reads the command line, does it, and returns the exit code.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == users::VERIFY) {
        return ExitCode::from(users::verify_process());
    }
    parse_and_run("mc_web", |cli: Cli| run(&cli.verb))
}

fn run(verb: &Verb) -> Ended {
    if rustix::process::geteuid().is_root() {
        return Err(Failure::new(Exit::Usage, "cannot be run as root").hint(
            "Run it as the instance administrator user, who owns the data directory: su - USER -c 'mc_web ...'",
        ));
    }
    match verb {
        Verb::Start(args) => start(args),
        Verb::Stop(common) => stop(&common.config()?),
        Verb::Status(common) => status(&common.config()?),
        Verb::Passwd(args) => passwd(args),
    }
}

impl Common {
    fn config(&self) -> Result<WebConfig, Failure> {
        let common = Controlled { directory: self.directory.clone(), local_server: None };
        WebConfig::load(&common.directory()?).map_err(Failure::usage)
    }
}

/// What the page shows as the status: the same as `mc_ctl status --format json`.
fn source(dir: &Path) -> Result<Box<Status>, Failed> {
    let common = Controlled { directory: Some(dir.to_owned()), local_server: None };
    let found = common
        .client_config_quietly()
        .and_then(|(config, mistake)| controller_status::status(&config, mistake.as_ref()));
    found.map(Box::new).map_err(|failure| Failed { exit: failure.exit as u8, error: failure.error })
}

/// The name of the process identifier's file.
const PID: &str = "mc_web.pid";

fn start(args: &Start) -> Ended {
    let config = args.common.config()?;
    reserve_names(&config)?;
    if !args.foreground && !args.detached {
        return start_detached(&config);
    }
    if args.detached {
        let _ = rustix::process::setsid();
    }
    let serving = serve(&config, args.foreground);
    if args.detached {
        let line = serving.as_ref().map_or_else(|failure| failure.error.to_string(), |_| READY.to_owned());
        print(&line);
        // The parent reads to the end of the text.
        let _ = rustix::stdio::dup2_stdout(
            std::fs::File::open("/dev/null")
                .map_err(|cause| Failure::failed(Error::io("open file", Path::new("/dev/null"), cause)))?,
        );
    }
    let (_lock, mut signals, pid) = serving?;
    signals.forever().next();
    let _ = std::fs::remove_file(pid);
    messages::flush(Duration::from_secs(1));
    Ok(0)
}

type Serving = (Lock, signal_hook::iterator::Signals, PathBuf);

fn serve(config: &WebConfig, foreground: bool) -> Result<Serving, Failure> {
    let run_dir = config.run_dir();
    let lock = Lock::try_take(&run_dir, CONTROLLER_LOCK).map_err(Failure::failed)?;
    let lock = lock.ok_or_else(|| {
        Failure::new(Exit::Refused, "the web console is already running").hint("\"mc_web status\" shows its address.")
    })?;
    let signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])
        .map_err(|cause| Failure::failed(Error::new(format!("could not receive signals: {cause}"))))?;
    let console = Console::bind(config.clone(), source).map_err(Failure::failed)?;
    messages::init(Output {
        facility: Facility::local(0),
        ident: "MirroringControllerWeb".into(),
        file: Some(run_dir.join("log")),
        stderr: foreground,
    });
    let pid = pidfile::write(&run_dir, PID).map_err(Failure::failed)?;
    console.serve().map_err(Failure::failed)?;
    Ok((lock, signals, pid))
}

/// The console's files stand beside those that are named by identifiers of servers.
fn reserve_names(config: &WebConfig) -> Result<(), Failure> {
    let path = config.dir.join("network.conf");
    let network = crate::config::read_private(&path, "").and_then(|text| Network::parse(&path, &text));
    match network.is_ok_and(|network| network.servers.iter().any(|line| line.id == "web")) {
        true => {
            Err(Failure::new(Exit::Usage, "the web console cannot be used with a server whose identifier is \"web\"")
                .hint(
                    "web.conf and the directory \"web\" belong to the console. Use another identifier in network.conf.",
                ))
        }
        false => Ok(()),
    }
}

fn start_detached(config: &WebConfig) -> Ended {
    let failed = |cause: std::io::Error| Failure::failed(Error::new(format!("could not start mc_web: {cause}")));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["start", "--detached", "-M"]).arg(&config.dir);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
    let mut text = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = BufReader::new(out).take(64 << 10).read_to_string(&mut text);
    }
    if text == READY {
        print(&format!("the web console is started: {}\n", web::url(config)));
        return Ok(0);
    }
    let status = child.wait().map_err(failed)?;
    let (message, hint) = text.split_once("\nHINT: ").unwrap_or((&text, ""));
    let exit = if status.code() == Some(i32::from(Exit::Refused as u8)) { Exit::Refused } else { Exit::Failed };
    let message = if message.is_empty() { "the web console ended before it served" } else { message };
    Err(Failure::new(exit, message).hint(hint))
}

fn stop(config: &WebConfig) -> Ended {
    let run_dir = config.run_dir();
    if !pidfile::signal(&run_dir, PID, Signal::TERM).map_err(Failure::failed)? {
        return Err(not_running());
    }
    let begin = Instant::now();
    while pidfile::is_alive(&run_dir, PID) {
        if begin.elapsed() > LIMIT {
            return Err(Failure::new(Exit::TimedOut, "the web console has not ended yet"));
        }
        std::thread::sleep(LOOK);
    }
    print("the web console is stopped\n");
    Ok(0)
}

fn status(config: &WebConfig) -> Ended {
    if !pidfile::is_alive(&config.run_dir(), PID) {
        return Err(not_running());
    }
    print(&format!("the web console is running: {}\n", web::url(config)));
    Ok(0)
}

fn not_running() -> Failure {
    Failure::new(Exit::NotRunning, "the web console is not running").hint("Run \"mc_web start\" to start it.")
}

fn passwd(args: &Passwd) -> Ended {
    let config = args.common.config()?;
    if !users::is_name(&args.user) {
        return Err(Failure::new(Exit::Usage, format!("\"{}\" cannot be a user's name", args.user))
            .hint("A name has at most 64 letters, digits and characters of \"._@-\"."));
    }
    let role = args.role.as_deref().and_then(users::Role::parse);
    let password = if args.delete { None } else { Some(read_password()?) };
    let role = users::change(&config.users, &args.user, role, password.as_deref()).map_err(Failure::failed)?;
    print(&match args.delete {
        true => format!("user \"{}\" is removed\n", args.user),
        false => format!("the password of user \"{}\" ({}) is set\n", args.user, role.word()),
    });
    Ok(0)
}

/// Twice from a terminal, else one line.
fn read_password() -> Result<String, Failure> {
    let mut input = std::io::stdin().lock();
    let terminal = input.is_terminal();
    let mut line = |prompt: &str| {
        let mut line = String::new();
        if terminal {
            say(prompt);
        }
        let read = input.by_ref().take(4096).read_line(&mut line);
        read.map_err(|cause| Failure::failed(Error::io("read", Path::new("standard input"), cause)))?;
        if terminal {
            say("\n");
        }
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    };
    let _silence = terminal.then(Silence::new);
    let password = line("Password: ")?;
    if terminal && line("Password again: ")? != password {
        return Err(Failure::new(Exit::Usage, "the passwords differ"));
    }
    if password.len() < 8 || password.len() > users::MAX_PASSWORD || password.chars().any(char::is_control) {
        let text = format!("a password has 8 to {} bytes and no control characters", users::MAX_PASSWORD);
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(password)
}
