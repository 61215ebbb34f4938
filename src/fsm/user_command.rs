//! The commands that an operator configures (mc_hooks(5)), as the core calls them.

use super::types::{Server, Term};

/// What a command of the operator's is for (mc_hooks(5)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// `fencing_command`: makes sure that the target acknowledges nothing any more.
    Fencing,
    /// `arbitration_command`: reports whether the target is dead.
    Arbitration,
    /// Receives a change of the pair's state, and decides nothing.
    Hook(Hook),
}

impl Purpose {
    /// The parameter that names the command.
    pub fn parameter(self) -> &'static str {
        match self {
            Purpose::Fencing => "fencing_command",
            Purpose::Arbitration => "arbitration_command",
            Purpose::Hook(Hook::PostSwitch) => "post_switch_command",
            Purpose::Hook(Hook::PreDetach) => "pre_detach_command",
            Purpose::Hook(Hook::PostAttach) => "post_attach_command",
        }
    }
}

/// A command that receives a change of the pair's state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hook {
    /// `post_switch_command`: this server has become the primary, and takes writes.
    PostSwitch,
    /// `pre_detach_command`: the standby is about to be disconnected; on both servers.
    PreDetach,
    /// `post_attach_command`: the pair is mirrored; on both servers.
    PostAttach,
}

/// Which hooks are configured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Hooks {
    /// `post_switch_command`.
    pub post_switch: bool,
    /// `pre_detach_command`.
    pub pre_detach: bool,
    /// `post_attach_command`.
    pub post_attach: bool,
}

/// What is about to be done; of a hook's: what it is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Aim {
    /// The standby is to be promoted.
    Switch,
    /// The standby is to be disconnected.
    Detach,
    /// The standby is connected again; of a hook's alone.
    Attach,
}

/// One call of a command of the operator's. The caller is the member that runs it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UserCommand {
    /// Which.
    pub purpose: Purpose,
    /// An operator's command led to it (`command`), not what was observed (`monitor`).
    pub by_operator: bool,
    /// What is about to be done.
    pub aim: Aim,
    /// The server that it is done to: who is fenced, promoted, disconnected or connected.
    pub target: Server,
    /// The term of the present view; of a hook's that of the view that it receives: `MC_TERM`.
    pub term: Term,
    /// Why: `MC_REASON`.
    pub reason: String,
}
