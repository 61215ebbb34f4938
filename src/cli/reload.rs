//! `mc_ctl reload`.

use super::args::Common;
use super::{Ended, call, print, running, say};
use crate::config::Config;

pub(super) fn run(common: &Common) -> Ended {
    let directory = common.directory()?;
    let local_server = common.local_server.as_deref();
    // The controller reports a mistake in the files itself.
    let (id, run_dir) = match Config::load_for_client(&directory, local_server) {
        Ok(config) => (config.id.clone(), config.run_dir()),
        Err(mistake) => running::find(&directory, local_server, &mistake)?,
    };
    let reloaded = call::reload(&id, &run_dir)?;
    match reloaded.changed.as_slice() {
        [] => print("configuration files reloaded; no parameter has a new value\n"),
        changed => print(&format!("configuration files reloaded; new: {}\n", changed.join(", "))),
    }
    if reloaded.password_written {
        print("password written to primary_conninfo; instance reloaded\n");
    }
    for what in &reloaded.failures {
        say(&format!("mc_ctl: WARNING: {what}\n"));
    }
    for what in &reloaded.at_restart {
        say(&format!("mc_ctl: WARNING: {what} cannot be changed without restarting the controller\n"));
    }
    if !reloaded.at_restart.is_empty() {
        say("HINT: Run \"mc_ctl stop --mc-only\" and \"mc_ctl start --mc-only\". The instance continues to run.\n");
    }
    Ok(0)
}
