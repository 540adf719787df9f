//! What the kernel says about this process. On systems without `/proc` these series are absent.

use std::fs;

use crate::metrics::{
    Observed, PROCESS_CPU, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT, PROCESS_START,
    PROCESS_THREADS, PROCESS_VIRTUAL,
};

/// Ticks per second of `/proc/<pid>/stat`: fixed at 100 for every Linux user space.
const TICKS: u64 = 100;

/// Adds the `process_*` series.
pub(super) fn observe(observed: &mut Observed) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    if let Some(stat) = Stat::parse(&read("/proc/self/stat")) {
        observed.set(&PROCESS_CPU, &[], seconds(stat.cpu_ticks));
        observed.set(&PROCESS_THREADS, &[], stat.threads);
        observed.set(&PROCESS_VIRTUAL, &[], stat.virtual_bytes);
        if let Some(boot) = number_after(&read("/proc/stat"), "btime ") {
            observed.set(
                &PROCESS_START,
                &[],
                seconds(boot * TICKS + stat.start_ticks),
            );
        }
    }
    if let Some(kib) = number_after(&read("/proc/self/status"), "VmRSS:") {
        observed.set(&PROCESS_RESIDENT, &[], kib * 1024);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        observed.set(&PROCESS_OPEN_FDS, &[], open.count());
    }
    if let Some(limit) = number_after(&read("/proc/self/limits"), "Max open files") {
        observed.set(&PROCESS_MAX_FDS, &[], limit);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the name in parentheses and may hold anything.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<_> = fields.split_ascii_whitespace().collect();
        // Numbered as in proc(5), where the field after the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
        })
    }
}

fn seconds(ticks: u64) -> String {
    format!("{}.{:02}", ticks / TICKS, ticks % TICKS)
}

fn number_after(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 60 0 0 20 0 9 0 1234 5678 90 1";
        let expected = Stat {
            cpu_ticks: 310,
            threads: 9,
            start_ticks: 1234,
            virtual_bytes: 5678,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(seconds(310), "3.10");
    }
}
