//! `mc_ctl start`.

use super::args::Start;
use super::call::{LOOK, PATIENCE};
use super::{Ended, Exit, Failure, call, print, recover, running, say, say_remark};
use crate::config::Config;
use crate::daemon::{self, watcher};
use crate::fsm::event::{Request, StartedBy, Transient};
use crate::fsm::report::{HostRole, Progress};
use crate::fsm::types::Mode;
use crate::messages::{self, Facility, Output};
use crate::status::{Directory, Level, Snapshot, Space, advice_or_next_step};
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

/// How long a start in the background waits for an address of this host, and how often it looks.
const EARLY_LIMIT: Duration = Duration::from_secs(60);
const EARLY_PAUSE: Duration = Duration::from_secs(1);
/// How long a message to syslog may take.
const FLUSH: Duration = Duration::from_secs(1);
const OFF: &str = "automatic switch and disconnection are disabled, unless they are enabled on the other server: failures are \
                   only reported\nHINT: Run \"mc_ctl enable-failover\" to enable them.";

const ADOPT: &str = "\"mc_ctl start --adopt-data\" makes this data directory the valid one in its present state. Commits that \
                     exist only on the other server are lost, and if that server runs as the primary, both servers serve. \
                     If that server was promoted, rename its directory in the management directory before its controller \
                     starts, because its ledger still gives it the right to serve. Continue only after an intended restore, or if the data of the other server is confirmed older or lost.";

pub(super) fn run(args: &Start) -> Ended {
    let begin = Instant::now();
    let limit = Duration::from_secs(args.seconds);
    let failover = match (args.failover, args.no_failover) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    let config = config(args, begin, limit.min(EARLY_LIMIT))?;
    if let Some(why) = config.server.no_data.clone().filter(|_| !args.mc_only && !daemon::is_being_rebuilt(&config)) {
        return Err(Failure::usage(why));
    }
    if !args.mc_only && !args.foreground {
        recover::refuse_start(&config)?;
    }
    if args.adopt_data && !args.yes {
        call::confirm(&format!("{ADOPT}{}", call::known(&config)))?;
    }
    let begin = Instant::now();
    let restarted = !args.foreground && start_by_watcher(&config, begin, limit)?;
    if restarted {
        start_after_restart(&config, args, failover, begin, limit)?;
    }
    let running = restarted || start_in_running_controller(&config, args, failover, begin, limit)?;
    if !running {
        if !args.async_connect_arbiter {
            reach_arbiter(&config, limit)?;
        }
        config.remarks.iter().for_each(|remark| say_remark("mc_ctl", remark));
        let by = StartedBy::Operator { instance: !args.mc_only, failover };
        if args.foreground {
            if failover.is_none() {
                say(&format!("mc_ctl: NOTICE: {OFF}\n"));
            }
            let log = env_logger::Env::default().default_filter_or("off");
            let _ = env_logger::Builder::from_env(log).try_init();
            return daemon::run(config, by, random()).map_err(Failure::failed);
        }
        watcher::start_detached(&config, by, limit).map_err(Failure::failed)?;
        if args.adopt_data {
            adopt(&config, begin, limit)?;
        }
    }
    if args.mc_only || args.no_wait {
        print(&format!("the controller of server \"{}\" is started\n", config.id));
        if failover.is_none() && !running {
            say(&format!("mc_ctl: NOTICE: {OFF}\n"));
        }
        return Ok(0);
    }
    let ended = wait(&config, begin, limit, failover);
    if args.adopt_data {
        call::warn_of_unrecorded(&config);
    }
    ended
}

/// The configuration. At boot the addresses of this host may not be there yet: they are waited for, at most for `limit`, by a
/// service manager's `--foreground` without end.
fn config(args: &Start, begin: Instant, limit: Duration) -> Result<Config, Failure> {
    let directory = args.common.directory()?;
    let mut said = false;
    loop {
        let failure = match args.common.config() {
            Err(failure) if args.foreground || begin.elapsed() < limit => failure,
            ended => return ended,
        };
        if !Config::is_early(&directory, args.common.local_server.as_deref()) {
            let managed = args.foreground && std::env::var_os("NOTIFY_SOCKET").is_some();
            let saved = || running::saved(&directory, args.common.local_server.as_deref(), &failure.error);
            return managed.then(saved).flatten().ok_or(failure);
        }
        if !said {
            said = true;
            say(&format!("mc_ctl: waiting: {}\n", failure.error.message));
        }
        std::thread::sleep(EARLY_PAUSE);
    }
}

/// If a watcher pauses between two attempts to start the controller, has it make the next one at once, and waits for the
/// result. False if no watcher pauses.
fn start_by_watcher(config: &Config, begin: Instant, limit: Duration) -> Result<bool, Failure> {
    let run_dir = config.run_dir();
    // A watcher whose controller has ended as ordered ends too.
    let pauses = watcher::controller_died(&run_dir) || watcher::failure(&run_dir).is_some();
    if !pauses || call::is_running(config)? {
        return Ok(false);
    }
    // An attempt that has just begun may have read the files before they were corrected.
    let mut last_attempt = false;
    let mut waits = watcher::start_now(&run_dir).map_err(Failure::failed)?;
    while waits {
        if call::is_running(config)? {
            return Ok(true);
        }
        let failure = watcher::failure(&run_dir);
        if let Some(why) = failure.as_deref().filter(|_| last_attempt) {
            return Err(Failure::new(Exit::Failed, format!("the watcher could not start the controller: {why}")));
        }
        if failure.is_some() {
            last_attempt = true;
            waits = watcher::start_now(&run_dir).map_err(Failure::failed)?;
        }
        if begin.elapsed() >= limit {
            let text =
                format!("the controller of server \"{}\" was not started within {} s", config.id, limit.as_secs());
            return Err(Failure::new(Exit::TimedOut, text).hint(format!(
                "Its watcher continues to try; \"{}\" contains the reasons.",
                run_dir.join("log").display()
            )));
        }
        std::thread::sleep(LOOK);
        waits &= watcher::is_there(&run_dir);
    }
    Ok(false)
}

/// Gives this command's order to a controller that the watcher has started.
fn start_after_restart(
    config: &Config,
    args: &Start,
    failover: Option<bool>,
    begin: Instant,
    limit: Duration,
) -> Result<(), Failure> {
    if args.adopt_data {
        adopt(config, begin, limit)
    } else if !args.mc_only {
        call::request(config, Request::Start { failover }, limit)
    } else {
        failover.map_or(Ok(()), |on| call::request(config, Request::Failover(on), limit))
    }
}

/// Takes the data directory as it is. A controller that has just begun may still be writing its ledger: that is waited for.
fn adopt(config: &Config, begin: Instant, limit: Duration) -> Result<(), Failure> {
    loop {
        match call::request(config, Request::AdoptData, limit.saturating_sub(begin.elapsed())) {
            Err(refused) if refused.transient == Some(Transient::UnderWay) && begin.elapsed() < limit => {
                std::thread::sleep(LOOK)
            }
            ended => return ended,
        }
    }
}

/// A start without a configured arbiter would leave the pair without what it is configured to rely on, so it is given up
/// (MCA00152), unless the operator has said otherwise. The watcher's restarts do not come here.
fn reach_arbiter(config: &Config, limit: Duration) -> Result<(), Failure> {
    daemon::reach_arbiter(config, limit).map_err(|unreached| {
        let (what, why) = *unreached;
        messages::init(Output {
            facility: Facility::local(config.server.syslog_facility),
            ident: config.server.syslog_ident.clone(),
            file: None,
            stderr: false,
        });
        messages::tell(&what);
        messages::flush(FLUSH);
        let said = messages::of_tell(&what);
        Failure::new(Exit::Failed, format!("{} (MCA{:05})", said.text, said.number)).hint(format!(
            "{}. Nothing was started. Run \"mc_arb start\" on the host of the arbiter first, or use --async-connect-arbiter to \
             connect to the arbiter later. Also check the arbiter's line in network.conf, and mc.key.",
            [why.message, why.hint]
                .iter()
                .filter(|text| !text.is_empty())
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join("; ")
        ))
    })
}

/// Passes the request to a running controller. Waits for the end of a controller that is ending. False if none runs.
fn start_in_running_controller(
    config: &Config,
    args: &Start,
    failover: Option<bool>,
    begin: Instant,
    limit: Duration,
) -> Result<bool, Failure> {
    while call::is_running_or_gone(config, begin, limit)? {
        let started = match args.adopt_data {
            true => adopt(config, begin, limit),
            false => start_instance(config, args, failover, limit),
        };
        let ending = started.as_ref().is_err_and(|failure| match failure.exit {
            Exit::Refused => failure.transient == Some(Transient::Stopping),
            Exit::NotRunning => true,
            Exit::Failed => !call::is_running(config).unwrap_or(true),
            _ => false,
        });
        if !ending || begin.elapsed() >= limit {
            return started.map(|()| true);
        }
        std::thread::sleep(LOOK);
    }
    Ok(false)
}

/// Starts the instance if only the controller runs.
fn start_instance(config: &Config, args: &Start, failover: Option<bool>, limit: Duration) -> Result<(), Failure> {
    let snapshot = call::snapshot(config)?;
    if snapshot.report.stopping {
        return Err(
            Failure::transient(Transient::Stopping).hint("Run this command again when \"mc_ctl stop\" has ended.")
        );
    }
    let own = &snapshot.report.servers[config.me.index()];
    let up = matches!(own.role, HostRole::Primary | HostRole::Standby) && own.postmaster_runs() == Some(true);
    // The start of a standby that is not mirrored attaches it again after a detach.
    let detached = own.role == HostRole::Standby
        && snapshot.report.view.is_some_and(|view| view.mode == Mode::Degraded && view.primary != config.me);
    if up && !detached || args.mc_only || args.foreground {
        let hint = match args.foreground {
            true => "To start it here instead, run \"mc_ctl stop --mc-only\" first; its instance continues to run.",
            false => {
                "\"mc_ctl status\" shows its state; \"mc_ctl enable-failover\" and \"disable-failover\" change the setting."
            }
        };
        let why = format!("the controller of server \"{}\" is already running", config.id);
        return Err(Failure::new(Exit::Refused, why).hint(hint));
    }
    call::request(config, Request::Start { failover }, limit)
}

/// Waits until the start has come as far as it can, and says how far that is.
fn wait(config: &Config, begin: Instant, limit: Duration, failover: Option<bool>) -> Ended {
    let id = &config.id;
    let mut said = String::new();
    let mut asks_said = false;
    loop {
        let snapshot = call::snapshot(config).map_err(|failure| match failure.exit {
            Exit::NotRunning => Failure::new(Exit::Failed, format!("the controller of server \"{id}\" has ended"))
                .hint(format!("\"{}\" and syslog contain the reason.", config.run_dir().join("log").display())),
            _ => failure,
        })?;
        let late = begin.elapsed() >= limit;
        let primary = snapshot.report.servers[config.me.index()].role == HostRole::Primary;
        let waits_for = match &snapshot.report.progress {
            Progress::Settled => return Ok(started(config, &snapshot, None, failover)),
            Progress::Running(what) if primary || late => {
                return Ok(started(config, &snapshot, Some(what), failover));
            }
            Progress::Refused(why) => {
                let text = format!("server \"{id}\" is not started: {why}{}", full(&snapshot));
                return Err(Failure::new(Exit::Refused, text).hint(hints(config, &snapshot, "Reasons are in")));
            }
            Progress::Running(what) | Progress::Waiting(what) => what,
        };
        if late {
            let text =
                format!("server \"{id}\" was not started within {} s: {waits_for}{}", limit.as_secs(), full(&snapshot));
            return Err(Failure::new(Exit::TimedOut, text).hint(hints(
                config,
                &snapshot,
                "The controller continues to try; reasons are in",
            )));
        }
        if let Some(seconds) = snapshot.report.asks_arbiter_in.filter(|_| !asks_said) {
            asks_said = true;
            say(&format!(
                "mc_ctl: the primary does not respond; this server asks the arbiter for the right to run in {seconds} s \
                 (startup_wait)\n"
            ));
        }
        if begin.elapsed() > PATIENCE && *waits_for != said {
            said.clone_from(waits_for);
            say(&format!("mc_ctl: waiting: {said}\n"));
        }
        std::thread::sleep(LOOK);
    }
}

/// The directories of this server that are full: an instance that cannot write does not start.
fn full(snapshot: &Snapshot) -> String {
    let full = snapshot.space.iter().filter(|space| space.state == Level::Full);
    full.map(|space| format!("; {}", space.sentence())).collect()
}

/// What the controller advises, and where more is told.
fn hints(config: &Config, snapshot: &Snapshot, more: &str) -> String {
    let (log, server) = (config.run_dir().join("log"), &config.server.log_file);
    let mut hints = advice_or_next_step(snapshot);
    for space in snapshot.space.iter().filter(|space| space.state == Level::Full) {
        let Space { mount_point, directory, .. } = space;
        let wal = if *directory == Directory::TranLog { " Never delete files in pg_wal." } else { "" };
        let start = snapshot.report.start_command();
        let text = format!("Free space on the file system \"{mount_point}\", or extend it, then run \"{start}\".{wal}");
        if !hints.contains(&text) {
            hints.push(text);
        }
    }
    hints.push(format!("{more} \"{}\", PostgreSQL's in \"{}\" or its own log.", log.display(), server.display()));
    hints.join("\nHINT: ")
}

/// Says what has been started as what. Where the pair is not mirrored, `waits_for` is what it waits for.
fn started(config: &Config, snapshot: &Snapshot, waits_for: Option<&String>, failover: Option<bool>) -> u8 {
    let report = &snapshot.report;
    let id = &config.id;
    let role = match report.servers[config.me.index()].role {
        HostRole::Primary => "is started as primary",
        HostRole::Standby => "is started as standby",
        HostRole::InactivatedPrimary | HostRole::InactivatedStandby => "runs its controller, but not its instance",
        HostRole::Unknown => "is started",
    };
    // Settled, with the instance up, means mirrored; the view in the report is the durable one, a write behind.
    let up = matches!(report.servers[config.me.index()].role, HostRole::Primary | HostRole::Standby);
    let pair = match waits_for {
        None if up => "mirrored".to_owned(),
        Some(what) if !what.is_empty() => format!("not mirrored yet: {what}"),
        _ => "not mirrored".to_owned(),
    };
    print(&format!("server \"{id}\" {role}; {pair}\n"));
    for advice in advice_or_next_step(snapshot) {
        say(&format!("HINT: {advice}\n"));
    }
    if failover.is_none() && !report.failover {
        say(&format!("mc_ctl: NOTICE: {OFF}\n"));
    }
    0
}

/// Names this start; need not be secret, only unlike any other.
fn random() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
