//! The operator's commands: fencing, which takes a host down by another way than the network, and the arbitration script,
//! which says whether a server is dead, and sees to it. Truthful but in one broken world; slow, failing or hanging in all.
//! And the hooks, which do nothing, slowly or not, and fail and hang even where everything else is well: nothing may wait for
//! them. That they are called is looked at here too.

use crate::note;
use crate::world::*;
use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::types::{Mode, Server, View};

/// A command under way.
pub struct Script {
    pub id: JobId,
    pub key: u32,
    pub command: UserCommand,
    /// Whether it takes the target down, and what it says at its end.
    kills: bool,
    result: Result<(), String>,
    called_off: bool,
}

/// `status_change_command_timeout`, ms.
const HOOK_LIMIT: u64 = 20_000;

impl World {
    /// `Action::Call`.
    pub fn call(&mut self, m: usize, id: JobId, command: UserCommand) {
        if let Purpose::Hook(hook) = command.purpose {
            return self.call_hook(m, id, hook, command);
        }
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
        self.procs[m].script = Some(Script { id, key, command, kills, result, called_off: false });
        self.after(ms, Ev::Script { m, key });
    }

    fn call_hook(&mut self, m: usize, id: JobId, hook: Hook, command: UserCommand) {
        if self.procs[m].hook.is_some() {
            return self.violated(format!("contract: {} calls {command:?} while another hook runs", NAMES[m]));
        }
        let who = if command.by_operator { "by command" } else { "by itself" };
        self.reach(format!("hook: {hook:?} {who}"));
        if let Some(what) = self.is_uncalled_for(m, hook, &command) {
            return self.violated(format!("hooks: {} calls {command:?}: {what}", NAMES[m]));
        }
        let (result, ms) = match self.aside.range(0, 99) {
            0..60 => (Ok(()), self.aside.range(1, 2_000)),
            60..75 => (Err("exit status 1".to_string()), self.aside.range(1, 500)),
            75..90 => (Ok(()), self.aside.range(2_000, HOOK_LIMIT)),
            _ => (Err("no end within its time limit".to_string()), HOOK_LIMIT + self.aside.range(0, 2_000)),
        };
        let key = self.id();
        self.procs[m].hook = Some(Script { id, key, command, kills: false, result, called_off: false });
        self.after(ms, Ev::Script { m, key });
    }

    /// Why this call should not have been made: each must be owed, durably, and what it tells be so.
    fn is_uncalled_for(&self, m: usize, hook: Hook, command: &UserCommand) -> Option<&'static str> {
        let Some(disk) = self.procs[m].disk else { return Some("it has no ledger") };
        let (view, owed, term, me) = (disk.ledger.view, disk.notes.owed, command.term, Server::BOTH[m]);
        let hooks = self.settings[m].hooks;
        match hook {
            Hook::PostSwitch if owed.switched != Some(term) || !hooks.post_switch => Some("nothing is to be told"),
            Hook::PostSwitch if view.primary != me => Some("it is not the primary"),
            Hook::PreDetach if command.by_operator => {
                (!view.is_mirrored(me) || view.term != term).then_some("the view is another one")
            }
            Hook::PreDetach if owed.detached != Some(term) || !hooks.pre_detach => Some("nothing is to be told"),
            Hook::PreDetach if view.mode == Mode::Mirrored => Some("the pair is mirrored"),
            Hook::PostAttach if owed.attached != Some(term) || !hooks.post_attach => Some("nothing is to be told"),
            Hook::PostAttach if view.mode != Mode::Mirrored => Some("the pair is not mirrored"),
            Hook::PostSwitch | Hook::PreDetach | Hook::PostAttach => None,
        }
    }

    /// `Action::CallOff`.
    pub fn call_off(&mut self, m: usize, id: JobId) {
        let ms = self.aside.time(200, 2_000);
        let Some(script) = self.procs[m].hook.as_mut().filter(|script| script.id == id) else { return };
        script.called_off = true;
        script.result = Err("it was killed".to_string());
        let key = script.key;
        self.reach("hook: called off".to_string());
        self.after(ms, Ev::Script { m, key });
    }

    /// A server's ledger changes: whether a command of the operator's must be told of a new primary.
    pub fn note_role(&mut self, m: usize, old: &View, new: &View) {
        let Some(me) = Server::BOTH.get(m).copied() else { return };
        if new.primary != me {
            self.untold[m] = None;
        } else if old.primary != me && self.settings[m].hooks.post_switch {
            self.untold[m] = Some(self.t);
        }
    }

    /// A hook comes to its end, by itself or not.
    fn hook_ends(&mut self, m: usize, key: u32) {
        let Some(script) = self.procs[m].hook.take_if(|script| script.key == key) else { return };
        let primary = self.procs[m].disk.map(|disk| Server::BOTH[m] == disk.ledger.view.primary);
        if script.command.purpose == Purpose::Hook(Hook::PostSwitch) && !script.called_off {
            if primary == Some(false) {
                return self.violated(format!("hooks: {} is told that it is the primary, and is not", NAMES[m]));
            }
            self.untold[m] = None;
        }
        let epoch = self.procs[m].epoch;
        self.after(0, Ev::Local { m, epoch, event: Event::CommandDone(script.id, script.result) });
    }

    /// The command comes to its end.
    pub fn script_ends(&mut self, m: usize, key: u32) {
        self.hook_ends(m, key);
        let Some(script) = self.procs[m].script.take_if(|script| script.key == key) else { return };
        if script.kills {
            self.fenced(m, script.command.target);
        }
        let epoch = self.procs[m].epoch;
        self.after(0, Ev::Local { m, epoch, event: Event::CommandDone(script.id, script.result) });
    }

    /// Its caller is gone; it has done its work by then, or does not any more.
    pub fn abandon_script(&mut self, m: usize) {
        if self.procs[m].hook.take().is_some() {
            self.reach("hook: its caller is gone".to_string());
        }
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
