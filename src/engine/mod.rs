//! The worker loop: records in, transactions out. One worker is one thread with one consumer and
//! one transactional producer; it owns the tasks of the partitions that the group gives it.

mod assignment;
pub mod background;
mod dead_letter;
pub mod failure;
pub mod fixed;
mod former;
mod hanging;
mod inbox;
mod ingest;
mod markers;
mod outbox;
mod react;
mod replay;
mod report;
mod restore;
mod settle;
mod standstill;
pub mod start;
pub mod status;
mod stored;
mod takeovers;
mod tasks;
mod trace;
mod window;
pub mod worker;
