//! This server's own configuration, kept in the run-time directory while its data directory becomes the other server's copy,
//! and put back afterwards: what lies inside of the data directory; what lies outside is never touched. Called by
//! [`super::perform`].

use crate::error::{Error, Result};
use crate::pg::{Place, conf, files, follow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

const DIR: &str = "rebuild-config";
const LIST: &str = "list.json";

/// What an instance reads whether anything names it or not. Where one is missing, the other server's must not stay.
const OWN: &[&str] = &["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"];

/// Settings that name a file, with PostgreSQL's default where that lies in the data directory.
const NAMED: &[(&str, &str)] = &[
    ("hba_file", ""),
    ("ident_file", ""),
    ("ssl_cert_file", "server.crt"),
    ("ssl_key_file", "server.key"),
    ("ssl_ca_file", ""),
    ("ssl_crl_file", ""),
    ("ssl_dh_params_file", ""),
];

/// Keys of `primary_conninfo` that name a file.
const OF_CONNINFO: &[&str] = &["passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl"];

/// What was kept. All paths are relative to the data directory.
#[derive(Serialize, Deserialize)]
struct List {
    files: Vec<Kept>,
    /// They were not there, and the other server's would be read.
    absent: Vec<PathBuf>,
    /// Of them every `*.conf` is read.
    dirs: Vec<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    path: PathBuf,
    mode: u32,
    /// It is a symbolic link to there.
    link: Option<PathBuf>,
    /// The copy's name.
    copy: String,
}

/// Whether a configuration is kept.
pub fn is_kept(run_dir: &Path) -> bool {
    run_dir.join(DIR).join(LIST).exists()
}

/// Forgets what an earlier rebuild kept.
pub fn forget(run_dir: &Path) -> Result<()> {
    files::remove(&run_dir.join(DIR))
}

/// Keeps the configuration of the data directory, durably.
pub fn keep(place: &Place, run_dir: &Path) -> Result<()> {
    forget(run_dir)?;
    let dir = run_dir.join(DIR);
    DirBuilder::new().mode(0o700).create(&dir).map_err(|e| Error::io("create directory", &dir, e))?;
    let (wanted, dirs) = wanted(place);
    let mut list = List { files: Vec::new(), absent: Vec::new(), dirs };
    for path in wanted {
        let from = place.data.join(&path);
        let found = match from.symlink_metadata() {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                list.absent.push(path);
                continue;
            }
            Err(e) => return Err(Error::io("stat file", &from, e)),
        };
        let copy = format!("{:03}", list.files.len());
        let link = found.is_symlink().then(|| std::fs::read_link(&from)).transpose();
        let link = link.map_err(|e| Error::io("read symbolic link", &from, e))?;
        if link.is_none() && !found.is_file() {
            continue;
        }
        // It will be ours: what was root's may be read by its group, but PostgreSQL takes no such key of ours.
        let foreign = found.uid() != rustix::process::geteuid().as_raw();
        let mode = found.permissions().mode() & if foreign { 0o700 } else { 0o7777 };
        if link.is_none() {
            copy_durably(&from, &dir.join(&copy), mode).map_err(|e| Error::io("keep file", &from, e))?;
        }
        list.files.push(Kept { path, mode, link, copy });
    }
    let text = serde_json::to_vec_pretty(&list).map_err(|e| Error::io("write file", &dir.join(LIST), e))?;
    files::replace(&dir.join(LIST), &text, None)?;
    files::sync_parent(&dir)
}

fn copy_durably(from: &Path, to: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::copy(from, to)?;
    let file = File::open(to)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// The files to be kept, and the directories of which every file is; relative to the data directory.
pub fn wanted(place: &Place) -> (BTreeSet<PathBuf>, Vec<PathBuf>) {
    let inside = |path: &Path| relative(path, &place.data);
    let sources = conf::sources(&place.config_file, &place.data);
    let mut wanted: BTreeSet<PathBuf> = OWN.iter().map(PathBuf::from).collect();
    wanted.extend(sources.files.iter().filter_map(|path| inside(path)));
    let keys = follow::present_keys(place);
    let of_conninfo =
        keys.iter().filter(|(key, _)| OF_CONNINFO.contains(&key.as_str())).map(|(_, value)| value.clone());
    let named = NAMED.iter().map(|(name, default)| {
        conf::effective(name, &place.config_file, &place.data).unwrap_or_else(|| (*default).to_owned())
    });
    for name in named.chain(of_conninfo).filter(|name| !name.is_empty()) {
        wanted.extend(inside(&place.data.join(name)).filter(|path| place.data.join(path).symlink_metadata().is_ok()));
    }
    (wanted, sources.dirs.iter().filter_map(|path| inside(path)).collect())
}

/// The path relative to the data directory; `None` where it is not in there.
fn relative(path: &Path, data: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    let real = || Some(std::fs::canonicalize(plain.parent()?).ok()?.join(plain.file_name()?));
    let inside = plain.strip_prefix(data).map(Path::to_path_buf).ok();
    inside.or_else(|| real()?.strip_prefix(data).map(Path::to_path_buf).ok()).filter(|path| path != Path::new(""))
}

fn load(run_dir: &Path) -> Result<Option<List>> {
    let path = run_dir.join(DIR).join(LIST);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read file", &path, e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| Error::io("read file", &path, e))
}

/// Puts it back into the data directory, durably. Where nothing was kept, nothing is done.
pub fn put_back(data: &Path, run_dir: &Path) -> Result<()> {
    let Some(list) = load(run_dir)? else { return Ok(()) };
    let others = list.dirs.iter().flat_map(|dir| conf::conf_files(&data.join(dir)));
    let foreign = |path: &PathBuf| !list.files.iter().any(|kept| data.join(&kept.path) == *path);
    for path in others.filter(foreign).chain(list.absent.iter().map(|path| data.join(path))) {
        files::remove(&path)?;
    }
    for kept in &list.files {
        let (path, copy) = (data.join(&kept.path), run_dir.join(DIR).join(&kept.copy));
        make_parent(&path, data)?;
        match &kept.link {
            Some(target) => files::relink(&path, target)?,
            None => {
                let text = std::fs::read(&copy).map_err(|e| Error::io("read file", &copy, e))?;
                let old = copy.metadata().map_err(|e| Error::io("stat file", &copy, e))?;
                let is_same = path.symlink_metadata().is_ok_and(|now| now.is_file() && now.mode() == old.mode())
                    && std::fs::read(&path).is_ok_and(|now| now == text);
                // What the program copied it has synced; what we have put there before, but for its name.
                match is_same {
                    true => files::sync_parent(&path)?,
                    false => files::replace(&path, &text, Some(&old))?,
                }
            }
        }
    }
    Ok(())
}

fn make_parent(path: &Path, data: &Path) -> Result<()> {
    let Some(dir) = path.parent().filter(|dir| *dir != data && !dir.exists()) else { return Ok(()) };
    make_parent(dir, data)?;
    DirBuilder::new().mode(0o700).create(dir).map_err(|e| Error::io("create directory", dir, e))?;
    files::sync_parent(dir)
}

/// Makes the kept files writable: `pg_rewind` opens every file for writing, also a key that nobody may write.
pub fn loosen(data: &Path, run_dir: &Path) -> Result<()> {
    set_modes(data, run_dir, 0o200)
}

/// Undoes [`loosen`].
pub fn tighten(data: &Path, run_dir: &Path) -> Result<()> {
    set_modes(data, run_dir, 0)
}

fn set_modes(data: &Path, run_dir: &Path, more: u32) -> Result<()> {
    let list = load(run_dir)?;
    let closed = |kept: &&Kept| kept.link.is_none() && kept.mode & 0o200 == 0;
    for kept in list.iter().flat_map(|list| &list.files).filter(closed) {
        let path = data.join(&kept.path);
        let set = std::fs::set_permissions(&path, Permissions::from_mode(kept.mode | more));
        set.map_err(|e| Error::io("set the mode of file", &path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(data: &Path) -> Place {
        Place {
            data: data.to_path_buf(),
            config_file: data.join("postgresql.conf"),
            bin_dir: "/".into(),
            major: 15,
            log_file: "/".into(),
            startup_log: "/".into(),
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (data, run) = (dir.join("data"), dir.join("run"));
        for made in [&data, &run, &data.join("conf.d")] {
            std::fs::create_dir(made).unwrap();
        }
        let write = |name: &str, text: &str| std::fs::write(data.join(name), text).unwrap();
        let read = |name: &str| std::fs::read_to_string(data.join(name)).ok();
        write(
            "postgresql.conf",
            "include_dir 'conf.d'\ninclude_if_exists = 'more.conf'\nssl_key_file = 'key'\nhba_file = '/etc/hba'\n",
        );
        write("postgresql.auto.conf", "primary_conninfo = 'passfile=pass'\n");
        write("conf.d/a.conf", "a = 1\n");
        write("pg_hba.conf", "own\n");
        write("pass", "word");
        write("key", "secret");
        std::fs::set_permissions(data.join("key"), Permissions::from_mode(0o400)).unwrap();
        std::os::unix::fs::symlink("/etc/ident", data.join("pg_ident.conf")).unwrap();
        keep(&place(&data), &run).unwrap();
        assert!(is_kept(&run));
        loosen(&data, &run).unwrap();
        for name in ["postgresql.conf", "conf.d/a.conf", "conf.d/b.conf", "more.conf", "pg_hba.conf", "key", "pass"] {
            write(name, "other");
        }
        std::fs::remove_file(data.join("pg_ident.conf")).unwrap();
        put_back(&data, &run).unwrap();
        put_back(&data, &run).unwrap();
        assert!(read("postgresql.conf").unwrap().contains("hba_file"));
        assert_eq!(read("conf.d/a.conf").as_deref(), Some("a = 1\n"));
        assert_eq!((read("conf.d/b.conf"), read("more.conf")), (None, None));
        assert_eq!((read("pg_hba.conf").as_deref(), read("key").as_deref()), (Some("own\n"), Some("secret")));
        assert_eq!(read("pass").as_deref(), Some("word"));
        assert_eq!(data.join("key").metadata().unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(std::fs::read_link(data.join("pg_ident.conf")).unwrap(), Path::new("/etc/ident"));
        forget(&run).unwrap();
        assert!(!is_kept(&run));
        put_back(&data, &run).unwrap();
    }
}
