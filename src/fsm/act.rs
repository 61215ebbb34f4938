//! Acting is reconciling: what the instance lacks of what the ledger asks for (PROTOCOL section 5).
//!
//! Level-triggered and idempotent, so a controller that was killed between two steps finishes the work when it starts
//! again. First match wins; there is no bare `_` row.

use super::facts::{Being, Data, Leave, Standing};

/// What is to be done on the instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Todo {
    /// Nothing.
    Nothing,
    /// Read the data directory.
    Look,
    /// Stop it, with all its processes.
    Stop,
    /// Stop a standby that is to be down while it is disconnected.
    Halt,
    /// Clear away what a dead postmaster has left.
    Clear,
    /// Start it with `synchronous_standby_names` commented out.
    StartFree,
    /// Start it with `synchronous_standby_names` set.
    StartNamed,
    /// Comment `synchronous_standby_names` out and reload.
    Free,
    /// Set `synchronous_standby_names` and reload.
    Name,
    /// Promote it.
    Promote,
    /// A primary's directory without the right to run: rejoin where that is possible, else leave it down and say so.
    Rejoin,
    /// It must not run; say why.
    Refuse,
}

/// Looks up what is to be done.
#[rustfmt::skip]
pub fn act(standing: Standing, data: Data, leave: Leave, being: Being) -> Todo {
    use Being::*;
    use Data::{Eligible, Foreign};
    use Leave::{Hold, Run};
    use Standing::{Alone, Outcast, Primary, Standby};

    match (standing, data, leave, being) {
        // standing        data      leave instance                                        to do
        (_,                _,        _,    Unknown)                                        => Todo::Look,
        (_,                _,        _,    Dead)                                           => Todo::Clear,
        // -- holds the right to run alone ----------------------------------------------------------------------------
        (Alone,            Eligible, Run,  DownPrimary | DownStandby)                      => Todo::StartFree,
        (Alone,            Eligible, Hold, DownPrimary | DownStandby)                      => Todo::Nothing,
        (Alone,            Eligible, _,    PrimaryNamed | PrimaryOther)                    => Todo::Free,
        (Alone,            Eligible, Run,  StandbyNamed)                                   => Todo::Free,
        (Alone,            Eligible, Run,  StandbyFree)                                    => Todo::Promote,
        (Alone,            Eligible, _,    PrimaryFree | StartingPrimary | StartingStandby) => Todo::Nothing,
        (Alone,            Eligible, Hold, StandbyNamed | StandbyFree)                     => Todo::Nothing,
        // -- the other server is the primary -------------------------------------------------------------------------
        (Outcast | Standby, _,       _,    PrimaryFree | PrimaryNamed | PrimaryOther | StartingPrimary) => Todo::Stop,
        (Outcast | Standby, _,       Run,  DownStandby)                                    => Todo::StartNamed,
        (Outcast | Standby, _,       Hold, DownStandby)                                    => Todo::Nothing,
        (Outcast | Standby, _,       _,    DownPrimary)                                    => Todo::Rejoin,
        (Outcast,          _,        Hold, StartingStandby | StandbyNamed | StandbyFree)   => Todo::Halt,
        (Outcast,          _,        Run,  StartingStandby | StandbyNamed | StandbyFree)   => Todo::Nothing,
        (Standby,          _,        _,    StartingStandby | StandbyNamed | StandbyFree)   => Todo::Nothing,
        // -- mirrored, this server is the primary --------------------------------------------------------------------
        (Primary,          Eligible, Run,  DownPrimary | DownStandby)                      => Todo::StartNamed,
        (Primary,          Eligible, Hold, DownPrimary | DownStandby)                      => Todo::Nothing,
        (Primary,          Eligible, _,    PrimaryFree | PrimaryOther)                     => Todo::Name,
        (Primary,          Eligible, _,    PrimaryNamed | StartingPrimary | StartingStandby | StandbyNamed | StandbyFree) => Todo::Nothing,
        // -- not the directory that the view names: not as a primary, and not as a standby either, which might satisfy the
        //    synchronous wait of an old primary that has not learned yet that this server took its role ---------------
        (Alone | Primary,  Foreign,  _,    PrimaryFree | PrimaryNamed | PrimaryOther | StartingPrimary) => Todo::Stop,
        (Alone | Primary,  Foreign,  _,    StartingStandby | StandbyNamed | StandbyFree)   => Todo::Stop,
        (Alone | Primary,  Foreign,  _,    DownPrimary | DownStandby)                      => Todo::Refuse,
    }
}
