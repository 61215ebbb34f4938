//! The rebuild: a data directory becomes a standby's copy of the other server's again, by following, `pg_rewind` or
//! `pg_basebackup` (PROTOCOL R10 is the core's to hold, before it orders one).
//!
//! [`plan`] only reads: what would be done, why, how many bytes, and whether there is room. [`perform`] does it, so that it can
//! be killed anywhere: from before the first change until the directory is a standby's, its `PG_VERSION` keeps every
//! program from starting it, and a journal in the run-time directory says how far it came. Nothing here decides who is
//! the primary. Called by the runner, and by `mc_ctl rebuild --dry-run`.

mod backup;
mod choice;
mod config_copy;
mod divergence;
mod draft;
mod journal;
mod keep;
mod lost;
mod perform;
mod plan;
mod primary;
mod program;
mod progress;
mod rewind;
mod room;
mod same;
mod shared;
mod slot;
mod source;
mod swap;
mod target;
mod unarchived;
mod wal;
mod words;

pub use backup::{replacement, tablespace_mapping};
pub use journal::{Journal, Move, Phase, load as load_journal, now_ms, stamp, write as write_journal};
pub use keep::{forget as forget_configuration, keep as keep_configuration, put_back as put_back_configuration};
pub use lost::{Lost, list as list_lost, prune as prune_lost};
pub use perform::{abandon, perform};
pub use plan::{Chosen, Plan, Room, plan, plan_exactly};
pub use progress::{Board, Progress, copied};
pub use room::{Need, fix_of_parent, human, is_mount_point, mount_point, mounted_in, rooms, used};
pub use source::remote;
pub use swap::{old_data, run as swap, settle_old, unstage};
pub use wal::{Commit, Span, Wal};

use crate::pg::Place;
use std::path::PathBuf;

/// What a rebuild needs to know of this server.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where the instance lives.
    pub place: Place,
    /// Role, on both instances.
    pub user: String,
    /// Its password, where one is configured. Only ever in the environment of programs.
    pub password: Option<String>,
    /// Database to connect to.
    pub dbname: String,
    /// This server's `application_name`.
    pub name: String,
    /// `replication_address`: the host part of the address told after a rebuild.
    pub host: String,
    /// The run-time directory (`DIR/ID`): journal, kept configuration, kept WAL.
    pub run_dir: PathBuf,
    /// This server's WAL archive; `None` if `backup_destination` is not set.
    pub archive: Option<PathBuf>,
}
