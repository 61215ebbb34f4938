//! `mc_ctl stop`.

use super::args::Stop;
use super::{Ended, Exit, Failure, call, print, say};
use crate::config::Config;
use crate::daemon::{store, watcher};
use crate::fsm::event::Request;
use std::time::{Duration, Instant};

/// How long a controller may take to end after it has said that it is done.
const GONE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &Stop) -> Ended {
    if args.emergency {
        return emergency(args);
    }
    let config = args.common.client_config()?;
    let id = &config.id;
    let request = Request::Stop { instance: !args.mc_only, all: args.all };
    call::request(&config, request, call::limit(&config, args.seconds))?;
    wait_until_gone(&config);
    print(&match (args.mc_only, args.all) {
        (true, _) => format!("the controller of server \"{id}\" is stopped; its instance is not affected\n"),
        (false, true) => "both servers are stopped\n".to_owned(),
        (false, false) => format!("server \"{id}\" is stopped\n"),
    });
    Ok(0)
}

/// Ends the controller, which may be unable to answer.
fn emergency(args: &Stop) -> Ended {
    let (id, run_dir) = args.common.controller()?;
    match watcher::kill(&run_dir).map_err(Failure::failed)? {
        true => {
            print(&format!("the controller of server \"{id}\" is ended; its instance is not affected\n"));
            Ok(0)
        }
        false => Err(Failure::new(Exit::NotRunning, format!("the controller of server \"{id}\" is not running"))),
    }
}

/// A start right after the stop finds neither a controller nor a watcher.
pub(super) fn wait_until_gone(config: &Config) {
    let begin = Instant::now();
    while store::is_locked(&config.run_dir()) {
        if begin.elapsed() > GONE {
            say("mc_ctl: WARNING: the command is completed, but the controller has not ended yet\n");
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
