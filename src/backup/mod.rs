//! Backups of the instance, and its WAL archive: directories below `backup_destination` that PostgreSQL's own tools make and
//! read.
//!
//! ```text
//! backup_destination/
//!   mirroring_controller.json     the cluster to which the directory belongs
//!   archived_wal/                 WAL segments and history files
//!   20261130T121500Z/             one backup
//!     data/                       what pg_basebackup wrote
//!     tablespaces/OID/            the same of a tablespace
//!     configuration/              configuration files outside of the data directory
//!     backup.json                 written last: a directory without it is not a backup
//! ```
//!
//! Commands use it in processes of their own. Nothing here decides who is the primary. Called by `mc_ctl backup`,
//! `mc_ctl archive-wal` and `mc_ctl restore-wal`.

mod archive;
mod catalog;
mod destination;
mod make;
mod reach;
mod segment;
mod survey;
mod transfer;

pub use archive::{Archive, Stored, deliver};
pub use catalog::{Backup, Catalog, Tablespace};
pub use destination::{Destination, Lock, make_private_dir};
pub use make::{Made, Order, combine_to, make, remove_wal, verify_again};
#[cfg(test)]
pub(crate) use reach::tests::backup as sample_backup;
pub use reach::{Chain, Contents, Holdings, Reach, Reported, chain_of, reach, timeline_at};
pub use segment::Segment;
#[cfg(test)]
pub(crate) use survey::tests::survey as sample_survey;
pub use survey::{Abandoned, Archiver, Newest, Problem, Scope, Severity, Survey};
pub use transfer::{Entry, entries, open as open_file, receive};
