//! Which payments repeat an earlier one of their partition inside the window: bucket by bucket of
//! ids, each id in the order of its offsets.

use std::io;

use crate::broker::Topic;
use crate::verify::audit::Audit;
use crate::verify::facts::{Place, Sighting, What};

impl Audit {
    pub(super) fn find_repeats(&mut self) -> io::Result<()> {
        for bucket in self.ids.buckets() {
            let mut sightings: Vec<Sighting> = self.ids.take(bucket)?;
            sightings.sort_unstable();
            for same in sightings.chunk_by(|a, b| (a.partition, a.id) == (b.partition, b.id)) {
                if same.len() > 1 {
                    self.repeats_of(same)?;
                }
            }
        }
        Ok(())
    }

    /// A payment is a repeat of every first inside the window; without any it is a first itself.
    fn repeats_of(&mut self, sightings: &[Sighting]) -> io::Result<()> {
        // The first of the first may have left the log before it was read.
        let low = self.cut.low_of(Topic::Source, sightings[0].partition);
        let begins = self.log_begins.get(&sightings[0].partition).copied();
        let is_unsure = low > 0
            && begins.is_some_and(|begins| {
                sightings[0].timestamp.saturating_sub(begins) <= self.terms.window_millis
            });
        let mut firsts: Vec<&Sighting> = Vec::new();
        for (index, sighting) in sightings.iter().enumerate() {
            let place = Place {
                partition: sighting.partition,
                offset: sighting.offset,
            };
            if is_unsure && index > 0 {
                let unsure = What::Repeat {
                    first: None,
                    is_same: false,
                };
                self.place_fact(place, unsure)?;
                continue;
            }
            let window = self.terms.window_millis.unsigned_abs();
            let near = |first: &&&Sighting| first.timestamp.abs_diff(sighting.timestamp) <= window;
            let within: Vec<&Sighting> = firsts.iter().filter(near).copied().collect();
            if within.is_empty() {
                firsts.push(sighting);
            }
            for first in within {
                let repeat = What::Repeat {
                    first: Some(first.offset),
                    is_same: first.value == sighting.value,
                };
                self.place_fact(place, repeat)?;
            }
        }
        Ok(())
    }
}
