//! Which connections fail that this server needs, as the probes note it and `mc_ctl status` shows it.

use crate::fsm::report::HostRole;
use crate::shared::Shared;
use crate::status::{ConnectionFailure, Purpose};

/// What fails, for `mc_ctl status`.
pub type Board = Shared<Vec<ConnectionFailure>>;

/// What fails on a server whose instance has this role: a primary has no replication connection of its own.
pub fn of_role(board: &Board, role: HostRole) -> Vec<ConnectionFailure> {
    let mut failures = board.read();
    failures.retain(|failure| failure.purpose != Purpose::Replication || role != HostRole::Primary);
    failures
}

/// Notes on the board whether the connection for this purpose fails. Returns whether that has changed.
pub fn note(board: &Board, purpose: Purpose, failure: Option<ConnectionFailure>) -> bool {
    let mut changed = false;
    board.update(|failures| {
        changed = failures.iter().find(|failure| failure.purpose == purpose) != failure.as_ref();
        failures.retain(|failure| failure.purpose != purpose);
        failures.extend(failure);
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
        let fails = |purpose, error: &str| note(&board, purpose, Some(ConnectionFailure::new(purpose, error.into())));
        assert!(fails(Purpose::Replication, "a"));
        assert!(fails(Purpose::OwnInstance, "b"));
        assert!(!fails(Purpose::Replication, "a"));
        let shown: Vec<_> = board.read().into_iter().map(|failure| (failure.purpose, failure.error)).collect();
        assert_eq!(shown, [(Purpose::OwnInstance, "b".into()), (Purpose::Replication, "a".into())]);
        assert!(note(&board, Purpose::OwnInstance, None) && board.read().len() == 1);
        assert!(
            of_role(&board, HostRole::Primary).is_empty(),
            "a new primary shows the error of its time as a standby"
        );
        assert_eq!(of_role(&board, HostRole::Standby), board.read());
    }
}
