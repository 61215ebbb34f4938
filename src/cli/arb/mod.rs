//! The command line of `mc_arb`: what was typed, and the exit code it ends with (mc_arb(8)).
//!
//! As with `mc_ctl`: results go to standard output, the rest to standard error, and nothing is decided here. Called by
//! `bin/mc_arb.rs`.

mod args;
mod show;

pub use args::{Cli, command};

use super::init::read_join;
use super::{Ended, Exit, Failure, completions, parse_and_run, print, say, say_remark, unlisted_key};
use crate::config::arbiter::{ArbiterConfig, directories};
use crate::daemon::arbiter::control::{Answer, Call, ClusterStatus, Snapshot, call};
use crate::daemon::arbiter::{self, forget};
use crate::daemon::control::CallError;
use crate::daemon::store;
use crate::daemon::watcher::{self, Alive};
use args::{Common, Forget, Init, Start, Status, Stop, Verb};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the arbiter may take to tell what it knows, or to do what it is told.
const LIMIT: Duration = Duration::from_secs(10);

/// How long it may take to start, and to end.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long after it has said that it ends it may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// `mc_arb`, whole: reads the command line, does it, and returns the exit code.
pub fn main() -> ExitCode {
    parse_and_run("mc_arb", |cli: Cli| run(&cli.verb))
}

fn run(verb: &Verb) -> Ended {
    if let Verb::Completions(args) = verb {
        return completions::run("mc_arb", &command(), args);
    }
    if rustix::process::geteuid().is_root() {
        return Err(Failure::new(Exit::Usage, "cannot be run as root")
            .hint("Run it as the user who owns the arbiter's directory: su - USER -c 'mc_arb ...'"));
    }
    match verb {
        Verb::Init(args) => init(args),
        Verb::Start(args) => start(args),
        Verb::Stop(args) => stop(args),
        Verb::Status(args) => status(args),
        Verb::Forget(args) => forget_cluster(args),
        Verb::Completions(_) => Ok(0),
    }
}

impl Common {
    fn directory(&self) -> Result<PathBuf, Failure> {
        let given = self.directory.clone().or_else(|| std::env::var_os("ARBCONTROLDIR").map(PathBuf::from));
        given.filter(|directory| !directory.as_os_str().is_empty()).ok_or_else(|| {
            Failure::new(Exit::Usage, "no directory specified and environment variable ARBCONTROLDIR unset")
                .hint("Specify it with -M DIR.")
        })
    }

    /// The directory of run-time files.
    fn run_dir(&self) -> Result<PathBuf, Failure> {
        Ok(directories(&self.directory()?).map_err(Failure::usage)?.1)
    }
}

fn init(args: &Init) -> Ended {
    let join = args.join.as_deref().map(read_join).transpose().map_err(Failure::usage)?;
    let join = join.as_ref().map(|join| (join, args.cluster.as_deref().unwrap_or_default()));
    let (made, keys) = crate::init::arbiter(&args.common.directory()?, join).map_err(Failure::usage)?;
    let lines: Vec<String> = made.iter().map(|path| format!("made \"{}\"\n", path.display())).collect();
    print(&if lines.is_empty() { "nothing had to be created\n".to_owned() } else { lines.concat() });
    for key in keys.iter().filter(|key| !key.listed) {
        print(&unlisted_key(&format!("{} ({})", key.id, key.dir.display()), &key.key));
    }
    Ok(0)
}

fn start(args: &Start) -> Ended {
    let config = ArbiterConfig::load(&args.common.directory()?).map_err(Failure::usage)?;
    for (name, why) in &config.refused {
        say_not_served(name, &why.to_string());
    }
    if snapshot(&config.run_dir()).is_ok() {
        return Err(
            Failure::new(Exit::Refused, "the arbiter is already running").hint("\"mc_arb status\" shows its state.")
        );
    }
    config.remarks.iter().for_each(|remark| say_remark("mc_arb", remark));
    if args.foreground {
        let log = env_logger::Env::default().default_filter_or("off");
        let _ = env_logger::Builder::from_env(log).try_init();
        return arbiter::run(config, Alive::foreground()).map_err(Failure::failed);
    }
    // Without -w too what keeps it from starting is told: it either serves within a moment, or not at all.
    arbiter::start_detached(&config, START_LIMIT).map_err(Failure::failed)?;
    let served = snapshot(&config.run_dir())?;
    let problems = |cluster: &ClusterStatus| Some((cluster.name.clone(), cluster.problem.clone()?));
    let problems: Vec<(String, String)> = served.clusters.iter().filter_map(problems).collect();
    for (name, problem) in &problems {
        say_not_served(name, problem);
    }
    let count = config.clusters.len();
    if problems.len() == count {
        let what = "the arbiter is started, and serves no cluster";
        return Err(Failure::new(Exit::Failed, what).hint(
            "It continues to run, and serves a cluster as soon as its files are \
                                                          corrected.",
        ));
    }
    print(&format!("the arbiter is started, for {count} cluster{}\n", if count == 1 { "" } else { "s" }));
    Ok(0)
}

fn say_not_served(name: &str, why: &str) {
    let title =
        if name.is_empty() { "the cluster of this directory".to_owned() } else { format!("cluster \"{name}\"") };
    say(&format!("mc_arb: ERROR: {title} is not served: {why}\n"));
}

fn stop(args: &Stop) -> Ended {
    let run_dir = args.common.run_dir()?;
    if args.emergency {
        return match watcher::kill(&run_dir).map_err(Failure::failed)? {
            true => {
                print("the arbiter is ended\n");
                Ok(0)
            }
            false => Err(not_running()),
        };
    }
    match ask(&run_dir, &Call::Stop)? {
        Answer::Done => (),
        other => return Err(unexpected(other)),
    }
    let begin = Instant::now();
    while store::is_locked(&run_dir) {
        if begin.elapsed() > GONE {
            return Err(Failure::new(Exit::TimedOut, "the arbiter has not ended yet")
                .hint("Its disk may be slow. To end it at once, run \"mc_arb stop -e\"."));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    print("the arbiter is stopped\n");
    Ok(0)
}

fn status(args: &Status) -> Ended {
    let snapshot = snapshot(&args.common.run_dir()?)?;
    print(&match args.format {
        args::Format::Text => show::text(&snapshot),
        args::Format::Json => show::json(&snapshot),
    });
    let is_whole = snapshot.refused.is_empty() && snapshot.clusters.iter().all(|cluster| cluster.problem.is_none());
    Ok(if is_whole { Exit::Done } else { Exit::Failed } as u8)
}

/// Also where the arbiter does not run: a ledger that cannot be used is best removed before it starts.
fn forget_cluster(args: &Forget) -> Ended {
    let run_dir = args.common.run_dir()?;
    let system = args.system;
    let none = || Failure::new(Exit::Refused, format!("there is no ledger of system identifier {system}"));
    match ask(&run_dir, &Call::Forget(system)) {
        Ok(Answer::Done) => (),
        Ok(Answer::Refused(why)) => {
            return Err(Failure::new(Exit::Refused, why).hint(
                "\"mc_arb status\" lists the ledgers. The ledger of a cluster whose servers run cannot be removed.",
            ));
        }
        Ok(other) => return Err(unexpected(other)),
        Err(failure) if failure.exit == Exit::NotRunning => {
            if !forget(&args.common.directory()?, system).map_err(Failure::failed)? {
                return Err(none());
            }
        }
        Err(failure) => return Err(failure),
    }
    print(&format!("the ledger of system identifier {system} was removed\n"));
    Ok(0)
}

fn snapshot(run_dir: &Path) -> Result<Box<Snapshot>, Failure> {
    match ask(run_dir, &Call::Status)? {
        Answer::Status(snapshot) => Ok(snapshot),
        other => Err(unexpected(other)),
    }
}

fn ask(run_dir: &Path, what: &Call) -> Result<Answer, Failure> {
    call(run_dir, what, LIMIT).map_err(|error| match error {
        CallError::NotRunning => not_running(),
        CallError::TimedOut => Failure::new(Exit::TimedOut, "the arbiter does not respond")
            .hint("Its log and syslog may contain the reason. To end the arbiter, run \"mc_arb stop -e\"."),
        CallError::Failed(error) => Failure::failed(error),
    })
}

fn not_running() -> Failure {
    Failure::new(Exit::NotRunning, "the arbiter is not running").hint("Run \"mc_arb start\" to start it.")
}

fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Refused(why) => Failure::new(Exit::Refused, why),
        Answer::Failed(why) => Failure::new(Exit::Failed, why),
        other => Failure::new(Exit::Failed, format!("the arbiter did not understand the command: {other:?}"))
            .hint("Its version may differ from that of this mc_arb. Compare \"mc_arb --version\" and \"mc_arb status --format \
                   json\"."),
    }
}
