//! The network between the members, and the probes: what a controller gets to see, late, stale or not at all.

use crate::world::{ARBITER, Broken, Ev, Run, World};
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::*;

impl World {
    /// Sends a message; what becomes of it is the network's.
    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        let link = self.links[from][to];
        // The arbiter answers on the connection that the server dials.
        let dials = if from == ARBITER { self.known[to][from] } else { self.known[from][to] };
        if !dials || link.cut || self.rng.chance(link.loss) {
            return;
        }
        let times = if self.rng.chance(link.repeat) { 2 } else { 1 };
        for _ in 0..times {
            let ms = if self.rng.chance(link.stale) {
                self.rng.range(500, 40_000)
            } else if link.slow > 0 {
                self.rng.range(1, link.slow)
            } else {
                self.time(4, 60)
            };
            self.after(ms, Ev::Arrive { from, to, message: message.clone() });
        }
    }

    /// A member's name service ends or returns. The addresses that its process knows keep working; those that it does not
    /// know resolve when the service returns.
    pub fn name_service(&mut self, m: usize, down: bool) {
        self.names_down[m] = down;
        if down {
            self.reach("name service: down".to_string());
        } else {
            self.known[m] = [true; 3];
        }
    }

    /// The process tries to connect to those it does not talk with: a host's kernel may refuse.
    pub fn knock(&mut self, m: usize, epoch: u32) {
        if !self.alive(m, epoch) {
            return;
        }
        let ms = self.rng.range(100, 400);
        self.after(ms, Ev::Knock { m, epoch });
        for to in 0..3 {
            if self.procs[m].paused || to == m || self.runs(to) || self.links[m][to].cut || self.links[to][m].cut {
                continue;
            }
            if !self.known[m][to] {
                continue;
            }
            let refuses = match to {
                ARBITER => self.arbiter && self.machines[ARBITER].answers(),
                // Who knocks at a server for the arbiter knocks at both ports.
                _ => self.machines[to].answers() && (m != ARBITER || self.hosts[to].run == Run::Down),
            };
            if refuses {
                self.feed(m, Event::Refused(Member::ALL[to]));
            }
        }
    }

    /// Looks at the own instance; what is seen is told later.
    pub fn probe_instance(&mut self, m: usize, epoch: u32) {
        if !self.alive(m, epoch) {
            return;
        }
        let interval = self.settings[m].heartbeat_interval_ms;
        let gap = self.rng.range(interval / 2, interval);
        if self.procs[m].paused {
            self.after(gap, Ev::ProbeInstance { m, epoch });
            return;
        }
        let seen = self.instance(m);
        let ms = match seen {
            Instance::Silent => self.settings[m].heartbeat_timeout_ms,
            _ => self.time(10, 1500),
        };
        self.seen_instance(m, seen, ms);
        self.after(ms + gap, Ev::ProbeInstance { m, epoch });
    }

    /// `Action::Look`.
    pub fn look(&mut self, m: usize) {
        // Orders that come while one waits are one.
        if self.procs[m].look_at > self.t {
            return;
        }
        let seen = self.instance(m);
        if seen != Instance::Silent {
            let ms = self.time(10, 300) + 1;
            self.seen_instance(m, seen, ms);
            self.procs[m].look_at = self.procs[m].reading_at;
        }
    }

    /// Tells what was seen; one thread looks, so that it comes in order.
    fn seen_instance(&mut self, m: usize, seen: Instance, ms: u64) {
        let at = (self.t + ms).max(self.procs[m].reading_at);
        self.procs[m].reading_at = at;
        let epoch = self.procs[m].epoch;
        if let Some(wal) = self.wal_reading(m, seen).filter(|_| !self.hides_wal()) {
            self.after(at - self.t, Ev::Local { m, epoch, event: Event::Wal(wal) });
        }
        self.after(at - self.t, Ev::Local { m, epoch, event: Event::Instance(seen) });
    }

    /// Whether nothing shows what WAL there is.
    pub fn hides_wal(&self) -> bool {
        matches!(self.broken, Broken::WalNotCompared | Broken::ExchangedData)
    }

    /// Which WAL the instance has by this reading.
    fn wal_reading(&self, s: usize, seen: Instance) -> Option<WalReading> {
        let host = &self.hosts[s];
        let at = |lsn: Lsn| Some(self.wal.point(host.dir.pos, lsn.0));
        match seen {
            Instance::Primary { names: Names::Peer, standby, flushed, .. } => {
                let row = standby.filter(|row| row.streaming && row.sync);
                let point = row.and_then(|row| at(row.flushed.min(flushed)));
                Some(WalReading {
                    incarnation: (host.life != 0).then(|| host.life.into()),
                    point,
                    confirmed: row.is_some(),
                })
            }
            Instance::Primary { flushed, .. } => Some(WalReading {
                incarnation: (host.life != 0).then(|| host.life.into()),
                point: at(flushed),
                confirmed: false,
            }),
            Instance::Standby { received, streaming, .. } => {
                Some(WalReading { incarnation: None, point: at(received).filter(|_| streaming), confirmed: false })
            }
            _ => None,
        }
    }

    /// `Action::CompareWal`: the running instance's WAL, as it is when the probe comes to it.
    pub fn compare_wal(&mut self, m: usize, point: WalPoint) {
        if !matches!(self.instance(m), Instance::Primary { .. } | Instance::Standby { .. }) {
            return;
        }
        let found = if self.contains(m, Some(point)) == Contains::No { Contains::No } else { Contains::Yes };
        let ms = self.time(10, 300);
        let epoch = self.procs[m].epoch;
        self.after(ms, Ev::Local { m, epoch, event: Event::WalCompared(point, found) });
    }

    /// Whether a server's data directory contains a point.
    pub fn contains(&self, s: usize, point: Option<WalPoint>) -> Contains {
        match point {
            Some(point) if !self.hides_wal() && !self.wal.holds(self.hosts[s].dir.pos, &point) => Contains::No,
            Some(_) => Contains::Yes,
            None => Contains::Unknown,
        }
    }

    fn instance(&mut self, s: usize) -> Instance {
        let host = &self.hosts[s];
        if host.run != Run::Down && (host.frozen || host.frozen_postmaster) {
            return Instance::Silent;
        }
        if host.full && host.run != Run::Down {
            return Instance::Closed;
        }
        let pos = host.dir.pos;
        match host.run {
            Run::Down => Instance::Down,
            Run::Starting | Run::Stopping(_) => Instance::Starting,
            Run::Primary => Instance::Primary {
                timeline: Timeline(self.wal.own_timeline(pos)),
                flushed: Lsn(pos.lsn),
                names: host.loaded,
                waiting: host.last_commit > host.released,
                standby: self.standby_row(s),
            },
            Run::Standby | Run::Promoting => Instance::Standby {
                timeline: Timeline(self.wal.timeline(pos)),
                received: Lsn(pos.lsn),
                replayed: Lsn(pos.lsn),
                streaming: self.sessions[s].as_ref().is_some_and(|x| x.streaming),
                contact: host.contacts,
            },
        }
    }

    /// Looks at the disks; a dead one never answers.
    pub fn probe_disk(&mut self, m: usize, epoch: u32) {
        if !self.alive(m, epoch) {
            return;
        }
        let gap = self.settings[m].heartbeat_interval_ms;
        let failed = self.hosts[m].disk_failed;
        let ms = if failed { self.settings[m].heartbeat_timeout_ms } else { self.time(20, 900) };
        if !self.procs[m].paused {
            let seen = if failed { Disk::Failed("data".to_string()) } else { Disk::Good };
            self.after(ms, Ev::Local { m, epoch, event: Event::Disk(seen) });
        }
        self.after(ms + gap, Ev::ProbeDisk { m, epoch });
    }

    /// Looks at the other's instance, while the core wants it.
    pub fn probe_peer(&mut self, m: usize, epoch: u32) {
        if !self.alive(m, epoch) || !self.procs[m].watch {
            return;
        }
        let p = 1 - m;
        let host = &self.hosts[p];
        let unreachable = self.log_cut[0] || self.log_cut[1] || !self.machines[p].answers();
        let (ms, seen) = if unreachable || !self.known[m][p] {
            (self.settings[m].heartbeat_timeout_ms, PeerInstance::Silent)
        } else if host.run == Run::Down {
            (self.time(5, 100), PeerInstance::Refused)
        } else if host.frozen || host.frozen_postmaster {
            (self.settings[m].heartbeat_timeout_ms, PeerInstance::Silent)
        } else {
            (self.time(5, 100), PeerInstance::Answered)
        };
        self.after(ms, Ev::Local { m, epoch, event: Event::PeerInstance(seen) });
        let gap = self.rng.range(50, 400);
        self.after(ms + gap, Ev::ProbePeer { m, epoch });
    }
}
