//! The `Dockerfile`, and the check that its container makes.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;

use chaos::checkers::checker;

use crate::files;
use crate::program;

pub fn dockerfile() -> String {
    files::read("Dockerfile")
}

/// A stage of the build.
pub struct Stage {
    /// Empty for the last one.
    pub name: String,
    base: String,
    instructions: String,
}

pub fn stages() -> Vec<Stage> {
    let dockerfile = dockerfile();
    let stages = dockerfile.split("\nFROM ").skip(1).map(|text| {
        let (from, instructions) = text.split_once('\n').unwrap();
        let (base, name) = from.split_once(" AS ").unwrap_or((from, ""));
        Stage {
            name: name.to_owned(),
            base: base.to_owned(),
            instructions: instructions.to_owned(),
        }
    });
    stages.collect()
}

/// The words of an instruction in its JSON form.
fn words(instruction: &str) -> Vec<String> {
    let dockerfile = dockerfile();
    let begin = format!("{instruction} ");
    let line = dockerfile.lines().find(|line| line.starts_with(&begin));
    let line = line.unwrap_or_else(|| panic!("no {instruction}"));
    serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
}

#[test]
fn hadolint_finds_nothing() {
    let output = checker("hadolint")
        .unwrap()
        .arg(files::path("Dockerfile"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", program::said(&output));
}

#[test]
fn every_base_is_another_stage_or_pinned_to_a_release() {
    let stages = stages();
    for (at, stage) in stages.iter().enumerate() {
        let is_stage = stages[..at].iter().any(|before| before.name == stage.base);
        let tag = stage.base.split_once(':').map_or("", |(_, tag)| tag);
        assert!(is_stage || tag.contains('.'), "{}", stage.base);
    }
}

#[test]
fn the_image_holds_settle_alone_the_demo_both_programs_and_neither_runs_as_root() {
    let stages = stages();
    let stage = |name: &str| stages.iter().find(|stage| stage.name == name).unwrap();
    for (program, manifest) in [("settle", "Cargo.toml"), ("chaos", "chaos/Cargo.toml")] {
        let built = format!("target/release/{program}");
        assert!(stage("build").instructions.contains(&built), "{built}");
        let manifest = files::read(manifest);
        assert!(
            manifest.contains(&format!("\nname = \"{program}\"\n")),
            "{program}"
        );
    }
    let image = stages.last().unwrap();
    assert_eq!(
        image.instructions,
        "COPY --from=build /out/settle /usr/local/bin/\n"
    );
    assert!(
        stage("demo")
            .instructions
            .starts_with("COPY --from=build /out/settle /out/chaos ")
    );
    for stage in [stage("demo"), image] {
        assert_eq!(stage.base, "base");
        assert!(!stage.instructions.contains("USER "));
    }
    let user = stage("base").instructions.split("\nUSER ").nth(1).unwrap();
    assert!(!user.starts_with("0:") && !user.starts_with("root"));
}

#[test]
fn the_image_starts_and_checks_itself_with_commands_of_the_program() {
    let start = [words("ENTRYPOINT"), words("CMD")].concat();
    let check = words("HEALTHCHECK");
    assert_eq!(start, ["settle", "run"]);
    for command in [start, check] {
        assert_eq!(command[0], "settle");
        let output = Command::new(env!("CARGO_BIN_EXE_settle"))
            .args(&command[1..])
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}");
    }
}

/// `settle health` where `listener` stands for the instance.
fn health(listener: &TcpListener, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    program::settle(
        [&["health"], arguments].concat(),
        directory.path(),
        [("SETTLE_HTTP__LISTEN", listen)],
    )
}

#[test]
fn the_check_says_yes_to_a_200_and_no_to_all_else() {
    let answers = [
        ("/readyz", "503 Service Unavailable"),
        ("/readyz", "200 OK"),
        ("/livez", "200 OK"),
        ("/readyz", "503 Service Unavailable"),
        ("/readyz", "200 OK"),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let instance = listener.try_clone().unwrap();
    let answering = thread::spawn(move || {
        for (path, status) in answers {
            let (mut stream, _) = instance.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            assert_eq!(request, format!("GET {path} HTTP/1.1"));
            while !lines.next().unwrap().unwrap().is_empty() {}
            let end = "Content-Length: 2\r\nConnection: close\r\n\r\n{}";
            write!(stream, "HTTP/1.1 {status}\r\n{end}").unwrap();
        }
    });
    for (arguments, code) in [
        (&[][..], 1),
        (&[], 0),
        (&["--live"], 0),
        // A no, and then a yes.
        (&["--wait", "60"], 0),
    ] {
        let output = health(&listener, arguments);
        let said = program::said(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains("{}"), "{said}");
    }
    answering.join().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = health(&nobody, &[]);
    assert_eq!(nobody.status.code(), Some(1));
    let said = program::said(&nobody);
    assert!(said.contains("/readyz does not answer"), "{said}");
}

#[test]
fn the_image_is_built_with_a_compiler_that_is_new_enough() {
    let manifest: toml::Table = files::read("Cargo.toml").parse().unwrap();
    let least = manifest["workspace"]["package"]["rust-version"]
        .as_str()
        .unwrap();
    let dockerfile = dockerfile();
    let image = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("FROM rust:"));
    let built_with = image.unwrap().split('-').next().unwrap();
    assert!(
        version(built_with) >= version(least),
        "{built_with} < {least}"
    );
}

fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap()).collect()
}
