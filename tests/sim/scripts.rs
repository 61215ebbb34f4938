//! The operator's commands: fencing, which takes a host down by another way than the network, and the arbitration script,
//! which says whether a server is dead, and sees to it. Truthful but in one broken world; slow, failing or hanging in all.

use crate::note;
use crate::world::*;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::Server;

/// A command under way.
pub struct Script {
    pub id: JobId,
    pub key: u32,
    pub command: UserCommand,
    /// Whether it takes the target down, and what it says at its end.
    kills: bool,
    result: Result<(), String>,
}

impl World {
    /// `Action::Call`.
    pub fn call(&mut self, m: usize, id: JobId, command: UserCommand) {
        if self.procs[m].script.is_some() {
            self.violated(format!("contract: {} calls {command:?} while another command runs", NAMES[m]));
            return;
        }
        let who = if command.by_operator { "by command" } else { "by itself" };
        self.reach(format!("call: {:?} {:?} {who}", command.purpose, command.aim));
        let lies = self.broken == Broken::LyingScript;
        let (kills, result, ms) = match self.rng.range(0, 99) {
            0..75 => (!lies, Ok(()), self.rng.range(10, 2_000)),
            _ if self.calm() => (!lies, Ok(()), self.rng.range(10, 200)),
            // It had done its work, and then failed; or not.
            75..90 => (self.rng.chance(300), Err("exit status 1".to_string()), self.rng.range(10, 2_000)),
            _ => (self.rng.chance(300), Err("no end within its time limit".to_string()), self.rng.range(5_000, 30_000)),
        };
        let key = self.id();
        self.procs[m].script = Some(Script { id, key, command, kills, result });
        self.after(ms, Ev::Script { m, key });
    }

    /// The command comes to its end.
    pub fn script_ends(&mut self, m: usize, key: u32) {
        let Some(script) = self.procs[m].script.take_if(|script| script.key == key) else { return };
        if script.kills {
            self.fenced(m, script.command.target);
        }
        let epoch = self.procs[m].epoch;
        self.after(0, Ev::Local { m, epoch, event: Event::CommandDone(script.id, script.result) });
    }

    /// Its caller is gone; it has done its work by then, or does not any more.
    pub fn abandon_script(&mut self, m: usize) {
        if let Some(script) = self.procs[m].script.take()
            && script.kills
            && self.rng.chance(500)
        {
            self.fenced(m, script.command.target);
        }
    }

    /// What a truthful script promises: a host that it has fenced stays off until who called it serves, or will not any more.
    pub fn is_undecided(&self, fenced: Fenced) -> bool {
        let m = fenced.by;
        if m == ARBITER {
            return false;
        }
        let (server, process, host) = (Server::BOTH[m], &self.procs[m], &self.hosts[m]);
        if process.disk.is_some_and(|disk| disk.ledger.view.is_alone(server)) {
            return host.run != Run::Primary || host.effect != Names::Unset;
        }
        let acts = process.ordered.is_some_and(|ledger| ledger.view.is_alone(server));
        let counts = self.t < fenced.at + self.settings[m].heartbeat_detection_ms * 12;
        self.alive(m, fenced.epoch) && (acts || counts)
    }

    fn fenced(&mut self, m: usize, target: Server) {
        let s = target.index();
        note!(self, "-- {} fences {}", NAMES[m], NAMES[s]);
        let kernel = self.rng.chance(500);
        if self.machines[s].up {
            self.crash(s, kernel);
        }
        self.machines[s].fenced = Some(Fenced { by: m, epoch: self.procs[m].epoch, at: self.t });
        let ms = self.rng.range(2_000, 30_000);
        self.after(ms, Ev::Fault(crate::faults::Fault::Reboot(s)));
    }
}
