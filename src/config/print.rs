//! The configuration as a file: the commented default one, and the effective one with origins.

use std::fmt::Write;

use super::keys::{self, Fallback, KEYS, Key, POSTGRES, PROPERTIES, PROPERTIES_DOC, SECTIONS};
use super::load::{Setting, Settings};
use super::problem::Place;
use super::properties;
use super::secret::REDACTED;
use super::value::{Kind, Raw, Value, duration_text, quoted};

const WIDTH: usize = 100;

/// A file that says what holds without one, and what each key means.
pub fn default_file() -> String {
    let mut out = String::new();
    comment(
        &mut out,
        "Configuration of settle. Every value here is the default. An environment variable overrides a key: SETTLE_ and \
         the path in capitals, with __ between levels, such as SETTLE_KAFKA__BOOTSTRAP_SERVERS.",
    );
    for (section, doc) in SECTIONS {
        out.push('\n');
        comment(&mut out, doc);
        let off = if *section == POSTGRES { "# " } else { "" };
        line(&mut out, &format!("{off}[{section}]"));
        for key in KEYS.iter().filter(|key| key.section() == *section) {
            comment(&mut out, &format!("{}{}", key.doc, bounds(key)));
            line(&mut out, &default_line(key));
        }
        if PROPERTIES
            .split_once('.')
            .is_some_and(|(table, _)| table == *section)
        {
            out.push('\n');
            comment(&mut out, PROPERTIES_DOC);
            line(&mut out, &format!("[{PROPERTIES}]"));
            for example in [
                "security.protocol = \"SASL_SSL\"",
                "sasl.password_file = \"/run/secrets/kafka\"",
            ] {
                comment(&mut out, example);
            }
        }
    }
    out
}

fn default_line(key: &Key) -> String {
    let name = key.name();
    match key.default {
        Fallback::Text(text) if key.kind.is_quoted() => format!("{name} = {}", quoted(text)),
        Fallback::Text(text) => {
            let value = key
                .kind
                .read(&Raw::Untyped(text.to_owned()))
                .expect("defaults are valid");
            format!("{name} = {}", value.toml())
        }
        Fallback::SameAs(other) => match keys::find(other).map(|key| key.default) {
            Some(Fallback::Text(text)) => format!("# {name} = {}", quoted(text)),
            _ => format!("# {name} ="),
        },
        Fallback::Unset { example: "" } => format!("{name}_file = \"\""),
        Fallback::Unset { example } => format!("# {name} = {}", quoted(example)),
    }
}

fn bounds(key: &Key) -> String {
    match key.kind {
        Kind::Integer { min, max } => format!(" ({min} to {max})"),
        Kind::Duration { min, max } => {
            format!(" ({} to {})", duration_text(min), duration_text(max))
        }
        _ => String::new(),
    }
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn comment(out: &mut String, text: &str) {
    let mut current = String::from("#");
    for word in text.split_whitespace() {
        if current.len() + 1 + word.len() > WIDTH {
            line(out, &current);
            "#".clone_into(&mut current);
        }
        current.push(' ');
        current.push_str(word);
    }
    line(out, &current);
}

/// What holds, with where it was given, without secrets.
pub fn dump(settings: &Settings) -> String {
    let mut out = String::new();
    for (section, _) in SECTIONS {
        let keys: Vec<_> = KEYS
            .iter()
            .filter(|key| key.section() == *section)
            .collect();
        let unused = keys.iter().all(|key| settings.of(key).value.is_none());
        separate(&mut out);
        line(
            &mut out,
            &format!("{}[{section}]", if unused { "# " } else { "" }),
        );
        for key in keys {
            line(&mut out, &dump_line(key, settings.of(key)));
        }
        if PROPERTIES
            .split_once('.')
            .is_some_and(|(table, _)| table == *section)
        {
            dump_properties(&mut out, settings);
        }
    }
    out
}

fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
}

fn dump_line(key: &Key, setting: &Setting) -> String {
    let origin = match (key.default, &setting.place) {
        (Fallback::SameAs(other), Place::Default) => format!("as {other}"),
        (_, place) => place.to_string(),
    };
    match &setting.value {
        None => format!("# {} is not set", key.name()),
        Some(_) if key.secret => format!("{} = {} # {origin}", key.name(), quoted(REDACTED)),
        Some(value) => {
            let shown = match value {
                Value::Text(text) => without_password(text).map(Value::Text),
                _ => None,
            };
            let shown = shown.as_ref().unwrap_or(value).toml();
            format!("{} = {shown} # {origin}", key.name())
        }
    }
}

/// A URL may carry a password without being a secret as a whole: the same without, if it does.
pub(super) fn without_password(text: &str) -> Option<String> {
    let mut url = url::Url::parse(text).ok()?;
    url.password()?;
    url.set_password(Some(REDACTED)).ok()?;
    Some(url.to_string())
}

fn dump_properties(out: &mut String, settings: &Settings) {
    separate(out);
    line(out, &format!("[{PROPERTIES}]"));
    for (name, property) in &settings.properties {
        let text = if properties::secret(name) {
            REDACTED
        } else {
            &property.text
        };
        writeln!(
            out,
            "{} = {} # {}",
            quoted(name),
            quoted(text),
            property.place
        )
        .expect("a String takes everything");
    }
}
