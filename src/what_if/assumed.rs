//! The state that the other server is assumed to be in if none of its heartbeats has arrived: the one that this server's ledger
//! implies.
//!
//! Pure. Called by `world`, which is made from the present state. Both servers have the newest view, or receive it with the first
//! heartbeat, so the own ledger determines which of the two data directories is the primary's.

use super::instance::Postgres;
use crate::fsm::event::{Health, Heartbeat, Role};
use crate::fsm::present::Present;
use crate::fsm::types::{DataIdentity, Ledger, LedgerId, Server, Timeline};

/// Whether the other server's data directory is a standby's: it is not the one of the view's primary, nor the one of a primary
/// that this server has replaced.
pub(super) fn is_standby(present: &Present, told: &Heartbeat) -> bool {
    let Some(ledger) = &told.ledger else { return false };
    let named = |server: Server| Some(ledger.data.id) == ledger.view.data[server.index()];
    !(named(ledger.view.primary) || has_taken_over(present) && named(present.settings.me.other()))
}

/// Whether this server was promoted and has the right to run alone, so that the other server was the primary before.
fn has_taken_over(present: &Present) -> bool {
    let own = present.node.durable();
    own.is_some_and(|own| own.notes.promoted && own.ledger.view.is_alone(present.settings.me))
}

/// What the other server's controller would report if it ran now: the view of this server's ledger, the data directory that the
/// view names, and a stopped instance. `None` if the view names no data directory of it.
pub(super) fn heartbeat(present: &Present, own: &Postgres) -> Option<Heartbeat> {
    let durable = present.node.durable()?;
    let view = durable.ledger.view;
    let other = present.settings.me.other();
    let id = view.data[other.index()]?;
    let own_dir_leads = !own.dir.standby_signal;
    let replaced = has_taken_over(present);
    // It was promoted if this server, once the primary, has lost its role.
    let promoted = view.is_alone(other) && own_dir_leads;
    let timeline = match own.timeline() {
        Timeline(own) if replaced => Timeline(own.saturating_sub(1).max(1)),
        Timeline(own) if promoted => Timeline(own.saturating_add(1)),
        same => same,
    };
    let data = DataIdentity { id, fingerprint: 1, inode_print: 0, checkpoint: durable.ledger.data.checkpoint };
    let ledger = Ledger { id: LedgerId(!durable.ledger.id.0 | 1), data, promised: view.term, ..durable.ledger };
    Some(Heartbeat {
        seq: 1,
        start_id: !present.start_id | 1,
        system: Some(ledger.system),
        ledger: Some(ledger),
        role: match present.peer.lives {
            true if view.primary == other || replaced => Role::Primary,
            true => Role::Standby,
            false => Role::None,
        },
        instance: if present.peer.lives { Health::Well } else { Health::Stopped },
        timeline,
        lsn: own.lsn,
        failover: durable.notes.failover,
        on_silence: present.settings.on_silence,
        detection_ms: present.settings.heartbeat_detection_ms,
        promoted,
        name: present.peer_name.clone(),
        // Only compared and passed on.
        address: present.address.clone(),
        ..Heartbeat::blank()
    })
}
