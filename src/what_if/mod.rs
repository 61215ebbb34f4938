//! What the pair would do if something failed now: the real decision cores, stepped in virtual time from the present state.
//!
//! Pure, as `fsm` is: called by the controller with a copy of its node, on a thread that may take its time. Behind `mc_ctl
//! what-if`. The own core goes on from where it is; the other server's, and the arbiter's, are started from what they have
//! last told. Around them is a small world (`world`, `instance`) in which what is ordered succeeds in usual times.
//!
//! What is not known is taken to be well: of the other server's settings only what its heartbeats tell, of the arbiter's none;
//! an operator's command succeeds. Each prediction says so where it leans on that.

mod instance;
mod story;
mod world;

pub use story::{Names, Prediction, Step, Verdict, predict};

use serde::{Deserialize, Serialize};

/// How many faults may follow each other.
pub const MOST_FAULTS: usize = 6;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal),+ $(,)?) => {
        /// Something that can fail. Roles are those at the moment when it fails.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
        pub enum Fault {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $name),+
        }

        impl Fault {
            /// Every fault, and at the end [`Fault::Back`].
            pub const ALL: &'static [Fault] = &[$(Fault::$name),+];

            /// As it is typed.
            pub fn word(self) -> &'static str {
                match self { $(Fault::$name => $word),+ }
            }

            /// What it is, in a sentence.
            pub fn help(self) -> &'static str {
                let text = match self { $(Fault::$name => concat!($($doc),+)),+ };
                text.trim().trim_end_matches('.')
            }
        }
    };
}

faults!(
    /// The primary's host loses power: everything of it falls silent.
    PrimaryHost = "primary-host",
    /// The primary's postmaster dies.
    PrimaryInstance = "primary-instance",
    /// The primary's instance stands still and does not answer.
    PrimaryInstanceHang = "primary-instance-hang",
    /// The primary's data directory cannot be read or written any more.
    PrimaryDisk = "primary-disk",
    /// The primary's controller and its watcher end; the instance runs on.
    PrimaryController = "primary-controller",
    /// The primary is cut off from everybody.
    PrimaryIsolated = "primary-isolated",
    /// The standby's host loses power.
    StandbyHost = "standby-host",
    /// The standby's postmaster dies.
    StandbyInstance = "standby-instance",
    /// The standby's instance stands still and does not answer.
    StandbyInstanceHang = "standby-instance-hang",
    /// The standby's data directory cannot be read or written any more.
    StandbyDisk = "standby-disk",
    /// The standby's controller and its watcher end; the instance runs on.
    StandbyController = "standby-controller",
    /// The standby is cut off from everybody.
    StandbyIsolated = "standby-isolated",
    /// Nothing goes between the two servers any more; both reach everybody else.
    Link = "link",
    /// No WAL goes between the instances; the controllers talk.
    Replication = "replication",
    /// The arbiter ends.
    Arbiter = "arbiter",
    /// The arbiter's host loses power.
    ArbiterHost = "arbiter-host",
    /// No fault: what has failed is mended and started again.
    Back = "back",
);

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(word: &str) -> Result<Fault, String> {
        let found = Fault::ALL.iter().find(|fault| fault.word() == word);
        found.copied().ok_or_else(|| format!("there is no fault \"{word}\""))
    }
}
