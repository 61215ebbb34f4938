//! `mc_ctl rebuild`: shows what would be done, asks, orders it, and follows it. The controller does it, and continues without
//! this command.

use super::args::{ListFormat, Method, OldData, Rebuild as Args};
use super::follow::Follower;
use super::{Ended, Exit, Failure, call, print, print_json, recover, say, say_remark, service_form};
use crate::config::Config;
use crate::daemon::{self, watcher};
use crate::fsm::event::{Rebuild, Request, StartedBy, Transient};
use crate::fsm::report::{HostRole, Rebuilding, Report};
use crate::fsm::types::{Method as Wanted, OldData as Old, RebuildOrder};
use crate::messages::commands::{Form, Verb};
use crate::pg::process;
use crate::rebuild::{Chosen, Plan};
use indicatif::HumanBytes;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How often the controller is asked whether there can be a rebuild.
const LOOK: Duration = Duration::from_millis(100);
/// How long the controller may take to start.
const START: Duration = Duration::from_secs(60);
/// What is waited for beyond two detection times, until the other server has told that it is the primary.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// The same of a controller that has run for longer than that.
const SECOND_LOOK: Duration = Duration::from_secs(2);

pub(super) fn run(args: &Args) -> Ended {
    let begin = Instant::now();
    recover::refuse_rebuild(&args.common.file_config()?)?;
    let config = controlled(args)?;
    let order = RebuildOrder {
        method: match args.method {
            Method::Auto => Wanted::Auto,
            Method::Rewind => Wanted::Rewind,
            Method::Basebackup => Wanted::BaseBackup,
        },
        old_data: match args.old_data {
            OldData::Keep => Old::Keep,
            OldData::Delete => Old::Delete,
        },
    };
    let limit = args.seconds.map(Duration::from_secs);
    let Some(source) = source(&config)? else {
        if args.dry_run {
            return Err(Failure::new(Exit::Refused, "a rebuild is already in progress")
                .hint("\"mc_ctl status\" shows its progress."));
        }
        say("mc_ctl: a rebuild is already in progress; this command follows it\n");
        return Follower::new(&config, begin, limit).follow();
    };
    let what = Rebuild { order, ..source };
    if args.dry_run {
        let plan = daemon::plan_rebuild(&args.common.config()?, &what, true).map_err(Failure::failed)?;
        return Ok(show(&plan, args.format));
    }
    if !args.yes {
        ask(args, &what)?;
    }
    let follower = Follower::of_order(&config, begin, limit);
    request(&config, order, call::limit(&config, args.seconds))?;
    say(&format!(
        "mc_ctl: server \"{}\" becomes the standby of server \"{}\". Its controller performs the rebuild, and continues if \
         this command is interrupted; \"mc_ctl status\" shows the progress, and \"mc_ctl rebuild\" follows it again\n",
        config.id,
        config.peer().id
    ));
    follower.follow()
}

/// Orders it. A controller that was just started is still writing what it was told, and refuses for a moment.
fn request(config: &Config, order: RebuildOrder, limit: Duration) -> Result<(), Failure> {
    let begin = Instant::now();
    loop {
        match call::request(config, Request::Rebuild(order), limit) {
            Err(refused) if refused.transient == Some(Transient::UnderWay) && begin.elapsed() < SECOND_LOOK => {
                std::thread::sleep(LOOK);
            }
            other => return other,
        }
    }
}

/// The configuration, with a controller that runs: where there is none, it is started.
fn controlled(args: &Args) -> Result<Config, Failure> {
    let config = args.common.file_config()?;
    if call::is_running_or_gone(&config, Instant::now(), START)? {
        return Ok(config);
    }
    // Whatever is wrong with the instance's configuration is told here, not in the controller's log.
    let config = args.common.config()?;
    say(&format!(
        "mc_ctl: the controller of server \"{}\" is not running; it is started as with \"mc_ctl start --mc-only \
         --async-connect-arbiter\"\n",
        config.id
    ));
    config.remarks.iter().for_each(|remark| say_remark("mc_ctl", remark));
    watcher::start_detached(&config, StartedBy::Rebuild, START).map_err(Failure::failed)?;
    Ok(config)
}

/// What a rebuild would be made from, once the other server has told that it is the primary; `None` where one is under
/// way.
fn source(config: &Config) -> Result<Option<Rebuild>, Failure> {
    let detection = Duration::from_millis(config.settings(0).heartbeat_detection_ms);
    let introduction = detection * 2 + INTRODUCTION;
    let begin = Instant::now();
    let mut said = false;
    loop {
        let snapshot = call::snapshot(config)?;
        if !matches!(snapshot.report.rebuilding, Rebuilding::Idle | Rebuilding::Failed(_)) {
            return Ok(None);
        }
        let why = match &snapshot.report.rebuild_from {
            Ok(source) => return Ok(Some(source.clone())),
            Err(why) => why,
        };
        let old = Duration::from_millis(snapshot.now.since(snapshot.started));
        let patience = introduction.saturating_sub(old).max(SECOND_LOOK.min(introduction));
        if begin.elapsed() >= patience {
            let text = format!("server \"{}\" cannot be rebuilt now: {why}", config.id);
            let form = || service_form::when_running(&config.dir);
            return Err(Failure::new(Exit::Refused, text).hint(hint(&config.peer().id, &snapshot.report, form)));
        }
        if !said && begin.elapsed() > Duration::from_secs(1) {
            said = true;
            say(&format!("mc_ctl: waiting: {why}\n"));
        }
        std::thread::sleep(LOOK);
    }
}

fn hint(other: &str, report: &Report, form: impl FnOnce() -> Form) -> String {
    let own = &report.servers[report.me.index()];
    match own.role {
        _ if !report.peer_lives && report.view.is_none() => format!(
            "Run \"mc_ctl start -f\" on server \"{other}\", which must be the primary. If its controller is running, repair the \
             network between the servers."
        ),
        HostRole::Primary if !report.peer_lives => format!(
            "Server \"{other}\" does not respond and may have taken over. Repair the network between the servers first, then \
             run this command again."
        ),
        HostRole::Primary => {
            "Run it on the server that is to become the standby. To make this server the standby, run \"mc_ctl switch\" first."
                .to_owned()
        }
        HostRole::Standby if own.processes.as_ref().is_some_and(Vec::is_empty) => format!(
            "To copy its data again, run \"{}\" on this server, then \"mc_ctl rebuild --method basebackup\".",
            form().command(Verb::Stop)
        ),
        _ if report.view.is_some_and(|view| view.is_mirrored(report.me.other())) => {
            "\"mc_ctl status\" shows whether anything is wrong with the pair.".to_owned()
        }
        _ if !report.peer_lives => format!(
            "If the controller of server \"{other}\" is not running, run \"{}\" on it. Otherwise repair the network between the \
             servers.",
            report.start_command()
        ),
        _ => format!("\"mc_ctl status\" on server \"{other}\" must show that server as the primary."),
    }
}

/// Shows in short what will be done, and asks where that overwrites something.
fn ask(args: &Args, what: &Rebuild) -> Result<(), Failure> {
    let config = args.common.config()?;
    let plan = daemon::plan_rebuild(&config, what, false).map_err(Failure::failed)?;
    if !plan.obstacles.is_empty() {
        let hint = "\"mc_ctl rebuild --dry-run\" shows all steps. Nothing was changed.";
        return Err(Failure::new(Exit::Refused, plan.obstacles.join("\n")).hint(hint));
    }
    let data = config.server.db_instance.display();
    let risk = match (plan.chosen, what.order.old_data) {
        (Chosen::Follow, _) => return Ok(()),
        (Chosen::BaseBackup, _) if config.server.no_data.is_some() => return Ok(()),
        (Chosen::Rewind, _) => format!("pg_rewind overwrites what differs in the data directory \"{data}\"."),
        (Chosen::BaseBackup, Old::Keep) => {
            format!("The data directory \"{data}\" is replaced by a copy; the old directory is kept beside it.")
        }
        (Chosen::BaseBackup, Old::Delete) => {
            format!(
                "The data directory \"{data}\" is DELETED before a copy replaces it. If both servers have run alone, or the data of \
                 the other server was adopted, it can be the only copy of commits."
            )
        }
    };
    let stopped = match process::postmaster(&process::home(&config.server.db_instance)) {
        Ok(Some(running)) => format!("The instance that runs in it (process {}) is stopped first.\n", running.pid),
        Ok(None) | Err(_) => String::new(),
    };
    say(&format!("{}\n", summary(&plan)));
    call::confirm(&format!("{stopped}{risk}"))
}

// ----------------------------------------------------------------------------------------------------------- the plan

fn show(plan: &Plan, format: ListFormat) -> u8 {
    match format {
        ListFormat::Text => print(&text(plan)),
        ListFormat::Json => print_json(plan),
    }
    if plan.obstacles.is_empty() { 0 } else { Exit::Refused as u8 }
}

/// Method, reason, size, and what is lost: what a confirmation is asked on.
fn summary(plan: &Plan) -> String {
    let mut out = format!("method:     {}: {}\n", plan.chosen.program(), plan.why);
    match plan.bytes {
        Some(0) if plan.chosen == Chosen::Follow => out += "to copy:    nothing\n",
        Some(bytes) => _ = writeln!(out, "to copy:    about {}", HumanBytes(bytes)),
        None if plan.chosen == Chosen::Follow => {}
        None => out += "to copy:    shows later\n",
    }
    if let Some(lost) = &plan.lost {
        _ = writeln!(out, "only here:  {}", lost.in_words());
    }
    out
}

fn text(plan: &Plan) -> String {
    let mut out = summary(plan);
    for room in &plan.room {
        if room.needed == 0 {
            _ = writeln!(out, "disk space: {}: {} free", room.path.display(), HumanBytes(room.free));
            continue;
        }
        let enough = if room.free < room.needed { "; not enough, the rebuild would fail" } else { "" };
        let least = if room.at_least { "at least " } else { "" };
        _ = writeln!(
            out,
            "disk space: {}: {least}{} needed, {} free{enough}",
            room.path.display(),
            HumanBytes(room.needed),
            HumanBytes(room.free)
        );
    }
    out += "steps:\n";
    for (number, step) in plan.steps.iter().enumerate() {
        _ = writeln!(out, "  {}. {step}", number + 1);
    }
    if plan.obstacles.is_empty() {
        out += "nothing was changed\n";
        return out;
    }
    out += "it cannot be done:\n";
    for obstacle in &plan.obstacles {
        _ = writeln!(out, "  - {}", obstacle.replace('\n', "\n    "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{DataId, Mode, Server, Term, View};
    use crate::rebuild::{Lost, Room};

    fn lost() -> Lost {
        Lost {
            time_ms: 0,
            timeline: 1,
            from: "0/3000000".into(),
            to: "0/3001000".into(),
            transactions: 2,
            first_commit: "12:00".into(),
            last_commit: "12:01".into(),
            relations: vec!["app.public.t".into()],
            more_relations: false,
            maybe_acknowledged: false,
            doubt: Default::default(),
            kept: "/mc/nd1/lost/x".into(),
        }
    }

    #[test]
    fn a_primary_that_is_cut_off_is_not_sent_to_switch() {
        let mut report = Report::blank(Server::First);
        report.servers[0].role = HostRole::Primary;
        let hinted = hint("nd2", &report, || Form::Direct);
        // Without a view nothing can have been taken over.
        assert!(
            hinted.starts_with("Run \"mc_ctl start -f\" on server \"nd2\"") && !hinted.contains("taken over"),
            "{hinted}"
        );
        report.view = Some(View {
            term: Term(1),
            primary: Server::First,
            mode: Mode::Degraded,
            data: [Some(DataId(1)), None],
            arbiter: None,
            forced: false,
        });
        let hinted = hint("nd2", &report, || Form::Direct);
        assert!(hinted.starts_with("Server \"nd2\" does not respond") && !hinted.contains("switch"), "{hinted}");
        report.peer_lives = true;
        assert!(hint("nd2", &report, || Form::Direct).contains("mc_ctl switch"));
    }

    #[test]
    fn plans_read_well() {
        let mut plan = Plan {
            chosen: Chosen::Rewind,
            why: "it has diverged".into(),
            bytes: Some(3 << 20),
            room: vec![Room { path: "/data".into(), needed: 3 << 20, at_least: false, free: 4 << 30 }],
            lost: Some(lost()),
            steps: vec!["one".into(), "two".into()],
            obstacles: vec![],
        };
        let expected = "\
method:     pg_rewind: it has diverged
to copy:    about 3.00 MiB
only here:  2 committed transactions, from 12:00 to 12:01, in app.public.t; none was acknowledged with synchronous_commit on \
                        (timeline 1, 0/3000000 to 0/3001000)
disk space: /data: 3.00 MiB needed, 4.00 GiB free
steps:
  1. one
  2. two
nothing was changed
";
        assert_eq!(text(&plan), expected);
        (plan.bytes, plan.lost, plan.room[0].free, plan.room[0].at_least) = (None, None, 0, true);
        plan.obstacles = vec!["there is no room\nHINT: make some".into()];
        let shown = text(&plan);
        for part in [
            "to copy:    shows later\n",
            "at least 3.00 MiB needed, 0 B free; not enough, the rebuild would fail\n",
            "done:\n  - there is no room\n    HINT:",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
    }
}
