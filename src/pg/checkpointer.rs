//! Whether an instance's checkpointer makes progress, as the kernel reports it: PostgreSQL counts what a checkpoint has written
//! only when it ends. Called by the jobs, which wait for checkpoints.

use super::process;
use std::path::Path;

/// What a look at the checkpointer has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Signs {
    pid: Option<i32>,
    /// Its state letter, such as `S`, `T` (stopped), `D` (waits for a disk).
    state: Option<char>,
    /// `/proc/PID/io`; empty if it cannot be read.
    io: String,
    /// Processor time, in clock ticks.
    ticks: u64,
    /// What all disks of the host have written.
    disks: u64,
}

impl Signs {
    /// Looks at the checkpointer of this data directory, given by its real path ([`process::home`]).
    pub fn read(home: &Path) -> Signs {
        let Some(pid) = process::checkpointer(home) else { return Signs::default() };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (state, ticks) = state_and_ticks(&stat).unzip();
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        Signs { pid: Some(pid), state, io, ticks: ticks.unwrap_or(0), disks: written_by_disks() }
    }

    /// Whether the checkpointer has made progress since an earlier look. It has read or written something, or used the
    /// processor where the kernel does not report what it writes. While it waits for a disk (`fsync`), the progress is that of
    /// the disks.
    pub fn progress_since(&self, before: &Signs) -> bool {
        let works =
            if self.io.is_empty() || before.io.is_empty() { self.ticks != before.ticks } else { self.io != before.io };
        self.pid.is_some() && (works || self.state == Some('D') && self.disks != before.disks)
    }

    /// How many bytes it has written since it started; `None` if the kernel does not report that.
    pub fn written(&self) -> Option<u64> {
        self.io.lines().find_map(|line| line.strip_prefix("wchar: "))?.trim().parse().ok()
    }

    /// Its condition: completes "the checkpointer ...".
    pub fn condition(&self) -> String {
        match self.state {
            Some('T' | 't') => "is stopped (SIGSTOP)".to_owned(),
            Some('D') => "waits for a disk (state D)".to_owned(),
            Some(state) => format!("does not respond (state {state})"),
            None => "is not running".to_owned(),
        }
    }

    /// Whether the cause is outside PostgreSQL.
    pub fn is_held_from_outside(&self) -> bool {
        matches!(self.state, None | Some('T' | 't' | 'D'))
    }
}

/// State letter and processor time of a line of `/proc/PID/stat`.
fn state_and_ticks(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // utime and stime: fields 14 and 15 of proc_pid_stat(5).
    let mut times = fields.skip(10).map(|field| field.parse::<u64>().ok());
    Some((state, times.next()?? + times.next()??))
}

/// A number that rises as long as any disk of the host completes writes: `/proc/vmstat` counts pages of most file systems, and
/// `/proc/diskstats` those of the others.
fn written_by_disks() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let number = |field: Option<&str>| field.and_then(|field| field.parse::<u64>().ok());
    let pages = read("/proc/vmstat").lines().find_map(|line| number(line.strip_prefix("nr_written ")));
    // The eighth field: writes completed.
    let writes = read("/proc/diskstats").lines().filter_map(|line| number(line.split_whitespace().nth(7))).sum::<u64>();
    pages.unwrap_or(0).wrapping_add(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read() {
        let line = "77 (postgres: (x) y) D 1 77 77 0 -1 4194560 900 0 3 0 12 30 0 0 20 0 1 0 5000 1000 200";
        assert_eq!(state_and_ticks(line), Some(('D', 42)));
        assert_eq!(state_and_ticks(""), None);
    }

    #[test]
    fn what_counts_as_progress() {
        let look = |state: char, written: u64, ticks: u64, disks: u64| Signs {
            pid: Some(7),
            state: Some(state),
            io: format!("rchar: 1\nwchar: {written}\nsyscr: 2\n"),
            ticks,
            disks,
        };
        let blind = |ticks: u64| Signs { io: String::new(), ..look('S', 0, ticks, 1) };
        let check = |now: Signs, before: Signs, expected: bool| {
            assert_eq!(now.progress_since(&before), expected, "{now:?} after {before:?}");
        };
        check(look('R', 20, 1, 1), look('R', 10, 1, 1), true);
        // It polls for something that does not come.
        check(look('S', 10, 2, 2), look('S', 10, 1, 1), false);
        check(look('T', 10, 1, 2), look('R', 10, 1, 1), false);
        check(look('D', 10, 1, 2), look('D', 10, 1, 1), true);
        check(look('D', 10, 1, 1), look('D', 10, 1, 1), false);
        check(blind(2), blind(1), true);
        check(blind(1), blind(1), false);
        check(Signs::default(), look('R', 10, 1, 1), false);
        assert_eq!((look('S', 5, 0, 0).written(), blind(0).written()), (Some(5), None));
    }
}
