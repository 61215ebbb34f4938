//! Explores every state, breadth first, and tells the shortest way to what is wrong.
//!
//! Written here and not taken from a library: the question whether service can always be had again ([`crate::heal`]) is
//! one over paths that begin in every state, which the usual checkers do not answer, and the exploring itself is short.
//! States are told apart by 64-bit fingerprints: with n states the chance that any two share one is n² / 2⁶⁵, less than
//! one in a thousand for 200 million.

use crate::state::State;
use crate::steps::{Model, Taken};
use std::fmt::Write;
use std::time::Instant;

/// What came of exploring.
pub struct Explored {
    /// Different states.
    pub unique: usize,
    /// Steps taken, also to states that were known.
    pub generated: u64,
    /// Steps from the beginning to the farthest state.
    pub depth: usize,
    pub seconds: f64,
    /// What was wrong first, and the steps to it.
    pub wrong: Option<(&'static str, String)>,
}

/// Fingerprints of states, each with that of the state from which it was reached first.
pub struct Prints {
    slots: Vec<(u64, u64)>,
    count: usize,
}

impl Prints {
    pub fn new() -> Prints {
        Prints { slots: vec![(0, 0); 1 << 4], count: 0 }
    }

    /// The slot of this fingerprint, or the free one where it belongs.
    fn place(&self, print: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = print as usize & mask;
        while self.slots[at].0 != 0 && self.slots[at].0 != print {
            at = (at + 1) & mask;
        }
        at
    }

    /// True where it was not known.
    pub fn insert(&mut self, print: u64, from: u64) -> bool {
        let at = self.place(print);
        if self.slots[at].0 != 0 {
            return false;
        }
        self.slots[at] = (print, from);
        self.count += 1;
        if self.count * 4 > self.slots.len() * 3 {
            let old = std::mem::replace(&mut self.slots, vec![(0, 0); 0]);
            self.slots = vec![(0, 0); old.len() * 2];
            for (print, from) in old.into_iter().filter(|(print, _)| *print != 0) {
                let at = self.place(print);
                self.slots[at] = (print, from);
            }
        }
        true
    }

    pub fn contains(&self, print: u64) -> bool {
        self.slots[self.place(print)].0 != 0
    }

    fn parent(&self, print: u64) -> u64 {
        self.slots[self.place(print)].1
    }
}

/// Explores all that the model allows, or until something is wrong. `judge` is asked of every state
/// once, with the one that it was reached from.
pub fn explore(model: &Model, mut judge: impl FnMut(&State, &State) -> Option<&'static str>) -> Explored {
    let began = Instant::now();
    let mut known = Prints::new();
    let first = model.begin();
    known.insert(first.fingerprint(), 0);
    let mut level = vec![first];
    let mut taken = Vec::new();
    let mut found = Explored { unique: 1, generated: 0, depth: 0, seconds: 0.0, wrong: None };
    'levels: while !level.is_empty() {
        let mut next = Vec::new();
        for at in &level {
            model.steps(at, &mut taken);
            let from = at.fingerprint();
            found.generated += taken.len() as u64;
            for Taken { to, wrong, .. } in taken.drain(..) {
                let print = to.fingerprint();
                if !known.insert(print, from) && wrong.is_none() {
                    continue;
                }
                if let Some(wrong) = wrong.or_else(|| judge(at, &to)) {
                    found.wrong = Some((wrong, trace(model, &known, from, &to)));
                    found.depth += 1;
                    break 'levels;
                }
                next.push(to);
            }
        }
        level = next;
        found.depth += usize::from(!level.is_empty());
    }
    found.unique = known.count;
    found.seconds = began.elapsed().as_secs_f64();
    found
}

/// The steps from the beginning to `last`, which was reached from `from`.
fn trace(model: &Model, known: &Prints, from: u64, last: &State) -> String {
    let mut path = vec![from];
    while let Some(&print) = path.last()
        && known.parent(print) != 0
    {
        path.push(known.parent(print));
    }
    path.reverse();
    let mut at = model.begin();
    let mut text = format!("      {at}\n");
    let mut taken = Vec::new();
    for print in path.into_iter().skip(1).map(Some).chain([None]) {
        taken.clear();
        model.steps(&at, &mut taken);
        let is_it = |taken: &&Taken| print.map_or(taken.to == *last, |print| taken.to.fingerprint() == print);
        let Some(step) = taken.iter().find(is_it) else { break };
        let _ = writeln!(text, "{:?}\n      {}", step.step, step.to);
        at = step.to;
    }
    text
}
