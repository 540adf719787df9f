//! `settle man` and `settle completions`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program;

const NOTHING: [(&str, &str); 0] = [];

fn printed(arguments: &[&str]) -> String {
    let output = program::settle(arguments.iter().copied(), Path::new("/"), NOTHING);
    assert!(output.status.success(), "{}", program::said(&output));
    program::said(&output)
}

/// Every command that help lists, with those below it: `settle`, `settle config`, `settle config check`.
fn commands() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = printed(&arguments);
        let listed = help
            .split_once("\nCommands:\n")
            .map_or("", |(_, rest)| rest);
        let listed = listed.lines().take_while(|line| line.starts_with("  "));
        for name in listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()) {
            if !name.is_empty() && name != "help" {
                open.push([words.clone(), vec![name.to_owned()]].concat());
            }
        }
        found.insert([vec!["settle".to_owned()], words].concat().join(" "));
    }
    found
}

#[test]
fn every_command_has_a_page_that_mandoc_reads_without_an_error() {
    let directory = tempfile::tempdir().unwrap();
    printed(&["man", "--directory", directory.path().to_str().unwrap()]);
    let pages: BTreeSet<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let commands = commands();
    assert!(commands.contains("settle config check"), "{commands:?}");
    let page_of = |command: &String| format!("{}.1", command.replace(' ', "-"));
    assert_eq!(pages, commands.iter().map(page_of).collect());
    let lint = Command::new("mandoc")
        .args(["-T", "lint", "-W", "error"])
        .args(pages.iter().map(|page| directory.path().join(page)))
        .output()
        .expect("mandoc is there: apt-get install mandoc");
    assert!(lint.status.success(), "{}", program::said(&lint));
    for command in &commands {
        let page = directory.path().join(page_of(command));
        let shown = Command::new("mandoc")
            .args(["-T", "ascii"])
            .arg(page)
            .output()
            .unwrap();
        // Bold is a letter, a backspace, and the letter again.
        let shown = String::from_utf8(shown.stdout).unwrap();
        let plain: Vec<char> = shown.chars().collect();
        let plain: String = (0..plain.len())
            .filter(|at| plain.get(at + 1) != Some(&'\u{8}') && plain[*at] != '\u{8}')
            .map(|at| plain[at])
            .collect();
        assert!(plain.contains(command.as_str()), "{command}: {plain}");
    }
    let root = fs::read_to_string(directory.path().join("settle.1")).unwrap();
    assert_eq!(root, printed(&["man"]));
    assert!(root.contains("Exit codes:"), "{root}");
}

/// What bash would offer behind these words.
fn offered(words: &[&str]) -> BTreeSet<String> {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("settle.bash");
    fs::write(&script, printed(&["completions", "bash"])).unwrap();
    let last = words.len() - 1;
    let ask = format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={last}; _settle settle '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        words.join(" "),
        words[last],
        words[last - 1],
    );
    let run = Command::new("bash").args(["-c", &ask]).output().unwrap();
    assert!(
        run.status.success() && run.stderr.is_empty(),
        "{}",
        program::said(&run)
    );
    program::said(&run).lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let set = |words: &[&str]| -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    };
    assert_eq!(offered(&["settle", "ver"]), set(&["verify"]));
    assert_eq!(offered(&["settle", "topics", "a"]), set(&["apply"]));
    assert_eq!(offered(&["settle", "verify", "--at"]), set(&["--at-rest"]));
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for command in ["dead-letters", "verify"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}
