//! To what a recovery leads: parsed, and as PostgreSQL's settings. Text in, text out.

use crate::fsm::types::Lsn;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest name of a restore point (`MAXFNAMELEN` of PostgreSQL).
const LONGEST_NAME: usize = 63;

/// The target of a recovery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The end of all WAL.
    Latest,
    /// The end of the backup.
    Immediate,
    /// Every transaction that was committed up to this time.
    Time(At),
    /// A restore point (`pg_create_restore_point`).
    Name(String),
    /// A position in WAL.
    Lsn(String),
    /// The commit of a transaction.
    Xid(u64),
}

/// A time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct At {
    /// As PostgreSQL reads it, whatever its settings are.
    text: String,
    /// Microseconds since 1970.
    pub(super) us: i64,
}

impl Target {
    /// A position.
    ///
    /// # Errors
    /// It is none.
    pub fn lsn(text: &str) -> Result<Target, String> {
        text.parse::<Lsn>().map(|lsn| Target::Lsn(lsn.to_string()))
    }

    /// A restore point.
    ///
    /// # Errors
    /// PostgreSQL accepts no such name.
    pub fn name(text: &str) -> Result<Target, String> {
        let valid = !text.is_empty() && text.len() <= LONGEST_NAME && !text.contains(|c: char| c.is_control());
        if valid { Ok(Target::Name(text.to_owned())) } else { Err(format!("\"{text}\" is not a valid restore point")) }
    }

    /// A time.
    ///
    /// # Errors
    /// It is none, or has no time zone.
    pub fn time(text: &str) -> Result<Target, String> {
        text.parse().map(Target::Time)
    }

    /// Whether a backup that ended then, and at this position, can be recovered to it. A restore point and a transaction may
    /// precede the backup: that shows when they are not found.
    pub fn is_after(&self, ended_ms: u64, end: Lsn) -> bool {
        match self {
            Target::Time(at) => at.us >= (ended_ms as i64).saturating_mul(1000),
            Target::Lsn(_) => self.position().is_some_and(|lsn| lsn >= end),
            Target::Latest | Target::Immediate | Target::Name(_) | Target::Xid(_) => true,
        }
    }

    /// Whether it is certain that WAL up to this position, of which the last segment was archived then, contains it.
    pub fn is_within(&self, archived_ms: Option<u64>, until: Lsn) -> bool {
        match self {
            Target::Immediate => true,
            // The next commit after the time ends the recovery. A clock that is adjusted is off by less than a minute.
            Target::Time(at) => archived_ms.is_some_and(|ms| at.us < (ms as i64).saturating_sub(60_000) * 1000),
            Target::Lsn(_) => self.position().is_some_and(|lsn| lsn < until),
            Target::Latest | Target::Name(_) | Target::Xid(_) => false,
        }
    }

    /// Whether it is later than this time, ms since 1970.
    pub fn is_later_than(&self, ms: u64) -> bool {
        matches!(self, Target::Time(at) if at.us > (ms as i64).saturating_mul(1000))
    }

    /// Whether the recovery ends where WAL ends.
    pub fn is_latest(&self) -> bool {
        *self == Target::Latest
    }

    /// What kind of target it is, and its value, for a program: empty if the kind needs none.
    pub fn kind_and_value(&self) -> (&'static str, String) {
        match self {
            Target::Latest => ("latest", String::new()),
            Target::Immediate => ("immediate", String::new()),
            Target::Time(at) => ("time", at.text.clone()),
            Target::Name(name) => ("name", name.clone()),
            Target::Lsn(lsn) => ("lsn", lsn.clone()),
            Target::Xid(xid) => ("xid", xid.to_string()),
        }
    }

    pub(super) fn position(&self) -> Option<Lsn> {
        let Target::Lsn(text) = self else { return None };
        text.parse().ok()
    }

    /// PostgreSQL's settings for it. Those that are empty come first: one after another target is an error.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let (_, value) = self.kind_and_value();
        let one = match self {
            Target::Latest => None,
            Target::Immediate => Some(("recovery_target", "immediate".to_owned())),
            Target::Time(_) => Some(("recovery_target_time", value)),
            Target::Name(_) => Some(("recovery_target_name", value)),
            Target::Lsn(_) => Some(("recovery_target_lsn", value)),
            Target::Xid(_) => Some(("recovery_target_xid", value)),
        };
        let names = ["", "_time", "_name", "_lsn", "_xid"].map(|kind| match kind {
            "_time" => "recovery_target_time",
            "_name" => "recovery_target_name",
            "_lsn" => "recovery_target_lsn",
            "_xid" => "recovery_target_xid",
            _ => "recovery_target",
        });
        let unset = |name: &&str| one.as_ref().is_none_or(|(set, _)| set != name);
        let empty = names.into_iter().filter(unset).map(|name| (name, String::new()));
        let mut settings: Vec<_> = empty.collect();
        settings.extend(one);
        settings
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Latest => f.write_str("the end of WAL"),
            Target::Immediate => f.write_str("the end of the backup"),
            Target::Time(at) => write!(f, "time {}", at.text),
            Target::Name(name) => write!(f, "restore point \"{name}\""),
            Target::Lsn(lsn) => write!(f, "position {lsn}"),
            Target::Xid(xid) => write!(f, "transaction {xid}"),
        }
    }
}

impl FromStr for At {
    type Err = String;

    /// `2026-11-30 14:05:00.123456+01:00`: date and time of day, separated by a space or `T`; seconds may be missing; the time
    /// zone is an offset, `Z` or `UTC`.
    fn from_str(text: &str) -> Result<At, String> {
        let bad = || format!("\"{text}\" is not a time such as \"2026-11-30 14:05:00+00\"");
        let (date, rest) = text.trim().split_once(['T', ' ']).ok_or_else(bad)?;
        let rest = rest.trim_start();
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.')
            .ok_or_else(|| format!("\"{text}\" has no time zone; add one, such as \"+00\" or \"UTC\""))?;
        let (clock, zone) = (&rest[..end], rest[end..].trim());
        let [year, month, day] = numbers(date, '-').ok_or_else(bad)?;
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let whole = if whole.matches(':').count() == 1 { format!("{whole}:00") } else { whole.to_owned() };
        let [hour, minute, second] = numbers(&whole, ':').ok_or_else(bad)?;
        let micros: i64 = match fraction.len() {
            0 => 0,
            digits @ 1..=6 => fraction.parse::<i64>().map_err(|_| bad())? * 10_i64.pow(6 - digits as u32),
            _ => return Err(bad()),
        };
        let offset = offset(zone).ok_or_else(bad)?;
        let in_range = (1970..10_000).contains(&year) && (1..=12).contains(&month) && hour < 24 && minute < 60;
        if !in_range || second > 59 || day < 1 || day > days_in(year, month) {
            return Err(bad());
        }
        let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset * 60;
        let sign = if offset < 0 { '-' } else { '+' };
        let (zone_hour, zone_minute) = (offset.abs() / 60, offset.abs() % 60);
        Ok(At {
            text: format!(
                "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}{sign}{zone_hour:02}:{zone_minute:02}"
            ),
            us: seconds * 1_000_000 + micros,
        })
    }
}

/// Three numbers.
fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let digits = |part: &&str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<i64> = text.split(separator).filter(digits).filter_map(|part| part.parse().ok()).collect();
    (text.split(separator).count() == 3).then(|| parts.try_into().ok()).flatten()
}

/// Minutes east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z" | "UTC" | "utc" | "GMT") {
        return Some(0);
    }
    let sign = match zone.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let digits = zone[1..].replace(':', "");
    let valid = matches!(digits.len(), 2 | 4) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = |range: std::ops::Range<usize>| digits.get(range).map_or(Some(0), |text| text.parse::<i64>().ok());
    let (hours, minutes) = (valid.then(|| number(0..2)).flatten()?, number(2..4)?);
    (hours <= 15 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

fn days_in(year: i64, month: i64) -> i64 {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days(next_year, next, 1) - days(year, month, 1)
}

/// Days since 1970 of a date of the Gregorian calendar: eras of 400 years that begin on the first of March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rebuild::stamp;
    use proptest::prelude::*;

    fn parsed(text: &str) -> At {
        text.parse().unwrap()
    }

    #[test]
    fn times() {
        let at = parsed("2026-11-30 14:05:00.5+01:30");
        assert_eq!((at.text.as_str(), at.us), ("2026-11-30 14:05:00.500000+01:30", 1_796_042_100_500_000));
        for same in ["2026-11-30T12:35:00.5Z", "2026-11-30 12:35:00.500 UTC", "2026-11-30 07:35:00.5-05"] {
            assert_eq!(parsed(same).us, at.us, "{same}");
        }
        assert_eq!(parsed("2024-02-29 00:00+00").text, "2024-02-29 00:00:00.000000+00:00");
        assert_eq!(parsed("1970-01-01 00:00:00Z").us, 0);
        for wrong in [
            "",
            "yesterday",
            "2026-11-30",
            "2026-11-30 14:05:00",
            "2026-02-29 00:00Z",
            "2026-13-01 00:00Z",
            "2026-11-30 24:00Z",
            "2026-11-30 14:05:00.1234567Z",
            "2026-11-30 14:05:00 CET",
            "2026-11-30 14:05:00+1",
            "2026-11-30 14:05:00+é1",
            "2026-11-30 14-05-00Z",
            "2026-11-30 14:05:00Z'; DROP",
        ] {
            assert!(wrong.parse::<At>().is_err(), "{wrong}");
        }
        assert!("2026-11-30 14:05:00".parse::<At>().unwrap_err().contains("no time zone"));
    }

    proptest! {
        #[test]
        fn a_time_is_what_it_says(seconds in 0_u64..7_000_000_000) {
            let stamp = stamp(seconds * 1000);
            let part = |range: std::ops::Range<usize>| &stamp[range];
            let text = format!(
                "{}-{}-{} {}:{}:{}Z",
                part(0..4), part(4..6), part(6..8), part(9..11), part(11..13), part(13..15)
            );
            prop_assert_eq!(parsed(&text).us, seconds as i64 * 1_000_000);
        }

        #[test]
        fn any_text_is_a_time_or_an_error(text in "\\PC*") {
            let _ = text.parse::<At>();
        }
    }

    #[test]
    fn settings() {
        let target = Target::lsn("0/3000060").unwrap();
        let settings = target.settings();
        assert_eq!(settings.len(), 5);
        assert_eq!(settings[4], ("recovery_target_lsn", "0/3000060".to_owned()));
        assert!(settings[..4].iter().all(|(name, value)| value.is_empty() && *name != "recovery_target_lsn"));
        assert!(Target::Latest.settings().iter().all(|(_, value)| value.is_empty()));
        assert!(Target::lsn("3000060").is_err() && Target::name("").is_err() && Target::name("before\n").is_err());
    }

    #[test]
    fn which_backup() {
        let time = Target::time("1970-01-01 00:00:10Z").unwrap();
        assert!(time.is_after(10_000, Lsn(0)) && !time.is_after(10_001, Lsn(0)));
        assert!(time.is_later_than(9999) && !time.is_later_than(10_000));
        assert!(time.is_within(Some(70_001), Lsn(0)) && !time.is_within(Some(70_000), Lsn(0)));
        let lsn = Target::lsn("0/3000060").unwrap();
        assert!(lsn.is_after(0, Lsn(0x300_0060)) && !lsn.is_after(0, Lsn(0x300_0061)));
        assert!(lsn.is_within(None, Lsn(0x300_0061)) && !lsn.is_within(None, Lsn(0x300_0060)));
    }
}
