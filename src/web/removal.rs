//! Deletes the set-up of this server (guide, chapter 6): the files of Mirroring Controller in the management directory, except
//! for the console's. The instance and its data are not touched.

use super::logs::servers;
use crate::config::key;
use crate::daemon::store;
use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Why it is not possible now: a controller of this server runs.
pub fn refused(dir: &Path, id: &str) -> Option<String> {
    store::is_locked(&dir.join(id)).then(|| format!("the controller of server \"{id}\" runs; stop it first"))
}

/// Removes the files, and names each.
///
/// # Errors
/// The controller runs, or a file cannot be removed; those before it are.
pub fn perform(dir: &Path, line: &mut dyn FnMut(&str)) -> Result<()> {
    let Some((own, other)) = servers(dir) else { return Err(Error::new("there is no set-up")) };
    // A controller that starts meanwhile finds the locks taken.
    let run_dir = dir.join(&own);
    let taken = [store::WATCHER_LOCK, store::CONTROLLER_LOCK].map(|name| store::Lock::take(&run_dir, name));
    let [_watcher, _controller] = taken;
    let (_watcher, _controller) = (_watcher?, _controller?);
    let mut remove = |path: PathBuf| {
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Ok(()) => line(&format!("removed \"{}\"", path.display())),
            Err(cause) if cause.kind() == ErrorKind::NotFound => (),
            Err(cause) => return Err(Error::io("remove", &path, cause)),
        }
        Ok(())
    };
    remove(dir.join(format!("{own}.conf")))?;
    remove(dir.join(key::file_name(&own)))?;
    // Both servers of a test are in one directory.
    if !dir.join(format!("{other}.conf")).exists() {
        remove(dir.join("mc.key"))?;
        remove(dir.join("network.conf"))?;
    }
    remove(run_dir)
}
