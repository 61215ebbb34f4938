//! Which PostgreSQL this is, and what differs between the versions that are supported: 12 to 18. Reads files at most.

use crate::error::{Error, Result};
use std::path::Path;

/// The oldest major version supported.
pub const OLDEST: u32 = 12;
/// The newest major version that has been tried.
pub const NEWEST: u32 = 18;

/// A major version of PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Major(pub u32);

impl Major {
    /// The version of a data directory, by its `PG_VERSION`.
    ///
    /// # Errors
    ///
    /// The file cannot be read or understood, or the version is older than 12.
    pub fn of_data_directory(data: &Path) -> Result<Major> {
        let path = data.join("PG_VERSION");
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Error::io("read file", &path, error).hint("Check that db_instance names a PostgreSQL data directory.")
        })?;
        let number = text.trim().split('.').next().and_then(|word| word.parse().ok());
        let number =
            number.ok_or_else(|| Error::new(format!("file \"{}\" does not hold a version number", path.display())))?;
        Major(number).supported()
    }

    /// The version of a running server, by its `server_version_num`, such as 150018.
    ///
    /// # Errors
    ///
    /// The version is older than 12.
    pub fn of_server(version_num: u32) -> Result<Major> {
        Major(version_num / 10000).supported()
    }

    /// The version that a program tells with `--version`: `pg_ctl (PostgreSQL) 15.18 (Debian …)`.
    ///
    /// # Errors
    ///
    /// The text is not of that form, or the version is older than 12.
    pub fn of_program(output: &str) -> Result<Major> {
        version_num(output).map(|num| Major(num / 10000)).map_or_else(
            || Err(Error::new(format!("could not find a version number in \"{}\"", output.trim()))),
            Major::supported,
        )
    }

    fn supported(self) -> Result<Major> {
        if self.0 < OLDEST {
            return Err(Error::new(format!("PostgreSQL {} is not supported", self.0))
                .hint(format!("Supported versions are {OLDEST} to {NEWEST}.")));
        }
        Ok(self)
    }

    /// Newer than any version that has been tried: worth a WARNING.
    pub fn is_untried(self) -> bool {
        self.0 > NEWEST
    }

    /// The setting that keeps WAL for a standby, and whether it counts megabytes (else segments).
    pub fn wal_keep_setting(self) -> (&'static str, bool) {
        if self.0 >= 13 { ("wal_keep_size", true) } else { ("wal_keep_segments", false) }
    }

    /// Whether a changed `primary_conninfo` takes effect with a reload (13); before, it needs a restart.
    pub fn reloads_primary_conninfo(self) -> bool {
        self.0 >= 13
    }
}

/// `server_version_num` out of the output of `--version`: the number after `(PostgreSQL)`. A beta or a development version
/// counts as minor version 0.
pub fn version_num(output: &str) -> Option<u32> {
    let (_, rest) = output.split_once("(PostgreSQL) ")?;
    let word = rest.split_whitespace().next()?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let (major, rest) = word.split_once('.').unwrap_or((word, ""));
    let major: u32 = digits(major).parse().ok()?;
    let minor: u32 = digits(rest).parse().unwrap_or(0);
    (major < 1000 && minor < 10000).then_some(major * 10000 + minor)
}

/// Whether a primary of this version may, right after its start or a crash of a backend, acknowledge commits before
/// `synchronous_standby_names` takes effect (PROTOCOL section 7): before 17.5, 16.9, 15.13, 14.18, 13.21, and all of 12.
pub fn has_startup_race(version_num: u32) -> bool {
    let (major, minor) = (version_num / 10000, version_num % 10000);
    match major {
        0..=12 => true,
        13 => minor < 21,
        14 => minor < 18,
        15 => minor < 13,
        16 => minor < 9,
        17 => minor < 5,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_race_ends_with_the_minor_versions_of_may_2025() {
        let check = |num: u32, expected: bool| assert_eq!(has_startup_race(num), expected, "{num}");
        for (last, first) in [(170004, 170005), (160008, 160009), (150012, 150013), (140017, 140018), (130020, 130021)]
        {
            check(last, true);
            check(first, false);
        }
        check(120022, true);
        check(180000, false);
    }

    #[test]
    fn versions_are_read_from_programs() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(version_num(text), expected, "{text:?}");
        check("pg_ctl (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(150018));
        check("postgres (PostgreSQL) 18beta1", Some(180000));
        check("postgres (PostgreSQL) 19devel", Some(190000));
        check("pg_ctl (PostgreSQL)", None);
        check("bash 5.2", None);
        check("x (PostgreSQL) 99999999999.1", None);
    }

    #[test]
    fn older_versions_are_refused() {
        assert!(Major::of_server(110022).is_err());
        assert_eq!(Major::of_server(120001), Ok(Major(12)));
        let error = Major::of_program("postgres (PostgreSQL) 9.6.24").unwrap_err();
        assert_eq!(error.message, "PostgreSQL 9 is not supported");
        let directory = tempfile::tempdir().unwrap();
        assert!(Major::of_data_directory(directory.path()).is_err());
        std::fs::write(directory.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(Major::of_data_directory(directory.path()), Ok(Major(15)));
        std::fs::write(directory.path().join("PG_VERSION"), "9.6\n").unwrap();
        assert!(Major::of_data_directory(directory.path()).is_err());
    }
}
