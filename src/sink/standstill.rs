//! Looks whether the sink's member reads on where there is something to read, as the workers do
//! (`engine/standstill.rs` says why it may not).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::Partition;
use crate::broker::client::Settings;
use crate::broker::scan::{Isolation, Range, scan};
use crate::broker::sink_consumer::SinkConsumer;
use crate::clock;

/// How often it is looked, and so for how long at least reading has not moved when it stands still.
const INTERVAL: Duration = Duration::from_secs(30);

/// So many offsets behind a position are looked through for a record that should have come.
const LOOKED_THROUGH: i64 = 1000;

/// What lay before the end of its log at the last look.
#[derive(Default)]
pub struct Standstill {
    next_at: Duration,
    stood: BTreeMap<Partition, i64>,
}

impl Standstill {
    /// The first record that has not come for a whole interval, with its offset. `next` is what is
    /// expected of each partition that is read. A broker that does not answer is asked again later.
    pub fn look(
        &mut self,
        member: &SinkConsumer,
        settings: &Settings,
        next: &BTreeMap<Partition, i64>,
    ) -> Option<(Partition, i64)> {
        let now = clock::now();
        if now < self.next_at {
            return None;
        }
        self.next_at = now + INTERVAL;
        let before = std::mem::take(&mut self.stood);
        let read = member.read_positions().ok()?;
        let mut still = Vec::new();
        for (at, next) in next {
            let from = read.get(at).map_or(*next, |read| *next.max(read));
            let to = member.bounds(*at).ok()?.stable;
            if from >= to {
                continue;
            }
            self.stood.insert(*at, from);
            if before.get(at) == Some(&from) {
                still.push(Range {
                    partition: *at,
                    from,
                    to: to.min(from + LOOKED_THROUGH),
                });
            }
        }
        let mut missed = None;
        let looked = scan(settings, Isolation::Committed, &still, |record, _| {
            missed.get_or_insert((record.partition, record.offset));
        });
        looked.ok().and(missed)
    }
}
