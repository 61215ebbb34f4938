//! Follows a rebuild that the controller does, until the pair is mirrored again: a bar on a terminal, plain lines elsewhere.
//! Asks the controller for its status and nothing else.

use super::{Ended, Exit, Failure, call, print, say};
use crate::config::Config;
use crate::daemon::watcher;
use crate::fsm::report::{HostRole, Rebuilding, Word};
use crate::messages::commands::Form;
use crate::rebuild::{Chosen, Journal, Progress};
use crate::status::Snapshot;
use crate::status::{RebuildStatus, WAITING, duration};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the controller is asked how far it is.
const LOOK: Duration = Duration::from_millis(100);
/// Plain lines about the same step are not closer together than this.
const LINES: Duration = Duration::from_secs(10);
/// How long the controller may be gone, or not answer: its watcher starts it again.
const AWAY: Duration = Duration::from_secs(30);
/// The same where nobody is there who would start it again, but for a service manager.
const GONE: Duration = Duration::from_secs(4);
/// How long it may look as if nothing was being done, with nothing achieved either.
const ADRIFT: Duration = Duration::from_secs(15);

/// How long the primary must reject the standby: longer than the controller takes to test its connection again.
const REJECTED: Duration = Duration::from_secs(7);

/// How long nothing is said about what is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where a rebuild is, as one look at the controller shows it.
#[derive(PartialEq, Eq, Debug)]
enum Seen {
    /// The pair is mirrored, and well.
    Done(Word),
    /// It continues.
    Going(RebuildStatus),
    /// The standby runs, and the primary rejects its replication connection: what fails, and how to repair it.
    Rejected(RebuildStatus, String),
    /// Nothing is under way, and the instance is no standby.
    Adrift,
    /// It has failed.
    Failed(String),
}

fn look(snapshot: &Snapshot) -> Seen {
    let report = &snapshot.report;
    let then = |step: &str| RebuildStatus {
        step: step.to_owned(),
        method: None,
        why: String::new(),
        bytes_done: 0,
        bytes_total: None,
        elapsed_ms: 0,
        failed: None,
    };
    let mirrored = report.view.is_some_and(|view| view.is_mirrored(report.me.other()));
    let rejected = snapshot.rejected_replication().map(|failure| (failure, failure.hint_on(&Form::Direct, "here")));
    match (&report.rebuilding, RebuildStatus::new(snapshot)) {
        (Rebuilding::Failed(why), _) => Seen::Failed(match rejected {
            Some((failure, hint)) => {
                let why = why.split("\nHINT:").next().unwrap_or(why);
                format!("{why}: {}\nHINT: {hint}", failure.error)
            }
            None => why.clone(),
        }),
        (Rebuilding::Starting, Some(status)) => match rejected {
            Some((_, hint)) => Seen::Rejected(status, hint),
            None => Seen::Going(status),
        },
        (_, Some(status)) => Seen::Going(status),
        (_, None) => match report.word {
            word @ (Word::Switchable | Word::FailoverDisabled) if mirrored => Seen::Done(word),
            word if mirrored => {
                Seen::Going(then(&format!("the pair is mirrored; the status is still \"{}\"", word.text())))
            }
            _ if report.servers[report.me.index()].role == HostRole::Standby => {
                Seen::Going(then("the standby runs; the primary verifies that it is synchronous"))
            }
            _ => Seen::Adrift,
        },
    }
}

/// One rebuild, followed from its order to its end.
pub(super) struct Follower<'a> {
    config: &'a Config,
    begin: Instant,
    limit: Option<Duration>,
    /// Where old directories are put that are kept.
    aside: Vec<PathBuf>,
    display: Display,
    /// The last that the controller told of its copying.
    progress: Option<Progress>,
    told: Option<Chosen>,
    /// This command has ordered it, and so missed nothing.
    ordered: bool,
    /// What the controller reported of an earlier rebuild before the order.
    earlier: Option<Progress>,
}

impl<'a> Follower<'a> {
    /// Follows it for at most `limit` from `begin` on.
    pub fn new(config: &'a Config, begin: Instant, limit: Option<Duration>) -> Follower<'a> {
        let (aside, display) = (Vec::new(), Display::new());
        Follower { config, begin, limit, aside, display, progress: None, told: None, ordered: false, earlier: None }
    }

    /// The same of one that is about to be ordered.
    pub fn of_order(config: &'a Config, begin: Instant, limit: Option<Duration>) -> Follower<'a> {
        let earlier = call::snapshot(config).ok().and_then(|snapshot| snapshot.rebuild);
        Follower { ordered: true, earlier, ..Follower::new(config, begin, limit) }
    }

    /// Until its end.
    pub fn follow(mut self) -> Ended {
        let mut away: Option<Instant> = None;
        let mut adrift: Option<Instant> = None;
        let mut waiting: Option<Instant> = None;
        let mut rejected: Option<Instant> = None;
        loop {
            let seen = match call::snapshot(self.config) {
                Ok(snapshot) => {
                    away = None;
                    self.note(&snapshot);
                    look(&snapshot)
                }
                Err(failure) => {
                    let patience = if watcher::is_there(&self.config.run_dir()) { AWAY } else { GONE };
                    if away.get_or_insert_with(Instant::now).elapsed() >= patience {
                        return Err(self.left_alone(failure));
                    }
                    std::thread::sleep(LOOK);
                    continue;
                }
            };
            if !matches!(seen, Seen::Rejected(..)) {
                rejected = None;
            }
            match seen {
                Seen::Done(word) => return Ok(self.done(word)),
                Seen::Failed(why) => return Err(self.failed(&format!("failed: {why}"))),
                Seen::Adrift if adrift.get_or_insert_with(Instant::now).elapsed() >= ADRIFT => {
                    return Err(self.failed("was abandoned"));
                }
                Seen::Adrift => {}
                Seen::Rejected(status, hint) if rejected.get_or_insert_with(Instant::now).elapsed() >= REJECTED => {
                    return Err(self.rejected(&status.step, &hint));
                }
                Seen::Going(status) | Seen::Rejected(status, _) => {
                    adrift = None;
                    let waits = status.step.starts_with(WAITING);
                    let since = *waiting.get_or_insert_with(Instant::now);
                    if !waits {
                        waiting = None;
                    }
                    if !waits || since.elapsed() >= PATIENCE {
                        self.display.show(&status);
                    }
                }
            }
            if self.limit.is_some_and(|limit| self.begin.elapsed() >= limit) {
                return Err(self.late());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Says how it is done as soon as that is known.
    fn note(&mut self, snapshot: &Snapshot) {
        // Before, it may be of an earlier rebuild. A short one may have ended already.
        let copies = snapshot.report.rebuilding == Rebuilding::Copying;
        let own = copies || self.progress.is_some() || self.ordered && snapshot.rebuild != self.earlier;
        let Some(progress) = snapshot.rebuild.as_ref().filter(|_| own) else { return };
        if progress.chosen.is_some() && progress.chosen != self.told {
            self.told = progress.chosen;
            let how = match progress.chosen {
                Some(Chosen::Rewind) => "pg_rewind: ",
                Some(Chosen::BaseBackup) => "pg_basebackup: ",
                Some(Chosen::Follow) | None => "nothing is copied: ",
            };
            self.display.line(&format!("{how}{}", progress.why));
        }
        self.progress = Some(progress.clone());
        // There while it continues.
        if let Ok(Some(journal)) = Journal::load(&self.config.run_dir()) {
            self.aside = journal.moves.into_iter().map(|moved| moved.old).chain([journal.old]).collect();
        }
    }

    fn late(&self) -> Failure {
        self.display.end();
        let limit = self.limit.unwrap_or_default().as_secs();
        Failure::new(
            Exit::TimedOut,
            format!("the rebuild of server \"{}\" has not ended within {limit} s", self.config.id),
        )
        .hint(
            "It continues in the controller. \"mc_ctl status\" shows its progress, and \"mc_ctl rebuild\" follows it.",
        )
    }

    /// The data directory is complete, and the primary rejects the connection of the standby.
    fn rejected(&self, why: &str, hint: &str) -> Failure {
        self.display.end();
        let text = format!("the rebuild of server \"{}\" cannot be completed: {why}", self.config.id);
        Failure::new(Exit::Failed, text).hint(format!(
            "{}{}. Then the standby connects, and no other rebuild is required.",
            hint[..1].to_uppercase(),
            &hint[1..]
        ))
    }

    fn left_alone(&self, failure: Failure) -> Failure {
        self.display.end();
        match failure.exit {
            Exit::NotRunning => {
                failure.hint("The rebuild is interrupted. Run \"mc_ctl rebuild\" or \"mc_ctl start\" to continue it.")
            }
            _ => failure,
        }
    }

    fn failed(&self, how: &str) -> Failure {
        self.display.end();
        let log = self.config.run_dir().join("log");
        let mut hint = String::new();
        for path in self.kept() {
            hint += &format!("The old directory is \"{}\".\nHINT: ", path.display());
        }
        hint += &format!(
            "Repair the cause and run \"mc_ctl rebuild\" again; \"mc_ctl rebuild --dry-run\" shows what it would do. The \
             preceding messages are in \"{}\". The controller does not try again.",
            log.display()
        );
        let text = format!("the rebuild of server \"{}\" {how}", self.config.id);
        // A reason that brings its own hint keeps it.
        Failure::new(Exit::Failed, text).hint(hint)
    }

    fn done(&self, word: Word) -> u8 {
        self.display.end();
        let (me, other) = (&self.config.id, &self.config.peer().id);
        let mut out = format!("server \"{me}\" is the standby of server \"{other}\"; the pair is {}\n", word.text());
        let took = duration(self.begin.elapsed().as_secs());
        match &self.progress {
            Some(Progress { continued: true, .. }) => {
                out += &format!("the complete copy of an earlier attempt was used; {took} in total\n");
            }
            Some(Progress {
                chosen: Some(chosen @ (Chosen::Rewind | Chosen::BaseBackup)), done, elapsed_ms, ..
            }) => {
                let program = chosen.program();
                let copied = duration(elapsed_ms / 1000);
                out += &format!("{program} copied {} in {copied}; {took} in total\n", HumanBytes(*done));
            }
            Some(Progress { chosen: Some(Chosen::Follow), .. }) => {
                out += &format!("nothing had to be copied; {took} in total\n");
            }
            None if self.ordered => out += &format!("nothing had to be copied; {took} in total\n"),
            _ => out += &format!("it took {took}\n"),
        }
        if let Some(lost) = self.progress.as_ref().and_then(|progress| progress.lost.as_ref()) {
            out +=
                &format!("only \"{me}\" had: {}\nthis WAL is saved in \"{}\"\n", lost.in_words(), lost.kept.display());
        }
        for path in self.kept() {
            out += &format!("the old directory is \"{}\"; remove it when you no longer need it\n", path.display());
        }
        print(&out);
        if word == Word::FailoverDisabled {
            say(
                "HINT: Automatic switch and disconnection are disabled. Run \"mc_ctl enable-failover\" to enable them.\n",
            );
        }
        0
    }

    /// Old directories that were kept.
    fn kept(&self) -> impl Iterator<Item = &PathBuf> {
        self.aside.iter().filter(|path| path.exists())
    }
}

/// Where it is shown how far it is.
pub(super) enum Display {
    /// A terminal.
    Bar(ProgressBar),
    /// Anything else: what was said last, and when.
    Lines { step: String, line: String, at: Instant },
}

impl Display {
    pub fn new() -> Display {
        if !std::io::stderr().is_terminal() || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
            return Display::Lines { step: String::new(), line: String::new(), at: Instant::now() };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(Self::style(false));
        Display::Bar(bar)
    }

    /// Without colours, so that NO_COLOR has nothing to forbid; in ASCII, so that no locale shows something else.
    fn style(known: bool) -> ProgressStyle {
        let template = match known {
            true => "{msg} [{wide_bar}] {bytes}/{total_bytes} {percent}%, {bytes_per_sec}, {eta} left",
            false => "{spinner} {wide_msg} {elapsed}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        style.progress_chars("=> ").tick_chars("|/-\\ ")
    }

    pub fn show(&mut self, status: &RebuildStatus) {
        match self {
            Display::Bar(bar) => {
                // A long step is never drawn beside a bar.
                let changed = bar.length() != status.bytes_total;
                if changed && status.bytes_total.is_none() {
                    bar.set_style(Self::style(false));
                }
                if bar.message() != status.step {
                    bar.set_message(status.step.clone());
                }
                if changed {
                    bar.set_style(Self::style(status.bytes_total.is_some()));
                    match status.bytes_total {
                        Some(total) => bar.set_length(total),
                        None => bar.unset_length(),
                    }
                    bar.reset_eta();
                }
                match status.bytes_total {
                    Some(_) => bar.set_position(status.bytes_done),
                    None => bar.tick(),
                }
            }
            Display::Lines { step, line, at } => {
                let now = status.line();
                // Numbers in a step change all the time.
                let kind: String = status.step.chars().filter(|c| !c.is_ascii_digit()).collect();
                if kind != *step || now != *line && at.elapsed() >= LINES {
                    say(&format!("mc_ctl: {now}\n"));
                    (*step, *line, *at) = (kind, now, Instant::now());
                }
            }
        }
    }

    fn line(&self, text: &str) {
        match self {
            Display::Bar(bar) => bar.suspend(|| say(&format!("mc_ctl: {text}\n"))),
            Display::Lines { .. } => say(&format!("mc_ctl: {text}\n")),
        }
    }

    pub fn end(&self) {
        if let Display::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
