//! What `mc_arb init` makes: `arbitration.conf`, and a private key for each cluster that has none.

use super::{Join, is_same, make_dir, make_key};
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

/// Puts the files of a cluster into its directory. A file that is there must be the same.
fn add_cluster(dir: &Path, join: &Join, made: &mut Vec<PathBuf>) -> Result<()> {
    dir.parent().map_or(Ok(false), make_dir)?;
    make_dir(dir)?;
    for (name, text) in [("mc.key", join.key.expose()), ("network.conf", &join.network)] {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            is_same(&path, &read_private(&path, "")?, text).map_err(|error| {
                error.hint("Each further pair requires a directory of its own: specify its name with --cluster.")
            })?;
        } else {
            files::replace(&path, format!("{}\n", text.trim_end()).as_bytes(), None)?;
            made.push(path);
        }
    }
    Ok(())
}

/// Makes what an arbiter's directory lacks beside the files that are copied to it. Returns the files that were made, and the
/// keys of all clusters. No file that is there is changed. `join`: a cluster that is added, by this name.
///
/// # Errors
/// There is no cluster, a file is not as it must be, or the disk fails. What was made stays; the next run makes the rest.
pub fn arbiter(dir: &Path, join: Option<(&Join, &str)>) -> Result<(Vec<PathBuf>, Vec<MemberKey>)> {
    if join.is_some() {
        make_dir(dir)?;
    }
    let (dir, _) = directories(dir)?;
    let (mut made, mut keys) = (Vec::new(), Vec::new());
    if let Some((join, name)) = join {
        add_cluster(&cluster_dir(&dir, name), join, &mut made)?;
    }
    for name in names(&dir)? {
        let dir = cluster_dir(&dir, &name);
        let path = dir.join("network.conf");
        let copy = "Specify the block that \"mc_ctl init\" printed on the first server with --join; or copy network.conf and \
                    mc.key, which are the same on all members.";
        let network = Network::parse(&path, &read_private(&path, copy)?)?;
        let line = network.arbiter.ok_or_else(|| {
            Error::new(format!("file \"{}\" has no arbiter", path.display()))
                .hint("Add the line \"ID HOST PORT arbiter\" to it, also on the servers.")
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
