//! The two decision tables: what is started, from the facts alone (PROTOCOL section 4).
//!
//! [`assess`] has one row for each situation, with the cause that is logged. Where the other server is silent, or has failed without
//! handing over, [`on_silence`] decides by the policy. In both the first match wins, and there is no bare `_` row, so that the
//! compiler names a missing case. `tests/table.txt` and `tests/silence.txt` list every cell.

use super::cause::Cause;
use super::facts::{Facts, Own, Peer, Policy, Replication, Standing};

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
    /// Nothing can be done without an operator, which is reported.
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
    /// No heartbeat has arrived since the start, or its instance still responds.
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
    let Facts { standing, own, peer, replication, policy } = facts;
    let (outcome, why) = assess(standing, own, peer, replication);
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
pub fn assess(standing: Standing, own: Own, peer: Peer, replication: Replication) -> (Outcome, Cause) {
    use Intent::*;
    use Outcome::{Always, BySilence, IfEnabled};
    use Peer::*;
    use Standing::{Alone, Inactivated, Primary, Standby};
    use Replication::{ArbiterReplaced, NamesChanged, StandbyReplaced, Stalled, Streaming};

    match (standing, own, peer, replication) {
        // standing  own                              peer                      replication                                     outcome                   cause
        // -- this server runs alone ----------------------------------------------------------------------------------
        (Alone,       Own::Healthy,                    Healthy,                  Streaming)                                   => (Always(Mirror),           Cause::StandbyStreams),
        (Alone,       Own::Healthy,                    Healthy,                  Stalled | NamesChanged | ArbiterReplaced | StandbyReplaced)
                                                                                                                              => (Always(Rest),             Cause::StandbyDoesNotStream),
        (Alone,       Own::Healthy,                    Failed | HandingOver | NotPromoted | Suspect | Alive | Lost | Refused | NotSeenYet | NeverSeen, _)
                                                                                                                              => (Always(Rest),             Cause::RunsAlone),
        (Alone,       Own::Failed,                     _,                        _)                                           => (IfEnabled(Restart),       Cause::FailedAlone),
        (Alone,       Own::Unavailable,                _,                        _)                                           => (Always(Rest),             Cause::DownAlone),
        // -- the other server runs alone -----------------------------------------------------------------------------
        (Inactivated, Own::Healthy | Own::Unavailable, NotPromoted,              _)                                           => (IfEnabled(AskPeer),       Cause::PeerNotPromoted),
        (Inactivated, Own::Failed,                     _,                        _)                                           => (IfEnabled(Restart),       Cause::StandbyFailed),
        (Inactivated, Own::Healthy | Own::Unavailable, Healthy | Failed | HandingOver | Suspect | Alive | Lost | Refused | NotSeenYet | NeverSeen, _)
                                                                                                                              => (Always(Rest),             Cause::PeerRunsAlone),
        // -- mirrored, this server is the primary --------------------------------------------------------------------
        (Primary,     Own::Failed,                     Healthy | Suspect,        NamesChanged)                                => (IfEnabled(Restart),       Cause::StandbyMayLackCommits),
        (Primary,     Own::Failed,                     Healthy | Suspect,        StandbyReplaced)                             => (IfEnabled(Restart),       Cause::StandbyNotEligible),
        (Primary,     Own::Failed,                     Healthy | Suspect,        Streaming | Stalled | ArbiterReplaced)       => (IfEnabled(HandOver),      Cause::PrimaryFailed),
        (Primary,     Own::Failed,                     Failed | HandingOver | NotPromoted, _)                                 => (IfEnabled(Restart),       Cause::BothFailed),
        (Primary,     Own::Failed,                     Alive | Lost | Refused | NotSeenYet | NeverSeen, _)                    => (IfEnabled(Restart),       Cause::PrimaryFailedAlone),
        (Primary,     Own::Healthy,                    Failed,                   _)                                           => (IfEnabled(AskPeer),       Cause::PeerStandbyFailed),
        (Primary,     Own::Unavailable,                Failed,                   _)                                           => (Always(Rest),             Cause::NeitherUp),
        (Primary,     Own::Healthy,                    Healthy | Suspect,        NamesChanged)                                => (Always(AskPeer),          Cause::NamesChanged),
        (Primary,     Own::Healthy,                    Healthy | Suspect,        ArbiterReplaced)                             => (Always(AskPeer),          Cause::ArbiterReplaced),
        (Primary,     Own::Healthy,                    Healthy | Suspect,        StandbyReplaced)                             => (Always(AskPeer),          Cause::StandbyReplaced),
        (Primary,     Own::Healthy,                    Healthy | Suspect,        Stalled)                                     => (IfEnabled(AskPeer),       Cause::StandbyStalled),
        (Primary,     Own::Healthy,                    Healthy | Suspect,        Streaming)                                   => (Always(Rest),             Cause::Mirrored),
        (Primary,     Own::Healthy | Own::Unavailable, HandingOver | NotPromoted, _)                                          => (Always(Rest),             Cause::ViewsDiffer),
        (Primary,     Own::Healthy,                    Alive,                    Streaming | ArbiterReplaced | StandbyReplaced)
                                                                                                                              => (Always(Wait),             Cause::StandbyAlive),
        (Primary,     Own::Healthy,                    Alive,                    Stalled | NamesChanged)                      => (BySilence(Sign::Unproven, Cause::StandbyAlive), Cause::StandbyAliveStalled),
        (Primary,     Own::Healthy,                    Lost,                     _)                                           => (BySilence(Sign::Lost, Cause::StandbyLostWait), Cause::StandbyLost),
        (Primary,     Own::Healthy,                    Refused,                  _)                                           => (BySilence(Sign::Lost, Cause::StandbyRefusesWait), Cause::StandbyRefuses),
        (Primary,     Own::Healthy,                    NeverSeen,                _)                                           => (BySilence(Sign::Unproven, Cause::StandbyNeverSeen), Cause::StandbyNeverSeen),
        (Primary,     Own::Healthy,                    NotSeenYet,               _)                                           => (Always(Rest),             Cause::StandbyNotSeenYet),
        (Primary,     Own::Unavailable,                Healthy | Suspect | Alive | Lost | Refused | NotSeenYet | NeverSeen, _)
                                                                                                                              => (Always(Rest),             Cause::PrimaryDown),
        // -- mirrored, this server is the standby --------------------------------------------------------------------
        (Standby,     Own::Failed,                     _,                        _)                                           => (IfEnabled(Restart),       Cause::StandbyFailed),
        (Standby,     Own::Unavailable,                _,                        _)                                           => (Always(Rest),             Cause::StandbyDown),
        (Standby,     Own::Healthy,                    HandingOver,              _)                                           => (Always(AskPeer),          Cause::PrimaryOffers),
        (Standby,     Own::Healthy,                    Failed | Alive | Lost | Refused | NeverSeen, NamesChanged)             => (Always(Wait),             Cause::MayLackCommits),
        (Standby,     Own::Healthy,                    Failed,                   _)                                           => (BySilence(Sign::Failed, Cause::PeerPrimaryFailedWait), Cause::PeerPrimaryFailed),
        (Standby,     Own::Healthy,                    Healthy | NotPromoted | Suspect, _)                                    => (Always(Rest),             Cause::Mirrored),
        (Standby,     Own::Healthy,                    Alive,                    Stalled)                                     => (BySilence(Sign::Unproven, Cause::PrimaryAlive), Cause::PrimaryAliveStalled),
        (Standby,     Own::Healthy,                    Alive,                    Streaming | ArbiterReplaced | StandbyReplaced)
                                                                                                                              => (Always(Wait),             Cause::PrimaryAlive),
        (Standby,     Own::Healthy,                    Lost,                     _)                                           => (BySilence(Sign::Lost, Cause::PrimaryLostWait), Cause::PrimaryLost),
        (Standby,     Own::Healthy,                    Refused,                  _)                                           => (BySilence(Sign::Lost, Cause::PrimaryRefusesWait), Cause::PrimaryRefuses),
        (Standby,     Own::Healthy,                    NeverSeen,                _)                                           => (BySilence(Sign::Unproven, Cause::PrimaryNeverSeen), Cause::PrimaryNeverSeen),
        (Standby,     Own::Healthy,                    NotSeenYet,               _)                                           => (Always(Rest),             Cause::PrimaryNotSeenYet),
    }
}

/// The table of silence: what a mirrored server does if it cannot agree with its peer. Only the arbiter can be asked if the
/// silence is not proven.
#[rustfmt::skip]
pub fn on_silence(standing: Standing, policy: Policy) -> OnSign {
    use Intent::*;
    use Policy::*;
    use Standing::{Alone, Inactivated, Primary, Standby};

    let (lost, unproven, failed) = match (standing, policy) {
        // standing        policy                        lost         unproven     failed
        (Primary | Standby, Arbiter)                 => (AskArbiter,  AskArbiter,  AskArbiter),
        (Primary | Standby, Command)                 => (AskCommand,  Wait,        Rest),
        (Primary | Standby, Fallback)                => (ActByForce,  Wait,        Rest),
        (Primary,           DisconnectHalf)          => (ActByHalf,   Wait,        Rest),
        (Standby,           SwitchHalf)              => (ActByHalf,   Wait,        Rest),
        (Primary,           SwitchHalf | Report)     => (Wait,        Wait,        Rest),
        (Standby,           DisconnectHalf | Report) => (Wait,        Wait,        Rest),
        (Alone | Inactivated,   Arbiter | Command | Fallback | SwitchHalf | DisconnectHalf | Report)
                                                     => (Rest,        Rest,        Rest),
    };
    OnSign { lost, unproven, failed }
}
