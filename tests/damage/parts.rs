//! A day of payments that is sent part by part, with the damage in between.

use chaos::workload::day::Day;

use crate::line::Line;
use crate::operator::line;

/// Parts of a day.
const COUNT: u64 = 8;

pub struct Parts {
    /// Makes the day of a seed with so many payments.
    pub day: fn(u64, u64) -> Day,
    pub seed: u64,
    /// Payments of one part.
    pub size: usize,
}

impl Parts {
    /// The whole day.
    pub fn day(&self) -> Day {
        (self.day)(self.seed, COUNT * self.size as u64)
    }

    /// Sends one part.
    pub fn send(&self, line: &Line, number: usize) {
        let before = number * self.size;
        line.send(self.day().skip(before).take(self.size));
    }

    /// A pipeline whose instance runs and has settled the first part; `properties` are the client library's.
    pub fn begin(&self, name: &str, properties: &[(&str, &str)]) -> Line {
        let mut line = line(name);
        let pairs = properties.iter();
        let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).into()));
        let properties: toml::Table = pairs.collect();
        let options = line.options(0).set("kafka.properties", properties);
        line.launch(options);
        line.wait_ready();
        self.send(&line, 0);
        line.prove();
        line
    }
}
