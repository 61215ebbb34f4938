//! What `mc_arb init` makes: `arbitration.conf`, and a private key for each cluster that has none.

use super::make_key;
use crate::config::arbiter::{FILE, cluster_dir, directories, names};
use crate::config::key::{PrivateKey, PublicKey, file_name};
use crate::config::{Network, read_private};
use crate::error::{Error, Result};
use crate::pg::files;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The arbiter's key of one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberKey {
    /// The arbiter's id in the cluster's `network.conf`.
    pub id: String,
    /// The directory of the cluster.
    pub dir: PathBuf,
    /// Its public key.
    pub key: PublicKey,
    /// `network.conf` lists this key.
    pub listed: bool,
}

/// Makes what an arbiter's directory lacks beside the files that are copied to it. Returns the files that were made, and the
/// keys of all clusters. No file that is there is changed.
///
/// # Errors
/// There is no cluster, a file is not as it must be, or the disk fails. What was made stays; the next run makes the rest.
pub fn arbiter(dir: &Path) -> Result<(Vec<PathBuf>, Vec<MemberKey>)> {
    let (dir, _) = directories(dir)?;
    let (mut made, mut keys) = (Vec::new(), Vec::new());
    for name in names(&dir)? {
        let dir = cluster_dir(&dir, &name);
        let path = dir.join("network.conf");
        let copy = "Copy network.conf and mc.key from one of the cluster's servers: they are the same on all members.";
        let network = Network::parse(&path, &read_private(&path, copy)?)?;
        let line = network.arbiter.ok_or_else(|| {
            Error::new(format!("file \"{}\" has no arbiter", path.display()))
                .hint("Add the line \"ID HOST PORT arbiter\" to it, on the servers as well.")
        })?;
        let path = dir.join(file_name(&line.id));
        let key = match path.symlink_metadata().is_ok() {
            true => PrivateKey::parse(&path, &Zeroizing::new(read_private(&path, "")?))?.public(),
            false => {
                let key = make_key(&path)?;
                made.push(path);
                key
            }
        };
        keys.push(MemberKey { listed: line.key == Some(key), id: line.id, dir, key });
    }
    let path = dir.join(FILE);
    if path.symlink_metadata().is_err() {
        files::replace(&path, b"# Every parameter is in mc_arb(8).\n", None)?;
        made.push(path);
    }
    Ok((made, keys))
}
