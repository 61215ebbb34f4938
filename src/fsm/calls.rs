//! Commands of the operator (PROTOCOL section 4, mc_hooks(5)): those that go before an action, fencing and
//! arbitration, and the hooks, which receive a change.
//!
//! A command that goes before something is called before the right to run alone is asked for, or taken, without the other
//! server's own consent. Its success counts for the present view, until the target is seen again, and not for long; a
//! failure holds the action back. A hook holds nothing back, and runs beside: one that takes long, or hangs, must not be
//! what a fencing waits for. When it is called is [`super::hooks`]'s.

use super::event::{Action, Aim, CoreMessage, Hook, JobId, Purpose, UserCommand};
use super::types::{Server, Term, Time};

/// Whether what a command goes before may be done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum GateResult {
    /// The command has succeeded.
    Given,
    /// It runs.
    Awaited,
    /// It has failed, and is not called again yet.
    Denied(String),
}

/// The commands that were called by one member.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Calls {
    next_id: u64,
    out: Option<(JobId, UserCommand, Time)>,
    ended: Vec<Ended>,
    hook: Option<Called>,
    /// How the last hook ended that did not succeed, until one of its kind does.
    failed: Option<(Hook, String)>,
}

/// A hook that runs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Called {
    id: JobId,
    hook: Hook,
    command: UserCommand,
    called_off: bool,
}

/// A command that has ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Ended {
    command: UserCommand,
    called_at: Time,
    at: Time,
    result: Result<(), String>,
}

impl Ended {
    /// What a script has looked at is from when it was called; who was fenced is so from its end on.
    fn counts_from(&self) -> Time {
        match self.command.purpose {
            Purpose::Arbitration => self.called_at,
            Purpose::Fencing | Purpose::Hook(_) => self.at,
        }
    }
}

impl Calls {
    /// Calls are numbered from a random number on: an answer to a call of an earlier core fits none of this one's.
    pub fn new(seed: u64) -> Calls {
        Calls { next_id: seed >> 1, out: None, ended: Vec::new(), hook: None, failed: None }
    }

    /// What came of this command, which is called where it has not been, or where its result counts no more: a success
    /// once the target was seen to live after it (`seen_at`), and both after `retry_ms`.
    pub fn clear(
        &mut self,
        now: Time,
        command: UserCommand,
        seen_at: Option<Time>,
        retry_ms: u64,
        out: &mut Vec<Action>,
    ) -> GateResult {
        let same = |other: &UserCommand| key(other) == key(&command);
        if let Some(ended) = self.ended.iter().find(|ended| same(&ended.command)) {
            match &ended.result {
                _ if now.since(ended.at) >= retry_ms => {}
                Ok(()) if seen_at.is_none_or(|seen| seen <= ended.counts_from()) => return GateResult::Given,
                Err(why) => return GateResult::Denied(why.clone()),
                Ok(()) => {}
            }
        }
        if self.out.is_some() {
            return GateResult::Awaited;
        }
        self.ended.retain(|ended| !same(&ended.command));
        self.next_id += 1;
        let id = JobId(self.next_id);
        self.out = Some((id, command.clone(), now));
        out.push(Action::Log(CoreMessage::Calling(Box::new(command.clone()))));
        out.push(Action::Call(id, Box::new(command)));
        GateResult::Awaited
    }

    /// Calls a hook. One at a time.
    pub fn hook(&mut self, hook: Hook, command: UserCommand, out: &mut Vec<Action>) {
        self.next_id += 1;
        let id = JobId(self.next_id);
        self.hook = Some(Called { id, hook, command: command.clone(), called_off: false });
        out.push(Action::Log(CoreMessage::HookCalled(Box::new(command.clone()))));
        out.push(Action::Call(id, Box::new(command)));
    }

    /// Every command that runs: an answer to it is expected.
    pub fn under_way(&self) -> Vec<(JobId, UserCommand)> {
        let asked = self.out.as_ref().map(|(id, command, _)| (*id, command.clone()));
        let told = self.hook.as_ref().map(|called| (called.id, called.command.clone()));
        asked.into_iter().chain(told).collect()
    }

    /// The hook that runs.
    pub fn running(&self) -> Option<(Hook, &UserCommand)> {
        self.hook.as_ref().map(|called| (called.hook, &called.command))
    }

    /// Ends the hook that runs, because the change that it reports is past.
    pub fn call_off(&mut self, out: &mut Vec<Action>) {
        if let Some(called) = self.hook.as_mut()
            && !std::mem::replace(&mut called.called_off, true)
        {
            out.push(Action::CallOff(called.id));
        }
    }

    /// A hook has ended: its view's term, and whether it was called off before its end. `None` where it was no hook.
    pub fn hook_done(
        &mut self,
        id: JobId,
        result: &Result<(), String>,
        out: &mut Vec<Action>,
    ) -> Option<(Hook, Term, bool)> {
        let Called { hook, command, called_off, .. } = self.hook.take_if(|called| called.id == id)?;
        let term = command.term;
        match result {
            Ok(()) => {
                self.failed.take_if(|(failed, _)| *failed == hook);
                out.push(Action::Log(CoreMessage::HookDone(Box::new(command))));
            }
            // Its end was wanted.
            Err(_) if called_off => out.push(Action::Log(CoreMessage::HookCalledOff(Box::new(command)))),
            Err(why) => {
                self.failed = Some((hook, why.clone()));
                out.push(Action::Log(CoreMessage::HookFailed { command: Box::new(command), why: why.clone() }));
            }
        }
        Some((hook, term, called_off && result.is_err()))
    }

    /// How the last hook ended that did not succeed.
    pub fn hook_failure(&self) -> Option<(Hook, &str)> {
        self.failed.as_ref().map(|(hook, why)| (*hook, why.as_str()))
    }

    /// A command that goes before something has ended.
    pub fn done(&mut self, now: Time, id: JobId, result: Result<(), String>, out: &mut Vec<Action>) {
        let Some((_, command, called_at)) = self.out.take_if(|(current, ..)| *current == id) else { return };
        let told = Box::new(command.clone());
        out.push(Action::Log(match &result {
            Ok(()) => CoreMessage::Called(told),
            Err(why) => CoreMessage::CallFailed { command: told, why: why.clone() },
        }));
        // What was found out under another view counts no more.
        self.ended.retain(|ended| ended.command.term == command.term);
        self.ended.push(Ended { command, called_at, at: now, result });
    }

    /// What was found out counts no more: this process was paused.
    pub fn forget(&mut self) {
        self.ended.clear();
    }

    /// An operator requests it again.
    pub fn forget_operators(&mut self) {
        self.ended.retain(|ended| !ended.command.by_operator);
    }

    /// How the last command ended that failed and is not called again yet.
    pub fn failure(&self) -> Option<(&UserCommand, &str)> {
        let failed = |ended: &&Ended| ended.result.is_err();
        let ended = self.ended.iter().rfind(failed)?;
        Some((&ended.command, ended.result.as_ref().err()?))
    }
}

/// What makes two calls equal. The reason is only for people.
fn key(command: &UserCommand) -> (Purpose, bool, Aim, Server, Term) {
    (command.purpose, command.by_operator, command.aim, command.target, command.term)
}
