//! Why the core acts: one value for each cause, with the sentence that people read.
//!
//! The core compares the values. It never looks into a sentence.

use std::fmt;

macro_rules! causes {
    ($($name:ident = $text:literal),+ $(,)?) => {
        /// Why something is done, or is not done.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Cause { $(#[doc = $text] $name),+ }

        impl Cause {
            /// The sentence, without a full stop.
            pub fn text(self) -> &'static str {
                match self { $(Cause::$name => $text),+ }
            }
        }
    };
}

causes! {
    // -- the decision table: this server runs alone, or the other server does
    StandbyStreams = "the standby streams again",
    StandbyDoesNotStream = "the standby does not stream yet",
    RunsAlone = "this server runs alone",
    FailedAlone = "the instance has failed and no other server may run",
    DownAlone = "this server runs alone, and its instance is not up",
    PeerNotPromoted = "the other server took over but its instance is down and was not promoted",
    StandbyFailed = "the standby's instance has failed",
    PeerRunsAlone = "the other server runs alone",
    // -- the decision table: this server is the mirrored primary
    StandbyMayLackCommits = "commits may not have waited for the standby, which may lack them",
    StandbyNotEligible = "the standby's data directory is not the one that the view names, so it cannot take over",
    PrimaryFailed = "the primary's instance or disk has failed",
    BothFailed = "both servers' instances have failed",
    PrimaryFailedAlone = "the primary's instance has failed and the standby does not respond",
    PeerStandbyFailed = "the standby's instance or disk has failed",
    NeitherUp = "neither server's instance is up",
    NamesChanged = "synchronous_standby_names was changed, and commits may not have waited for the standby",
    ArbiterReplaced = "the arbiter was replaced",
    StandbyReplaced = "the standby's data directory was replaced",
    StandbyStalled = "the standby is connected but does not stream or flush",
    Mirrored = "mirrored",
    ViewsDiffer = "the other server's view differs",
    StandbyAlive = "heartbeats are lost, but the standby's instance responds",
    StandbyAliveStalled = "the standby's instance responds, but does not stream or flush",
    StandbyLost = "no heartbeat from the standby",
    StandbyLostWait = "no heartbeat from the standby, and this server may not disconnect it",
    StandbyRefuses = "the standby's host refuses connections",
    StandbyRefusesWait = "the standby's host refuses connections, and this server may not disconnect it",
    StandbyNeverSeen = "no heartbeat from the standby since the start",
    StandbyNotSeenYet = "waiting for the standby's first heartbeat",
    PrimaryDown = "the primary's instance is not up",
    // -- the decision table: this server is the mirrored standby
    StandbyDown = "the standby's instance is not up, or not eligible",
    PrimaryOffers = "the primary handed over its role",
    MayLackCommits = "the primary reported commits that may not have waited for this server",
    PeerPrimaryFailed = "the primary has failed and does not hand over",
    PeerPrimaryFailedWait = "the primary has failed and does not hand over yet",
    PrimaryAliveStalled = "the primary's instance responds, but sends no WAL",
    PrimaryAlive = "heartbeats are lost, but the primary's instance responds",
    PrimaryLost = "no heartbeat from the primary",
    PrimaryLostWait = "no heartbeat from the primary, and this server may not switch",
    PrimaryRefuses = "the primary's host refuses connections",
    PrimaryRefusesWait = "the primary's host refuses connections, and this server may not switch",
    PrimaryNeverSeen = "no heartbeat from the primary since the start",
    PrimaryNotSeenYet = "waiting for the primary's first heartbeat",
    // -- why the instance is not started
    DirectoryNotNamed = "this data directory is not the one that the view names",
    DemotedByHand = "its data directory contains standby.signal, although it is the primary",
    DirectoryExchanged = "its data directory was exchanged, and commits may not have waited",
    // -- why the arbiter does not consent
    NoView = "it has no view of the pair",
    RightIsGiven = "a server already has the right",
    OtherArbiter = "the view names another arbiter",
    UnmirroredCommits = "the primary reported commits that may not have waited for the standby",
    WentBack = "it reports less WAL than before, so that its data has regressed",
    PrimaryResponds = "the primary responds to the arbiter",
    ArbiterJustStarted = "the arbiter has not run for the detection time yet",
    ProposalIsOld = "the proposal is behind the view",
    FencingFailed = "the fencing command failed",
    DirectoryReplaced = "its data directory is not the one that the view names: it was replaced, or its data has regressed",
    // -- an operator
    OperatorDetached = "an operator detached the standby",
    OperatorForcedSwitch = "an operator forced the switch",
    OperatorForcedDetach = "an operator forced the disconnection",
    OperatorRequested = "an operator requested it",
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
