//! The running controller of a management directory whose files contain a mistake.
//!
//! A mistake in `network.conf` or `ID.conf` must not disable the commands that only talk to a running controller. They find
//! it by its directory of run-time files, use the configuration that it reports, and report the mistake as a warning.

use super::{Exit, Failure, call, say, service_form};
use crate::config::{self, Config};
use crate::daemon::{store, watcher};
use crate::error::Error;
use crate::messages::commands::Verb;
use std::path::{Path, PathBuf};

/// The configuration that the running controller uses. `mistake` is the error in the files.
pub(super) fn configuration(directory: &Path, local_server: Option<&str>, mistake: &Error) -> Result<Config, Failure> {
    let (id, configuration) = configuration_quietly(directory, local_server, mistake)?;
    warn(&id, mistake);
    Ok(configuration)
}

/// The same without the warning, with the identifier of the server.
pub(super) fn configuration_quietly(
    directory: &Path,
    local_server: Option<&str>,
    mistake: &Error,
) -> Result<(String, Config), Failure> {
    let (id, run_dir) = find(directory, local_server, mistake)?;
    let configuration = match call::configuration(&id, &run_dir) {
        Ok(None) => Err(Failure::usage(mistake.clone())),
        Ok(Some(in_effect)) => in_effect.for_client(directory).map_err(|_| Failure::usage(mistake.clone())),
        Err(failure) if failure.exit == Exit::NotRunning => Err(watcher_alone(&id, directory, mistake)),
        Err(failure) => Err(failure),
    };
    configuration.map(|configuration| (id, configuration))
}

/// The controller has died, and its watcher cannot start it because of the mistake.
fn watcher_alone(id: &str, directory: &Path, mistake: &Error) -> Failure {
    let start = service_form::when_stopped(directory).command(Verb::Start);
    let Error { message, hint } = mistake;
    let text = format!("the controller of server \"{id}\" is not running, and its watcher cannot start it: {message}");
    Failure::new(Exit::NotRunning, text)
        .hint(format!("{hint} After the correction, run \"{start}\" to start it at once.").trim_start())
}

/// For a service manager, which starts the controller again after a crash: the configuration that the dead controller used.
pub(super) fn saved(directory: &Path, local_server: Option<&str>, mistake: &Error) -> Option<Config> {
    let directory = config::management_directory(directory).ok()?;
    let servers = servers(&directory, local_server).ok()?;
    let died: Vec<&(String, PathBuf)> =
        servers.iter().filter(|(_, run_dir)| watcher::controller_died(run_dir)).collect();
    let [(id, _)] = died.as_slice() else { return None };
    Config::load_saved(&directory, id, true, mistake.clone()).ok()
}

/// The servers whose controller ever ran in this management directory, with the directories of their run-time files.
fn servers(directory: &Path, local_server: Option<&str>) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut servers: Vec<(String, PathBuf)> = directory
        .read_dir()?
        .flatten()
        .filter_map(|name| Some((name.file_name().into_string().ok()?, name.path())))
        .filter(|(_, run_dir)| run_dir.join(store::CONTROLLER_LOCK).is_file() && config::is_own_directory(run_dir))
        .filter(|(id, _)| local_server.is_none_or(|wanted| wanted == id))
        .collect();
    servers.sort();
    Ok(servers)
}

/// The identifier and the directory of run-time files of the server whose controller runs.
pub(super) fn controller(
    directory: &Path,
    local_server: Option<&str>,
    mistake: Error,
) -> Result<(String, PathBuf), Failure> {
    find(directory, local_server, &mistake).inspect(|(id, _)| warn(id, &mistake))
}

/// The server that `local_server` names, or the only one that ever ran here. The mistake is the failure if its controller
/// does not run.
pub(super) fn find(
    directory: &Path,
    local_server: Option<&str>,
    mistake: &Error,
) -> Result<(String, PathBuf), Failure> {
    let failure = || Failure::usage(mistake.clone());
    let directory = config::management_directory(directory).map_err(|_| failure())?;
    let mut servers = servers(&directory, local_server).map_err(|_| failure())?;
    match servers.as_slice() {
        [(_, run_dir)] if watcher::is_there(run_dir) => Ok(servers.remove(0)),
        [_, _, ..] if servers.iter().any(|(_, run_dir)| watcher::is_there(run_dir)) => {
            let options: Vec<String> = servers.iter().map(|(id, _)| format!("--local-server {id}")).collect();
            let also = format!("To send a command to a running controller, add {}.", options.join(" or "));
            Err(failure().hint([&*mistake.hint, &*also].join(" ").trim_start()))
        }
        _ => Err(failure()),
    }
}

fn warn(id: &str, mistake: &Error) {
    let hint = if mistake.hint.is_empty() { "Correct the file." } else { &mistake.hint };
    say(&format!(
        "mc_ctl: WARNING: {}\nDETAIL: The controller of server \"{id}\" continues to use the configuration that it has read \
         before, and so does this command. The next start of the controller fails until the file is corrected.\nHINT: \
         {hint}\n",
        mistake.message
    ));
}
