//! A checkpoint that the controller waits for, as `mc_ctl status` shows it.

use super::duration;
use indicatif::HumanBytes;
use serde::{Deserialize, Serialize};

/// How far it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which of the checkpoints that are needed; 1 for the first.
    pub number: u32,
    /// How many are needed.
    pub count: u32,
    /// What the checkpointer has written since the checkpoint began, bytes; `null` if the system does not report it.
    pub bytes_written: Option<u64>,
    /// How long ago it began, ms.
    pub elapsed_ms: u64,
}

impl Checkpoint {
    /// How far it is, in words.
    pub fn far(&self) -> String {
        let time = duration(self.elapsed_ms / 1000);
        match self.bytes_written {
            Some(bytes) => format!("{} written in {time}", HumanBytes(bytes)),
            None => format!("{time} so far"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is() {
        let mut shown = Checkpoint { number: 1, count: 2, bytes_written: Some(3 << 20), elapsed_ms: 65_400 };
        assert_eq!(shown.far(), "3.00 MiB written in 1 min 5 s");
        shown.bytes_written = None;
        assert_eq!(shown.far(), "1 min 5 s so far");
    }
}
