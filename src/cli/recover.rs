//! `mc_ctl recover`: the pair continues with what a backup and the WAL archives lead to.
//!
//! What is decided, and how far it has come, is in the journal ([`Journal`]); [`work`] holds the steps.

mod consent;
mod fetch;
mod pair;
mod plan;
mod program;
mod work;

use super::archive::{self, destination};
use super::args::{Common, ListFormat};
use super::backup::Interruption;
use super::{Ended, Exit, Failure, call, print, print_json, say};
use crate::backup::Destination;
use crate::config::Config;
use crate::daemon::reload;
use crate::daemon::store::Lock;
use crate::error::Error;
use crate::pg::connect::Session;
use crate::pg::{Place, conf, follow};
use crate::rebuild;
use crate::recover::{Journal, Phase, Target};
use crate::status::Snapshot;
use pair::Standing;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use work::{Before, Work};

/// What restores the backup and the WAL.
pub(super) enum Source {
    /// This command does, from `backup_destination`.
    Destination(Destination),
    /// The program of `recover_command`.
    Program(PathBuf),
}

impl Source {
    fn new(config: &Config) -> Result<Source, Failure> {
        match &config.server.recover_command {
            Some(program) => Ok(Source::Program(program.clone())),
            None => destination(config).map(Source::Destination),
        }
    }
}

/// What the operator has ordered.
struct Order {
    target: Target,
    /// The backup; `None`: the newest that leads to the target.
    backup: Option<String>,
    /// The timeline on which the recovery is to end; `None`: the newest.
    timeline: Option<u32>,
    /// The end of the names under which old directories are kept.
    stamp: String,
}

impl Order {
    fn new(target: Target, backup: Option<String>, timeline: Option<u32>) -> Order {
        Order { target, backup, timeline, stamp: rebuild::stamp(rebuild::now_ms()) }
    }
}

/// Held by the command.
const LOCK: &str = "recover.lock";
/// How long a session's opening, or a query, may take.
const QUERY: Duration = Duration::from_secs(10);
/// How long the WAL up to now may take to be archived.
const ARCHIVED: Duration = Duration::from_secs(60);

/// `recover`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Recover all WAL
    #[arg(long, group = "target")]
    latest: bool,
    /// Recover what was committed up to a time, such as '2026-11-30 14:05:00+00'
    #[arg(long, group = "target", value_name = "TIMESTAMP", value_parser = Target::time)]
    time: Option<Target>,
    /// Recover up to a restore point (pg_create_restore_point)
    #[arg(long, group = "target", value_name = "RESTORE_POINT", value_parser = Target::name)]
    name: Option<Target>,
    /// Recover up to a position in WAL
    #[arg(long, group = "target", value_name = "LSN", value_parser = Target::lsn)]
    lsn: Option<Target>,
    /// Recover up to the commit of a transaction
    #[arg(long, group = "target", value_name = "XID")]
    xid: Option<u64>,
    /// Recover to the end of the backup
    #[arg(long, group = "target")]
    immediate: bool,
    /// The timeline to recover along, such as one that an earlier recovery has abandoned [default: the newest]
    #[arg(long, value_name = "TIMELINE", requires = "target", value_parser = clap::value_parser!(u32).range(1..))]
    timeline: Option<u32>,
    /// The backup to restore [default: the newest that precedes the target]
    #[arg(long, value_name = "BACKUP", requires = "target")]
    backup: Option<String>,
    /// Undo a recovery that was interrupted before it replaced the data directory
    #[arg(long, conflicts_with_all = ["target", "dry_run", "yes"])]
    abandon: bool,
    /// Recover without the consent of the other server, which does not respond and is confirmed down
    #[arg(long, conflicts_with = "abandon")]
    force: bool,
    /// Only show the plan
    #[arg(long, requires = "target", conflicts_with = "yes")]
    dry_run: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = ListFormat::Text, value_name = "FORMAT", requires = "dry_run")]
    format: ListFormat,
    /// Do not request confirmation
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &Args) -> Ended {
    let config = args.common.config()?;
    let run_dir = config.run_dir();
    if args.timeline.is_some() && config.server.recover_command.is_some() {
        return Err(Failure::new(Exit::Usage, "recover_command selects the backup: --timeline is not possible"));
    }
    if args.dry_run && !Journal::exists(&run_dir) {
        return dry_run(args, &config, &Source::new(&config)?);
    }
    let Some(_lock) = Lock::try_take(&run_dir, LOCK).map_err(Failure::failed)? else {
        return Err(Failure::new(Exit::Refused, "a recovery is already in progress"));
    };
    let interruption = Interruption::new(None)?;
    let journal = Journal::load(&run_dir).map_err(Failure::failed)?;
    let source = match journal.as_ref().map(|journal| journal.program.clone()) {
        Some(Some(program)) => Source::Program(program),
        Some(None) => Source::Destination(destination(&config)?),
        None => Source::new(&config)?,
    };
    let work = Work::new(&config, source, &interruption);
    match (journal, args.order()) {
        (None, _) if args.abandon => Err(Failure::new(Exit::Refused, "no recovery is in progress")),
        (Some(journal), _) if args.abandon => abandon(&work, &journal),
        (Some(journal), Some(_)) => {
            let text = format!("a recovery to {} is in progress", journal.target);
            Err(Failure::new(Exit::Refused, text).hint(REMEDY))
        }
        (Some(journal), None) if journal.phase == Phase::Copying => {
            work.undo(&journal)?;
            // If this server did not serve, the other server may serve: the operator confirms again that it does not.
            let backup = journal.program.is_some().then_some(journal.backup).filter(|name| !name.is_empty());
            let timeline = journal.selected.then_some(journal.timeline);
            let order = Order::new(journal.target, backup, timeline);
            begin(&work, &order, args.yes || journal.served, args.force)
        }
        (Some(mut journal), None) => {
            if args.force && !journal.forced {
                if !args.yes {
                    call::confirm(&consent::risk(&config))?;
                }
                journal.forced = true;
                journal.write(&run_dir).map_err(Failure::failed)?;
            }
            complete(&work, journal)
        }
        (None, Some(order)) => begin(&work, &order, args.yes, args.force),
        (None, None) => Err(Failure::new(Exit::Usage, "no target is specified, and no recovery is in progress").hint(
            "Use --latest, --time, --name, --lsn, --xid or --immediate. \"mc_ctl backup --list\" shows the backups.",
        )),
    }
}

const REMEDY: &str =
    "Run \"mc_ctl recover\" without a target to continue it, or \"mc_ctl recover --abandon\" to undo it.";

/// What a server with a recovery in progress reports; `None` if none is.
pub(super) fn in_progress(config: &Config) -> Option<String> {
    let undo = match phase(config)? {
        Some(Phase::Swapping) => "",
        Some(Phase::Adopting | Phase::Rebuilding) => ", or \"mc_ctl recover --abandon\" to end it as it is",
        _ => ", or \"mc_ctl recover --abandon\" to undo it",
    };
    Some(format!("A recovery is in progress. If it was interrupted, run \"mc_ctl recover\" to continue it{undo}."))
}

/// How far a recovery has come; the inner `None` if its journal cannot be read, the outer one if none is in progress.
fn phase(config: &Config) -> Option<Option<Phase>> {
    let run_dir = config.run_dir();
    Journal::exists(&run_dir).then(|| Journal::load(&run_dir).ok().flatten().map(|journal| journal.phase))
}

fn refused(config: &Config) -> Failure {
    Failure::new(Exit::Refused, "a recovery is in progress").hint(in_progress(config).unwrap_or_default())
}

/// Why `mc_ctl rebuild` does not begin: both replace the data directory.
pub(super) fn refuse_rebuild(config: &Config) -> Result<(), Failure> {
    match phase(config) {
        None | Some(Some(Phase::Rebuilding)) => Ok(()),
        Some(_) => Err(refused(config)),
    }
}

/// Why `mc_ctl start` does not start the instance: only the recovery does.
pub(super) fn refuse_start(config: &Config) -> Result<(), Failure> {
    let journal = Journal::load(&config.run_dir()).map_err(Failure::failed)?;
    match journal {
        Some(journal) if (Phase::Stopping..=Phase::Adopting).contains(&journal.phase) => Err(refused(config)),
        _ => Ok(()),
    }
}

impl Args {
    fn target(&self) -> Option<Target> {
        let given = [&self.time, &self.name, &self.lsn].into_iter().flatten().next().cloned();
        given
            .or_else(|| self.xid.map(Target::Xid))
            .or_else(|| self.latest.then_some(Target::Latest))
            .or_else(|| self.immediate.then_some(Target::Immediate))
    }

    fn order(&self) -> Option<Order> {
        self.target().map(|target| Order::new(target, self.backup.clone(), self.timeline))
    }
}

fn dry_run(args: &Args, config: &Config, source: &Source) -> Ended {
    let Some(order) = args.order() else { return Err(Failure::new(Exit::Usage, "no target is specified")) };
    let snapshot = match call::is_running(config)? {
        true => Some(pair::look(config)?),
        false => None,
    };
    let standing = snapshot.as_ref().map_or(Ok(Standing::Down), |snapshot| pair::standing(config, &snapshot.report));
    let known = *standing.as_ref().unwrap_or(&Standing::Down);
    let mut found = plan::find(config, source, &order, (snapshot.as_deref(), known)).map_err(Failure::failed)?;
    found.count_lost(config, source, &order, (snapshot.as_deref(), known));
    if let Err(failure) = standing {
        found.plan.obstacles.push(failure.error.to_string());
    } else if let Some(snapshot) = snapshot
        && known == Standing::Down
    {
        let consents = pair::has_consent(config, &snapshot.report, args.force);
        found.plan.obstacles.extend(consents.err().map(|failure| failure.error.to_string()));
    }
    match args.format {
        ListFormat::Json => print_json(&found.plan),
        ListFormat::Text => print(&found.plan.text()),
    }
    if found.plan.obstacles.is_empty() {
        return Ok(0);
    }
    refuse(&found.plan).map(|()| 0)
}

fn refuse(plan: &plan::Plan) -> Result<(), Failure> {
    match plan.obstacles.is_empty() {
        true => Ok(()),
        false => {
            Err(Failure::new(Exit::Refused, format!("the recovery cannot be done: {}", plan.obstacles.join("\n"))))
        }
    }
}

fn begin(work: &Work, order: &Order, yes: bool, force: bool) -> Ended {
    let config = work.config;
    pair::start_controller(config)?;
    let snapshot = pair::look(config)?;
    let standing = pair::standing(config, &snapshot.report)?;
    let target = &order.target;
    let look = || plan::find(config, &work.source, order, (Some(&snapshot), standing)).map_err(Failure::failed);
    let mut found = look()?;
    refuse(&found.plan)?;
    if standing == Standing::Down {
        pair::has_consent(config, &snapshot.report, force)?;
    }
    found.count_lost(config, &work.source, order, (Some(&snapshot), standing));
    say(&found.plan.text());
    if !yes {
        let risk = if force { format!(" {}", consent::risk(config)) } else { String::new() };
        call::confirm(&format!(
            "The recovery replaces the data of both servers. Commits after the target are lost.{risk}"
        ))?;
    }
    if !found.within && !target.is_latest() && standing != Standing::Down {
        work.step("archiving WAL up to now");
        archive_up_to_now(work, &snapshot, standing)?;
        found = look()?;
        refuse(&found.plan)?;
    }
    if let (Source::Destination(destination), Some(wanted)) = (&work.source, &found.missing) {
        match work.fetch(destination, wanted) {
            Ok(()) => {
                found = look()?;
                refuse(&found.plan)?;
            }
            Err(failure) if found.candidates.is_empty() || work.interruption.cancel.is_set() => return Err(failure),
            Err(failure) => {
                work.end_display();
                say(&format!("mc_ctl: WARNING: {}\nmc_ctl: a backup of this server is used\n", failure.error));
            }
        }
    }
    let before = Before {
        served: standing != Standing::Down,
        primary: standing == Standing::Primary,
        forced: force,
        rival: force || snapshot.report.view.is_some_and(|view| view.is_alone(snapshot.report.me.other())),
        failover: snapshot.report.failover,
    };
    let journal = match &work.source {
        Source::Destination(_) => work.prepare(&found.candidates, order, before)?,
        Source::Program(program) => work.prepare_by(program, order, before)?,
    };
    complete(work, journal)
}

/// Has the primary archive its WAL up to now, in which a target may lie. A commit follows every time before now.
fn archive_up_to_now(work: &Work, snapshot: &Snapshot, standing: Standing) -> Result<(), Failure> {
    let config = work.config;
    let failed = |error: Error| Failure::failed(Error::new(format!("could not have WAL archived: {}", error.message)));
    let mut session = session(config, snapshot, standing).map_err(failed)?;
    let mut query = |sql: &str| session.query(sql, QUERY).map_err(|refusal| failed(refusal.into()));
    query("SET synchronous_commit = local")?;
    query("SELECT txid_current()")?;
    let rows = query("SELECT pg_walfile_name(pg_switch_wal())")?;
    let segment = rows.into_iter().flatten().flatten().next().unwrap_or_default();
    let begin = Instant::now();
    while begin.elapsed() < ARCHIVED {
        let archived = match &work.source {
            Source::Destination(at) => plan::holdings(config, at).map_err(failed)?.0.contains(&segment),
            Source::Program(_) => {
                let ready = "SELECT FROM pg_ls_archive_statusdir() WHERE name =";
                query(&format!("{ready} '{segment}.ready'"))?.is_empty()
            }
        };
        if archived {
            return Ok(());
        }
        work.interruption.cancel.sleep(Duration::from_millis(200)).map_err(failed)?;
    }
    let text = format!("WAL segment {segment} was not archived within {} s", ARCHIVED.as_secs());
    Err(Failure::new(Exit::TimedOut, text)
        .hint("Nothing was changed. Check archive_mode and archive_command; pg_stat_archiver shows failures."))
}

/// A session of the primary.
fn session(config: &Config, snapshot: &Snapshot, standing: Standing) -> Result<Session, Error> {
    if standing == Standing::Primary {
        return Ok(Session::open(&reload::target(config), QUERY, "the recovery")?);
    }
    let place = Place::new(config);
    let conninfo = conf::effective("primary_conninfo", &place.config_file, &place.data).unwrap_or_default();
    let keys = follow::parse_conninfo(&conninfo).unwrap_or_default();
    let value = |name: &str| keys.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let host = value("host").ok_or_else(|| Error::new("primary_conninfo has no host"))?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let source = format!("{host}:{}", value("port").unwrap_or_else(|| "5432".to_owned()));
    let name = &snapshot.servers[config.me.index()].id;
    let remote = rebuild::remote(&crate::daemon::jobs::rebuild_setup(config, name), &source)?;
    Ok(Session::open_remote(&remote, QUERY, QUERY, "the recovery")?)
}

fn complete(work: &Work, journal: Journal) -> Ended {
    let (id, peer) = (&work.config.id, &work.config.peer().id);
    let old = journal.replacement.old.clone();
    let olds: Vec<_> = journal.replacement.moves.iter().map(|change| change.old.clone()).chain([old]).collect();
    let rival = journal.rival;
    let ended = work.complete(journal)?;
    let mirrored = matches!(ended, work::Ended::Mirrored);
    let target = "the pair continues with the recovered data";
    match ended {
        work::Ended::Mirrored => {
            print(&format!("{target}; server \"{id}\" is the primary, and the pair is mirrored\n"))
        }
        work::Ended::Alone => {
            print(&format!("{target}; server \"{id}\" is the primary, and runs alone\n"));
            let first = match rival {
                true => format!(
                    "Server \"{peer}\" may have the right to run alone, and its controller would then stop this server: before \
                     it starts, rename the directory \"{peer}\" in the management directory of server \"{peer}\". Then run"
                ),
                false => "Run".to_owned(),
            };
            say(&format!(
                "mc_ctl: WARNING: the controller of server \"{peer}\" does not respond\nHINT: {first} \"mc_ctl rebuild\" on \
                 server \"{peer}\".\n"
            ));
        }
    }
    for kept in olds.iter().filter(|kept| kept.exists()) {
        say(&format!("mc_ctl: the old data is kept; when it is no longer needed: rm -r '{}'\n", kept.display()));
    }
    for kept in archive::old_data_of_peer(work.config).iter().filter(|_| mirrored) {
        say(&format!(
            "mc_ctl: server \"{peer}\" keeps old data too; when it is no longer needed, run there: rm -r '{}'\n",
            kept.display()
        ));
    }
    say(
        "HINT: Verify the recovered data. If the target was wrong, run \"mc_ctl recover\" with another one: \"Restoring a backup\" in \
         mirroring-controller(7). If the data is right, make a backup: \"mc_ctl backup --fast-checkpoint\".\n",
    );
    Ok(0)
}

fn abandon(work: &Work, journal: &Journal) -> Ended {
    if journal.phase == Phase::Swapping {
        return Err(Failure::new(Exit::Refused, "the recovery replaces the data directory and cannot be undone")
            .hint("Run \"mc_ctl recover\" to continue it."));
    }
    if journal.phase > Phase::Swapping {
        work.leave()?;
        print("the recovery was ended; the data directory is the recovered one, and the old one is kept\n");
        let peer = &work.config.peer().id;
        say(&format!(
            "HINT: Run \"mc_ctl status\" on both servers. If one of them is the primary, run \"mc_ctl rebuild\" on the other server. \
             Only if neither server \"{peer}\" nor this server serves, see \"Adopting the data\" in mirroring-controller(7).\n"
        ));
        return Ok(0);
    }
    work.undo(journal)?;
    print("the recovery was undone\n");
    Ok(0)
}
