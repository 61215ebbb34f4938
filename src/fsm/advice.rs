//! The hints of a report: what an operator can do, as `mc_ctl status` shows it.

use super::cause::Cause;
use super::decide::{Intent, Needs, decide};
use super::event::{Instance, Names, Role};
use super::facts::{Facts, Peer, Standing};
use super::node_report::Reporter;
use super::observed::DownReason;
use super::report::Word;
use super::types::RebuildOrder;

/// What keeps a server that has the right to run alone from using it when its controller starts.
const MOVE_LEDGER: &str =
    "rename its directory in the management directory there (\"mv $MCCONTROLDIR/ID $MCCONTROLDIR/ID.old\")";

impl Reporter<'_> {
    pub(super) fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let standing = self.standing();
        advice.extend(self.advice_on_rebuild());
        advice.extend(self.advice_on_lost_ledger());
        advice.extend(self.advice_on_rival_ledger());
        if self.own.down_reasons.has(DownReason::DidNotStayUp) {
            let start = if self.store.notes.failover.enabled { "mc_ctl start -f" } else { "mc_ctl start" };
            advice.push(format!("the instance did not stay up and stays down for ten detection times: see its log; run \"{start}\" to start it at once"));
        }
        if self.own.down_reasons.has(DownReason::FailoverDisabled) {
            advice.push(
                "the instance failed while failover was disabled: run \"mc_ctl start\" to start it again".to_owned(),
            );
        }
        if self.own.closed {
            advice.push(
                "the instance rejects the controller's connection: run \"mc_ctl check\", which names the cause"
                    .to_owned(),
            );
        }
        if self.own.down_reasons.has(DownReason::Isolated) {
            let force = self.advice_on_force("the standby", "detach");
            advice.extend(force.map(|force| format!("this server is cut off and its instance was stopped; {force}")));
        } else if self.announced.awaits_said {
            let why = match self.change_of_names_is_unreported() {
                true => {
                    "commits may not wait for the standby, and no other member responds; the instance is started when one responds"
                }
                false => {
                    "the instance crashed, and no other member responds; the instance is started when one responds"
                }
            };
            advice.extend(self.advice_on_force("the standby", "detach").map(|force| format!("{why}; {force}")));
        } else if self.announced.waits_since.is_some_and(|at| self.now.since(at) >= self.patience_ms()) {
            let why = "commits are waiting for the other server, which does not confirm them";
            advice.extend(self.advice_on_force("the standby", "detach").map(|force| format!("{why}; {force}")));
        }
        advice.extend(self.advice_on_silence());
        advice.extend(self.advice_on_first_heartbeat());
        if self.peer_fact() == Peer::Alive {
            advice.push(
                "the other server's controller does not respond, but its instance runs, and nothing is switched: run \"mc_ctl \
                 start\" on that server, or repair the network between the controllers"
                    .to_owned(),
            );
        }
        let told = self.peer.heartbeat.as_ref().filter(|_| self.peer_talks(self.patience_ms()));
        if standing == Some(Standing::Alone)
            && self.store.notes.promoted
            && told.is_some_and(|told| told.role == Role::None && told.ledger.is_some())
        {
            advice.push("the other server is not its standby yet: run \"mc_ctl rebuild\" on it".to_owned());
        }
        if told.is_some_and(|told| told.proving) {
            advice.push(
                "the primary makes the checkpoints that must end before the pair is mirrored: run \"mc_ctl status\" on it to see \
                 their progress"
                    .to_owned(),
            );
        }
        let forgot = self.peer.heartbeat.as_ref().is_some_and(|told| told.ledger.is_none());
        if forgot && standing == Some(Standing::Primary) && self.peer_talks(self.patience_ms()) {
            advice.push(
                "the standby has lost its ledger and cannot take over: run \"mc_ctl detach --force\" here to attach it again"
                    .to_owned(),
            );
        }
        advice.extend(self.advice_on_names());
        advice.extend(self.advice_on_wal().or_else(|| self.advice_on_wal_receiver()));
        advice.extend(self.advice_on_foreign_arbiter());
        if standing.is_some() && !self.eligible() && standing != Some(Standing::Inactivated) {
            advice.push(
                "this data directory is not the one that the view names, and cannot take the role of the primary until the pair is \
                 mirrored again: run \"mc_ctl check\"; only if no newer copy of the data is left, run \"mc_ctl start \
                 --adopt-data\" here"
                    .to_owned(),
            );
        }
        if let Some((hook, why)) = self.calls.hook_failure() {
            let name = super::event::Purpose::Hook(hook).parameter();
            advice.push(format!(
                "{name} has failed ({why}): do its work manually; run \"mc_ctl explain MCA01051\" for more"
            ));
        }
        advice
    }

    /// The data directory bears the mark of a ledger that is not there.
    fn advice_on_lost_ledger(&self) -> Option<String> {
        let marked = self.own.data.is_some_and(|data| data.mark.is_some() && !data.incomplete);
        if self.standing().is_some() || !marked || self.own.is_standby_dir() || self.store.notes.rebuild.is_some() {
            return None;
        }
        let serves = self.peer.heartbeat.as_ref().is_some_and(|told| told.role == Role::Primary);
        Some(match serves {
            true => format!("the ledger of this server is lost: {}", self.rebuild_command()),
            false => "the ledger of this server is lost: run \"mc_ctl status\" on the other server; if that server has not served \
                      since, run \"mc_ctl start --adopt-data\" here"
                .to_owned(),
        })
    }

    /// An operator forced the right to run alone, and the other server was or may have been promoted: it would win the split.
    fn advice_on_rival_ledger(&self) -> Option<String> {
        let forced = self.standing() == Some(Standing::Alone) && self.view().is_some_and(|view| view.forced);
        if !forced || self.store.notes.lost_split || self.was_promoted() || self.peer_talks(self.patience_ms()) {
            return None;
        }
        let rival = match &self.peer.heartbeat {
            Some(told) if told.promoted && self.rival_holds_alone() => "the other server was promoted",
            Some(_) => return None,
            None => "if the other server was promoted",
        };
        Some(format!(
            "{rival}, its ledger still gives it the right to serve, and when its controller starts, this server is stopped: before \
             that, {MOVE_LEDGER} and run \"mc_ctl rebuild --method basebackup\" on it"
        ))
    }

    /// The other server's ledger, as far as it is known, gives it the right to run alone.
    fn rival_holds_alone(&self) -> bool {
        let told = self.peer.heartbeat.as_ref().and_then(|told| told.ledger);
        told.is_some_and(|ledger| ledger.view.is_alone(self.other()))
    }

    /// Why this server's data cannot be adopted while the other server runs as the primary, and what to do to keep this data.
    pub(super) fn running_rival(&self) -> String {
        let why = "the other server runs as the primary: run \"mc_ctl rebuild\" here to keep its data; to keep the data of this \
                   server, run \"mc_ctl stop\" on the other server";
        match self.rival_holds_alone() {
            true => format!("{why}, then {MOVE_LEDGER}, then run this command again"),
            false => format!("{why}, then run this command again"),
        }
    }

    /// What an operator can do in a state for which there is no other advice.
    pub(super) fn advice_on_word(&self, word: Word, alone: bool) -> Option<String> {
        let text = match word {
            Word::FailoverDisabled => {
                "failures are only reported: run \"mc_ctl enable-failover\" to enable automatic switch and disconnection"
            }
            Word::Switching if alone => "a change is in progress: run \"mc_ctl status --watch\" to see when it ends",
            Word::NotSwitchable | Word::Switched | Word::SplitBrain if alone && self.disconnected().is_none() => {
                "run \"mc_ctl check\", which names what keeps the pair from being mirrored"
            }
            Word::Unknown if alone => {
                "the pair has not been mirrored yet: run \"mc_ctl check\", which names what is missing, and \"mc_ctl start\" on \
                 the other server"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The primary shows other names than the controller has written: another line, `ALTER SYSTEM` or the command line wins.
    fn advice_on_names(&self) -> Option<String> {
        let Some(Instance::Primary { names, .. }) = self.own.role else { return None };
        let mirrored = self.standing() == Some(Standing::Primary) && !self.looks_may_be_older();
        (names == Names::Other || names == Names::Unset && mirrored).then(|| {
            "synchronous_standby_names is not what the controller has written: run \"mc_ctl check\", which names the place; if \
             that is postgresql.auto.conf, run \"psql -c 'ALTER SYSTEM RESET synchronous_standby_names' -c 'SELECT \
             pg_reload_conf()'\"; if it is the command line, start the instance only with mc_ctl"
                .to_owned()
        })
    }

    /// The primary runs and its heartbeats arrive, but this standby receives no WAL.
    fn advice_on_wal_receiver(&self) -> Option<String> {
        let primary = self.peer.heartbeat.as_ref().is_some_and(|told| told.role == Role::Primary);
        let follows = matches!(self.own.role, Some(Instance::Standby { streaming: false, .. })) && !self.wal_flows();
        (primary && follows && self.peer_talks(self.patience_ms())).then(|| {
            "this standby receives no WAL from the primary: run \"mc_ctl check\", which names an error in the configuration, and \
             WAL that the primary no longer has; the error of the WAL receiver is in PostgreSQL's log on this server"
                .to_owned()
        })
    }

    /// What an operator can run while the other server of a mirrored pair does not respond and no member consents.
    fn advice_on_silence(&self) -> Option<String> {
        let (who, verb) = match self.standing()? {
            Standing::Standby => ("the primary", "switch"),
            Standing::Primary => ("the standby", "detach"),
            Standing::Alone | Standing::Inactivated => return None,
        };
        let silent = matches!(self.peer_fact(), Peer::Lost | Peer::Refused | Peer::NeverSeen);
        let proposing = self.announced.proposing.is_some_and(|at| self.now.since(at) < self.patience_ms());
        if !silent || proposing || self.own.down_reasons.has(DownReason::Isolated) {
            return None;
        }
        let why = match self.calls.failure() {
            Some((command, why)) => {
                let name = command.purpose.parameter();
                format!("{name} has failed ({why}) and is run again later")
            }
            None if self.acts_if_enabled() => "failures are only reported".to_owned(),
            None if self.settings.arbiter && self.arbiter.lost => "the arbiter does not respond either".to_owned(),
            None if self.settings.arbiter => "the arbiter has not consented; its log contains the reason".to_owned(),
            None => "no other member is configured".to_owned(),
        };
        let force = self.advice_on_force(who, verb)?;
        let disk = &self.arbiter.disk;
        if self.settings.arbiter && !self.arbiter.lost && !disk.failure.is_empty() && self.calls.failure().is_none() {
            let then = if verb == "switch" { "this server then takes over" } else { "this server then serves alone" };
            let place = if disk.space.is_empty() { &disk.failure } else { &disk.space };
            return Some(format!(
                "{who} does not respond, and the arbiter cannot write its ledger: free space on the arbiter's host ({place}); \
                 {then}. Only if no space can be freed there: {force}"
            ));
        }
        Some(format!("{who} does not respond, and the controller does not act: {why}; {force}"))
    }

    /// When `mc_ctl switch --force` or `detach --force` may be used. An arbiter that does not respond may have given the right to
    /// the other server, and only these two have a record of it.
    fn advice_on_force(&self, who: &str, verb: &str) -> Option<String> {
        if self.acts_if_enabled() {
            return Some("failover is disabled: run \"mc_ctl enable-failover\" to let the controller act".to_owned());
        }
        if self.standing() == Some(Standing::Standby) && self.store.notes.unmirrored {
            return Some(format!(
                "{}: restore the other server; only if its data is lost, run \"mc_ctl start --adopt-data\" here, and lose them",
                Cause::MayLackCommits
            ));
        }
        let risk = self.force_risk().filter(|_| self.eligible() && self.instance_allows_force())?;
        Some(if self.settings.arbiter && self.arbiter.lost {
            format!(
                "run \"mc_ctl status\" on the other server or \"mc_arb status\" on the arbiter's host: if the other server serves \
                 alone, repair the network and do not use force; run \"mc_ctl {verb} --force\" here only if {who} is down, \
                 stays down and has not served alone (see \"Before a forced command\" in mirroring-controller(7)): {risk}"
            )
        } else {
            format!(
                "only if {who} is down, stays down and has not served alone (see \"Before a forced command\" in \
                 mirroring-controller(7)), run \"mc_ctl {verb} --force\" here: {risk}"
            )
        })
    }

    /// Whether the controller would request the right to run alone, or take it, if failover were enabled.
    fn acts_if_enabled(&self) -> bool {
        use Intent::{ActByForce, ActByHalf, AskArbiter, AskCommand, AskPeer};
        let decision = self.facts().map(decide).filter(|decision| decision.needs == Needs::Failover);
        let acts =
            decision.is_some_and(|d| matches!(d.intent, ActByForce | ActByHalf | AskArbiter | AskCommand | AskPeer));
        acts && !self.store.notes.failover.enabled
    }

    /// In how many seconds a standby that has received nothing from the primary since its start asks the arbiter.
    pub(super) fn asks_arbiter_in(&self) -> Option<u64> {
        let facts =
            self.facts().filter(|facts| facts.peer == Peer::NotSeenYet && facts.standing == Standing::Standby)?;
        let waited = self.now.since(self.id.booted_at?);
        let asks = decide(Facts { peer: Peer::NeverSeen, ..facts }).intent == Intent::AskArbiter;
        let late = waited >= self.patience_ms() && self.peer.up_at().is_none() && !self.wal_flows();
        let left = self.settings.startup_wait_ms.max(self.settings.heartbeat_detection_ms).saturating_sub(waited);
        (asks && late && self.store.notes.failover.enabled).then(|| left.div_ceil(1000))
    }

    fn advice_on_first_heartbeat(&self) -> Option<String> {
        let seconds = self.asks_arbiter_in()?;
        Some(format!(
            "the primary has not responded since this server's start: run \"mc_ctl start\" on that server; if it does not respond, \
             this server asks the arbiter for the right to run in {seconds} s (startup_wait)"
        ))
    }

    /// What is not known when an operator forces a view, and what it can cost. Whether the other server may have served
    /// meanwhile depends on who else could let it.
    fn force_risk(&self) -> Option<&'static str> {
        use super::event::OnSilence::{Arbitration, Command, Disconnect, Fallback, Message, Switch};
        let risk = match (self.standing()?, self.settings.on_silence) {
            (Standing::Standby, Disconnect | Fallback | Command) => {
                "the primary may have served alone since, and every commit that it acknowledged alone is lost"
            }
            (Standing::Standby, Arbitration) => {
                "the arbiter may have allowed the primary to serve alone, and every commit that it acknowledged alone is lost"
            }
            (Standing::Standby, Switch | Message) => {
                "an operator may have allowed the primary to serve alone, and every commit that it acknowledged alone is lost"
            }
            (Standing::Primary, Switch | Fallback | Command) => {
                "the standby may have been promoted, and then both acknowledge commits, and those of one server are lost"
            }
            (Standing::Primary, Arbitration) => {
                "the arbiter may have allowed the standby to take over, and then both acknowledge commits, and those of one \
                 server are lost"
            }
            (Standing::Primary, Disconnect | Message) => {
                "an operator may have promoted the standby, and then both acknowledge commits, and those of one server are lost"
            }
            (Standing::Alone | Standing::Inactivated, _) => return None,
        };
        Some(risk)
    }

    pub(super) fn advice_on_foreign_arbiter(&self) -> Option<String> {
        let (theirs, mine) = (self.arbiter.foreign?.0, self.id.system.map_or(0, |system| system.0));
        Some(format!(
            "the arbiter records a pair of another cluster (system identifier {theirs}, here {mine}): correct network.conf, or, if \
             that cluster no longer exists, run \"mc_arb forget {theirs}\" on the arbiter"
        ))
    }

    /// The command that rebuilds this server, or the one to run before it.
    pub(super) fn rebuild_command(&self) -> &'static str {
        match self.source(RebuildOrder::default()) {
            Ok(_) => "run \"mc_ctl rebuild\" here",
            Err(_) => {
                "when the other server runs as the primary (\"mc_ctl status\" there), run \"mc_ctl rebuild\" here"
            }
        }
    }

    pub(super) fn advice_on_rebuild(&self) -> Option<String> {
        if self.store.notes.rebuild.is_some() || self.work.rebuilds.rejoin || self.work.rebuilds.is_made() {
            return None;
        }
        let incomplete = self.own.data.is_some_and(|data| data.incomplete);
        let lost =
            self.standing() == Some(Standing::Inactivated) && !self.own.is_standby_dir() && self.own.data.is_some();
        // The hint of the failure is a line of its own and does not fit into a sentence.
        let failed = self.failed_rebuild().map(|why| why.split("\nHINT:").next().unwrap_or(why));
        let run = self.rebuild_command();
        let again = match failed {
            Some(why) if self.retries_rebuild() => {
                format!("the last rebuild failed ({why}) and is tried again automatically; ")
            }
            Some(why) => format!("the last rebuild failed ({why}); "),
            None => String::new(),
        };
        if self.store.notes.lost_split {
            let run = match self.source(RebuildOrder::default()) {
                Ok(_) => "run \"mc_ctl rebuild --method basebackup\" here, which keeps its data directory,",
                Err(_) => run,
            };
            Some(format!(
                "{again}both servers ran alone; this server was stopped: {run} to make it the other server's standby"
            ))
        } else if incomplete {
            Some(format!("{again}this data directory is incomplete and cannot be started: {run}"))
        } else if lost && self.store.notes.handed_over.is_none() {
            Some(format!("{again}this server has lost its role: {run} to make it the other server's standby"))
        } else if lost {
            Some(match self.settings.rebuild_auto {
                true => format!(
                    "this server has handed over its role and becomes the standby automatically; otherwise, {run}"
                ),
                false => format!("this server has handed over its role: {run} to make it the standby"),
            })
        } else {
            (!again.is_empty()).then(|| format!("{again}{run} to try again"))
        }
    }

    /// What an operator can do about WAL that is missing.
    pub(super) fn advice_on_wal(&self) -> Option<String> {
        if self.store.notes.overwritten && self.standing() == Some(Standing::Inactivated) {
            let run = self.rebuild_command();
            return Some(format!("this standby's WAL was overwritten from a primary that did not contain it: {run}"));
        }
        if self.cannot_hand_over() {
            return Some(
                "this server's data directory was exchanged, and commits may not have waited for the other server: restore the \
                 former data directory or keep this one, and run \"mc_ctl start --adopt-data\" here; or run it on the other \
                 server and lose the commits that it does not hold"
                    .to_owned(),
            );
        }
        if self.is_refuted() {
            let what = match self.standing() {
                Some(Standing::Standby) if !self.eligible() => {
                    "run \"mc_ctl detach --force\" on the primary to keep its data, or \"mc_ctl start --adopt-data\" on this \
                     server to keep this data; transactions that only the other server holds are lost"
                }
                Some(Standing::Standby) => "run \"mc_ctl switch\" to make this server the primary",
                _ => self.rebuild_command(),
            };
            return Some(format!("this standby holds WAL that the primary does not contain: {what}"));
        }
        let had = self.store.notes.went_back?;
        let has = self.wal_point().map_or(self.position(), |point| point.lsn);
        let lost = format!("this server's data ends at {has} and no longer contains the WAL up to {}", had.lsn);
        match self.standing()? {
            Standing::Primary if self.wal.none_holds_all() => Some(format!(
                "{lost}, and the other server does not hold it either: compare both, then run \"mc_ctl start --adopt-data\" on \
                 the server whose data is to be kept"
            )),
            Standing::Primary => Some(format!("{lost}; run \"mc_ctl switch\" to make the other server the primary")),
            Standing::Standby => Some(format!(
                "{lost}, so that it is not promoted; if the primary is lost, \"mc_ctl start --adopt-data\" runs this data and \
                 loses what followed its end"
            )),
            Standing::Alone => Some(format!(
                "{lost}; restore the newer data, or run \"mc_ctl start --adopt-data\" and lose what followed its end"
            )),
            Standing::Inactivated => None,
        }
    }
}
