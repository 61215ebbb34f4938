//! Work on the instance: one job at a time, and reconciling the instance with the ledger.

use super::cause::Cause;
use super::event::{Action, CoreMessage, Instance, Job, JobId, Names, Outcome, Role, StandbyRow};
use super::facts::{Data, InstanceState, Standing, StartPolicy};
use super::hand_over::HandOver;
use super::node::Node;
use super::node_report::Reporter;
use super::observed::{DownReason, Failure, OwnSide, Running};
use super::reconcile::{Step, next_step};
use super::rules;
use super::types::{DataId, Lsn, RebuildOrder, Time, Timeline};

/// How long a fast shutdown may take where the right to run is gone, ms.
pub(super) const FAST_STOP_MS: u64 = 2_000;
/// How old a look into the data directory may be when an instance is started from it, or its role is given away, ms.
pub(super) const FRESH_LOOK_MS: u64 = 1_000;
/// How long after a failure the same thing is tried again, ms.
const RETRY_MS: u64 = 1_000;
/// How many starts that no order ended, within ten detection times, before an instance is left down.
const STARTS: usize = 3;

/// The runner, as the core sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Work {
    job: Option<(JobId, Job, Time)>,
    nudged_at: Time,
    interrupted: bool,
    next_id: u64,
    retry_at: Time,
    /// Whether the failure that set `retry_at` was that of a stop.
    stop_failed: bool,
    /// The last look into the data directory failed, and no stop has failed since.
    pub unread: bool,
    failure: String,
    /// Why the last hand-over failed.
    pub hand_over_failure: String,
    pub proving: Option<DataId>,
    pub rebuilds: super::rebuild::Rebuilds,
    /// The standby of the last attempt: its operator's start, and its data directory.
    pub proof_of: Option<(u64, DataId)>,
    pub proof_wait_ms: u64,
    pub next_proof: Time,
}

impl Work {
    pub fn busy(&self) -> bool {
        self.job.is_some()
    }

    /// The job that is out.
    pub fn out(&self) -> Option<(JobId, Job)> {
        self.job.as_ref().map(|(id, job, _)| (*id, job.clone()))
    }

    /// Whether a job is out after which the instance is another than before.
    pub fn starts_or_stops(&self) -> bool {
        matches!(self.job, Some((_, Job::Start { .. } | Job::Stop { .. } | Job::Rebuild(_) | Job::Abandon, _)))
    }

    /// Whether the data directory is being rebuilt.
    pub fn rebuilds(&self) -> bool {
        matches!(self.job, Some((_, Job::Rebuild(_), _)))
    }

    pub fn retry_at(&self) -> Time {
        self.retry_at
    }

    /// Whether a stop may begin now. A stop waits after the failure of a stop, not after that of another job.
    pub fn may_stop(&self, now: Time) -> bool {
        !self.stop_failed || now >= self.retry_at
    }

    fn retry_later(&mut self, now: Time, stop_failed: bool) {
        self.retry_at = now.plus(RETRY_MS);
        self.stop_failed = stop_failed;
    }

    /// Whether a job is out after which a standby might acknowledge something.
    pub fn frees(&self) -> bool {
        match &self.job {
            None => false,
            Some((_, job, _)) => match job {
                Job::Inspect
                | Job::CompareWal(_)
                | Job::Mark(_)
                | Job::Stop { .. }
                | Job::Checkpoint
                | Job::Rebuild(_)
                | Job::Abandon
                | Job::Start { names: Some(_), .. } => false,
                Job::Start { names: None, .. } | Job::NamesOn(_) | Job::NamesOff | Job::Promote | Job::Prove(_) => true,
            },
        }
    }

    /// The checkpoint job, while it is out.
    pub(super) fn checkpointing(&self) -> Option<JobId> {
        self.job.as_ref().filter(|(_, job, _)| *job == Job::Checkpoint).map(|(id, _, _)| *id)
    }

    /// When the proof (R9) that is out began.
    pub fn proves_since(&self) -> Option<Time> {
        self.job.as_ref().filter(|(_, job, _)| matches!(job, Job::Prove(_))).map(|(_, _, since)| *since)
    }

    pub fn switches(&self) -> bool {
        matches!(self.job, Some((_, Job::Promote, _)))
    }

    /// The start that is under way, and whether the instance will follow the other server.
    fn starting(&self) -> Option<bool> {
        match &self.job {
            Some((_, Job::Start { follow, .. }, _)) => Some(follow.is_some()),
            _ => None,
        }
    }

    fn stops(&self) -> bool {
        matches!(self.job, Some((_, Job::Stop { .. }, _)))
    }
}

impl OwnSide {
    /// `synchronous_standby_names` was set, and a session has shown it.
    pub fn named(&mut self) {
        if let Some(Instance::Primary { names, .. }) = self.role.as_mut() {
            *names = Names::Peer;
        }
        self.freed = false;
    }

    /// The standby has been seen to be synchronous, and to have flushed this: newer than the probe's last look.
    pub fn followed(&mut self, position: Lsn) {
        if let Some(Instance::Primary { standby, .. }) = self.role.as_mut() {
            let seen = standby.unwrap_or(StandbyRow { streaming: true, sync: true, flushed: position, reply: 0 });
            *standby = Some(StandbyRow { streaming: true, sync: true, flushed: seen.flushed.max(position), ..seen });
        }
    }

    fn unnamed(&mut self) {
        match self.role.as_mut() {
            Some(Instance::Primary { names, .. }) => *names = Names::Unset,
            _ => self.freed = true,
        }
    }
}

impl Node {
    // ---------------------------------------------------------------------------------------------------------- jobs

    pub(super) fn run(&mut self, job: Job) {
        self.work.next_id += 1;
        let id = JobId(self.work.next_id);
        match &job {
            Job::Start { .. } => {
                self.own.named_while_down = false;
                self.own.may_have_run = true;
                self.own.starts.push(self.now);
            }
            Job::Stop { .. } => {
                self.work.proving = None;
                if self.own.failed.is_none() && self.own.running != Running::Dead {
                    self.own.starts.pop();
                }
            }
            Job::Promote => {
                self.own.promoting = true;
                self.say(CoreMessage::PromotionStarted);
            }
            _ => {}
        }
        self.work.job = Some((id, job.clone(), self.now));
        self.work.nudged_at = self.now;
        self.work.interrupted = false;
        self.out.push(Action::Run(id, job));
    }

    pub(super) fn done(&mut self, id: JobId, outcome: Outcome) {
        let Some((current, job, since)) = self.work.job.take() else { return };
        if current != id {
            self.work.job = Some((current, job, self.now));
            return;
        }
        if !matches!(outcome, Outcome::Failed(_)) {
            self.work.failure.clear();
        }
        match &job {
            Job::Inspect => self.work.unread = matches!(outcome, Outcome::Failed(_)),
            Job::Stop { .. } => self.work.unread = false,
            _ => {}
        }
        match (job, outcome) {
            (Job::Inspect | Job::Mark(_), Outcome::Data(data)) => self.found_data(data, since),
            (Job::CompareWal(asked), Outcome::Wal(found)) => self.wal_found(asked, found),
            (Job::Rebuild(_), Outcome::Rebuilt { data, address }) => self.rebuilt(data, address, since),
            (Job::Rebuild(_), Outcome::Failed(why)) => {
                self.work.retry_later(self.now, false);
                self.rebuild_failed(why);
            }
            (Job::Abandon, Outcome::Data(data)) => self.rebuild_abandoned(Some(data), since),
            (Job::Abandon, Outcome::Failed(why)) => {
                self.job_failed(&Job::Abandon, why);
                self.rebuild_abandoned(None, since);
            }
            (Job::Start { names, follow }, Outcome::Started(mut data)) => {
                data.standby_signal |= follow.is_some();
                data.running = true;
                self.own.started(self.now);
                self.wal.instance_ended();
                self.found_data(data, since);
                self.own.freed = names.is_none();
                self.out.push(Action::Look);
            }
            (Job::Stop { names, .. }, Outcome::Stopped(data)) => {
                // An instance that runs after this was started by another program, and its stop is reported again.
                self.announced.inactivated = false;
                self.own.named_while_down = names.is_some() && data.is_some();
                self.own.down();
                self.wal.instance_ended();
                match data {
                    Some(data) => {
                        self.found_data(data, since);
                        // The result may arrive late. An instance that was started by hand meanwhile, and has crashed, is found
                        // when the directory is read again before the next start.
                        self.own.data_at = since;
                    }
                    None => self.own.lost_sight(),
                }
                self.own.down();
                if self.own.failed == Some(Failure::Silent) && self.hand_overs.current.is_none() {
                    self.own.failed = None;
                }
            }
            (Job::NamesOff, Outcome::Applied) => {
                let released = self.own.is_primary();
                self.own.unnamed();
                if released {
                    self.say(CoreMessage::Disconnected);
                }
            }
            (Job::NamesOn(_), Outcome::Applied) => self.own.named(),
            (Job::Promote, Outcome::Promoted(timeline)) => self.promoted(timeline),
            (Job::Prove(_), Outcome::Proved(position)) => self.proved(position),
            (Job::Checkpoint, Outcome::Applied) => self.confirm_standby(),
            (job, Outcome::Failed(why)) => self.job_failed(&job, why),
            (job, _) => self.job_failed(&job, "the runner's result does not match the job".to_owned()),
        }
    }

    fn job_failed(&mut self, job: &Job, why: String) {
        let name = match job {
            Job::Inspect => "reading the data directory",
            Job::CompareWal(_) => "comparing the WAL",
            Job::Mark(_) => "marking the data directory",
            Job::Start { .. } => "starting the instance",
            Job::Stop { .. } => "stopping the instance",
            Job::NamesOn(_) => "setting synchronous_standby_names",
            Job::NamesOff => "commenting out synchronous_standby_names",
            Job::Promote => "promotion",
            Job::Prove(_) => "verifying the standby",
            Job::Checkpoint => "the checkpoint",
            Job::Rebuild(_) => "the rebuild",
            Job::Abandon => "undoing the rebuild",
        };
        self.work.retry_later(self.now, matches!(job, Job::Stop { .. }));
        match job {
            Job::Start { .. } | Job::Stop { .. } | Job::Promote => self.own.running = Running::Unknown,
            Job::Prove(_) => self.proof_failed(),
            Job::Checkpoint if self.hand_overs.current.as_ref().is_some_and(HandOver::checkpointing) => {
                self.hand_over_failed("the checkpoint before it failed");
            }
            Job::Checkpoint => {}
            Job::Rebuild(_) | Job::Abandon => self.own.running = Running::Unknown,
            // A directory that was emptied can be rebuilt.
            Job::Inspect if self.store.notes.rebuild.is_some() => self.own.data = None,
            Job::Inspect | Job::CompareWal(_) | Job::Mark(_) | Job::NamesOn(_) | Job::NamesOff => {}
        }
        if self.work.failure != why {
            self.work.failure.clone_from(&why);
            self.say(CoreMessage::JobFailed { job: name, why });
        }
    }

    fn promoted(&mut self, timeline: Timeline) {
        self.own.promoting = false;
        if let Some(data) = self.own.data.as_mut() {
            data.standby_signal = false;
        }
        let flushed = self.own.received();
        self.own.role =
            Some(Instance::Primary { timeline, flushed, names: Names::Unset, waiting: false, standby: None });
        self.store.notes.promoted = true;
        self.say(CoreMessage::PromotionCompleted);
        self.out.push(Action::Look);
    }

    /// No thread is waited for: an answer that is overdue is requested again.
    fn nudge(&mut self) {
        let Some((id, job, since)) = &self.work.job else { return };
        let limit_ms = match job {
            Job::Inspect | Job::Mark(_) => 10_000,
            Job::CompareWal(_) => 60_000,
            Job::NamesOn(_) | Job::NamesOff => 15_000,
            Job::Start { .. } => 30_000,
            Job::Stop { fast_ms, .. } => fast_ms + 15_000,
            Job::Checkpoint => 120_000,
            // Its checkpoints have no limit while the checkpointer makes progress. Commits wait meanwhile, so that the proof ends as
            // soon as the standby does not confirm them, and as soon as the instance does not answer.
            Job::Prove(_) if self.standby_is_back() && self.own.failed.is_none() => return,
            Job::Prove(_) => 0,
            Job::Promote => 30_000,
            // It ends by itself: each of its steps has a limit, or shows that it moves.
            Job::Rebuild(_) => return,
            Job::Abandon => 600_000,
        };
        if self.now.since(*since) >= limit_ms && self.now.since(self.work.nudged_at) >= 5_000 {
            let id = *id;
            self.work.nudged_at = self.now;
            self.out.push(Action::Nudge(id));
        }
    }

    /// A rebuild gives way to a stop. The next start continues it.
    pub(super) fn interrupt_rebuild(&mut self) {
        let Some((id, Job::Rebuild(_) | Job::Abandon, _)) = &self.work.job else { return };
        let id = *id;
        if self.now.since(self.work.nudged_at) >= 1_000 || !self.work.interrupted {
            self.work.nudged_at = self.now;
            self.work.interrupted = true;
            self.out.push(Action::Nudge(id));
        }
    }

    // --------------------------------------------------------------------------------------------------- reconciling

    /// Does what the instance lacks of what the ledger asks for; called once per step.
    pub(super) fn reconcile(&mut self) {
        self.nudge();
        self.retry_start();
        let Some(standing) = self.standing() else {
            self.run_without_ledger();
            return;
        };
        let todo = next_step(standing, self.data_fact(), self.leave(), self.being());
        if todo == Step::Stop {
            self.stop_at_once();
            return;
        }
        if todo == Step::Clear && !self.work.stops() && self.work.may_stop(self.now) {
            let names = self.names_for_stop();
            self.run(Job::Stop { fast_ms: 0, names });
            return;
        }
        if self.rebuild() {
            return;
        }
        let urgent = todo == Step::Look;
        if self.work.busy() || self.now < self.work.retry_at || !urgent && !self.settled() {
            return;
        }
        let handing_over = self.hand_overs.current.is_some() && (!urgent || self.own.running == Running::Down);
        if self.marks_data() || handing_over {
            return;
        }
        match todo {
            // Names that an operator changes are seen in the files alone.
            Step::Nothing if standing == Standing::Primary && self.own.closed && self.reads_are_old() => {
                self.run(Job::Inspect);
            }
            Step::Nothing | Step::Stop | Step::Clear => {}
            Step::Halt if self.own.down_reasons.has(DownReason::Disconnected) && !self.requests.stopping => {
                let names = self.names_for_stop();
                self.run(Job::Stop { fast_ms: FAST_STOP_MS, names });
            }
            Step::Halt => {}
            Step::Look => self.run(Job::Inspect),
            Step::StartFree => self.start(None, None),
            Step::StartNamed => self.start(Some(self.id.peer_name.clone()), None),
            Step::Free => self.run(Job::NamesOff),
            // The controller notes a change by hand before it reverts the change.
            Step::Name if standing == Standing::Primary && !self.store.notes.unmirrored => {}
            Step::Name => self.run(Job::NamesOn(self.id.peer_name.clone())),
            Step::Promote => self.promote(),
            Step::Rejoin => self.rejoin(standing),
            Step::Refuse if self.cannot_hand_over() => self.refuse_to_hand_over(),
            Step::Refuse => self.refuse(Cause::DirectoryNotNamed),
        }
    }

    /// Whether the data directory was last read more than the detection time ago.
    fn reads_are_old(&self) -> bool {
        self.now.since(self.own.data_at) >= self.settings.instance_detection_ms
    }

    /// Without a ledger an instance with `standby.signal` runs, nothing else does.
    fn run_without_ledger(&mut self) {
        if self.rebuild() {
            return;
        }
        if self.work.busy() || self.now < self.work.retry_at {
            return;
        }
        let whole = self.own.data.is_none_or(|data| !data.incomplete);
        let may_start = self.store.notes.wanted
            && whole
            && self.own.failed.is_none()
            && self.own.is_standby_dir()
            && !self.requests.stopping;
        match self.own.running {
            Running::Unknown => self.run(Job::Inspect),
            Running::Dead => self.run(Job::Stop { fast_ms: 0, names: None }),
            Running::Down if may_start && !self.own.down_reasons.has(DownReason::DidNotStayUp) => {
                self.start(Some(self.id.peer_name.clone()), None)
            }
            // An instance of another cluster is nothing that this pair may stop.
            Running::Up if !self.own.is_standby_dir() && !self.own.alien && self.another_leads() => self.stop_at_once(),
            Running::Down | Running::Up => {}
        }
        if self.own.failed.is_some() && self.own.running == Running::Down {
            self.own.failed = None;
        }
        if let super::report::Progress::Refused(why) = Reporter(self).progress_without_ledger()
            && !self.announced.will_not_start
            && !self.own.for_rebuild
        {
            self.announced.will_not_start = true;
            self.say(CoreMessage::WillNotStart(why));
        }
    }

    /// Whether the other server, or the arbiter, reports that the other server is the primary.
    fn another_leads(&self) -> bool {
        let told = self.peer.fresh_ledger(self.now, self.settings.heartbeat_detection_ms).map(|ledger| ledger.view);
        let newest = [told, self.arbiter.view].into_iter().flatten().max_by_key(|view| view.term);
        newest.is_some_and(|view| view.primary == self.other())
    }

    /// Stopping is the one action that never waits for a write, and interrupts what runs.
    fn stop_at_once(&mut self) {
        // A stop that was begun with more patience, for a planned switch, is cut short.
        let patient = matches!(self.work.job, Some((_, Job::Stop { fast_ms, .. }, _)) if fast_ms > FAST_STOP_MS);
        if self.work.stops() && !patient || !self.work.may_stop(self.now) {
            return;
        }
        let clean = self.handed_over_cleanly();
        if !self.announced.inactivated {
            self.announced.inactivated = true;
            self.announced.rebuild_needed = None;
            self.say(CoreMessage::Inactivated { clean });
        }
        let names = self.names_for_stop();
        self.run(Job::Stop { fast_ms: FAST_STOP_MS, names });
    }

    /// The name to write to the file of an instance that is stopped, so that an operator who starts it by hand starts it with
    /// that. None leaves the file as it is:
    /// - where the instance may run alone;
    /// - where its cluster is known to be another one than the pair's;
    /// - where the file of a mirrored primary is to have the name already. If an operator has removed it there, the stop finds
    ///   that, and the file is the only record until the note of it is durable.
    pub(super) fn names_for_stop(&self) -> Option<String> {
        let Some(view) = self.view() else {
            let another_cluster = self.own.alien && self.peer.recorded.is_some();
            return (!another_cluster).then(|| self.id.peer_name.clone());
        };
        let alone = view.is_alone(self.me()) && !self.store.notes.lost_split;
        let unnoted = view.is_mirrored(self.me()) && !(self.store.notes.unmirrored && self.settled());
        let unchanged = self.eligible() && (alone || unnoted);
        (!unchanged).then(|| self.id.peer_name.clone())
    }

    fn data_fact(&self) -> Data {
        if self.eligible() { Data::Eligible } else { Data::Foreign }
    }

    fn leave(&self) -> StartPolicy {
        let incomplete = self.own.data.is_some_and(|data| data.incomplete);
        if incomplete || self.is_held() { StartPolicy::Hold } else { StartPolicy::Run }
    }

    /// Whether the data directory may be copied without an order.
    pub(super) fn may_rebuild_by_itself(&self) -> bool {
        !self.is_held()
    }

    /// Whether it is not to be started, even if it were whole.
    pub(super) fn is_held(&self) -> bool {
        let own = &self.own;
        !self.store.notes.wanted
            || self.requests.stopping
            || self.hand_overs.current.is_some()
            || own.failed.is_some()
            || !own.down_reasons.is_empty()
            || self.awaits_member()
            || own.alien
            || self.store.notes.rebuild.is_some()
            || self.store.notes.lost_split
    }

    /// Whether the mirrored primary is down and waits for the other server or the arbiter before it starts.
    ///
    /// - `isolated_restart = off`: it has crashed, and no member has responded since. Commits that waited would become visible, and be
    ///   lost if the standby takes over.
    /// - Its commits may not wait for the standby, and no member has learned that: the standby may take over without them.
    pub(super) fn awaits_member(&self) -> bool {
        let primary = self.standing() == Some(Standing::Primary) && !self.own.is_standby_dir();
        let crashed = self.own.unheard && !self.settings.isolated_restart;
        primary && self.own.running == Running::Down && (crashed || self.change_of_names_is_unreported())
    }

    /// Whether the configuration files set no names under the present view, and no member responds that has learned of it.
    pub(super) fn change_of_names_is_unreported(&self) -> bool {
        let patience = self.patience_ms();
        let unnamed = self.store.notes.unmirrored && self.own.data.is_some_and(|data| data.unnamed);
        unnamed && !self.peer_talks(patience) && !self.arbiter_heard(patience)
    }

    fn being(&self) -> InstanceState {
        // An instance may serve clients before the job that starts it has ended.
        if self.own.running == Running::Down
            && let Some(follows) = self.work.starting()
        {
            return if follows || self.own.is_standby_dir() {
                InstanceState::StartingStandby
            } else {
                InstanceState::StartingPrimary
            };
        }
        match (self.own.running, self.own.role) {
            (Running::Unknown, _) => InstanceState::Unknown,
            (Running::Dead, _) => InstanceState::Dead,
            (Running::Down, _) if self.own.data.is_none() => InstanceState::Unknown,
            (Running::Down, _) if self.own.is_standby_dir() => InstanceState::DownStandby,
            (Running::Down, _) => InstanceState::DownPrimary,
            (Running::Up, None) if self.own.is_standby_dir() && self.own.closed && self.own.freed => {
                InstanceState::StandbyFree
            }
            (Running::Up, None) if self.own.is_standby_dir() && self.own.closed => InstanceState::StandbyNamed,
            (Running::Up, None) if self.own.is_standby_dir() => InstanceState::StartingStandby,
            (Running::Up, None) => InstanceState::StartingPrimary,
            (Running::Up, Some(Instance::Primary { names: Names::Unset, .. })) => InstanceState::PrimaryFree,
            (Running::Up, Some(Instance::Primary { names: Names::Peer, .. })) => InstanceState::PrimaryNamed,
            (Running::Up, Some(Instance::Primary { names: Names::Other, .. })) => InstanceState::PrimaryOther,
            (Running::Up, Some(_)) if self.own.freed => InstanceState::StandbyFree,
            (Running::Up, Some(_)) => InstanceState::StandbyNamed,
        }
    }

    /// The mark names the ledger, so that a lost ledger is noticed. It is there before the instance is started.
    fn marks_data(&mut self) -> bool {
        let (Some(data), Some(ledger)) = (self.own.data, self.store.ledger) else { return false };
        if data.mark == Some(ledger.id) || data.mark.is_some() && self.own.alien || !self.own.disk_bad.is_empty() {
            return false;
        }
        self.run(Job::Mark(ledger.id));
        true
    }

    fn start(&mut self, names: Option<String>, follow: Option<String>) {
        if self.now.since(self.own.data_at) > FRESH_LOOK_MS {
            self.run(Job::Inspect);
            return;
        }
        if !self.wal_allows_start(follow.is_some() || self.own.is_standby_dir()) {
            let refuted = self.is_refuted() && self.standing() == Some(Standing::Inactivated);
            if refuted && !self.work.busy() {
                // The rebuild was to start the directory as it is, which the WAL does not permit.
                if std::mem::take(&mut self.work.rebuilds.rejoin) {
                    self.order_rebuild(RebuildOrder::default());
                } else {
                    self.rebuild_by_itself();
                }
            }
            return;
        }
        let (now, window) = (self.now, self.left_down_ms());
        if self.stayed_up() {
            self.own.starts.clear();
        }
        self.own.starts.retain(|at| now.since(*at) < window);
        if self.own.starts.len() >= STARTS {
            self.own.down_reasons.begin(DownReason::DidNotStayUp);
            self.say(CoreMessage::LeftDown);
            return;
        }
        if let Some(why) = self.announced.restart.take() {
            self.say(CoreMessage::Decided { what: "starting the instance again", why });
        }
        self.run(Job::Start { names, follow });
    }

    /// Whether the instance answered in its role for a detection time after its last start.
    fn stayed_up(&self) -> bool {
        let served = self.own.starts.last().is_some_and(|at| self.own.serving_at > *at);
        served && self.own.answered_at.since(self.own.serving_at) >= self.left_down_ms() / 10
    }

    /// The period in which starts are counted, and for which an instance is left down, ms.
    fn left_down_ms(&self) -> u64 {
        self.settings.heartbeat_detection_ms.max(self.settings.instance_detection_ms) * 10
    }

    /// The cause may have passed: an instance that was left down is started again after the period.
    fn retry_start(&mut self) {
        let last = self.own.starts.last().copied().unwrap_or_default();
        if self.own.down_reasons.has(DownReason::DidNotStayUp) && self.now.since(last) >= self.left_down_ms() {
            self.own.down_reasons.end(DownReason::DidNotStayUp);
            self.own.starts.clear();
            self.say(CoreMessage::StartRetried);
        }
    }

    fn promote(&mut self) {
        if !self.store.notes.promoted {
            self.store.notes.promoted = true;
            self.write(None);
            return;
        }
        self.run(Job::Promote);
    }

    /// A server that has lost its role: back as a standby at once after a clean switch (R10, section 5), else left down.
    fn rejoin(&mut self, standing: Standing) {
        let Some(told) = self.peer.heartbeat.clone() else { return };
        let runs = told.role == Role::Primary && self.peer.is_of_now(&told) && self.peer_talks(self.patience_ms());
        let told_view = told.ledger.map(|ledger| ledger.view);
        let word = self.store.ledger.is_some_and(|own| rules::may_follow(&own, self.me(), told_view.as_ref(), runs));
        if !word {
            return;
        }
        let clean = self.handed_over_cleanly();
        let asked = self.settings.rebuild_auto || self.work.rebuilds.rejoin;
        let may = standing == Standing::Inactivated && !self.is_held();
        if clean && asked {
            if may {
                self.start(Some(self.id.peer_name.clone()), Some(told.address.clone()));
            }
            return;
        }
        if may && self.work.rebuilds.rejoin {
            // Something has come to the directory since it was asked for.
            self.order_rebuild(RebuildOrder::default());
            return;
        }
        if may && self.rebuild_by_itself() {
            return;
        }
        if self.retries_rebuild() {
            return;
        }
        if self.announced.rebuild_needed != self.view() {
            self.announced.rebuild_needed = self.view();
            self.say(if clean { CoreMessage::Inactivated { clean } } else { CoreMessage::RebuildNeeded });
        }
    }

    pub(super) fn refuse(&mut self, why: Cause) {
        if self.announced.refused != Some(why) {
            self.announced.refused = Some(why);
            self.say(CoreMessage::NotEligible(why));
        }
    }
}
