//! The rebuild: when a data directory may be made the other server's copy again (PROTOCOL R10), and where that stands.
//!
//! That one is to be made is a note beside the ledger, so that it is continued after a restart. Before the first change the
//! data directory gets a new name, durably: whatever becomes of it, it is not the one that a view leans on.

use super::event::{CoreMessage, Doubt, Health, Job, Rebuild, Role, Transient};
use super::facts::Standing;
use super::node::Node;
use super::observed::{DownReason, Running};
use super::report::Rebuilding;
use super::rules;
use super::types::{DataId, Lsn, Method, RebuildOrder, Time, View};

/// How often `rebuild_action = auto` tries in one view.
const TRIES: u32 = 10;
/// The pauses after a rebuild that failed: the first, and the longest, ms.
const PAUSES_MS: (u64, u64) = (10_000, 300_000);

/// How long a standby that was just made may neither move nor stream before that counts as a failure, ms.
const STANDSTILL_MS: u64 = 60_000;

/// What is known of a rebuild of this controller process.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Rebuilds {
    /// After a clean switch: the instance is to be started as a standby.
    pub rejoin: bool,
    /// The directory is made, and the pair is not mirrored yet: how far the standby was at the last look, and since when.
    made: Option<(Lsn, Time)>,
    /// Since when it waits for the other server's permission.
    waits: Option<Time>,
    /// Why the last one failed, and when.
    failed: Option<(String, Time)>,
    /// When it failed.
    failed_at: Option<Time>,
    /// Since then the other server could not be copied for a time.
    source_lost: bool,
}

impl Rebuilds {
    /// Whether the directory is made, and the pair is not mirrored yet.
    pub fn is_made(&self) -> bool {
        self.made.is_some()
    }
}

impl Node {
    // ------------------------------------------------------------------------------------------------------ ordering

    /// What a rebuild would be made from, or why there can be none (R10).
    pub(super) fn rebuild_from(&self) -> Result<Rebuild, String> {
        match self.follows_already() {
            Some(why) => Err(why),
            None => self.source(self.store.notes.rebuild.unwrap_or_default()),
        }
    }

    pub(super) fn source(&self, order: RebuildOrder) -> Result<Rebuild, String> {
        if let (Some(theirs), Some(own)) = (self.peer.foreign, self.store.ledger) {
            return Err(format!(
                "the ledger of this server is that of another cluster (system identifier {}) than the other server's ({}); if the \
                 data of this server is not needed, run \"mc_ctl stop\" here, rename the directory of this server in the management \
                 directory, and run \"mc_ctl rebuild\" again",
                own.system.0, theirs.0
            ));
        }
        let lost_role = match self.standing() {
            Some(Standing::Alone) => self.store.notes.lost_split || !self.eligible(),
            Some(Standing::Inactivated) | None => true,
            Some(Standing::Primary) => return Err("this server is the primary of the mirrored pair".to_owned()),
            Some(Standing::Standby) => return Err("this server is the standby of the mirrored pair".to_owned()),
        };
        if !lost_role {
            return Err(
                "this server has the right to run; a rebuild requires a server that has lost its role".to_owned()
            );
        }
        let Some(told) = self.peer.heartbeat.as_ref().filter(|_| self.peer_talks(self.patience_ms())) else {
            return Err(
                "the other server's controller does not respond, and only it can confirm that it is the primary"
                    .to_owned(),
            );
        };
        if !self.peer.is_of_now(told) || told.role != Role::Primary || told.instance != Health::Well {
            return Err("the other server's instance is not running as the primary, or has failed".to_owned());
        }
        let view = told.ledger.map(|ledger| ledger.view).zip(told.system);
        let own = self.store.ledger.as_ref();
        match view {
            Some((view, system)) if rules::may_rebuild(own, self.me(), &view, self.store.notes.lost_split) => {
                Ok(Rebuild {
                    order,
                    source: told.address.clone(),
                    system,
                    names: self.id.peer_name.clone(),
                    doubt: self.doubt(view),
                })
            }
            _ => Err("the other server does not report that it has the right to run alone".to_owned()),
        }
    }

    /// Why WAL that only this server has may hold acknowledged commits, where the other server runs under `view`.
    fn doubt(&self, view: View) -> Doubt {
        match self.view() {
            None => Doubt::NotKnown,
            Some(own) if view.forced || own.forced => Doubt::Forced,
            Some(_) if self.store.notes.unmirrored => Doubt::NamesChanged,
            Some(_) => Doubt::None,
        }
    }

    /// Why a rebuild that an operator asks for is refused, if it is.
    pub(super) fn rebuild_obstacle(&self) -> Option<String> {
        if self.store.notes.rebuild.is_some() || self.work.rebuilds.rejoin {
            return Some("a rebuild is already in progress; mc_ctl status shows its progress".to_owned());
        }
        if !self.settled() || self.hand_overs.current.is_some() {
            return Some(Transient::UnderWay.text().to_owned());
        }
        self.follows_already().or_else(|| self.source(RebuildOrder::default()).err())
    }

    /// The instance is a standby of the other server that lacks nothing.
    fn follows_already(&self) -> Option<String> {
        let follows = self.own_role() == Role::Standby && self.streams() && !self.store.notes.overwritten;
        (follows && matches!(self.standing(), Some(Standing::Inactivated) | None))
            .then(|| "this server's instance is a standby and already streams from the other server".to_owned())
    }

    /// Orders it; what follows waits until that is durable.
    pub(super) fn order_rebuild(&mut self, order: RebuildOrder) {
        // WAL that was overwritten agrees with the primary's, and the data does not.
        let method = if self.store.notes.overwritten { Method::BaseBackup } else { order.method };
        let order = RebuildOrder { method, ..order };
        self.work.rebuilds = Rebuilds::default();
        let term = self.view().map(|view| view.term);
        if self.store.notes.rebuild_tried != term {
            self.store.notes.rebuild_tries = 0;
        }
        self.store.notes.rebuild_tried = term;
        self.store.notes.wanted = true;
        self.own.revive();
        self.announced.restart = None;
        self.renew_start_id();
        let rejoins =
            self.handed_over_cleanly() && self.standing() == Some(Standing::Inactivated) && !self.is_refuted();
        if order == RebuildOrder::default() && rejoins {
            self.work.rebuilds.rejoin = true;
        } else {
            self.store.notes.rebuild = Some(order);
            self.store.notes.handed_over = None;
            let id = DataId(self.random());
            if let Some(ledger) = self.store.ledger.as_mut() {
                ledger.data.id = id;
            }
            self.wal.directory_replaced();
            self.say(CoreMessage::RebuildBegun(order));
        }
        self.write(None);
    }

    /// Whether the data directory was shut down in a hand-over, and nothing has come to it since.
    pub(super) fn handed_over_cleanly(&self) -> bool {
        let Some(data) = self.own.data else { return false };
        self.store.notes.handed_over == Some(data.checkpoint)
            && data.state == super::event::ControlState::ShutDown
            && self.eligible()
    }

    /// `rebuild_action = auto`: at once in each view, and again after a failure ([`Node::retries_rebuild`]).
    pub(super) fn rebuild_by_itself(&mut self) -> bool {
        let Some(view) = self.view() else { return false };
        let tried = self.store.notes.rebuild_tried == Some(view.term);
        if !self.settings.rebuild_auto || tried && !self.retry_is_due() || self.rebuild_obstacle().is_some() {
            return false;
        }
        self.order_rebuild(RebuildOrder::default());
        true
    }

    /// Whether a rebuild that failed is tried again by itself.
    pub(super) fn retries_rebuild(&self) -> bool {
        let unmade = self.own.data.is_none_or(|data| data.incomplete || !data.is_standby());
        self.settings.rebuild_auto
            && self.standing() == Some(Standing::Inactivated)
            && self.view().is_some_and(|view| Some(view.term) == self.store.notes.rebuild_tried)
            && (1..TRIES).contains(&self.store.notes.rebuild_tries)
            && self.store.notes.rebuild.is_none()
            && unmade
    }

    /// The pauses grow. Where the last attempt has changed nothing, the other server's return ends the pause.
    fn retry_is_due(&self) -> bool {
        let since = self.work.rebuilds.failed_at.or(self.id.booted_at).unwrap_or(self.now);
        let untouched = self.own.data.is_some_and(|data| !data.incomplete);
        let pause = self.retry_pause_ms();
        self.retries_rebuild() && (untouched && self.work.rebuilds.source_lost || self.now.since(since) >= pause)
    }

    fn retry_pause_ms(&self) -> u64 {
        let (first, longest) = PAUSES_MS;
        (first << self.store.notes.rebuild_tries.saturating_sub(1).min(16)).min(longest)
    }

    /// Orders the next attempt where one is due.
    fn retry_rebuild(&mut self) -> bool {
        if !self.retries_rebuild() || self.work.busy() || !self.settled() || !self.may_rebuild_by_itself() {
            return false;
        }
        if self.source(RebuildOrder::default()).is_err() {
            self.work.rebuilds.source_lost = true;
            return false;
        }
        self.rebuild_by_itself()
    }

    // ------------------------------------------------------------------------------------------------------- driving

    /// Drives a rebuild that is ordered. True: nothing else is to be done with the instance.
    pub(super) fn rebuild(&mut self) -> bool {
        self.watch_rebuilt();
        let Some(order) = self.store.notes.rebuild else { return self.retry_rebuild() };
        if self.work.busy() || self.now < self.work.retry_at() {
            return true;
        }
        // It may run as what it has lost the right to be: a look waits for no write.
        if self.own.running == Running::Unknown && self.own.data.is_some() {
            self.run(Job::Inspect);
            return true;
        }
        if !self.settled() || self.requests.stopping {
            return true;
        }
        match (self.own.running, self.own.data) {
            (Running::Up | Running::Dead, _) => {
                let names = self.names_for_stop();
                self.run(Job::Stop { fast_ms: super::work::FAST_STOP_MS, names });
            }
            (Running::Down | Running::Unknown, _) => match self.source(order) {
                Ok(what) => {
                    self.work.rebuilds.waits = None;
                    self.run(Job::Rebuild(Box::new(what)));
                }
                Err(_) => self.wait_for_source(),
            },
        }
        true
    }

    /// A rebuild that was interrupted, and that the other server does not allow any more, is not waited for without end.
    fn wait_for_source(&mut self) {
        let since = *self.work.rebuilds.waits.get_or_insert(self.now);
        if self.now.since(since) >= self.settings.startup_wait_ms {
            self.run(Job::Abandon);
        }
    }

    pub(super) fn rebuilt(&mut self, data: super::event::DataDir, address: String, since: Time) {
        self.store.notes.rebuild = None;
        self.store.notes.overwritten = false;
        self.store.notes.rebuild_tries = 0;
        self.store.notes.wanted = true;
        if !address.is_empty() {
            self.id.address = address;
        }
        self.own.revive();
        self.announced.restart = None;
        self.own.down();
        // The rebuild has replaced the directory, which is not worth a warning.
        let _replaced = self.read_data(data, since);
        self.work.rebuilds.made = Some((Lsn::default(), self.now));
        self.write(None);
        self.say(CoreMessage::RebuildEnded);
    }

    pub(super) fn rebuild_failed(&mut self, why: String) {
        // The data directory, or what there is in its place, is read again.
        self.own.running = Running::Unknown;
        if self.requests.stopping {
            return;
        }
        self.store.notes.rebuild_tries += 1;
        self.end_rebuild(why.clone());
        self.work.rebuilds.failed_at = Some(self.now);
        self.say(CoreMessage::RebuildFailed(why));
        if self.retries_rebuild() {
            let (attempt, seconds) = (self.store.notes.rebuild_tries + 1, self.retry_pause_ms() / 1000);
            self.say(CoreMessage::RebuildRetried { attempt, of: TRIES, seconds });
        }
    }

    pub(super) fn rebuild_abandoned(&mut self, data: Option<super::event::DataDir>, since: Time) {
        self.own.running = Running::Unknown;
        if let Some(data) = data {
            self.found_data(data, since);
        }
        let why = self.source(RebuildOrder::default()).err().unwrap_or_default();
        // With `rebuild_action = auto` it is to be begun again when it can be.
        self.store.notes.rebuild_tried = None;
        self.end_rebuild(format!("it was interrupted, and could not continue: {why}"));
        self.say(CoreMessage::RebuildAbandoned);
    }

    fn end_rebuild(&mut self, why: String) {
        self.store.notes.rebuild = None;
        self.work.rebuilds = Rebuilds { failed: Some((why, self.now)), ..Rebuilds::default() };
        self.write(None);
    }

    /// After the directory is made: whether the standby comes up, and moves, until the pair is mirrored.
    fn watch_rebuilt(&mut self) {
        if self.view().is_some_and(|view| view.mode == super::types::Mode::Mirrored) {
            self.work.rebuilds.made = None;
        }
        // This server may also have received the right to run since, or the pair is mirrored.
        self.work.rebuilds.rejoin &= self.standing() == Some(Standing::Inactivated);
        if self.work.rebuilds.rejoin && self.own.is_standby_dir() && self.own.running == Running::Up {
            self.work.rebuilds.rejoin = false;
            self.work.rebuilds.made = Some((Lsn::default(), self.now));
        }
        let Some((at, since)) = self.work.rebuilds.made else { return };
        let position = self.position();
        if self.own.down_reasons.has(DownReason::DidNotStayUp) {
            let why = "the instance was rebuilt and did not stay up; see its log".to_owned();
            self.end_rebuild(why.clone());
            self.say(CoreMessage::RebuildFailed(why));
        } else if position != at || self.streams() || self.own_role() != Role::Standby || self.requests.stopping {
            self.work.rebuilds.made = Some((position, self.now));
        } else if self.now.since(since) >= STANDSTILL_MS {
            let why = "the standby runs but does not stream from the primary\nHINT: \"mc_ctl status\" on this server shows the error \
                       of a connection that is rejected. The log of the standby contains other errors."
                .to_owned();
            self.end_rebuild(why.clone());
            self.say(CoreMessage::RebuildFailed(why));
        }
    }

    // ------------------------------------------------------------------------------------------------------- telling

    pub(super) fn rebuilding(&self) -> Rebuilding {
        if self.store.notes.rebuild.is_some() {
            return match self.source(RebuildOrder::default()) {
                _ if self.work.rebuilds() => Rebuilding::Copying,
                Err(why) => Rebuilding::Waiting(why),
                Ok(_) => Rebuilding::Waiting("the instance to be stopped".to_owned()),
            };
        }
        if let Some(why) = self.failed_rebuild() {
            return Rebuilding::Failed(why.to_owned());
        }
        match self.work.rebuilds.rejoin || self.work.rebuilds.made.is_some() {
            true => Rebuilding::Starting,
            false => Rebuilding::Idle,
        }
    }

    /// Why the last rebuild failed, unless the instance has run in its role since.
    pub(super) fn failed_rebuild(&self) -> Option<&str> {
        self.work.rebuilds.failed.as_ref().map(|(why, _)| why.as_str())
    }

    /// The failure of the last rebuild is over when the instance is a primary by right, or a standby that streams or was started
    /// since. Called after each reading of the instance.
    pub(super) fn forget_failed_rebuild(&mut self) {
        let Some((_, failed_at)) = self.work.rebuilds.failed else { return };
        let by_right = matches!(self.standing(), Some(Standing::Alone | Standing::Primary));
        let over = match self.own_role() {
            Role::Primary => by_right,
            Role::Standby => self.streams() || self.own.serving_at > failed_at,
            Role::None => false,
        };
        if over && !self.store.notes.overwritten && !self.store.notes.lost_split {
            self.work.rebuilds.failed = None;
        }
    }
}
