//! Which connections fail that this server needs, as the probes note it and `mc_ctl status` shows it.

use crate::shared::Shared;
use crate::status::{ConnectionFailure, Purpose};

/// What fails, for `mc_ctl status`.
pub type Board = Shared<Vec<ConnectionFailure>>;

/// Notes on the board whether a connection fails, and why. Returns whether that has changed.
pub fn note(board: &Board, purpose: Purpose, error: Option<String>) -> bool {
    let mut changed = false;
    board.update(|failures| {
        let before = failures.iter().find(|failure| failure.purpose == purpose).map(|failure| failure.error.clone());
        changed = before != error;
        failures.retain(|failure| failure.purpose != purpose);
        failures.extend(error.map(|error| ConnectionFailure { purpose, error }));
        failures.sort_by_key(|failure| failure.purpose);
    });
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_noted_in_order_and_once() {
        let board = Board::default();
        assert!(note(&board, Purpose::Replication, Some("a".into())));
        assert!(note(&board, Purpose::OwnInstance, Some("b".into())));
        assert!(!note(&board, Purpose::Replication, Some("a".into())));
        let shown: Vec<_> = board.read().into_iter().map(|failure| (failure.purpose, failure.error)).collect();
        assert_eq!(shown, [(Purpose::OwnInstance, "b".into()), (Purpose::Replication, "a".into())]);
        assert!(note(&board, Purpose::OwnInstance, None) && board.read().len() == 1);
    }
}
