//! A rebuild of this server's data directory, as `mc_ctl status` shows it and `mc_ctl rebuild` follows it.

use super::{Purpose, Snapshot};
use crate::fsm::report::Rebuilding;
use crate::rebuild::Chosen;
use indicatif::HumanBytes;
use serde::Serialize;

/// How a step begins in which nothing is done yet.
pub const WAITING: &str = "waiting: ";

/// Where a rebuild stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RebuildStatus {
    /// What is being done, in a few words.
    pub step: String,
    /// `follow`, `rewind`, `basebackup`; `null` while that is being found out.
    pub method: Option<&'static str>,
    /// Why so; empty while that is being found out.
    pub why: String,
    /// Bytes copied, of the step that copies.
    pub bytes_done: u64,
    /// Of how many; `null` where that is not known.
    pub bytes_total: Option<u64>,
    /// How long the copying has continued, ms.
    pub elapsed_ms: u64,
    /// Why it has failed; `null` while it has not.
    pub failed: Option<String>,
}

impl RebuildStatus {
    /// `None` where none is under way and none has failed.
    pub fn new(snapshot: &Snapshot) -> Option<RebuildStatus> {
        let progress = snapshot.rebuild.as_ref();
        let failing = snapshot.connections.iter().find(|failure| failure.purpose == Purpose::Replication);
        let lag = snapshot.report.lag_bytes.filter(|bytes| *bytes > 0);
        let (step, copies, failed) = match &snapshot.report.rebuilding {
            Rebuilding::Idle => return None,
            Rebuilding::Waiting(what) => (format!("{WAITING}{what}"), false, None),
            Rebuilding::Copying => {
                let step = progress.map_or("", |progress| &progress.step);
                (if step.is_empty() { "comparing the data of both servers" } else { step }.to_owned(), true, None)
            }
            Rebuilding::Starting => (
                match (failing, lag) {
                    (Some(failure), _) => failure.sentence(),
                    (None, Some(bytes)) => format!("the standby starts and catches up, {} behind", HumanBytes(bytes)),
                    (None, None) => "the standby starts and catches up".to_owned(),
                },
                false,
                None,
            ),
            Rebuilding::Failed(why) => ("failed".to_owned(), false, Some(why.clone())),
        };
        let progress = progress.cloned().unwrap_or_default();
        Some(RebuildStatus {
            step,
            method: progress.chosen.map(Chosen::word),
            why: progress.why,
            bytes_done: if copies { progress.done } else { 0 },
            bytes_total: Some(progress.total).filter(|total| copies && *total > 0),
            elapsed_ms: progress.elapsed_ms,
            failed,
        })
    }

    /// One line, without its end: the step, and how far it is.
    pub fn line(&self) -> String {
        let step = self.step.replace('\n', " ");
        match self.far() {
            Some(far) => format!("{step}: {far}"),
            None => step,
        }
    }

    /// `512 MiB of 2 GiB (25 %), 105 MiB/s, 15 s left`; `None` before anything is copied.
    pub fn far(&self) -> Option<String> {
        let done = self.bytes_done;
        if done == 0 && self.bytes_total.is_none() {
            return None;
        }
        let mut far = HumanBytes(done).to_string();
        // What remains is not copying.
        if self.bytes_total.is_some_and(|total| done >= total) {
            return Some(far + " copied");
        }
        if let Some(total) = self.bytes_total {
            let percent = u128::from(done) * 100 / u128::from(total);
            far += &format!(" of {} ({} %)", HumanBytes(total), percent.min(100));
        }
        let rate = u128::from(done) * 1000 / u128::from(self.elapsed_ms.max(1));
        // In the first second it says nothing.
        if self.elapsed_ms >= 1000 && rate > 0 {
            far += &format!(", {}/s", HumanBytes(u64::try_from(rate).unwrap_or(u64::MAX)));
            if let Some(left) = self.bytes_total.and_then(|total| total.checked_sub(done)) {
                let seconds = u128::from(left) / rate;
                far += &format!(", {} left", duration(u64::try_from(seconds).unwrap_or(u64::MAX)));
            }
        }
        Some(far)
    }
}

/// `41 s`, `2 min 5 s`, `1 h 4 min`.
pub fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is() {
        let check = |done, total, elapsed_ms, expected: &str| {
            let status = RebuildStatus {
                step: "copying".into(),
                method: Some("basebackup"),
                why: String::new(),
                bytes_done: done,
                bytes_total: total,
                elapsed_ms,
                failed: None,
            };
            assert_eq!(status.line(), expected);
        };
        const MIB: u64 = 1 << 20;
        check(0, None, 5_000, "copying");
        check(0, Some(4 * MIB), 0, "copying: 0 B of 4.00 MiB (0 %)");
        check(MIB, Some(4 * MIB), 500, "copying: 1.00 MiB of 4.00 MiB (25 %)");
        check(MIB, Some(4 * MIB), 2_000, "copying: 1.00 MiB of 4.00 MiB (25 %), 512.00 KiB/s, 6 s left");
        check(5 * MIB, Some(4 * MIB), 2_000, "copying: 5.00 MiB copied");
        check(MIB, None, 2_000, "copying: 1.00 MiB, 512.00 KiB/s");
    }

    #[test]
    fn durations() {
        let text = [0, 59, 60, 125, 3600, 100_000].map(duration).join(", ");
        assert_eq!(text, "0 s, 59 s, 1 min 0 s, 2 min 5 s, 1 h 0 min, 27 h 46 min");
    }
}
