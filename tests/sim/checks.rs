//! The invariants of PROTOCOL section 8, looked at after every step.

use crate::world::{NAMES, Run, World};
use mirroring_controller::fsm::event::Names;
use mirroring_controller::fsm::types::*;

/// How long after the healing commits may take to be acknowledged again, ms.
const COMMITS_AGAIN: u64 = 150_000;
/// How long after the healing the pair may take to be mirrored again, ms.
const MIRRORED_AGAIN: u64 = 900_000;

impl World {
    fn view(&self, m: usize) -> Option<View> {
        self.procs[m].disk.map(|d| d.ledger.view)
    }

    /// Whether this server holds the right to run alone, by consent.
    fn holds(&self, s: usize) -> bool {
        let server = Server::BOTH[s];
        self.view(s).is_some_and(|v| v.is_alone(server) && !v.forced)
    }

    /// I1 and I2.
    pub fn check(&mut self) {
        if self.forced {
            return;
        }
        if self.holds(0) && self.holds(1) {
            let views = (self.view(0), self.view(1));
            self.violated(format!("I1: both hold the right to run alone: {views:?}"));
        }
        for s in [0, 1] {
            let host = &self.hosts[s];
            let has_all = self.wal.contains(host.dir.pos, self.acked);
            if has_all {
                continue;
            }
            if self.holds(s) && !host.dir.exchanged {
                self.violated(format!("I2: {} holds the right, and lacks acknowledged commits", NAMES[s]));
            } else if host.run == Run::Primary && host.effect == Names::Unset {
                self.violated(format!("I2: {} takes commits alone, and lacks acknowledged ones", NAMES[s]));
            }
        }
    }

    /// I3: a promotion begins, or ends.
    pub fn promotion_allowed(&mut self, s: usize) {
        if !self.view(s).is_some_and(|v| v.is_alone(Server::BOTH[s])) {
            let view = self.view(s);
            self.violated(format!("I3: {} is promoted while its ledger says {view:?}", NAMES[s]));
        }
    }

    /// I4: a ledger takes another's place.
    pub fn check_ledger(&mut self, m: usize, old: &Ledger, new: &Ledger) {
        if new.view.term < old.view.term || new.promised < old.promised || new.promised < new.view.term {
            self.violated(format!("I4: {}'s ledger goes back: {old:?} -> {new:?}", NAMES[m]));
        }
    }

    /// Whether the pair is mirrored, as both ledgers say and the instances are.
    pub fn mirrored(&self) -> bool {
        let Some(view) = self.view(0) else { return false };
        let (p, s) = (view.primary.index(), view.primary.other().index());
        let named = |m: usize| self.procs[m].disk.is_some_and(|disk| disk.ledger.data.id == view.data[m]);
        self.view(1) == Some(view)
            && named(0)
            && named(1)
            && view.mode == Mode::Mirrored
            && self.hosts[p].run == Run::Primary
            && self.hosts[p].effect == Names::Peer
            && self.hosts[s].run == Run::Standby
            && self.sessions[s].as_ref().is_some_and(|x| x.streaming && x.broken_until.is_none())
    }

    /// Whether nothing more is looked for; reports what did not come in time (I5).
    pub fn finished(&mut self) -> bool {
        let Some(healed) = self.healed else { return false };
        let acknowledged = self.acked_at > healed + 1000;
        if acknowledged && self.served_at.is_none() {
            self.served_at = Some(self.t);
            self.reach(format!("commits again after {:>3} s", (self.t - healed) / 10_000 * 10));
        }
        if acknowledged && self.t > healed + 1000 && self.t - self.acked_at < 1000 && self.mirrored() {
            self.reach(format!("mirrored again after {:>3} s", (self.t - healed) / 20_000 * 20));
            return true;
        }
        if self.op.gave_up() {
            self.reach("beyond help".to_string());
            return true;
        }
        if !acknowledged && self.t > healed + COMMITS_AGAIN {
            self.violated("I5: everything is healed, and no commit is acknowledged".to_string());
        }
        if self.t > healed + MIRRORED_AGAIN {
            self.violated("I5: everything is healed, and the pair does not become mirrored".to_string());
        }
        false
    }
}
