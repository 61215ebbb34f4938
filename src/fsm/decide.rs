//! The two decision tables: what is started, from the facts alone (PROTOCOL section 4).
//!
//! [`assess`] has one row for each situation, with the cause that is logged. Where the other server is silent, or has failed without
//! handing over, [`on_silence`] decides by the policy. In both the first match wins, and there is no bare `_` row, so that the
//! compiler names a missing case. `tests/table.txt` and `tests/silence.txt` list every cell.

use super::cause::Cause;
use super::facts::{Facts, Own, Peer, Policy, Standing, Stream};

/// What is to be started, or kept going.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Intent {
    /// Nothing.
    Rest,
    /// Stop the own instance and ask the standby to take over.
    HandOver,
    /// Start the own instance again.
    Restart,
    /// Propose `Degraded(self)` to the other server.
    AskPeer,
    /// Propose `Degraded(self)` to the arbiter.
    AskArbiter,
    /// Ask the operator's script, and write `Degraded(self)` by force where it consents.
    AskCommand,
    /// Write `Degraded(self)` by the safe half.
    ActByHalf,
    /// Write `Degraded(self)` by force.
    ActByForce,
    /// Prove the standby and write `Mirrored(self)` (R9).
    Mirror,
    /// Nothing can be done without an operator: say so.
    Wait,
}

/// Whether a row is subject to automatic switch and disconnection being enabled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Needs {
    /// Only with failover enabled; else it is logged as what would have been done.
    Failover,
    /// Always.
    Nothing,
}

/// A row's outcome.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Decision {
    /// What.
    pub intent: Intent,
    /// Under which condition.
    pub needs: Needs,
    /// Why.
    pub why: Cause,
}

/// What a row of [`assess`] leads to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// This is done in any case.
    Always(Intent),
    /// This is done if failover is enabled.
    IfEnabled(Intent),
    /// [`on_silence`] decides. The cause is that of an action. If there is none, it is this one.
    BySilence(Sign, Cause),
}

/// What of the other server leads to the table of silence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sign {
    /// No sign of life past the retries.
    Lost,
    /// It was not heard since the start, or its instance still responds.
    Unproven,
    /// It reports a failure, and does not hand over.
    Failed,
}

/// What is done about each sign.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OnSign {
    /// About [`Sign::Lost`].
    pub lost: Intent,
    /// About [`Sign::Unproven`].
    pub unproven: Intent,
    /// About [`Sign::Failed`].
    pub failed: Intent,
}

/// Looks the facts up in both tables.
pub fn decide(facts: Facts) -> Decision {
    let Facts { standing, own, peer, stream, policy } = facts;
    let (outcome, why) = assess(standing, own, peer, stream);
    match outcome {
        Outcome::Always(intent) => Decision { intent, needs: Needs::Nothing, why },
        Outcome::IfEnabled(intent) => Decision { intent, needs: Needs::Failover, why },
        Outcome::BySilence(sign, otherwise) => {
            let row = on_silence(standing, policy);
            let intent = match sign {
                Sign::Lost => row.lost,
                Sign::Unproven => row.unproven,
                Sign::Failed => row.failed,
            };
            match intent {
                Intent::Rest | Intent::Wait => Decision { intent, needs: Needs::Nothing, why: otherwise },
                _ => Decision { intent, needs: Needs::Failover, why },
            }
        }
    }
}

/// The table of situations.
#[rustfmt::skip]
pub fn assess(standing: Standing, own: Own, peer: Peer, stream: Stream) -> (Outcome, Cause) {
    use Intent::*;
    use Outcome::{Always, BySilence, IfEnabled};
    use Own::{Failed, Fit, Unfit};
    use Peer::*;
    use Standing::{Alone, Outcast, Primary, Standby};
    use Stream::{Changed, Exchanged, Flows, Stalled, Unnamed};

    match (standing, own, peer, stream) {
        // standing own          peer             stream                                          outcome               cause
        // -- this server runs alone ----------------------------------------------------------------------------------
        (Alone,   Fit,         Talks,           Flows)                                 => (Always(Mirror),       Cause::StandbyStreams),
        (Alone,   Fit,         Talks,           Stalled | Changed | Unnamed | Exchanged) => (Always(Rest),       Cause::StandbyDoesNotStream),
        (Alone,   Fit,         Ill | Offers | Stuck | Quiet | Alive | Lost | Refused | Young | Never, _)
                                                                                       => (Always(Rest),         Cause::RunsAlone),
        (Alone,   Failed,      _,               _)                                     => (IfEnabled(Restart),   Cause::FailedAlone),
        (Alone,   Unfit,       _,               _)                                     => (Always(Rest),         Cause::DownAlone),
        // -- the other server runs alone -----------------------------------------------------------------------------
        (Outcast, Fit | Unfit, Stuck,           _)                                     => (IfEnabled(AskPeer),   Cause::PeerNotPromoted),
        (Outcast, Failed,      _,               _)                                     => (IfEnabled(Restart),   Cause::StandbyFailed),
        (Outcast, Fit | Unfit, Talks | Ill | Offers | Quiet | Alive | Lost | Refused | Young | Never, _)
                                                                                       => (Always(Rest),         Cause::PeerRunsAlone),
        // -- mirrored, this server is the primary --------------------------------------------------------------------
        (Primary, Failed,      Talks | Quiet,   Changed)                               => (IfEnabled(Restart),   Cause::StandbyMayLackCommits),
        (Primary, Failed,      Talks | Quiet,   Exchanged)                             => (IfEnabled(Restart),   Cause::StandbyNotEligible),
        (Primary, Failed,      Talks | Quiet,   Flows | Stalled | Unnamed)             => (IfEnabled(HandOver),  Cause::PrimaryFailed),
        (Primary, Failed,      Ill | Offers | Stuck, _)                                => (IfEnabled(Restart),   Cause::BothFailed),
        (Primary, Failed,      Alive | Lost | Refused | Young | Never, _)              => (IfEnabled(Restart),   Cause::PrimaryFailedAlone),
        (Primary, Fit,         Ill,             _)                                     => (IfEnabled(AskPeer),   Cause::PeerStandbyFailed),
        (Primary, Unfit,       Ill,             _)                                     => (Always(Rest),         Cause::NeitherUp),
        (Primary, Fit,         Talks | Quiet,   Changed)                               => (Always(AskPeer),      Cause::NamesChanged),
        (Primary, Fit,         Talks | Quiet,   Unnamed)                               => (Always(AskPeer),      Cause::ArbiterReplaced),
        (Primary, Fit,         Talks | Quiet,   Exchanged)                             => (Always(AskPeer),      Cause::StandbyReplaced),
        (Primary, Fit,         Talks | Quiet,   Stalled)                               => (IfEnabled(AskPeer),   Cause::StandbyStalled),
        (Primary, Fit,         Talks | Quiet,   Flows)                                 => (Always(Rest),         Cause::Mirrored),
        (Primary, Fit | Unfit, Offers | Stuck,  _)                                     => (Always(Rest),         Cause::ViewsDiffer),
        (Primary, Fit,         Alive,           Flows | Unnamed | Exchanged)           => (Always(Wait),         Cause::StandbyAlive),
        (Primary, Fit,         Alive,           Stalled | Changed)                     => (BySilence(Sign::Unproven, Cause::StandbyAlive), Cause::StandbyAliveStalled),
        (Primary, Fit,         Lost,            _)                                     => (BySilence(Sign::Lost, Cause::StandbyLostWait), Cause::StandbyLost),
        (Primary, Fit,         Refused,         _)                                     => (BySilence(Sign::Lost, Cause::StandbyRefusesWait), Cause::StandbyRefuses),
        (Primary, Fit,         Never,           _)                                     => (BySilence(Sign::Unproven, Cause::StandbyNeverSeen), Cause::StandbyNeverSeen),
        (Primary, Fit,         Young,           _)                                     => (Always(Rest),         Cause::StandbyNotSeenYet),
        (Primary, Unfit,       Talks | Quiet | Alive | Lost | Refused | Young | Never, _)
                                                                                       => (Always(Rest),         Cause::PrimaryDown),
        // -- mirrored, this server is the standby --------------------------------------------------------------------
        (Standby, Failed,      _,               _)                                     => (IfEnabled(Restart),   Cause::StandbyFailed),
        (Standby, Unfit,       _,               _)                                     => (Always(Rest),         Cause::StandbyDown),
        (Standby, Fit,         Offers,          _)                                     => (Always(AskPeer),      Cause::PrimaryOffers),
        (Standby, Fit,         Ill | Alive | Lost | Refused | Never, Changed)          => (Always(Wait),         Cause::MayLackCommits),
        (Standby, Fit,         Ill,             _)                                     => (BySilence(Sign::Failed, Cause::PeerPrimaryFailedWait), Cause::PeerPrimaryFailed),
        (Standby, Fit,         Talks | Stuck | Quiet, _)                               => (Always(Rest),         Cause::Mirrored),
        (Standby, Fit,         Alive,           Stalled)                               => (BySilence(Sign::Unproven, Cause::PrimaryAlive), Cause::PrimaryAliveStalled),
        (Standby, Fit,         Alive,           Flows | Unnamed | Exchanged)           => (Always(Wait),         Cause::PrimaryAlive),
        (Standby, Fit,         Lost,            _)                                     => (BySilence(Sign::Lost, Cause::PrimaryLostWait), Cause::PrimaryLost),
        (Standby, Fit,         Refused,         _)                                     => (BySilence(Sign::Lost, Cause::PrimaryRefusesWait), Cause::PrimaryRefuses),
        (Standby, Fit,         Never,           _)                                     => (BySilence(Sign::Unproven, Cause::PrimaryNeverSeen), Cause::PrimaryNeverSeen),
        (Standby, Fit,         Young,           _)                                     => (Always(Rest),         Cause::PrimaryNotSeenYet),
    }
}

/// The table of silence: what a mirrored server does if it cannot agree with the other one. Only the arbiter can be asked if the
/// silence is not proven.
#[rustfmt::skip]
pub fn on_silence(standing: Standing, policy: Policy) -> OnSign {
    use Intent::*;
    use Policy::*;
    use Standing::{Alone, Outcast, Primary, Standby};

    let (lost, unproven, failed) = match (standing, policy) {
        // standing        policy                        lost         unproven     failed
        (Primary | Standby, Arbiter)                 => (AskArbiter,  AskArbiter,  AskArbiter),
        (Primary | Standby, Command)                 => (AskCommand,  Wait,        Rest),
        (Primary | Standby, Fallback)                => (ActByForce,  Wait,        Rest),
        (Primary,           DisconnectHalf)          => (ActByHalf,   Wait,        Rest),
        (Standby,           SwitchHalf)              => (ActByHalf,   Wait,        Rest),
        (Primary,           SwitchHalf | Report)     => (Wait,        Wait,        Rest),
        (Standby,           DisconnectHalf | Report) => (Wait,        Wait,        Rest),
        (Alone | Outcast,   Arbiter | Command | Fallback | SwitchHalf | DisconnectHalf | Report)
                                                     => (Rest,        Rest,        Rest),
    };
    OnSign { lost, unproven, failed }
}
