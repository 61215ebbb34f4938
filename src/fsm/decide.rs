//! The decision table: what is started, from the facts alone (PROTOCOL section 4).
//!
//! One row a line, first match wins, each with the sentence that is logged as its reason. There is no bare `_` row, so
//! the compiler names a missing case. `tests/table.txt` lists every cell.

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
    /// Why, in a sentence.
    pub why: &'static str,
}

/// Looks the facts up.
#[rustfmt::skip]
pub fn decide(facts: Facts) -> Decision {
    use Intent::*;
    use Needs::*;
    use Own::{Failed, Fit, Unfit};
    use Peer::*;
    use Policy::*;
    use Standing::{Alone, Outcast, Primary, Standby};
    use Stream::{Changed, Exchanged, Flows, Stalled, Unnamed};

    let Facts { standing, own, peer, stream, policy } = facts;
    let (intent, needs, why) = match (standing, own, peer, stream, policy) {
        // standing own            peer                         stream             policy           intent      needs     reason
        // -- this server runs alone -----------------------------------------------------------------------------------
        (Alone,   Fit,           Talks,                        Flows,             _)              => (Mirror,     Nothing,  "the standby streams again"),
        (Alone,   Fit,           Talks,                        Stalled | Changed | Unnamed | Exchanged, _) => (Rest,       Nothing,  "the standby does not stream yet"),
        (Alone,   Fit,           Ill | Offers | Stuck | Quiet | Alive | Lost | Refused | Young | Never, _, _)
                                                                                                  => (Rest,       Nothing,  "this server runs alone"),
        (Alone,   Failed,        _,                            _,                 _)              => (Restart,    Failover, "the instance has failed and no other server may run"),
        (Alone,   Unfit,         _,                            _,                 _)              => (Rest,       Nothing,  "this server runs alone, and its instance is not up"),
        // -- the other server runs alone ------------------------------------------------------------------------------
        (Outcast, Fit | Unfit,   Stuck,                        _,                 _)              => (AskPeer,    Failover, "the other server took over but its instance is down and was not promoted"),
        (Outcast, Failed,        _,                            _,                 _)              => (Restart,    Failover, "the standby's instance has failed"),
        (Outcast, Fit | Unfit,   Talks | Ill | Offers | Quiet | Alive | Lost | Refused | Young | Never, _, _)
                                                                                                  => (Rest,       Nothing,  "the other server runs alone"),
        // -- mirrored, this server is the primary ---------------------------------------------------------------------
        (Primary, Failed,        Talks | Quiet,                Changed,           _)              => (Restart,    Failover, "commits may not have waited for the standby, which may lack them"),
        (Primary, Failed,        Talks | Quiet,                Exchanged,         _)              => (Restart,    Failover, "the standby's data directory is not the one that the view names, so it cannot take over"),
        (Primary, Failed,        Talks,                        Flows | Stalled | Unnamed, _)      => (HandOver,   Failover, "the primary's instance or disk has failed"),
        (Primary, Failed,        Ill | Offers | Stuck,         _,                 _)              => (Restart,    Failover, "both servers' instances have failed"),
        (Primary, Failed,        Quiet,                        Flows | Stalled | Unnamed, _)      => (HandOver,   Failover, "the primary's instance or disk has failed"),
        (Primary, Failed,        Alive | Lost | Refused | Young | Never, _,       _)              => (Restart,    Failover, "the primary's instance has failed and the standby does not respond"),
        (Primary, Fit,           Ill,                          _,                 _)              => (AskPeer,    Failover, "the standby's instance or disk has failed"),
        (Primary, Unfit,         Ill,                          _,                 _)              => (Rest,       Nothing,  "neither server's instance is up"),
        (Primary, Fit,           Talks | Quiet,                Changed,           _)              => (AskPeer,    Nothing,  "synchronous_standby_names was changed, and commits may not have waited for the standby"),
        (Primary, Fit,           Talks | Quiet,                Unnamed,           _)              => (AskPeer,    Nothing,  "the arbiter was replaced"),
        (Primary, Fit,           Talks | Quiet,                Exchanged,         _)              => (AskPeer,    Nothing,  "the standby's data directory was replaced"),
        (Primary, Fit,           Talks | Quiet,                Stalled,           _)              => (AskPeer,    Failover, "the standby is connected but does not stream or flush"),
        (Primary, Fit,           Talks | Quiet,                Flows,             _)              => (Rest,       Nothing,  "mirrored"),
        (Primary, Fit | Unfit,   Offers | Stuck,               _,                 _)              => (Rest,       Nothing,  "the other server's view differs"),
        (Primary, Fit,           Alive,                        Flows | Unnamed | Exchanged, _)    => (Wait,       Nothing,  "heartbeats are lost, but the standby's instance responds"),
        (Primary, Fit,           Alive,                        Stalled | Changed, Arbiter)        => (AskArbiter, Failover, "the standby's instance responds, but does not stream or flush"),
        (Primary, Fit,           Alive,                        Stalled | Changed, Command | Fallback | SwitchHalf | DisconnectHalf | Report)
                                                                                                  => (Wait,       Nothing,  "heartbeats are lost, but the standby's instance responds"),
        (Primary, Fit,           Lost,                         _,                 Arbiter)        => (AskArbiter, Failover, "no heartbeat from the standby"),
        (Primary, Fit,           Lost,                         _,                 Command)        => (AskCommand, Failover, "no heartbeat from the standby"),
        (Primary, Fit,           Lost,                         _,                 Fallback)       => (ActByForce, Failover, "no heartbeat from the standby"),
        (Primary, Fit,           Lost,                         _,                 DisconnectHalf) => (ActByHalf,  Failover, "no heartbeat from the standby"),
        (Primary, Fit,           Lost,                         _,                 SwitchHalf | Report)
                                                                                                  => (Wait,       Nothing,  "no heartbeat from the standby, and this server may not disconnect it"),
        (Primary, Fit,           Refused,                      _,                 Arbiter)        => (AskArbiter, Failover, "the standby's host refuses connections"),
        (Primary, Fit,           Refused,                      _,                 Command)        => (AskCommand, Failover, "the standby's host refuses connections"),
        (Primary, Fit,           Refused,                      _,                 Fallback)       => (ActByForce, Failover, "the standby's host refuses connections"),
        (Primary, Fit,           Refused,                      _,                 DisconnectHalf) => (ActByHalf,  Failover, "the standby's host refuses connections"),
        (Primary, Fit,           Refused,                      _,                 SwitchHalf | Report)
                                                                                                  => (Wait,       Nothing,  "the standby's host refuses connections, and this server may not disconnect it"),
        (Primary, Fit,           Never,                        _,                 Arbiter)        => (AskArbiter, Failover, "no heartbeat from the standby since the start"),
        (Primary, Fit,           Never,                        _,                 Command | Fallback | SwitchHalf | DisconnectHalf | Report)
                                                                                                  => (Wait,       Nothing,  "no heartbeat from the standby since the start"),
        (Primary, Fit,           Young,                        _,                 _)              => (Rest,       Nothing,  "waiting for the standby's first heartbeat"),
        (Primary, Unfit,         Talks | Quiet | Alive | Lost | Refused | Young | Never, _, _)    => (Rest,       Nothing,  "the primary's instance is not up"),
        // -- mirrored, this server is the standby ---------------------------------------------------------------------
        (Standby, Failed,        _,                            _,                 _)              => (Restart,    Failover, "the standby's instance has failed"),
        (Standby, Unfit,         _,                            _,                 _)              => (Rest,       Nothing,  "the standby's instance is not up, or not eligible"),
        (Standby, Fit,           Offers,                       _,                 _)              => (AskPeer,    Nothing,  "the primary handed over its role"),
        (Standby, Fit,           Ill | Alive | Lost | Refused | Never, Changed,           _)              => (Wait,       Nothing,  "the primary reported commits that may not have waited for this server"),
        (Standby, Fit,           Ill,                          _,                 Arbiter)        => (AskArbiter, Failover, "the primary has failed and does not hand over"),
        (Standby, Fit,           Ill,                          _,                 Command | Fallback | SwitchHalf | DisconnectHalf | Report)
                                                                                                  => (Rest,       Nothing,  "the primary has failed and does not hand over yet"),
        (Standby, Fit,           Talks | Stuck | Quiet,        _,                 _)              => (Rest,       Nothing,  "mirrored"),
        (Standby, Fit,           Alive,                        Stalled,           Arbiter)        => (AskArbiter, Failover, "the primary's instance responds, but sends no WAL"),
        (Standby, Fit,           Alive,                        Stalled,           Command | Fallback | SwitchHalf | DisconnectHalf | Report)
                                                                                                  => (Wait,       Nothing,  "heartbeats are lost, but the primary's instance responds"),
        (Standby, Fit,           Alive,                        Flows | Unnamed | Exchanged, _)
                                                                                                  => (Wait,       Nothing,  "heartbeats are lost, but the primary's instance responds"),
        (Standby, Fit,           Lost,                         _,                 Arbiter)        => (AskArbiter, Failover, "no heartbeat from the primary"),
        (Standby, Fit,           Lost,                         _,                 Command)        => (AskCommand, Failover, "no heartbeat from the primary"),
        (Standby, Fit,           Lost,                         _,                 Fallback)       => (ActByForce, Failover, "no heartbeat from the primary"),
        (Standby, Fit,           Lost,                         _,                 SwitchHalf)     => (ActByHalf,  Failover, "no heartbeat from the primary"),
        (Standby, Fit,           Lost,                         _,                 DisconnectHalf | Report)
                                                                                                  => (Wait,       Nothing,  "no heartbeat from the primary, and this server may not switch"),
        (Standby, Fit,           Refused,                      _,                 Arbiter)        => (AskArbiter, Failover, "the primary's host refuses connections"),
        (Standby, Fit,           Refused,                      _,                 Command)        => (AskCommand, Failover, "the primary's host refuses connections"),
        (Standby, Fit,           Refused,                      _,                 Fallback)       => (ActByForce, Failover, "the primary's host refuses connections"),
        (Standby, Fit,           Refused,                      _,                 SwitchHalf)     => (ActByHalf,  Failover, "the primary's host refuses connections"),
        (Standby, Fit,           Refused,                      _,                 DisconnectHalf | Report)
                                                                                                  => (Wait,       Nothing,  "the primary's host refuses connections, and this server may not switch"),
        (Standby, Fit,           Never,                        _,                 Arbiter)        => (AskArbiter, Failover, "no heartbeat from the primary since the start"),
        (Standby, Fit,           Never,                        _,                 Command | Fallback | SwitchHalf | DisconnectHalf | Report)
                                                                                                  => (Wait,       Nothing,  "no heartbeat from the primary since the start"),
        (Standby, Fit,           Young,                        _,                 _)              => (Rest,       Nothing,  "waiting for the primary's first heartbeat"),
    };
    Decision { intent, needs, why }
}
