//! The view in the status.

use super::Snapshot;
use crate::fsm::types::View;
use serde::Serialize;

/// The view (PROTOCOL section 2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ViewStatus {
    /// Counts the changes.
    pub term: u64,
    /// `mirrored`, `degraded`.
    pub mode: &'static str,
    /// The id of the server whose instance takes writes.
    pub primary: String,
    /// Entered without the consent that the safety argument needs.
    pub forced: bool,
    /// The id of the arbiter's ledger that it leans on, in hexadecimal as `mc_arb status` shows it; `null` for none.
    pub arbiter_ledger: Option<String>,
    /// For how many seconds it has been so; `null` where this server has not noted it.
    pub seconds: Option<u64>,
    /// Why it was entered; empty where this server has not noted it.
    pub reason: String,
}

impl ViewStatus {
    pub(super) fn new(snapshot: &Snapshot, view: &View) -> ViewStatus {
        let report = &snapshot.report;
        // Of a view that was entered before this controller's start only the history knows.
        let noted = snapshot.noted.as_ref().filter(|change| report.since.is_none() && change.to == *view);
        let ms = match (report.since, noted) {
            (Some(since), _) => Some(snapshot.now.since(since)),
            (None, noted) => noted.map(|change| snapshot.wall_ms.saturating_sub(change.time_ms)),
        };
        ViewStatus {
            term: view.term.0,
            mode: view.mode.word(),
            primary: snapshot.servers[view.primary.index()].id.clone(),
            forced: view.forced,
            arbiter_ledger: view.arbiter.map(|id| format!("{:016x}", id.0)),
            seconds: ms.map(|ms| ms / 1000),
            reason: noted.map_or_else(|| report.reason.clone(), |change| change.reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{LedgerId, Term, Time};
    use crate::status::tests::snapshot;
    use crate::status::{Change, Status};

    /// A controller that was started anew has not seen the view begin; its history has.
    #[test]
    fn what_the_history_knows_of_the_view() {
        let mut s = snapshot();
        let mut to = s.report.view.unwrap();
        to.arbiter = Some(LedgerId(0xabc));
        (s.report.view, s.report.since, s.report.reason) = (Some(to), None, String::new());
        let change = |to| Change { time_ms: 700_500, from: None, to, reason: "once proved".into() };
        let view = |s: &Snapshot| Status::new(s).view.unwrap();
        assert_eq!((view(&s).seconds, view(&s).reason.as_str()), (None, ""));
        s.noted = Some(change(to));
        let shown = view(&s);
        assert_eq!((shown.seconds, shown.reason.as_str()), (Some(299), "once proved"));
        assert_eq!(shown.arbiter_ledger.as_deref(), Some("0000000000000abc"));
        s.noted = Some(change(View { term: Term(1), ..to }));
        assert_eq!((view(&s).seconds, view(&s).reason.as_str()), (None, ""));
        (s.noted, s.report.since) = (Some(change(to)), Some(Time(95_500)));
        assert_eq!((view(&s).seconds, view(&s).reason.as_str()), (Some(4), ""));
    }
}
