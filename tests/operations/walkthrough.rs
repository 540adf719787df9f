//! The pages of the documentation that lead somebody through something: their commands are carried out, in the order in
//! which they stand, and print what the page says.
//!
//! A block ```` ```console ```` holds commands behind `$ ` and what they print: `…` stands for anything, `[…]` alone for
//! any lines. ```` ```sh ```` is for what a test has no machine for.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::files;

/// In the order in which they are gone through.
pub const PAGES: [&str; 6] = [
    "install",
    "configure",
    "deploy",
    "troubleshooting",
    "backup",
    "upgrade",
];

/// What a block of `sh` may begin its lines with: nothing of it is there in a test.
const NOT_HERE: [&str; 12] = [
    "apt-get ",
    "cargo ",
    "strip ",
    "install ",
    "docker ",
    "editor ",
    "journalctl ",
    "kubectl ",
    "settle topics apply",
    "systemctl daemon-reload",
    "systemctl enable ",
    "  --",
];

const ANY_LINES: &str = "[…]";

#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub page: String,
    pub command: String,
    /// As on the page; nothing when the page shows nothing.
    pub output: Vec<String>,
}

/// The blocks of a page, by language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let inside = text.split("\n```").skip(1).step_by(2);
    inside
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .collect()
}

fn page(name: &str) -> String {
    files::read(&format!("docs/{name}.md"))
}

/// The steps of a page.
pub fn steps(name: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let text = page(name);
    for block in blocks(&text, "console") {
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step {
                    page: name.to_owned(),
                    command: command.to_owned(),
                    output: Vec::new(),
                });
            } else {
                let step = steps.last_mut().expect("a block begins with a command");
                step.output.push(line.to_owned());
            }
        }
    }
    steps
}

/// Whether `text` is what `pattern` says, with `…` for anything.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('…') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(begin) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

/// Whether a command printed what the page shows.
pub fn prints(shown: &[String], printed: &[&str]) -> bool {
    match (shown, printed) {
        ([], []) => true,
        ([first, rest @ ..], _) if first == ANY_LINES => {
            (0..=printed.len()).any(|skipped| prints(rest, &printed[skipped..]))
        }
        ([first, shown @ ..], [line, printed @ ..]) => {
            is_like(first, line.trim_end()) && prints(shown, printed)
        }
        _ => false,
    }
}

impl Step {
    /// Carries it out in a shell. `here` says what stands on this machine for what the page names.
    pub fn run(
        &self,
        directory: &Path,
        here: &[(&str, String)],
        environment: &BTreeMap<String, String>,
    ) {
        let command = here
            .iter()
            .fold(self.command.clone(), |command, (there, here)| {
                command.replace(there, here)
            });
        let run = Command::new("bash")
            .args(["-o", "pipefail", "-c", &command])
            .current_dir(directory)
            .envs(environment)
            .output()
            .unwrap();
        let (printed, errors) = (
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr),
        );
        let place = format!("docs/{}.md: {}", self.page, self.command);
        assert!(run.status.success(), "{place}\n{printed}{errors}");
        let lines: Vec<&str> = printed.lines().collect();
        assert!(
            prints(&self.output, &lines),
            "{place}\nshould print\n{}\nand prints\n{printed}{errors}",
            self.output.join("\n")
        );
    }
}

#[test]
fn what_is_not_run_needs_what_a_test_does_not_have() {
    for name in PAGES.into_iter().chain(["capacity"]) {
        let text = page(name);
        let fences = text.matches("\n```").count();
        let known = blocks(&text, "sh").len()
            + blocks(&text, "console").len()
            + blocks(&text, "toml").len();
        assert_eq!(
            fences,
            2 * known,
            "docs/{name}.md has a block in another language"
        );
        for line in blocks(&text, "sh").into_iter().flat_map(str::lines) {
            let is_elsewhere = NOT_HERE.iter().any(|begin| line.starts_with(begin));
            assert!(
                is_elsewhere,
                "docs/{name}.md: make it a block of console: {line}"
            );
        }
    }
    assert!(PAGES.into_iter().all(|name| !steps(name).is_empty()));
}

#[test]
fn a_page_is_compared_with_what_is_printed() {
    let owned =
        |lines: &[&str]| -> Vec<String> { lines.iter().map(|line| (*line).to_owned()).collect() };
    for (shown, printed) in [
        (&["a", "b"][..], &["a", "b"][..]),
        (&["a…c"], &["abc"]),
        (&["…b…"], &["abc"]),
        (&["[…]"], &[]),
        (&["[…]", "c"], &["a", "b", "c"]),
        (&["a", "[…]", "c", "[…]"], &["a", "c", "d"]),
        (&[], &[]),
    ] {
        assert!(prints(&owned(shown), printed), "{shown:?} {printed:?}");
    }
    for (shown, printed) in [
        (&["a"][..], &["b"][..]),
        (&[], &["a"]),
        (&["a"], &[]),
        (&["a…c"], &["ab"]),
        (&["[…]", "c"], &["c", "d"]),
        (&["a…a"], &["a"]),
    ] {
        assert!(!prints(&owned(shown), printed), "{shown:?} {printed:?}");
    }
}
