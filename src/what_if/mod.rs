//! What the pair would do if something failed now: the real decision cores, stepped in virtual time from the present state.
//!
//! Pure, as `fsm` is: called by the controller with a copy of its node, on a thread that may take its time. Behind `mc_ctl
//! what-if`. The own core continues from where it is; the other server's, and the arbiter's, are started from what they have
//! last told. Around them is a small world (`world`, `instance`) in which what is ordered succeeds in usual times.
//!
//! What is not known is taken to be well: of the other server's settings only what its heartbeats tell, of the arbiter's none;
//! an operator's command succeeds. Each prediction says so where it leans on that.

mod assumed;
mod faults;
mod instance;
mod story;
mod world;

pub use faults::Fault;
pub use story::{Prediction, Step, Verdict, predict};

use crate::fsm::event::CoreMessage;
use crate::fsm::types::{Member, Mode, View};

/// How many faults may follow each other.
pub const MOST_FAULTS: usize = 6;

/// What members are called, and how what they say is put in words.
pub struct Names<'a> {
    /// The servers' ids.
    pub servers: [&'a str; 2],
    /// The arbiter's id.
    pub arbiter: &'a str,
    /// The text and the number of a message.
    pub message: &'a dyn Fn(Member, &CoreMessage) -> (String, u32),
}

impl Names<'_> {
    fn of(&self, m: usize) -> &str {
        if m == world::ARBITER { self.arbiter } else { self.servers[m] }
    }

    fn view(&self, view: Option<View>) -> String {
        let Some(view) = view else { return "no view".to_owned() };
        let mode = match view.mode {
            Mode::Mirrored => "Mirrored",
            Mode::Degraded => "Degraded",
        };
        format!("{mode}({})", self.of(view.primary.index()))
    }
}
