//! Log lines as JSON, one object to a line, with the fields of [`fields`](super::fields) only.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;
use crate::telemetry::fields::{self, Kind, OTHER};

pub(super) struct Lines {
    instance: Option<String>,
}

impl Lines {
    pub(super) fn new(instance: Option<&str>) -> Self {
        Self {
            instance: instance.map(str::to_owned),
        }
    }

    fn line(&self, level: &str, target: &str, found: Found) -> String {
        // The beginning is the same in every line, for whoever reads them with his eyes.
        let target = found.target.as_deref().unwrap_or(target);
        let message = found.message.as_str();
        let timestamp = timestamp();
        let begin = [
            ("timestamp", timestamp.as_str()),
            ("level", level),
            ("target", target),
            ("message", message),
        ];
        let instance = self.instance.as_deref().map(|name| ("instance", name));
        let mut line = String::from("{");
        for (name, text) in begin.into_iter().chain(instance) {
            push(&mut line, name, &Value::from(text));
        }
        for (name, value) in &found.fields {
            push(&mut line, name, value);
        }
        if !found.other.is_empty() {
            push(&mut line, OTHER, &Value::Object(found.other));
        }
        line.push('}');
        line
    }
}

fn push(line: &mut String, name: &str, value: &Value) {
    if line.len() > 1 {
        line.push(',');
    }
    line.push('"');
    line.push_str(name);
    line.push_str("\":");
    line.push_str(&value.to_string());
}

/// Of the wall clock.
fn timestamp() -> String {
    let now = Timestamp::from_microsecond(clock::wall_micros()).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{now:.6}")
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut found = Found::default();
        event.record(&mut found);
        let metadata = event.metadata();
        let line = self.line(metadata.level().as_str(), metadata.target(), found);
        writeln!(writer, "{line}")
    }
}

/// What an event carries.
#[derive(Default)]
struct Found {
    message: String,
    /// Of a record that came through the facade `log`.
    target: Option<String>,
    fields: BTreeMap<&'static str, Value>,
    other: Map<String, Value>,
}

impl Found {
    fn put(&mut self, field: &Field, kind: Kind, value: Value) {
        let name = field.name();
        match name {
            "message" => self.message = plain(&value),
            "log.target" => self.target = Some(plain(&value)),
            _ if name.starts_with("log.") => {}
            _ if fields::kind(name) == Some(kind) => {
                self.fields.insert(name, value);
            }
            _ => {
                self.other
                    .insert(name.to_owned(), Value::from(plain(&value)));
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Visit for Found {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Kind::Text, Value::from(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Kind::Text, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Kind::Integer, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Kind::Integer, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Kind::Flag, Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt;

    use super::Lines;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are logged meanwhile.
    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Lines::new(Some("settle-7")))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_listed_field_keeps_its_name_and_kind_and_all_else_is_other() {
        let lines = lines(|| {
            tracing::warn!(worker = 3_usize, offset = 7_i64, error = %"a \"b\"\nc", lost = true, "it {}", "broke");
            tracing::info!(worker = "three", colour = 5, "x");
        });
        let mut first = lines[0].clone();
        let time = first.as_object_mut().unwrap().remove("timestamp").unwrap();
        assert_eq!(
            time.as_str().unwrap().len(),
            "2025-05-26T14:23:51.123456Z".len()
        );
        let wanted = json!({
            "level": "WARN", "target": module_path!(), "message": "it broke", "instance": "settle-7",
            "worker": 3, "offset": 7, "error": "a \"b\"\nc", "lost": true,
        });
        assert_eq!(first, wanted);
        assert_eq!(lines[1]["other"], json!({"worker": "three", "colour": "5"}));
        assert_eq!(lines[1].get("worker"), None);
    }
}
