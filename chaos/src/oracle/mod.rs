//! The independent proof: reads the raw source, every committed output, the database and HTTP, computes again from the
//! raw input what must have come out, and says of each promise whether it holds.

pub mod ledger;
pub mod promise;

mod close;
mod outputs;
mod source;
pub mod tables;
