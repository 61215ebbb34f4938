//! The report of a node to operators: the material of `mc_ctl status`.

use super::event::{Health, Instance, Names, Role};
use super::facts::{Peer, Standing};
use super::heartbeat::Announced;
use super::node::Node;
use super::observed::{DownReason, Running};
use super::reason::Reason;
use super::report::{Disconnected, HostRole, HostStatus, POSTMASTER, Progress, Report, ServerReport, Word};
use super::types::{Lsn, Time};
use std::ops::Deref;

impl Node {
    /// What operators see.
    pub fn report(&self, now: Time) -> Report {
        Reporter(self).report(now)
    }

    /// How far the primary has flushed its WAL, as its last heartbeat reports it; `None` if that heartbeat is overdue.
    pub(super) fn primary_flushed(&self) -> Option<Lsn> {
        let told = self.peer.heartbeat.as_ref().filter(|told| told.role == Role::Primary)?;
        self.peer_talks(self.patience_ms()).then_some(told.lsn)
    }
}

/// A node, as its report shows it: it reads and decides nothing.
pub(super) struct Reporter<'a>(pub &'a Node);

impl Deref for Reporter<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.0
    }
}

impl Reporter<'_> {
    fn report(&self, now: Time) -> Report {
        let servers = self.me().in_order(self.my_row(), self.their_row(now));
        let word = self.word(&servers);
        let mut advice = self.advice();
        let general = self.advice_on_word(word, advice.is_empty());
        let refers_to_check = general.is_some() && advice.is_empty() && word != Word::FailoverDisabled;
        advice.extend(general);
        Report {
            me: self.me(),
            word,
            servers,
            view: self.store.durable.map(|durable| durable.ledger.view),
            replaces_right: self.store.durable.is_some_and(|durable| durable.notes.replaces_right),
            since: self.announced.since,
            reason: self.announced.reason.as_ref().map_or_else(String::new, Reason::to_string),
            failover: self.store.notes.failover.enabled,
            on_silence: Some(self.settings.on_silence),
            disconnected: self.disconnected(),
            arbiter: self
                .settings
                .arbiter
                .then(|| self.arbiter.heard_at.is_some_and(|at| now.since(at) < self.settings.heartbeat_detection_ms)),
            arbiter_disk: self.arbiter.disk.clone(),
            lag_bytes: self.lag_bytes(),
            lag_ms: match self.own.role {
                Some(Instance::Standby { .. }) => self.lag_bytes().map(|_| now.since(self.own.caught_up_at)),
                _ => self.own.is_followed().then(|| now.since(self.own.caught_up_at)),
            },
            waiting: self.commits_wait(),
            waits_ms: self.commits_wait().then(|| now.since(self.own.flow_at)),
            weakened: self.own.weakened.clone(),
            peer_lives: self.peer_lives(),
            advice,
            refers_to_check,
            progress: self.progress(),
            asks_arbiter_in: self.asks_arbiter_in(),
            stopping: self.requests.stopping,
            rebuilding: self.rebuilding(),
            rebuild_from: self.rebuild_from(),
        }
    }

    fn commits_wait(&self) -> bool {
        matches!(self.own.role, Some(Instance::Primary { waiting: true, .. }))
    }

    /// Why the standby is disconnected; `None` while the pair is mirrored or switched, or if it never was mirrored.
    pub(super) fn disconnected(&self) -> Option<Disconnected> {
        let (standing, view) = (self.standing()?, self.view()?);
        let detached = match standing {
            Standing::Alone => self.detached(),
            Standing::Inactivated => self.peer.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.detached),
            Standing::Primary | Standing::Standby => return None,
        };
        let mirrored_before = view.data[view.primary.other().index()].is_some();
        (mirrored_before && !self.switched_to_alone(standing)).then_some(match detached {
            true => Disconnected::ByOperator,
            false => Disconnected::ByFailure,
        })
    }

    /// Whether the server that runs alone was promoted under this view.
    fn switched_to_alone(&self, standing: Standing) -> bool {
        match standing {
            Standing::Alone => self.store.notes.promoted,
            Standing::Inactivated => {
                self.peer.heartbeat.as_ref().map_or(!self.own.is_standby_dir(), |told| told.promoted)
            }
            Standing::Primary | Standing::Standby => false,
        }
    }

    /// A standby that does not stream, or does not receive the primary's heartbeats, does not know how far it is behind.
    fn lag_bytes(&self) -> Option<u64> {
        match self.own.role? {
            Instance::Primary { flushed, standby, .. } => Some(flushed.0.saturating_sub(standby?.flushed.0)),
            Instance::Standby { received, streaming: true, .. } => {
                Some(self.primary_flushed()?.0.saturating_sub(received.0))
            }
            _ => None,
        }
    }

    fn my_row(&self) -> ServerReport {
        let mut bad = Vec::new();
        if matches!(self.own_health(), Health::Failed | Health::Stopped) {
            bad.push(POSTMASTER.to_owned());
        }
        let mirrored = self.view().is_some_and(|view| view.mode == super::types::Mode::Mirrored);
        match self.own.role {
            Some(Instance::Primary { standby, .. }) if mirrored && standby.is_none_or(|row| !row.streaming) => {
                bad.push("wal_sender".to_owned());
            }
            Some(Instance::Standby { streaming: false, .. }) => bad.push("wal_receiver".to_owned()),
            _ => {}
        }
        ServerReport {
            server: self.me(),
            role: self.host_role(self.own_role(), self.own.is_standby_dir(), self.me()),
            host: HostStatus::Normal,
            processes: if self.own_health() == Health::Unknown { None } else { Some(bad) },
            disk: Some(self.own.disk_bad.clone()),
            full: self.own.disk_full.clone(),
            lsn: Some(self.position()),
            replayed: match self.own.role {
                Some(Instance::Standby { replayed, .. }) => Some(replayed),
                _ => None,
            },
            timeline: Some(self.own.timeline()),
        }
    }

    fn host_role(&self, role: Role, standby_dir: bool, server: super::types::Server) -> HostRole {
        let leads = self.view().map(|view| view.primary == server);
        match (role, leads) {
            (Role::Primary, _) => HostRole::Primary,
            (Role::Standby, _) => HostRole::Standby,
            (Role::None, Some(true)) => HostRole::InactivatedPrimary,
            (Role::None, Some(false)) if standby_dir => HostRole::InactivatedStandby,
            (Role::None, Some(false)) => HostRole::InactivatedPrimary,
            (Role::None, None) => HostRole::Unknown,
        }
    }

    fn their_row(&self, now: Time) -> ServerReport {
        let unknown = ServerReport::blank(self.other());
        let (Some(told), Some(up_at)) = (&self.peer.heartbeat, self.peer.up_at()) else { return unknown };
        let fact = self.peer_fact();
        if now.since(up_at) >= self.settings.heartbeat_detection_ms || fact == Peer::Refused {
            let role = match told.role {
                Role::None => HostRole::Unknown,
                Role::Primary if self.standing() == Some(Standing::Alone) => HostRole::InactivatedPrimary,
                Role::Primary | Role::Standby => HostRole::Unknown,
            };
            return ServerReport { role, host: HostStatus::Abnormal, ..unknown };
        }
        let mut bad = Vec::new();
        if matches!(told.instance, Health::Failed | Health::Stopped) {
            bad.push(POSTMASTER.to_owned());
        }
        if told.role == Role::Standby && !told.streaming {
            bad.push("wal_receiver".to_owned());
        }
        // Announced by its controller: whether it is a standby's directory shows in its timeline and in what it was.
        let was_standby = self.standing() == Some(Standing::Primary) || self.announced.they_follow(self);
        ServerReport {
            role: self.host_role(told.role, was_standby, self.other()),
            host: HostStatus::Normal,
            processes: if told.instance == Health::Unknown { None } else { Some(bad) },
            disk: Some(told.disk.clone()),
            full: told.full.clone(),
            lsn: Some(told.lsn),
            replayed: (told.role == Role::Standby).then_some(told.replayed),
            timeline: Some(told.timeline),
            ..unknown
        }
    }

    fn word(&self, servers: &[ServerReport; 2]) -> Word {
        let Some(standing) = self.standing() else { return Word::Unknown };
        if self.announced.split && self.announced.split_lasts(self) || self.store.notes.lost_split {
            return Word::SplitBrain;
        }
        // A proposal that is refused, or not answered, changes nothing.
        let proposing =
            self.announced.proposing.is_some_and(|at| self.now.since(at) < self.settings.heartbeat_detection_ms);
        if self.hand_overs.current.is_some() || proposing || self.work.switches() {
            return Word::Switching;
        }
        match standing {
            Standing::Alone | Standing::Inactivated if self.switched_to_alone(standing) => Word::Switched,
            Standing::Alone | Standing::Inactivated => Word::NotSwitchable,
            Standing::Primary | Standing::Standby => {
                let leads = |row: &ServerReport| self.view().is_some_and(|view| view.primary == row.server);
                let healthy = self.both_eligible()
                    && servers.iter().all(|row| (row.role == HostRole::Primary) == leads(row))
                    && servers.iter().all(|row| {
                        row.host == HostStatus::Normal
                            && row.processes.as_ref().is_some_and(Vec::is_empty)
                            && row.disk.as_ref().is_some_and(String::is_empty)
                            && matches!(row.role, HostRole::Primary | HostRole::Standby)
                    });
                match (healthy, self.store.notes.failover.enabled) {
                    (false, _) => Word::NotSwitchable,
                    (true, true) => Word::Switchable,
                    (true, false) => Word::FailoverDisabled,
                }
            }
        }
    }

    /// Whether both data directories are the ones that the view leans on.
    fn both_eligible(&self) -> bool {
        let told = self.peer.heartbeat.as_ref().and_then(|told| told.ledger);
        let named = self.view().and_then(|view| view.data[self.other().index()]);
        self.eligible() && told.map(|told| told.data.id) == named && self.wal_agrees()
    }

    fn progress(&self) -> Progress {
        let Some(standing) = self.standing() else { return self.progress_without_ledger() };
        let role = self.own_role();
        if self.own.down_reasons.has(DownReason::DidNotStayUp) {
            return Progress::Refused("the instance did not stay up; see its log".to_owned());
        }
        if self.store.notes.rebuild.is_some() {
            return Progress::Waiting("the rebuild of the data directory to end".to_owned());
        }
        if self.own.data.is_some_and(|data| data.incomplete) && !self.retries_rebuild() {
            return Progress::Refused("the data directory is incomplete: run mc_ctl rebuild".to_owned());
        }
        if self.store.notes.lost_split {
            return Progress::Refused(
                "both servers ran alone and this server was stopped: run mc_ctl rebuild --method basebackup".to_owned(),
            );
        }
        if self.own.down_reasons.has(DownReason::Isolated) {
            let why = "a response of the other server or the arbiter (isolated_primary_action = stop)";
            return Progress::Waiting(why.to_owned());
        }
        if self.awaits_member() && self.store.notes.wanted {
            let why = match self.change_of_names_is_unreported() {
                true => "a response of the other server or the arbiter, because commits may not wait for the standby",
                false => {
                    "a response of the other server or the arbiter, because the instance crashed (isolated_restart = off)"
                }
            };
            return Progress::Waiting(why.to_owned());
        }
        match (standing, role) {
            _ if !self.store.notes.wanted => Progress::Settled,
            (Standing::Alone, Role::Primary) if self.free() => {
                Progress::Running("running alone as the primary".to_owned())
            }
            (Standing::Primary, Role::Primary) if self.own.is_followed() => Progress::Settled,
            (Standing::Primary, Role::Primary) => {
                Progress::Running("running as the primary; commits wait until the standby streams again".to_owned())
            }
            (Standing::Standby, Role::Standby) if self.streams() => Progress::Settled,
            (Standing::Standby, Role::Standby) => {
                Progress::Running("running as the standby; the primary's WAL does not stream yet".to_owned())
            }
            (Standing::Inactivated, Role::Standby) => {
                Progress::Running("running as a standby that is not mirrored yet".to_owned())
            }
            (Standing::Inactivated | Standing::Standby, Role::None) if self.rebuild_is_needed() => {
                Progress::Refused("the other server now has the role of the primary".to_owned())
            }
            (Standing::Standby | Standing::Inactivated, Role::None) if self.peer_is_closed() => Progress::Waiting(
                "the primary's controller to report its role: the primary's instance rejects the controller's connection; run \
                 mc_ctl check on the primary"
                    .to_owned(),
            ),
            _ => Progress::Waiting("the instance to run in its role".to_owned()),
        }
    }

    pub(super) fn progress_without_ledger(&self) -> Progress {
        if let (Some(system), Some(data)) = (self.peer.foreign, self.own.data) {
            let way_out = match self.peer.recorded {
                Some(_) => "run \"mc_ctl rebuild\" here, which keeps the present data directory beside the copy",
                None => {
                    "stop the controller of the server that is to be the standby, start the primary, and run \"mc_ctl rebuild\" on \
                     the standby"
                }
            };
            return Progress::Refused(format!(
                "the other server's data directory belongs to another cluster (system identifier {}, here {}): {way_out}; or correct \
                 network.conf",
                system.0, data.system.0
            ));
        }
        if self.own_role() == Role::Standby {
            return Progress::Running(
                "running as a standby that the primary's controller has not accepted yet".to_owned(),
            );
        }
        if self.own.data.is_some_and(|data| data.mark.is_some()) && !self.own.is_standby_dir() {
            return Progress::Refused(
                "the data directory is marked as used by a pair, but there is no ledger: it was lost, and an operator must decide"
                    .to_owned(),
            );
        }
        let peer_has = self.peer.heartbeat.as_ref().is_some_and(|told| told.ledger.is_some());
        if peer_has && !self.own.is_standby_dir() && self.own.data.is_some() {
            return Progress::Refused(
                "the other server holds this cluster's ledger, and this data directory is not that of a standby"
                    .to_owned(),
            );
        }
        if let Some(why) = self.advice_on_foreign_arbiter() {
            return Progress::Refused(why);
        }
        Progress::Waiting("a view of the pair".to_owned())
    }

    fn free(&self) -> bool {
        matches!(self.own.role, Some(Instance::Primary { names: Names::Unset, .. }))
    }

    fn rebuild_is_needed(&self) -> bool {
        let tried = self.view().is_some_and(|view| Some(view.term) == self.store.notes.rebuild_tried);
        let clean = self.work.rebuilds.rejoin
            || self.settings.rebuild_auto
                && (self.store.notes.handed_over.is_some() || !tried || self.retries_rebuild());
        // A start or stop that is out may not have shown its effect yet.
        self.own.running == Running::Down && !self.work.starts_or_stops() && !self.own.is_standby_dir() && !clean
    }
}

impl Announced {
    fn split_lasts(&self, node: &Node) -> bool {
        let told = node.peer.heartbeat.as_ref().and_then(|told| told.ledger);
        told.is_some_and(|ledger| ledger.view.is_alone(node.other()))
            && node.view().is_some_and(|view| view.is_alone(node.me()))
    }

    fn they_follow(&self, node: &Node) -> bool {
        node.standing() == Some(Standing::Alone) && !node.store.notes.promoted
    }
}
