//! How long something took, time after time: counts by size, in as little room after a month as after a minute.

use serde::{Deserialize, Serialize};

/// How many sizes are told apart: each millisecond below 8, then four in each doubling, up to two minutes.
const SIZES: usize = 64;

/// Counts of durations. What it tells of them is at most a quarter too much, and never too little.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    counts: [u32; SIZES],
    longest_ms: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [0; SIZES], longest_ms: 0 }
    }
}

impl Histogram {
    /// Counts a duration in.
    pub fn add(&mut self, ms: u64) {
        let count = &mut self.counts[size(ms)];
        *count = count.saturating_add(1);
        self.longest_ms = self.longest_ms.max(ms);
    }

    /// Counts another's in.
    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The longest, ms; 0 where there is none.
    pub fn longest_ms(&self) -> u64 {
        self.longest_ms
    }

    /// What so many of a thousand do not exceed, ms; 0 where there is none.
    pub fn permille_ms(&self, permille: u64) -> u64 {
        let wanted = (self.count().saturating_mul(permille)).div_ceil(1000);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen > 0 && seen >= wanted
        });
        found.map_or(0, |size| upper_ms(size).min(self.longest_ms))
    }
}

/// The size of a duration.
fn size(ms: u64) -> usize {
    if ms < 8 {
        return ms as usize;
    }
    let doubling = ms.ilog2();
    let quarter = (ms >> (doubling - 2)) & 3;
    (8 + (doubling as usize - 3) * 4 + quarter as usize).min(SIZES - 1)
}

/// The longest duration of a size, ms. The last one has no end.
fn upper_ms(size: usize) -> u64 {
    match size {
        0..8 => size as u64,
        _ if size == SIZES - 1 => u64::MAX,
        _ => {
            let (doubling, quarter) = (3 + (size - 8) / 4, (size - 8) % 4);
            ((5 + quarter as u64) << (doubling - 2)) - 1
        }
    }
}

/// As it is sent and shown: the sizes that occur. What cannot be is left out, whoever says it.
#[derive(Serialize, Deserialize)]
struct Told {
    counts: Vec<(usize, u32)>,
    longest_ms: u64,
}

impl Serialize for Histogram {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let counts = self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
        Told { counts, longest_ms: self.longest_ms }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Histogram, D::Error> {
        let told = Told::deserialize(from)?;
        let mut histogram = Histogram { longest_ms: told.longest_ms, ..Histogram::default() };
        for (size, count) in told.counts {
            if let Some(place) = histogram.counts.get_mut(size) {
                *place = count;
            }
        }
        Ok(histogram)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::check) fn of(durations: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        durations.iter().for_each(|ms| histogram.add(*ms));
        histogram
    }

    proptest! {
        #[test]
        fn a_size_holds_what_it_is_the_size_of(ms in 0..114_687u64) {
            let upper = upper_ms(size(ms));
            prop_assert!(ms <= upper && upper <= ms + ms / 4, "{ms} {upper}");
            prop_assert!(size(ms) == 0 || upper_ms(size(ms) - 1) < ms);
        }

        #[test]
        fn what_it_tells_is_never_too_little(mut durations in proptest::collection::vec(0..200_000u64, 1..200), permille in 0..=1000u64) {
            let told = of(&durations).permille_ms(permille);
            durations.sort_unstable();
            let rank = (durations.len() as u64 * permille).div_ceil(1000).max(1) as usize;
            prop_assert!(told >= durations[rank - 1] && told <= *durations.last().unwrap());
        }

        #[test]
        fn it_comes_back(durations in proptest::collection::vec(any::<u64>(), 0..50), more in proptest::collection::vec(0..9000u64, 0..50)) {
            let mut histogram = of(&durations);
            let text = serde_json::to_string(&histogram).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Histogram>(&text).unwrap(), &histogram);
            histogram.merge(&of(&more));
            prop_assert_eq!(histogram, of(&[durations, more].concat()));
        }
    }

    #[test]
    fn quantiles() {
        let none = Histogram::default();
        assert_eq!((none.count(), none.longest_ms(), none.permille_ms(999)), (0, 0, 0));
        let mut many = of(&[1; 998]);
        many.merge(&of(&[40, 700]));
        assert_eq!([500, 998, 999, 1000].map(|permille| many.permille_ms(permille)), [1, 1, 47, 700]);
        assert_eq!((many.count(), many.longest_ms()), (1000, 700));
    }

    #[test]
    fn nonsense_is_left_out() {
        let told: Histogram = serde_json::from_str(r#"{"counts":[[2,5],[64,9],[999999,1]],"longest_ms":2}"#).unwrap();
        assert_eq!((told.count(), told.permille_ms(1000)), (5, 2));
    }
}
