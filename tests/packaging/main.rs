//! What `settle` is shipped with agrees with itself and with the program: image, compose.yaml, manifests of Kubernetes,
//! examples of the configuration, manual and completions. No container engine and no cluster runs here: the files are
//! checked by the schemas and linters of their formats, and by the program that takes what they say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compose;
mod examples;
#[expect(dead_code, reason = "shared with the tests of operations")]
#[path = "../operations/files.rs"]
mod files;
mod image;
mod kubernetes;
mod manual;
mod program;
