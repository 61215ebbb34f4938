//! The hooks: commands of the operator that receive a change of the pair's state (mc_hooks(5)).
//!
//! They are informed, and not asked: only an operator's own command waits for one. A pending hook is noted beside the ledger in
//! the same write as the view, so that a controller that is killed before the command has ended calls it again after its restart
//! (at least once), and not after every restart. One runs at a time, in the order of the changes. A hook whose change is past is
//! ended, so that the next one does not wait for it.

use super::cause::Cause;
use super::event::{Aim, Hook, Instance, JobId, Names, Purpose, UserCommand};
use super::facts::Standing;
use super::node::Node;
use super::types::{Mode, PendingHooks, Term, View};

impl Node {
    /// Notes the hooks of a view that is entered. Those of the view before that were not called are past.
    pub(super) fn schedule_hooks(&mut self, from: Option<View>, to: View) {
        let hooks = self.settings.hooks;
        let mine = to.primary == self.me();
        let changed = from.is_some_and(|from| from.primary != to.primary);
        let owed = &mut self.store.notes.owed;
        if !mine {
            owed.switched = None;
        } else if changed && hooks.post_switch {
            owed.switched = Some(to.term);
        }
        match to.mode {
            Mode::Mirrored => {
                owed.detached = None;
                owed.attached = hooks.post_attach.then_some(to.term);
            }
            Mode::Degraded => {
                let left = from.filter(|from| from.is_mirrored(to.primary)).map(|from| from.term);
                // Where an operator detaches, it was called before.
                if hooks.pre_detach && left.is_some() && left != self.requests.announced {
                    owed.detached = Some(to.term);
                } else if changed {
                    owed.detached = None;
                }
                owed.attached = None;
            }
        }
    }

    /// An operator has made this data directory the primary's where there was no ledger.
    pub(super) fn schedule_adoption_hook(&mut self, term: Term) {
        if self.settings.hooks.post_switch {
            self.store.notes.owed.switched = Some(term);
        }
    }

    /// A command that is not configured any more is owed nothing.
    pub(super) fn drop_unconfigured_hooks(&mut self) {
        let hooks = self.settings.hooks;
        let PendingHooks { switched, detached, attached } = self.store.notes.owed;
        self.store.notes.owed = PendingHooks {
            switched: switched.filter(|_| hooks.post_switch),
            detached: detached.filter(|_| hooks.pre_detach),
            attached: attached.filter(|_| hooks.post_attach),
        };
    }

    // ------------------------------------------------------------------------------------------------------- calling

    /// Calls what is due; called once per step.
    pub(super) fn call_hooks(&mut self) {
        match self.calls.running() {
            Some((hook, command)) if self.is_past(hook, command) => self.calls.call_off(&mut self.out),
            Some(_) => {}
            None => {
                if let Some((hook, term)) = self.due() {
                    self.call_hook(hook, term);
                }
            }
        }
    }

    /// The hook whose view is durable, and whose change has been made. The hook of a disconnection is called immediately before the
    /// change. While this server is being stopped, only that hook is called.
    fn due(&self) -> Option<(Hook, Term)> {
        let PendingHooks { switched, detached, attached } = self.store.notes.owed;
        if !self.settled() {
            return None;
        }
        let switched =
            switched.filter(|_| self.serves() && !self.requests.stopping).map(|term| (Hook::PostSwitch, term));
        let detached = detached.map(|term| (Hook::PreDetach, term));
        let attached = attached.filter(|_| !self.requests.stopping).map(|term| (Hook::PostAttach, term));
        switched.or(detached).or(attached)
    }

    /// The instance takes writes as the primary that the view names.
    fn serves(&self) -> bool {
        matches!(
            (self.standing(), self.own.role),
            (Some(Standing::Alone), Some(Instance::Primary { names: Names::Unset, .. }))
                | (Some(Standing::Primary), Some(Instance::Primary { .. }))
        )
    }

    /// Whether the change that a command received is past.
    fn is_past(&self, hook: Hook, command: &UserCommand) -> bool {
        let Some(view) = self.view() else { return true };
        match hook {
            Hook::PostSwitch => view.primary != self.me() || self.store.notes.lost_split,
            Hook::PreDetach => view.primary == command.target,
            Hook::PostAttach => view.mode == Mode::Degraded || view.primary == command.target,
        }
    }

    fn call_hook(&mut self, hook: Hook, term: Term) {
        let Some(view) = self.view() else { return };
        let announces = hook == Hook::PreDetach && self.requests.announced == Some(term);
        let reason = match &self.announced.reason {
            _ if announces => Cause::OperatorDetached.text().to_owned(),
            Some(reason) if view.term == term => reason.to_string(),
            // It was entered before this process was started, or is not the newest.
            _ => format!("see term {term} in mc_ctl history"),
        };
        let (aim, target) = match hook {
            Hook::PostSwitch => (Aim::Switch, self.me()),
            Hook::PreDetach => (Aim::Detach, view.primary.other()),
            Hook::PostAttach => (Aim::Attach, view.primary.other()),
        };
        let purpose = Purpose::Hook(hook);
        let command = UserCommand { purpose, by_operator: announces, aim, target, term, reason };
        self.calls.hook(hook, command, &mut self.out);
    }

    /// A command has ended; where it was a hook, that is noted.
    pub(super) fn command_done(&mut self, id: JobId, result: Result<(), String>) {
        let Some((hook, term, called_off)) = self.calls.hook_done(id, &result, &mut self.out) else {
            self.calls.done(self.now, id, result, &mut self.out);
            return;
        };
        // The loser of a split may become the primary under the same view after all.
        let primary = self.view().is_some_and(|view| view.primary == self.me());
        if hook == Hook::PostSwitch && called_off && primary {
            return;
        }
        let owed = &mut self.store.notes.owed;
        let entry = match hook {
            Hook::PostSwitch => &mut owed.switched,
            Hook::PreDetach => &mut owed.detached,
            Hook::PostAttach => &mut owed.attached,
        };
        // A newer view may owe it again.
        if *entry == Some(term) {
            *entry = None;
            self.write(None);
        }
    }

    // -------------------------------------------------------------------------------------- an operator's disconnection

    /// Before a disconnection that an operator asks for, while commits flow: calls `pre_detach_command`, once. True while that
    /// runs, or has to wait for its turn.
    pub(super) fn announces(&mut self) -> bool {
        let Some(view) = self.view().filter(|_| self.settings.hooks.pre_detach) else { return false };
        // A view that is not durable may be another one after a restart.
        if !self.settled() {
            return true;
        }
        match self.calls.running().map(|(hook, _)| hook) {
            None if self.requests.announced == Some(view.term) => false,
            None => {
                self.requests.announced = Some(view.term);
                self.call_hook(Hook::PreDetach, view.term);
                true
            }
            Some(Hook::PostAttach) => {
                self.calls.call_off(&mut self.out);
                true
            }
            Some(Hook::PreDetach | Hook::PostSwitch) => true,
        }
    }

    /// The standby was not disconnected after all. If `pre_detach_command` was called, `post_attach_command` is called.
    pub(super) fn take_back(&mut self) {
        let Some(view) = self.view() else { return };
        if self.requests.announced.take() == Some(view.term) && self.settings.hooks.post_attach {
            self.store.notes.owed.attached = Some(view.term);
            self.write(None);
        }
    }
}
