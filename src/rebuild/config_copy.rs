//! The configuration of a server that has none, made from the primary's where that lies outside of the primary's data directory,
//! so that no copy of the data directory brings it: a server on which Debian's packages have created no cluster. What is there
//! is never touched. Called by [`super::plan`], which only asks, and by [`super::perform`].

use super::{Setup, source};
use crate::error::{Error, Result};
use crate::pg::bounded::Cancel;
use crate::pg::connect::{Remote, Row};
use crate::pg::debian::{self, Cluster};
use crate::pg::{conf, files};
use rustix::fs::Access;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// Settings, then the files that the configuration consists of.
const FACTS: &str = "SELECT current_setting('config_file'), current_setting('hba_file'), current_setting('ident_file'), \
    current_setting('data_directory')";
const INCLUDED: &str = "SELECT DISTINCT sourcefile FROM pg_file_settings WHERE sourcefile IS NOT NULL";
const NAMED: &str = "SELECT setting FROM pg_settings WHERE current_setting('ssl') = 'on' AND setting LIKE '/%' \
    AND name IN ('ssl_cert_file', 'ssl_key_file', 'ssl_ca_file', 'ssl_crl_file', 'ssl_dh_params_file')";

/// The primary's configuration, which this server lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigCopy {
    config_file: PathBuf,
    hba_file: PathBuf,
    ident_file: PathBuf,
    /// Further files in the directory of `config_file`.
    included: Vec<PathBuf>,
    /// Files elsewhere that it names.
    elsewhere: Vec<PathBuf>,
}

/// What is to be made; `None` where this server has a configuration, or the copy of the data directory brings it.
///
/// # Errors
/// The primary does not answer.
pub fn missing(setup: &Setup, remote: &Remote, cancel: &Cancel) -> Result<Option<ConfigCopy>> {
    let place = &setup.place;
    if place.config_file.exists() {
        return Ok(None);
    }
    let ask = |sql: &'static str| source::ask(remote, LIMIT, cancel, move |session| session.query(sql, LIMIT));
    let column = |rows: Vec<Row>| rows.into_iter().flatten().flatten().map(PathBuf::from).collect::<Vec<_>>();
    let [config_file, hba_file, ident_file, data] = <[PathBuf; 4]>::try_from(column(ask(FACTS)?))
        .map_err(|_| Error::new("the other server's instance does not report its configuration files"))?;
    if config_file.starts_with(&data) && place.config_file.starts_with(&place.data) {
        return Ok(None);
    }
    let dir = config_file.parent().unwrap_or(Path::new("/"));
    let of_it = column(ask(INCLUDED)?).into_iter().filter(|file| *file != config_file && !file.starts_with(&data));
    let (included, mut elsewhere): (Vec<_>, Vec<_>) = of_it.partition(|file| file.starts_with(dir));
    elsewhere.extend(column(ask(NAMED)?).into_iter().filter(|file| !file.starts_with(&data)));
    Ok(Some(ConfigCopy { config_file, hba_file, ident_file, included, elsewhere }))
}

/// Whether this server's configuration lies in its data directory.
pub fn is_inside(setup: &Setup) -> bool {
    setup.place.config_file.starts_with(&setup.place.data)
}

impl ConfigCopy {
    /// What prevents it, each with its remedy: before anything is copied.
    pub fn obstacles(&self, setup: &Setup) -> Vec<String> {
        let config_file = &setup.place.config_file;
        let dir = config_file.parent().unwrap_or(Path::new("/"));
        let mut found = Vec::new();
        let there = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
        if !is_inside(setup) && rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
            found.push(format!(
                "\"{}\" is missing, and directory \"{}\" is not writable, so that the file cannot be created from the \
                 primary's \"{}\". Create directory \"{}\" for the user who runs the instance.",
                config_file.display(),
                there.display(),
                self.config_file.display(),
                dir.display()
            ));
        }
        let unread = self.elsewhere.iter().filter(|file| rustix::fs::access(file.as_path(), Access::READ_OK).is_err());
        found.extend(unread.map(|file| {
            format!(
                "\"{}\" is missing, and the primary's \"{}\" names \"{}\", which cannot be read on this server. Create that \
                 file, or create \"{0}\" manually.",
                config_file.display(),
                self.config_file.display(),
                file.display()
            )
        }));
        found
    }

    /// The files of this server that are there already, and stay as they are. Within the data directory there are none: all files
    /// of the copy are the primary's.
    pub fn kept(&self, setup: &Setup) -> Vec<PathBuf> {
        let (from, to) = (self.config_file.parent(), setup.place.config_file.parent());
        let (Some(from), Some(to), false) = (from, to, is_inside(setup)) else { return Vec::new() };
        let included = self.included.iter().filter_map(|file| file.strip_prefix(from).ok());
        let names = included.chain([Path::new("pg_hba.conf"), Path::new("pg_ident.conf")]);
        names.map(|name| to.join(name)).filter(|file| file.symlink_metadata().is_ok()).collect()
    }

    /// The step of the plan.
    pub fn step(&self, setup: &Setup) -> String {
        let mut step = format!(
            "Create this server's configuration file \"{}\", which is missing, from the primary's \"{}\".",
            setup.place.config_file.display(),
            self.config_file.display()
        );
        let kept: Vec<String> = self.kept(setup).iter().map(|file| format!("\"{}\"", file.display())).collect();
        if !kept.is_empty() {
            step += &format!(" Existing files are kept: {}.", kept.join(", "));
        }
        step
    }

    /// Makes it, `postgresql.conf` last. `root` stands for the data directory while that is made.
    ///
    /// # Errors
    /// A file cannot be read on the primary, or not be written here.
    pub fn make(&self, setup: &Setup, remote: &Remote, root: &Path, cancel: &Cancel) -> Result<()> {
        let place = &setup.place;
        // Where it is made, and where it will be.
        let made = match place.config_file.strip_prefix(&place.data) {
            Ok(inside) => root.join(inside),
            Err(_) => place.config_file.clone(),
        };
        let (from, to) = (self.config_file.parent().unwrap_or(Path::new("/")), made.parent().unwrap_or(Path::new("/")));
        let fetch = |file: &Path| read(remote, file, cancel);
        let kept = self.kept(setup);
        let cluster = Cluster::of(&place.config_file);
        let write = |target: &Path, text: &[u8]| match cluster {
            Some(_) => files::create(target, text, debian::mode(target)),
            None => files::replace(target, text, None),
        };
        let make_dirs = |dir: &Path| match cluster {
            Some(_) => debian::make_dirs(dir),
            None => std::fs::create_dir_all(dir).map_err(|cause| Error::io("create directory", dir, cause)),
        };
        let copy = |file: &Path, target: &Path| match kept.iter().any(|kept| kept == target) {
            true => Ok(()),
            false => write(target, fetch(file)?.as_bytes()),
        };
        make_dirs(to)?;
        for file in &self.included {
            let Ok(name) = file.strip_prefix(from) else { continue };
            let target = to.join(name);
            target.parent().map_or(Ok(()), make_dirs)?;
            copy(file, &target)?;
        }
        let mut text = fetch(&self.config_file)?.into_bytes();
        let beside = place.config_file.parent().unwrap_or(Path::new("/"));
        for (setting, file, name) in
            [("hba_file", &self.hba_file, "pg_hba.conf"), ("ident_file", &self.ident_file, "pg_ident.conf")]
        {
            copy(file, &to.join(name))?;
            text = conf::assign(&text, setting, &conf::quote(&beside.join(name).display().to_string())?, false);
        }
        text = conf::assign(&text, "data_directory", &conf::quote(&place.data.display().to_string())?, false);
        cluster.as_ref().map_or(Ok(()), Cluster::make_rest)?;
        for setting in text.split(|byte| *byte == b'\n').filter_map(conf::parse_line) {
            if setting.name == "include_dir" && !Path::new(&setting.value()).is_absolute() {
                make_dirs(&to.join(setting.value()))?;
            }
        }
        write(&made, &text)
    }
}

/// The text of a file of the primary's.
fn read(remote: &Remote, file: &Path, cancel: &Cancel) -> Result<String> {
    let sql = format!("SELECT pg_read_file('{}')", file.display().to_string().replace('\'', "''"));
    let rows = source::ask(remote, LIMIT, cancel, move |session| session.query(&sql, LIMIT))?;
    let text = rows.into_iter().flatten().flatten().next();
    text.ok_or_else(|| Error::new(format!("could not read the primary's file \"{}\"", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::place::Place;

    #[test]
    fn existing_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        std::fs::create_dir_all(etc.join("conf.d")).unwrap();
        let setup = |config_file: PathBuf| Setup {
            place: Place {
                data: dir.path().join("data"),
                config_file,
                bin_dir: PathBuf::new(),
                major: 15,
                log_file: PathBuf::new(),
                startup_log: PathBuf::new(),
            },
            user: String::new(),
            password: None,
            dbname: String::new(),
            name: String::new(),
            host: String::new(),
            run_dir: PathBuf::new(),
            archive: None,
        };
        let outside = setup(etc.join("postgresql.conf"));
        let at = |name: &str| Path::new("/etc/postgresql/15/main").join(name);
        let copy = ConfigCopy {
            config_file: at("postgresql.conf"),
            hba_file: at("pg_hba.conf"),
            ident_file: at("pg_ident.conf"),
            included: vec![at("conf.d/one.conf"), at("conf.d/two.conf")],
            elsewhere: Vec::new(),
        };
        assert_eq!(copy.kept(&outside), Vec::<PathBuf>::new());
        assert!(!copy.step(&outside).contains("kept"));
        let there = [etc.join("conf.d/two.conf"), etc.join("pg_hba.conf")];
        there.iter().for_each(|file| std::fs::write(file, "# the operator's\n").unwrap());
        assert_eq!(copy.kept(&outside), there);
        there.iter().for_each(|file| assert!(copy.step(&outside).contains(&format!("\"{}\"", file.display()))));

        // The copy of a data directory brings the primary's files, which do not stay.
        let inside = setup(dir.path().join("data/postgresql.conf"));
        std::fs::create_dir(&inside.place.data).unwrap();
        std::fs::write(inside.place.data.join("pg_hba.conf"), "").unwrap();
        assert_eq!(copy.kept(&inside), Vec::<PathBuf>::new());
    }
}
