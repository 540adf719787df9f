//! Local state: what a task has committed so far, on disk and in memory.

pub mod view;
