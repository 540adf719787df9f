//! `settle verify`, and what looks into a run, on real runs: the first finds nothing where nothing is wrong, also beside live instances that are killed, and
//! it finds every kind of corruption and names the promise that it breaks.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod capture;
mod corruption;
mod corruption_rows;
mod inspect;
#[expect(
    dead_code,
    reason = "shared with the tests of the pipeline, which use more of it"
)]
#[path = "../pipeline/line.rs"]
mod line;
mod live;
mod operator;
mod replay;
#[path = "../pipeline/turn.rs"]
mod turn;
