//! From the layers to typed settings: the environment wins over the file, the file over the default. Nothing stops at
//! the first problem.

use std::collections::BTreeMap;
use std::path::Path;

use super::keys::{Fallback, KEYS, Key, LOG_FILTER, POSTGRES, PROPERTIES};
use super::postgres;
use super::problem::{Errors, Place, Problem};
use super::properties;
use super::source::{self, Entry, Layer};
use super::value::{Kind, Raw, Value};

/// A value that holds, and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `None` where the key is unset and has no default.
    pub value: Option<Value>,
    pub place: Place,
}

/// A property of librdkafka that holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    pub text: String,
    pub place: Place,
}

/// Everything that holds: one setting for each key of the registry, and the properties.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub keys: BTreeMap<&'static str, Setting>,
    pub properties: BTreeMap<String, Property>,
}

/// What only the users of a value can say against it.
#[derive(Clone, Copy)]
pub struct Users {
    /// Why librdkafka does not take a property of this name and value.
    pub property: fn(&str, &str) -> Result<(), String>,
    /// Why a text is no filter for logs.
    pub filter: fn(&str) -> Result<(), String>,
}

impl Users {
    /// Nobody is asked.
    pub const NONE: Self = Self {
        property: |_, _| Ok(()),
        filter: |_| Ok(()),
    };
}

/// Reads the file, when there is one, and the environment.
pub fn load(
    path: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    users: Users,
) -> Result<Settings, Errors> {
    let mut problems = Vec::new();
    let file = path.map_or_else(Layer::default, |path| read_file(path, &mut problems));
    let environment = source::from_environment(environment, &mut problems);
    let mut loader = Loader {
        layers: [&environment, &file],
        users,
        problems,
    };
    let mut keys = BTreeMap::new();
    for key in KEYS {
        if let Some(setting) = loader.setting(key) {
            keys.insert(key.path, setting);
        }
    }
    let properties = loader.properties();
    let mut problems = loader.problems;
    fill_fallbacks(&mut keys);
    refuse_duplicate_topics(&keys, &mut problems);
    // What one key says of another tells nothing where a line could not be read.
    if problems.iter().all(|problem| !problem.key.is_empty()) {
        refuse_empty_postgres(&keys, &file, &mut problems);
        refuse_halves(&keys, &mut problems);
        refuse_contradictions(&keys, &mut problems);
    }
    if problems.is_empty() {
        Ok(Settings { keys, properties })
    } else {
        Err(Errors::new(problems))
    }
}

fn read_file(path: &Path, problems: &mut Vec<Problem>) -> Layer {
    let file = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => source::from_file(&file, &text, problems),
        Err(error) => {
            problems.push(Problem::new(
                &Place::File { file, line: 0 },
                "",
                format!("cannot be read: {error}"),
            ));
            Layer::default()
        }
    }
}

struct Loader<'a> {
    /// The first one wins.
    layers: [&'a Layer; 2],
    users: Users,
    problems: Vec<Problem>,
}

impl Loader<'_> {
    /// `None` after a problem.
    fn setting(&mut self, key: &Key) -> Option<Setting> {
        for layer in self.layers {
            let direct = layer.keys.get(key.path);
            let twin_path = format!("{}_file", key.path);
            let twin = layer.keys.get(&twin_path).filter(|twin| !is_empty(twin));
            let (path, entry) = match (direct, twin) {
                (None, None) => continue,
                (Some(_), Some(twin)) => {
                    self.refuse_both(twin, &twin_path, key.path);
                    return None;
                }
                (Some(direct), None) => (key.path, direct.clone()),
                (None, Some(twin)) => (twin_path.as_str(), self.content(twin, &twin_path)?),
            };
            return match self.read(key, &entry.raw) {
                Ok(value) => Some(Setting {
                    value: Some(value),
                    place: entry.place,
                }),
                Err(text) => {
                    self.problems.push(Problem::new(&entry.place, path, text));
                    None
                }
            };
        }
        Some(Setting {
            value: default(key),
            place: Place::Default,
        })
    }

    fn read(&self, key: &Key, raw: &Raw) -> Result<Value, String> {
        let value = key.kind.read(raw)?;
        if let (LOG_FILTER, Value::Text(filter)) = (key.path, &value) {
            (self.users.filter)(filter)?;
        }
        Ok(value)
    }

    fn refuse_both(&mut self, twin: &Entry, twin_path: &str, path: &str) {
        let text = format!("give either {path} or {twin_path}, not both");
        self.problems
            .push(Problem::new(&twin.place, twin_path, text));
    }

    /// What stands in the file of a secret, without the end of its line.
    fn content(&mut self, twin: &Entry, path: &str) -> Option<Entry> {
        let content = match &twin.raw {
            Raw::Text(file) | Raw::Untyped(file) => match std::fs::read_to_string(file) {
                Ok(content) if content.trim().is_empty() => Err(format!("{file} is empty")),
                Ok(content) => Ok(content.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => Err(format!("{file} cannot be read: {error}")),
            },
            _ => Err("must be the path of a file".to_owned()),
        };
        match content {
            Ok(content) => Some(Entry {
                raw: Raw::Untyped(content),
                place: twin.place.clone(),
            }),
            Err(text) => {
                self.problems.push(Problem::new(&twin.place, path, text));
                None
            }
        }
    }

    fn properties(&mut self) -> BTreeMap<String, Property> {
        let mut merged = BTreeMap::new();
        let [environment, file] = self.layers;
        for layer in [file, environment] {
            for (given, entry) in &layer.properties {
                let path = format!("{PROPERTIES}.{given}");
                let twin_of = given
                    .strip_suffix("_file")
                    .filter(|name| properties::secret(name));
                let name = twin_of.unwrap_or(given);
                let entry = match twin_of {
                    Some(_) if layer.properties.contains_key(name) => {
                        self.refuse_both(entry, &path, &format!("{PROPERTIES}.{name}"));
                        continue;
                    }
                    Some(_) if is_empty(entry) => continue,
                    // Of what is overridden, the file need not be there.
                    Some(_) if std::ptr::eq(layer, file) && gives(environment, name) => continue,
                    Some(_) => self.content(entry, &path),
                    None => Some(entry.clone()),
                };
                let Some(entry) = entry else { continue };
                match self.property(name, &entry) {
                    Ok(text) => {
                        merged.insert(
                            name.to_owned(),
                            Property {
                                text,
                                place: entry.place,
                            },
                        );
                    }
                    Err(text) => self.problems.push(Problem::new(&entry.place, &path, text)),
                }
            }
        }
        merged
    }

    fn property(&self, name: &str, entry: &Entry) -> Result<String, String> {
        if let Some(reason) = properties::refused(name) {
            return Err(format!("cannot be set: {reason}"));
        }
        let text = entry.raw.as_property()?;
        properties::check(name, &text)?;
        (self.users.property)(name, &text)?;
        Ok(text)
    }
}

/// Whether a layer says what a property is, in either form.
fn gives(layer: &Layer, property: &str) -> bool {
    let twin = layer.properties.get(&format!("{property}_file"));
    layer.properties.contains_key(property) || twin.is_some_and(|twin| !is_empty(twin))
}

fn is_empty(entry: &Entry) -> bool {
    matches!(&entry.raw, Raw::Text(text) | Raw::Untyped(text) if text.is_empty())
}

fn default(key: &Key) -> Option<Value> {
    match key.default {
        Fallback::Text(text) => {
            let value = key.kind.read(&Raw::Untyped(text.to_owned()));
            Some(value.unwrap_or_else(|error| panic!("default of {}: {error}", key.path)))
        }
        Fallback::SameAs(_) | Fallback::Unset { .. } => None,
    }
}

fn fill_fallbacks(settings: &mut BTreeMap<&'static str, Setting>) {
    for key in KEYS {
        let Fallback::SameAs(other) = key.default else {
            continue;
        };
        let Some(value) = settings
            .get(other)
            .and_then(|setting| setting.value.clone())
        else {
            continue;
        };
        if let Some(setting) = settings.get_mut(key.path) {
            setting.value.get_or_insert(value);
        }
    }
}

fn refuse_duplicate_topics(
    settings: &BTreeMap<&'static str, Setting>,
    problems: &mut Vec<Problem>,
) {
    let mut users: BTreeMap<&str, Vec<(&Key, &Place)>> = BTreeMap::new();
    for key in KEYS.iter().filter(|key| matches!(key.kind, Kind::Topic)) {
        if let Some(Setting {
            value: Some(Value::Text(topic)),
            place,
        }) = settings.get(key.path)
        {
            users.entry(topic).or_default().push((key, place));
        }
    }
    for (topic, mut users) in users.into_iter().filter(|(_, users)| users.len() > 1) {
        users.sort_by_key(|(_, place)| *place);
        let (key, place) = users.pop().expect("there is more than one");
        let others: Vec<_> = users.iter().map(|(key, _)| key.path).collect();
        let text = format!(
            "{topic:?} is already {}; every topic needs a name of its own",
            others.join(" and ")
        );
        problems.push(Problem::new(place, key.path, text));
    }
}

/// An empty table is more likely a mistake than the wish to run without a database.
fn refuse_empty_postgres(
    settings: &BTreeMap<&'static str, Setting>,
    file: &Layer,
    problems: &mut Vec<Problem>,
) {
    const URL: &str = "postgres.url";
    let unset = settings
        .get(URL)
        .is_some_and(|setting| setting.value.is_none());
    if let (true, Some(place)) = (unset, file.sections.get(POSTGRES)) {
        let text = format!(
            "is missing; set it, or leave the table [{POSTGRES}] out to run without a database"
        );
        problems.push(Problem::new(place, URL, text));
    }
}

/// Keys that mean nothing without another one.
const HALVES: &[(&str, &str)] = &[
    ("postgres.password", "postgres.url"),
    ("postgres.ca_file", "postgres.url"),
    ("http.certificate_file", "http.key_file"),
    ("http.key_file", "http.certificate_file"),
    ("http.ca_file", "http.certificate_file"),
];

fn refuse_halves(settings: &BTreeMap<&'static str, Setting>, problems: &mut Vec<Problem>) {
    let is_set = |path: &str| {
        // A key with a problem of its own was meant to be set.
        let setting = settings.get(path);
        setting.is_none_or(|setting| setting.value.is_some())
    };
    for (half, other) in HALVES {
        if let Some(setting) = settings.get(half)
            && setting.value.is_some()
            && !is_set(other)
        {
            let text = format!("needs {other}, which is not set");
            problems.push(Problem::new(&setting.place, half, text));
        }
    }
}

/// What the URL of the database says against the keys beside it.
fn refuse_contradictions(settings: &BTreeMap<&'static str, Setting>, problems: &mut Vec<Problem>) {
    let given = |path: &str| {
        let setting = settings.get(path)?;
        match &setting.value {
            Some(Value::Text(text)) => Some((text.as_str(), &setting.place)),
            _ => None,
        }
    };
    let Some((url, _)) = given("postgres.url") else {
        return;
    };
    if let Some((_, place)) = given("postgres.password")
        && postgres::has_password(url)
    {
        let text = "the URL holds a password too; give one";
        problems.push(Problem::new(place, "postgres.password", text));
    }
    if let Some((_, place)) = given("postgres.ca_file")
        && postgres::checks_nothing(url)
    {
        let text = "sslmode in the URL says that no certificate is checked; leave it out, or set verify-full";
        problems.push(Problem::new(place, "postgres.ca_file", text));
    }
}

impl Settings {
    pub fn of(&self, key: &Key) -> &Setting {
        &self.keys[key.path]
    }
}
