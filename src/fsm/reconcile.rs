//! Acting is reconciling: what the instance lacks of what the ledger asks for (PROTOCOL section 5).
//!
//! Level-triggered and idempotent, so a controller that was killed between two steps finishes the work when it starts
//! again. First match wins; there is no bare `_` row.

use super::facts::{Data, InstanceState, Standing, StartPolicy};

/// What is to be done on the instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
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
    /// A primary's directory without the right to run: rejoin where that is possible, else leave it down and report that.
    Rejoin,
    /// It must not run; report why.
    Refuse,
}

/// Looks up what is to be done.
#[rustfmt::skip]
pub fn next_step(standing: Standing, data: Data, leave: StartPolicy, being: InstanceState) -> Step {
    use InstanceState::*;
    use Data::{Eligible, Foreign};
    use StartPolicy::{Hold, Run};
    use Standing::{Alone, Inactivated, Primary, Standby};

    match (standing, data, leave, being) {
        // standing        data      leave instance                                        to do
        (_,                _,        _,    Unknown)                                        => Step::Look,
        (_,                _,        _,    Dead)                                           => Step::Clear,
        // -- holds the right to run alone ----------------------------------------------------------------------------
        (Alone,            Eligible, Run,  DownPrimary | DownStandby)                      => Step::StartFree,
        (Alone,            Eligible, Hold, DownPrimary | DownStandby)                      => Step::Nothing,
        (Alone,            Eligible, _,    PrimaryNamed | PrimaryOther)                    => Step::Free,
        (Alone,            Eligible, Run,  StandbyNamed)                                   => Step::Free,
        (Alone,            Eligible, Run,  StandbyFree)                                    => Step::Promote,
        (Alone,            Eligible, _,    PrimaryFree | StartingPrimary | StartingStandby) => Step::Nothing,
        (Alone,            Eligible, Hold, StandbyNamed | StandbyFree)                     => Step::Nothing,
        // -- the other server is the primary -------------------------------------------------------------------------
        (Inactivated | Standby, _,       _,    PrimaryFree | PrimaryNamed | PrimaryOther | StartingPrimary) => Step::Stop,
        (Inactivated | Standby, _,       Run,  DownStandby)                                    => Step::StartNamed,
        (Inactivated | Standby, _,       Hold, DownStandby)                                    => Step::Nothing,
        (Inactivated | Standby, _,       _,    DownPrimary)                                    => Step::Rejoin,
        (Inactivated,          _,        Hold, StartingStandby | StandbyNamed | StandbyFree)   => Step::Halt,
        (Inactivated,          _,        Run,  StartingStandby | StandbyNamed | StandbyFree)   => Step::Nothing,
        (Standby,          _,        _,    StartingStandby | StandbyNamed | StandbyFree)   => Step::Nothing,
        // -- mirrored, this server is the primary --------------------------------------------------------------------
        (Primary,          Eligible, Run,  DownPrimary | DownStandby)                      => Step::StartNamed,
        (Primary,          Eligible, Hold, DownPrimary | DownStandby)                      => Step::Nothing,
        (Primary,          Eligible, _,    PrimaryFree | PrimaryOther)                     => Step::Name,
        (Primary,          Eligible, _,    PrimaryNamed | StartingPrimary | StartingStandby | StandbyNamed | StandbyFree) => Step::Nothing,
        // -- not the directory that the view names: not as a primary, and not as a standby either, which might satisfy the
        //    synchronous wait of an old primary that has not learned yet that this server took its role ---------------
        (Alone | Primary,  Foreign,  _,    PrimaryFree | PrimaryNamed | PrimaryOther | StartingPrimary) => Step::Stop,
        (Alone | Primary,  Foreign,  _,    StartingStandby | StandbyNamed | StandbyFree)   => Step::Stop,
        (Alone | Primary,  Foreign,  _,    DownPrimary | DownStandby)                      => Step::Refuse,
    }
}
