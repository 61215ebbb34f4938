//! The rules R1 to R10 of the protocol, each as one function of plain values.
//!
//! No state, no time, no message: the members' cores call them with what they know, and the model check composes exactly
//! these with every loss, delay and crash there can be. What an instance *is* comes in as a few booleans; who fills them
//! ([`super::consent`], [`super::work`]) has done the looking.

use super::facts::Standing;
use super::types::{DataId, Ledger, LedgerId, Member, Mode, Server, Term, View};

// ---------------------------------------------------------------------------------------------------------------- terms

/// R1: the smallest own term above everything that this server has promised, and of which it has received that others promised it.
pub fn next_term(me: Server, promised: &[Term]) -> Term {
    promised.iter().copied().max().unwrap_or_default().next_for(me)
}

/// R1: the ledger of a proposer, as it is durable before the proposal is sent.
pub fn promising(ledger: Ledger, term: Term) -> Ledger {
    Ledger { promised: ledger.promised.max(term), ..ledger }
}

/// The ledger after a view is accepted, adopted or written: neither term goes down (R1, R7).
pub fn entering(ledger: Ledger, view: View) -> Ledger {
    Ledger { view, promised: ledger.promised.max(view.term), ..ledger }
}

// ------------------------------------------------------------------------------------------------------- what it stands for

/// What a view is from one server's side.
pub fn standing(view: &View, me: Server) -> Standing {
    match (view.mode, view.primary == me) {
        (Mode::Degraded, true) => Standing::Alone,
        (Mode::Degraded, false) => Standing::Inactivated,
        (Mode::Mirrored, true) => Standing::Primary,
        (Mode::Mirrored, false) => Standing::Standby,
    }
}

/// Whether this server's data directory is the one that its view names.
pub fn eligible(ledger: &Ledger, me: Server) -> bool {
    ledger.view.data[me.index()] == Some(ledger.data.id)
}

// ------------------------------------------------------------------------------------------------------------- proposing

/// `Degraded(me)` after the view of this ledger.
pub fn alone(ledger: &Ledger, me: Server, term: Term, forced: bool) -> View {
    View { term, primary: me, mode: Mode::Degraded, forced, ..ledger.view }
}

/// R3 and R4: whether an eligible server may propose `Degraded(me)` to this member. `in_recovery`: its instance runs as a
/// standby.
pub fn may_propose(ledger: &Ledger, me: Server, to: Member, in_recovery: bool) -> bool {
    match standing(&ledger.view, me) {
        Standing::Primary => true,
        Standing::Standby => in_recovery,
        Standing::Inactivated => to == Member::Server(me.other()),
        Standing::Alone => false,
    }
}

// ------------------------------------------------------------------------------------------------------------ consenting

/// R1, R2 and R3, for each receiver: `Degraded(from)` after the receiver's own view, in a term of the proposer's above all that
/// was promised.
fn follows(ledger: &Ledger, from: Server, base: &View, view: &View) -> bool {
    view.is_alone(from)
        && !view.forced
        && view.data == ledger.view.data
        && view.arbiter == ledger.view.arbiter
        && view.term.is_of(from)
        && view.term > ledger.promised
        && *base == ledger.view
}

/// What a server that is asked to give way knows of its own instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Instance {
    /// The data directory is the one that the view names.
    pub eligible: bool,
    /// It is stopped, with all its processes, the names set in its file.
    pub stopped: bool,
    /// It is a standby, or can only be started as one, and no promotion was asked for.
    pub follows: bool,
    /// This server offers to hand over, and the proposer has received the shutdown checkpoint where that is waited for.
    pub offered: bool,
    /// `pg_control` shows recovery, on the asking server's timeline.
    pub unpromoted: bool,
    /// A standby's: its WAL was found in that of the asking primary's present run, or that one does not run.
    pub contained: bool,
    /// The asking server reports less WAL than it has reported before with the same data directory.
    pub asker_is_behind: bool,
}

/// R1 to R4, R6 and R13: whether a server accepts `view`, proposed by its peer from `base`.
pub fn server_accepts(ledger: &Ledger, me: Server, base: &View, view: &View, own: Instance) -> bool {
    follows(ledger, me.other(), base, view)
        && !own.asker_is_behind
        && match standing(&ledger.view, me) {
            Standing::Standby => (own.stopped || own.follows) && own.contained,
            Standing::Primary => own.offered && own.stopped,
            Standing::Alone => own.eligible && own.stopped && own.unpromoted,
            Standing::Inactivated => false,
        }
}

/// R1 to R4, R8 and R13: whether the arbiter accepts `view`, proposed by `from` out of `base`. `behind`: that one reports less
/// WAL than it has reported before. `incumbent_gone` is asked only for a standby.
pub fn arbiter_accepts(
    ledger: &Ledger,
    from: Server,
    base: &View,
    view: &View,
    behind: bool,
    incumbent_gone: impl FnOnce(Server) -> bool,
) -> bool {
    let named = ledger.view.mode == Mode::Mirrored && ledger.view.arbiter == Some(ledger.id);
    named
        && !behind
        && follows(ledger, from, base, view)
        && (from == ledger.view.primary || incumbent_gone(from.other()))
}

// -------------------------------------------------------------------------------------------------------------- adopting

/// What a server does about a view that it receives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Learned {
    /// It is nothing new.
    Nothing,
    /// It is adopted.
    Adopt,
    /// Both report that they hold the right: legal while the peer's report is an old one, else a split (section 6).
    Contest,
}

/// R7: what a server does about a view that any member reports.
pub fn learns(ledger: &Ledger, me: Server, eligible: bool, told: &View) -> Learned {
    let contest = ledger.view.is_alone(me) && told.is_alone(me.other()) && told.term != ledger.view.term;
    if contest && (told.term < ledger.view.term || eligible) {
        return Learned::Contest;
    }
    if told.term > ledger.view.term { Learned::Adopt } else { Learned::Nothing }
}

/// R7 for the arbiter, which holds no right that it could lose.
pub fn arbiter_adopts(ledger: &Ledger, told: &View) -> bool {
    told.term > ledger.view.term
}

/// Whether `view` is a right that one server took by force, and replaces a right of the other server, which keeps that (R7).
/// `replaced`: whether the view `before` did so.
pub fn replaces_right(before: Option<&View>, replaced: bool, view: &View) -> bool {
    let from_other = |before: &View| before.is_alone(view.primary.other()) && view.forced;
    let again = |before: &View| before.is_alone(view.primary) && replaced;
    view.mode == Mode::Degraded && before.is_some_and(|before| from_other(before) || again(before))
}

/// Whether this view, reported by the other server itself, may begin a standby's ledger (section 2).
pub fn begins_standby(me: Server, told: &View) -> bool {
    told.is_alone(me.other())
}

// ---------------------------------------------------------------------------------------------------------- R9 and R10

/// R9: `Mirrored(me)` after a proof; what it leans on: the own data directory, the standby's as it reported it, and the arbiter, if
/// there is one. Only from `Degraded(me)`.
pub fn mirrored(ledger: &Ledger, me: Server, term: Term, standby: DataId, arbiter: Option<LedgerId>) -> Option<View> {
    if !ledger.view.is_alone(me) {
        return None;
    }
    let mut view = View { term, mode: Mode::Mirrored, forced: false, ..ledger.view };
    view.data[me.index()] = Some(ledger.data.id);
    view.data[me.other().index()] = Some(standby);
    view.arbiter = arbiter;
    Some(view)
}

/// R10: whether a data directory may be made a copy of the other server's, whose instance runs as a primary and which reports
/// this view as its own: it reports itself that it holds the right, and this server does not, has none yet, or has lost it in a
/// split.
pub fn may_rebuild(ledger: Option<&Ledger>, me: Server, told: &View, lost_split: bool) -> bool {
    told.is_alone(me.other())
        && ledger.is_none_or(|ledger| ledger.view == *told || ledger.view.is_alone(me) && lost_split)
}

/// R10: whether an intact data directory may be started as the other server's standby: it reports itself that it
/// holds the right under this server's own view, and that its instance runs as a primary.
pub fn may_follow(ledger: &Ledger, me: Server, told: Option<&View>, runs_as_primary: bool) -> bool {
    runs_as_primary && told == Some(&ledger.view) && ledger.view.is_alone(me.other())
}
