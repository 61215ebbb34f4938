//! Which changes of a ledger there are: the steps of the model check, looked at from the ledger alone.
//!
//! The model check explores the rules; the simulator holds every ledger that the whole core writes against this. So what
//! was explored is what is shipped.

use mirroring_controller::fsm::facts::Standing;
use mirroring_controller::fsm::rules::{self, Learned};
use mirroring_controller::fsm::types::*;
use std::collections::HashMap;

/// What the others' ledgers hold, or held, when a member changes its own.
pub struct Others<'a> {
    /// Every view that some ledger ever held, by its term.
    pub views: &'a HashMap<u64, View>,
    /// The highest term that each server ever promised.
    pub promised: [Term; 2],
    /// The standing from which a server acts alone on silence: by the safe half that it is set to.
    pub half: Option<Standing>,
}

impl Others<'_> {
    fn told(&self, view: &View) -> bool {
        self.views.get(&view.term.0) == Some(view)
    }
}

/// Says what is wrong with a change of a server's ledger, or of its first one.
pub fn server(me: Server, before: Option<&Ledger>, after: &Ledger, others: &Others) -> Result<(), String> {
    let Some(before) = before else {
        let view = &after.view;
        let told = others.told(view) && rules::begins_standby(me, view);
        let founded = view.is_alone(me) && view.term == Term(0).next_for(me) && view.data[me.other().index()].is_none();
        // One that has lost its ledger skips terms.
        let begun =
            told && after.promised >= view.term || after.promised == view.term && (founded || is_force(me, view));
        return say(begun, "a ledger begins with a view that nobody told");
    };
    let moved = DataIdentity { checkpoint: after.data.checkpoint, ..before.data };
    let same = Ledger { data: moved, ..*before };
    if *after == same {
        return Ok(());
    }
    if after.data != moved {
        let renamed = Ledger { data: after.data, ..*before };
        let new = after.data.id != before.data.id && after.data.id != DataId(0);
        return say(*after == renamed && new, "a data directory changes otherwise than by a new name");
    }
    if after.view == before.view {
        let may = rules::may_propose(before, me, Member::Server(me.other()), true) && rules::eligible(before, me);
        let promise = after.promised > before.promised && after.promised.is_of(me);
        return say(
            may && promise && *after == rules::promising(same, after.promised),
            "a promise that no proposal needs",
        );
    }
    say(*after == rules::entering(same, after.view), "a view is written together with something else")?;
    say(after.view.term > before.view.term, "a view is older than the one before")?;
    say(enters(me, before, &after.view, others), "a view that is neither told nor consented to nor its own to write")
}

fn enters(me: Server, before: &Ledger, view: &View, others: &Others) -> bool {
    let adopts = rules::learns(before, me, rules::eligible(before, me), view) == Learned::Adopt;
    let all = rules::Instance {
        eligible: true,
        stopped: true,
        follows: true,
        offered: true,
        unpromoted: true,
        contained: true,
        asker_is_behind: false,
    };
    let consents = rules::server_accepts(before, me, &before.view, view, all);
    let proposed = others.promised[me.other().index()] >= view.term;
    let standby = view.data[me.other().index()];
    let mirrors =
        standby.is_some_and(|standby| rules::mirrored(before, me, view.term, standby, view.arbiter) == Some(*view));
    let alone = rules::eligible(before, me) && rules::alone(before, me, view.term, false) == *view;
    let by_half = others.half == Some(rules::standing(&before.view, me)) && before.view.arbiter.is_none();
    others.told(view) && adopts
        || consents && proposed
        || view.term.is_of(me) && (mirrors || alone && by_half)
        || is_force(me, view)
}

/// `fallback`, an arbitration command, and what operators take upon themselves.
fn is_force(me: Server, view: &View) -> bool {
    view.forced && view.is_alone(me) && view.term.is_of(me)
}

/// The same for the arbiter.
pub fn arbiter(before: Option<&Ledger>, after: &Ledger, others: &Others) -> Result<(), String> {
    let told = others.told(&after.view);
    let Some(before) = before else {
        return say(
            told && after.promised >= after.view.term,
            "the arbiter's ledger begins with a view that nobody told",
        );
    };
    if after == before {
        return Ok(());
    }
    if after.id != before.id {
        let renamed = Ledger { id: after.id, promised: after.promised, ..*before };
        return say(
            *after == renamed && after.promised > before.promised,
            "the arbiter's ledger is renamed for no reason",
        );
    }
    let asker = after.view.primary;
    let adopts = told && rules::arbiter_adopts(before, &after.view);
    let grants = rules::arbiter_accepts(before, asker, &before.view, &after.view, false, |_| true)
        && others.promised[asker.index()] >= after.view.term;
    say(*after == rules::entering(*before, after.view), "the arbiter writes a view together with something else")?;
    say(adopts || grants, "the arbiter writes a view that was neither told nor asked for by the rules")
}

fn say(right: bool, wrong: &str) -> Result<(), String> {
    if right { Ok(()) } else { Err(wrong.to_owned()) }
}
