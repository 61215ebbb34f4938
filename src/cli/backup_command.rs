//! `backup_command`: a backup that another program makes. `mc_ctl backup` decides whether this server makes one, and limits the
//! time; the program and its repository do the rest (mc_hooks(5)). `recover_command` is run in the same way.

use super::{Ended, Failure, call, print};
use crate::config::Config;
use crate::error::Error;
use crate::pg::bounded::Cancel;
use crate::pg::commands;
use crate::status::duration;
use rustix::process::{Pid, Signal, kill_process_group};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often the program is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The program's environment: the names of the variables, and their values.
pub(super) type Environment = Vec<(&'static str, String)>;

/// Runs the program of a parameter, whose output goes to the outputs of this one.
///
/// # Errors
/// It cannot be run, failed, or was cancelled.
pub(super) fn run(parameter: &str, program: &Path, environment: Environment, cancel: &Cancel) -> Result<(), Error> {
    let mut command = commands::bare(program);
    command.envs(environment).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let failed = |cause| Error::io(&format!("run {parameter}"), program, cause);
    let mut child = command.spawn().map_err(|cause| {
        failed(cause).hint("It must be a program, or a script with a #! line, that this user can execute.")
    })?;
    let status = wait(&mut child, cancel).map_err(failed)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Error::new(format!("{parameter} failed with exit status {code}"))),
        None => Err(Error::new(format!("{parameter} was ended by a signal ({status})"))),
    }
}

/// Waits for the end of the program. Cancelled, it is killed with its process group.
fn wait(child: &mut Child, cancel: &Cancel) -> std::io::Result<ExitStatus> {
    let group = Pid::from_child(child);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if cancel.is_set() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        std::thread::sleep(LOOK);
    }
}

/// The environment of the program: what it needs to know about the pair.
fn environment(config: &Config) -> Result<Environment, Error> {
    let snapshot = call::snapshot(config).map_err(|failure| failure.error)?;
    let address = &snapshot.clients[config.me.index()];
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let text = |path: &Path| path.display().to_string();
    Ok(vec![
        ("MC_COMMAND", "backup_command".to_owned()),
        ("MC_SERVER", config.id.clone()),
        ("MC_PRIMARY_HOST", host.trim_matches(['[', ']']).to_owned()),
        ("MC_PRIMARY_PORT", port.to_owned()),
        ("MC_PRIMARY_USER", config.server.db_instance_username.clone()),
        ("MC_DATA_DIRECTORY", text(&config.server.db_instance)),
        ("MC_BACKUP_DESTINATION", config.server.backup_destination.as_deref().map(text).unwrap_or_default()),
    ])
}

/// The result of the command: `role` decides before and after whether this server is the primary.
pub(super) fn make(
    config: &Config,
    program: &Path,
    cancel: &Cancel,
    explain: &dyn Fn(Error) -> Failure,
    primary: &dyn Fn() -> Result<(), Error>,
) -> Ended {
    let begin = Instant::now();
    let made = environment(config).and_then(|environment| run("backup_command", program, environment, cancel));
    made.map_err(explain)?;
    primary().map_err(Failure::failed)?;
    print(&format!("backup_command succeeded after {}\n", duration(begin.elapsed().as_secs())));
    Ok(0)
}
