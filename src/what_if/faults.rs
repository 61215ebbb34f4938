//! What can fail: what each fault is called, what keeps it from happening, and what it does to the world.

use super::Names;
use super::world::{ARBITER, Core, World};
use crate::fsm::event::{Event, StartedBy};
use serde::{Deserialize, Serialize};

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal),+ $(,)?) => {
        /// Something that can fail. Roles are those at the moment when it fails.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        pub enum Fault {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $name),+
        }

        impl Fault {
            /// Every fault, and at the end [`Fault::Back`].
            pub const ALL: &'static [Fault] = &[$(Fault::$name),+];

            /// As it is typed.
            pub fn word(self) -> &'static str {
                match self { $(Fault::$name => $word),+ }
            }

            /// What it is, in a sentence.
            pub fn help(self) -> &'static str {
                let text = match self { $(Fault::$name => concat!($($doc),+)),+ };
                text.trim().trim_end_matches('.')
            }
        }
    };
}

faults!(
    /// The primary's host loses power.
    PrimaryHost = "primary-host",
    /// The primary's postmaster ends.
    PrimaryInstance = "primary-instance",
    /// The primary's instance hangs and does not respond.
    PrimaryInstanceHang = "primary-instance-hang",
    /// The primary's data directory can no longer be read or written.
    PrimaryDisk = "primary-disk",
    /// The primary's controller and its watcher end; the instance continues to run.
    PrimaryController = "primary-controller",
    /// The primary is cut off from all other members.
    PrimaryIsolated = "primary-isolated",
    /// The standby's host loses power.
    StandbyHost = "standby-host",
    /// The standby's postmaster ends.
    StandbyInstance = "standby-instance",
    /// The standby's instance hangs and does not respond.
    StandbyInstanceHang = "standby-instance-hang",
    /// The standby's data directory can no longer be read or written.
    StandbyDisk = "standby-disk",
    /// The standby's controller and its watcher end; the instance continues to run.
    StandbyController = "standby-controller",
    /// The standby is cut off from all other members.
    StandbyIsolated = "standby-isolated",
    /// The network between the servers fails; both reach the arbiter and clients.
    Link = "link",
    /// Replication between the instances fails; the controllers communicate.
    Replication = "replication",
    /// The arbiter ends.
    Arbiter = "arbiter",
    /// The arbiter's host loses power.
    ArbiterHost = "arbiter-host",
    /// No fault: failed components are repaired, and stopped components are started.
    Back = "back",
);

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(word: &str) -> Result<Fault, String> {
        let found = Fault::ALL.iter().find(|fault| fault.word() == word);
        found.copied().ok_or_else(|| format!("there is no fault \"{word}\""))
    }
}

impl Fault {
    /// Whether the data of a server can be lost with it, so that a further fault would leave only backups.
    pub fn can_lose_data(self) -> bool {
        matches!(self, Fault::PrimaryHost | Fault::PrimaryDisk | Fault::StandbyHost | Fault::StandbyDisk)
    }

    /// The member that it befalls; the primary where it befalls more than one.
    fn whose(self, primary: usize) -> usize {
        match self {
            Fault::PrimaryHost
            | Fault::PrimaryInstance
            | Fault::PrimaryInstanceHang
            | Fault::PrimaryDisk
            | Fault::PrimaryController
            | Fault::PrimaryIsolated => primary,
            Fault::StandbyHost
            | Fault::StandbyInstance
            | Fault::StandbyInstanceHang
            | Fault::StandbyDisk
            | Fault::StandbyController
            | Fault::StandbyIsolated => 1 - primary,
            Fault::Link | Fault::Replication | Fault::Back => primary,
            Fault::Arbiter | Fault::ArbiterHost => ARBITER,
        }
    }
}

impl World {
    /// What keeps a fault from happening.
    pub fn obstacle(&self, fault: Fault, names: &Names<'_>) -> Option<String> {
        let m = fault.whose(self.primary());
        let host = |m: usize| {
            (!self.power[m]).then(|| format!("{} is not running, as far as this server has detected", names.of(m)))
        };
        let instance = |m: usize| {
            let runs = self.hosts[m].dir.running;
            host(m).or_else(|| (!runs).then(|| format!("the instance of {} is not running", names.of(m))))
        };
        let disk =
            || (!self.hosts[m].disk.is_empty()).then(|| format!("the disk of {} has already failed", names.of(m)));
        let gone =
            || matches!(self.cores[m], Core::None).then(|| format!("the controller of {} is not running", names.of(m)));
        match fault {
            Fault::Arbiter | Fault::ArbiterHost if !self.arbiter => Some("there is no arbiter".to_owned()),
            Fault::PrimaryHost | Fault::StandbyHost | Fault::ArbiterHost => host(m),
            Fault::PrimaryIsolated | Fault::StandbyIsolated => host(m),
            Fault::PrimaryInstance | Fault::StandbyInstance => instance(m),
            Fault::PrimaryInstanceHang | Fault::StandbyInstanceHang => instance(m),
            Fault::PrimaryDisk | Fault::StandbyDisk => host(m).or_else(disk),
            Fault::PrimaryController | Fault::StandbyController | Fault::Arbiter => host(m).or_else(gone),
            Fault::Link => host(m).or_else(|| host(1 - m)),
            Fault::Replication => instance(m).or_else(|| instance(1 - m)),
            Fault::Back => (!self.is_broken()).then(|| "nothing has failed, and nothing is stopped".to_owned()),
        }
    }

    /// What a fault is now, in a sentence.
    pub fn what_fails(&self, fault: Fault, names: &Names<'_>) -> String {
        let (primary, m) = (self.primary(), fault.whose(self.primary()));
        let role = match m {
            ARBITER => "arbiter",
            _ if m == primary => "primary",
            _ => "standby",
        };
        let who = format!("{} ({role})", names.of(m));
        match fault {
            Fault::PrimaryHost | Fault::StandbyHost | Fault::ArbiterHost => format!("the host of {who} fails"),
            Fault::PrimaryInstance | Fault::StandbyInstance => format!("the instance of {who} fails"),
            Fault::PrimaryInstanceHang | Fault::StandbyInstanceHang => format!("the instance of {who} hangs"),
            Fault::PrimaryDisk | Fault::StandbyDisk => format!("the disk of {who} fails"),
            Fault::PrimaryController | Fault::StandbyController => {
                format!("the controller of {who} ends, its watcher too; the instance runs")
            }
            Fault::PrimaryIsolated | Fault::StandbyIsolated => format!("{who} is cut off from all members"),
            Fault::Link => format!("the network between {} and {} fails", names.of(0), names.of(1)),
            Fault::Replication => format!("replication from {} to {} stops", names.of(m), names.of(1 - m)),
            Fault::Arbiter => format!("{who} ends"),
            Fault::Back => "all failures are repaired, and all stopped members are started".to_owned(),
        }
    }

    /// Does a fault to what has these roles now.
    pub fn inject(&mut self, fault: Fault) {
        let m = fault.whose(self.primary());
        match fault {
            Fault::PrimaryHost | Fault::StandbyHost | Fault::ArbiterHost => self.power_off(m),
            Fault::PrimaryInstance | Fault::StandbyInstance => self.crash(m),
            Fault::PrimaryInstanceHang | Fault::StandbyInstanceHang => self.hosts[m].silent = true,
            Fault::PrimaryDisk | Fault::StandbyDisk => "data".clone_into(&mut self.hosts[m].disk),
            Fault::PrimaryController | Fault::StandbyController | Fault::Arbiter => self.kill(m),
            Fault::PrimaryIsolated | Fault::StandbyIsolated => self.isolate(m),
            Fault::Link => self.cut_between(0, 1),
            Fault::Replication => self.wal_cut = true,
            Fault::Back => self.bring_back(),
        }
        self.watch_service();
    }

    fn power_off(&mut self, m: usize) {
        self.kill(m);
        self.power[m] = false;
    }

    fn crash(&mut self, m: usize) {
        self.hosts[m].crash();
        self.feed(m, Event::Died { signal: None });
    }

    fn cut_between(&mut self, a: usize, b: usize) {
        self.cut[a][b] = true;
        self.cut[b][a] = true;
    }

    fn isolate(&mut self, m: usize) {
        (0..3).filter(|other| *other != m).for_each(|other| self.cut_between(m, other));
    }

    /// Repairs everything, and starts what is stopped as an administrator, or the service manager, does.
    fn bring_back(&mut self) {
        self.cut = [[false; 3]; 3];
        self.wal_cut = false;
        let enabled = self.failover().enabled;
        for m in [0, 1] {
            let host = &mut self.hosts[m];
            host.disk.clear();
            host.broken = false;
            host.silent = false;
            let was_off = !std::mem::replace(&mut self.power[m], true);
            if was_off {
                self.hosts[m].crash();
            }
            if matches!(self.cores[m], Core::None) && (self.disks[m].is_some() || self.hosts[m].dir.standby_signal) {
                self.boot(m, StartedBy::Operator { instance: true, failover: Some(enabled) });
            }
        }
        if self.arbiter {
            self.power[ARBITER] = true;
            if matches!(self.cores[ARBITER], Core::None) {
                self.boot_arbiter();
            }
        }
    }

    /// Whether there is anything to repair or to start.
    pub fn is_broken(&self) -> bool {
        let there = |m: &usize| *m != ARBITER || self.arbiter;
        let gone = |m: usize| !self.power[m] || matches!(self.cores[m], Core::None);
        self.cut != [[false; 3]; 3]
            || self.wal_cut
            || (0..3).filter(there).any(gone)
            || self.hosts.iter().any(|host| host.silent || !host.disk.is_empty())
    }
}
