//! The facts that decisions are made of: a few small enums, folded from everything that was observed.
//!
//! A fact has no age and no identity: [`super::observe`] has counted and compared before.

use std::fmt::Debug;

/// All values of a fact, for the golden table.
pub trait All: Sized + Copy + Debug + 'static {
    /// Every value, once.
    const ALL: &'static [Self];
}

macro_rules! fact {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $value:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$vdoc])* $value),+ }
        impl All for $name { const ALL: &'static [Self] = &[$($name::$value),+]; }
    };
}

fact!(
    /// What the own ledger contains, from this server's side.
    Standing {
        /// `Degraded(self)`: this server holds the right to run alone.
        Alone,
        /// `Degraded(other)`.
        Inactivated,
        /// `Mirrored(self)`.
        Primary,
        /// `Mirrored(other)`.
        Standby,
    }
);

fact!(
    /// The own instance and disks, for the role that the standing asks for.
    Own {
        /// Eligible, running in the right role, answering.
        Healthy,
        /// Dead, silent past the retries, or a disk has failed.
        Failed,
        /// Neither: not eligible, starting, stopped on order, or not known.
        Unavailable,
    }
);

fact!(
    /// The other server, as its heartbeats and its host's kernel show it.
    Peer {
        /// It talks, both directions work, and it reports no failure.
        Healthy,
        /// It talks, and reports its instance or a disk failed.
        Failed,
        /// It talks, and asks this server to take over; its instance is stopped.
        HandingOver,
        /// It talks, holds the right to run alone, and its instance is down without having been promoted.
        NotPromoted,
        /// Heartbeats are missed, but not past the retries.
        Suspect,
        /// Heartbeats are lost, but its instance, or WAL from it, still answers.
        Alive,
        /// Lost past the retries, and no other sign of life.
        Lost,
        /// Its host's kernel refuses both its ports, several times.
        Refused,
        /// Nothing received since the own start, which was not long ago.
        NotSeenYet,
        /// Nothing received since the own start, for long enough to ask the arbiter.
        NeverSeen,
    }
);

fact!(
    /// Replication, as the primary sees it.
    Replication {
        /// The standby streams and flushes.
        Streaming,
        /// It does not, past the retries.
        Stalled,
        /// `synchronous_standby_names` was found changed.
        NamesChanged,
        /// The view leans on another arbiter than the one that answers, or than the one that is configured.
        ArbiterReplaced,
        /// The standby's data directory is another one than the view leans on.
        StandbyReplaced,
    }
);

fact!(
    /// What may be done on silence.
    Policy {
        /// Ask the arbiter.
        Arbiter,
        /// Ask the operator's script.
        Command,
        /// Act alone, by force.
        Fallback,
        /// Only the standby acts; both servers have reported this.
        SwitchHalf,
        /// Only the primary acts; both servers have reported this.
        DisconnectHalf,
        /// Report only: `message`, or halves that do not agree.
        Report,
    }
);

fact!(
    /// What the instance is.
    InstanceState {
        /// Not known: look.
        Unknown,
        /// Its postmaster has died; processes of it may still live.
        Dead,
        /// Down, a primary's data directory.
        DownPrimary,
        /// Down, a standby's data directory.
        DownStandby,
        /// Runs from a primary's data directory; it does not answer yet.
        StartingPrimary,
        /// Runs from a standby's data directory; it does not answer yet.
        StartingStandby,
        /// Runs as a primary, and commits do not wait.
        PrimaryFree,
        /// Runs as a primary; `synchronous_standby_names` is exactly the peer's.
        PrimaryNamed,
        /// Runs as a primary; `synchronous_standby_names` is something else.
        PrimaryOther,
        /// Runs as a standby; `synchronous_standby_names` in its file is not known to be commented out.
        StandbyNamed,
        /// Runs as a standby with `synchronous_standby_names` commented out.
        StandbyFree,
    }
);

fact!(
    /// Whether the instance may run.
    StartPolicy {
        /// It is wanted and may.
        Run,
        /// It is not to be started: a stop was asked for, a hand-over is under way, it did not stay up, a split was lost.
        Hold,
    }
);

fact!(
    /// The data directory against the view.
    Data {
        /// The one that the view names.
        Eligible,
        /// Another one.
        Foreign,
    }
);

/// One cell of the decision table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Facts {
    /// What the own ledger contains.
    pub standing: Standing,
    /// The own instance and disks.
    pub own: Own,
    /// The other server.
    pub peer: Peer,
    /// Replication.
    pub replication: Replication,
    /// What may be done on silence.
    pub policy: Policy,
}
