//! Several instances behind the proxy while payments come without a pause.

use std::time::Instant;

use chaos::cluster::instance::Instance;
use chaos::line::{Built, LIMIT, Line};
use chaos::tail::Tail;
use chaos::workload::day::{Day, DayOptions};
use chaos::workload::send::{self, SendOptions};

use crate::turn::Turn;

const BUILT: Built = Built {
    binary: env!("CARGO_BIN_EXE_settle"),
    kept: env!("CARGO_TARGET_TMPDIR"),
};

const PARTITIONS: i32 = 4;

const PER_SECOND: u32 = 300;

pub struct Flow {
    pub line: Line,
    tail: Tail,
    properties: toml::Table,
    _turn: Turn,
}

impl Flow {
    /// Starts so many instances; `properties` are the client library's.
    pub fn start(name: &str, count: usize, properties: &[(&str, &str)]) -> Self {
        let turn = Turn::take();
        let line = Line::new(name, PARTITIONS, BUILT);
        let pairs = properties.iter();
        let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).into()));
        let properties: toml::Table = pairs.collect();
        let mut line = line.unwrap();
        add(&mut line, &properties);
        // The topics of the outcomes are there when the first instance is ready.
        line.wait_ready().unwrap();
        for _ in 1..count {
            add(&mut line, &properties);
        }
        line.wait_ready().unwrap();
        Self {
            tail: line.tail().unwrap(),
            line,
            properties,
            _turn: turn,
        }
    }

    /// Starts another instance and does not wait for it.
    pub fn add(&mut self) {
        add(&mut self.line, &self.properties);
    }

    /// Calls `work` while payments come at a fixed rate, then proves that every promise holds.
    pub fn under_load(&mut self, seed: u64, work: impl FnOnce(&mut Self)) {
        let sending = SendOptions {
            per_second: Some(PER_SECOND),
            ..self.line.sending()
        };
        let day = Day::new(DayOptions {
            merchants: 100,
            ..DayOptions::new(seed, 1_000_000, PARTITIONS)
        });
        send::during(&sending, day, || work(self)).unwrap();
        let proof = self.line.prove();
        proof.unwrap_or_else(|error| panic!("{error:#}\n{}", self.line.tails()));
    }

    /// Waits until every partition shows a settlement that is newer than this moment.
    pub fn progress(&self, after: &str) {
        self.tail.mark(Instant::now()).unwrap();
        self.progress_since_mark(after);
    }

    pub fn mark(&self) {
        self.tail.mark(Instant::now()).unwrap();
    }

    /// Waits until every partition shows a settlement that is newer than the mark.
    pub fn progress_since_mark(&self, after: &str) {
        self.tail
            .wait_newer(after, LIMIT)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.line.tails()));
    }

    pub fn is_running(&self, index: usize) -> bool {
        self.line.instances[index].exit_status().is_none()
    }
}

fn add(line: &mut Line, properties: &toml::Table) {
    let options = line.options(line.instances.len()).unwrap();
    let options = options.set("kafka.properties", properties.clone());
    line.instances.push(Instance::start(options).unwrap());
}
