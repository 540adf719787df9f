//! Where values come from: the TOML file and the environment, each read into a layer of raw values with their places.
//! Both refuse what the registry does not know.

use std::collections::BTreeMap;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, PROPERTIES, VARIABLE_PREFIX};
use super::problem::{Place, Problem};
use super::value::Raw;

#[derive(Clone, Debug)]
pub struct Entry {
    pub raw: Raw,
    pub place: Place,
}

/// Everything one source says.
#[derive(Debug, Default)]
pub struct Layer {
    /// By the path of the key, or of the secret's twin.
    pub keys: BTreeMap<String, Entry>,
    /// By the name of the property.
    pub properties: BTreeMap<String, Entry>,
    /// Sections that were opened, so that an empty one is seen.
    pub sections: BTreeMap<String, Place>,
}

/// Reads the text of a file; `file` is its name in messages.
pub fn from_file(file: &str, text: &str, problems: &mut Vec<Problem>) -> Layer {
    let mut reader = FileReader {
        file,
        text,
        layer: Layer::default(),
        problems,
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    reader.table("", document.get_ref());
    for error in errors {
        let place = reader.place(error.span().map_or(0, |span| span.start));
        reader.problems.push(Problem::new(
            &place,
            "",
            error.message().replace('\n', ", "),
        ));
    }
    reader.layer
}

struct FileReader<'a> {
    file: &'a str,
    text: &'a str,
    layer: Layer,
    problems: &'a mut Vec<Problem>,
}

impl FileReader<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = 1 + before.split(|byte| *byte == b'\n').count() - 1;
        Place::File {
            file: self.file.to_owned(),
            line,
        }
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let place = self.place(key.span().start);
            let path = joined(prefix, key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) if path == PROPERTIES => self.properties("", inner),
                DeValue::Table(inner) if keys::is_section(&path) => {
                    self.layer.sections.insert(path.clone(), place);
                    self.table(&path, inner);
                }
                _ if keys::is_section(&path) => {
                    let text = format!("is a table, write [{path}] on a line of its own");
                    self.problems.push(Problem::new(&place, &path, text));
                }
                value if keys::known(&path).is_some() => {
                    self.layer.keys.insert(
                        path,
                        Entry {
                            raw: raw(value),
                            place,
                        },
                    );
                }
                _ => {
                    let text = unknown("unknown key", keys::suggest(&path));
                    self.problems.push(Problem::new(&place, &path, text));
                }
            }
        }
    }

    /// Dots in unquoted names make tables of tables: `sasl.password = ".."` is the property all the same.
    fn properties(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = joined(prefix, key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.properties(&name, inner),
                value => {
                    let entry = Entry {
                        raw: raw(value),
                        place: self.place(key.span().start),
                    };
                    self.layer.properties.insert(name, entry);
                }
            }
        }
    }
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => {
            Raw::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Array(items) => Raw::List(items.iter().map(Spanned::get_ref).map(raw).collect()),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date or time"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// Reads the variables that begin with `SETTLE_`; all others are none of our business.
pub fn from_environment(
    environment: impl Iterator<Item = (String, String)>,
    problems: &mut Vec<Problem>,
) -> Layer {
    let mut layer = Layer::default();
    let properties = format!("{}__", keys::variable(PROPERTIES));
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else {
            continue;
        };
        let entry = Entry {
            raw: Raw::Untyped(value),
            place: Place::Variable(name.clone()),
        };
        let path = rest.replace("__", ".").to_ascii_lowercase();
        if let Some(property) = name.strip_prefix(&properties) {
            layer
                .properties
                .insert(property_of_variable(property), entry);
        } else if keys::known(&path).is_some() && keys::variable(&path) == name {
            layer.keys.insert(path, entry);
        } else if !is_service_link(rest) {
            let text = unknown("unknown variable", keys::suggest_variable(&name));
            problems.push(Problem::new(&entry.place, "", text));
        }
    }
    layer
}

/// `SASL_PASSWORD` is `sasl.password`, `SASL_PASSWORD_FILE` its twin.
fn property_of_variable(rest: &str) -> String {
    let name = rest.to_ascii_lowercase().replace('_', ".");
    match name.strip_suffix(".file") {
        Some(twin) if super::properties::secret(twin) => format!("{twin}_file"),
        _ => name,
    }
}

/// Kubernetes gives every container the addresses of the services around it, also of one that is called `settle`:
/// `SETTLE_SERVICE_HOST`, `SETTLE_PORT`, `SETTLE_HTTP_PORT_8080_TCP_ADDR`.
fn is_service_link(rest: &str) -> bool {
    let of_service = rest.ends_with("SERVICE_HOST") || rest.contains("SERVICE_PORT");
    let of_port = rest.split('_').any(|word| word == "PORT")
        && (rest.ends_with("PORT") || rest.contains("_TCP") || rest.contains("_UDP"));
    !rest.contains("__") && (of_service || of_port)
}

fn unknown(what: &str, suggestion: Option<String>) -> String {
    match suggestion {
        Some(suggestion) => format!("{what}; did you mean {suggestion}?"),
        None => format!("{what}; `settle config default` prints all there are"),
    }
}

#[cfg(test)]
mod tests {
    use super::{from_environment, from_file, is_service_link, property_of_variable};

    fn problems_of_file(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        from_file("settle.toml", text, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    fn problems_of_variable(name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        from_environment(
            [(name.to_owned(), "1".to_owned())].into_iter(),
            &mut problems,
        );
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_keys_and_tables_are_named_with_their_line() {
        let problems =
            problems_of_file("[pipeline]\nworkers = 1\ncomit_interval = \"1s\"\n[kafak]\nx = 1\n");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.contains(
            &"settle.toml:3: pipeline.comit_interval: unknown key; did you mean pipeline.commit_interval?".to_owned()
        ));
        assert!(
            problems.contains(&"settle.toml:4: kafak: unknown key; did you mean kafka?".to_owned())
        );
    }

    #[test]
    fn broken_toml_is_reported_with_its_line() {
        let problems = problems_of_file("[pipeline]\nworkers = \n");
        assert!(problems[0].starts_with("settle.toml:2: "), "{problems:?}");
    }

    #[test]
    fn a_section_must_be_a_table() {
        let problems = problems_of_file("kafka = \"127.0.0.1:9092\"\n");
        assert_eq!(
            problems,
            ["settle.toml:1: kafka: is a table, write [kafka] on a line of its own"]
        );
    }

    #[test]
    fn properties_may_be_quoted_or_not() {
        let text = "[kafka.properties]\nsasl.username = \"a\"\n\"sasl.password\" = \"b\"\n";
        let layer = from_file("settle.toml", text, &mut Vec::new());
        assert_eq!(
            layer.properties.keys().collect::<Vec<_>>(),
            ["sasl.password", "sasl.username"]
        );
    }

    #[test]
    fn an_unknown_variable_is_an_error_unless_kubernetes_set_it() {
        assert_eq!(
            problems_of_variable("SETTLE_PIPELINE_WORKERS"),
            ["SETTLE_PIPELINE_WORKERS: unknown variable; did you mean SETTLE_PIPELINE__WORKERS?"]
        );
        assert_eq!(problems_of_variable("SETTLE_pipeline__workers").len(), 1);
        assert_eq!(problems_of_variable("PATH"), [""; 0]);
        for link in [
            "SERVICE_HOST",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_8080_TCP",
            "PORT_8080_TCP_ADDR",
            "HTTP_PORT",
        ] {
            assert!(is_service_link(link), "{link}");
        }
        assert!(!is_service_link("HTTP__PORT") && !is_service_link("REPORT"));
    }

    #[test]
    fn a_variable_names_a_property_with_underscores_for_dots() {
        assert_eq!(
            property_of_variable("SECURITY_PROTOCOL"),
            "security.protocol"
        );
        assert_eq!(
            property_of_variable("SASL_PASSWORD_FILE"),
            "sasl.password_file"
        );
    }
}
