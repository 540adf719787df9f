//! Log lines hold what the documentation lists.

use std::collections::BTreeSet;
use std::fs;

use chaos::cluster::instance::Instance;
use serde_json::Value;
use settle::telemetry::fields::{self, Kind, OTHER};

/// Every line that an instance has logged is JSON with documented fields, each of its kind.
pub fn are_as_documented(instance: &Instance) {
    let text = fs::read_to_string(instance.log()).unwrap();
    let mut levels = BTreeSet::new();
    for line in text.lines() {
        let fields: serde_json::Map<String, Value> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for (name, value) in &fields {
            let kind = fields::kind(name);
            let fits = match kind.unwrap_or_else(|| panic!("{name} is not documented: {line}")) {
                Kind::Text => value.is_string(),
                Kind::Integer => value.is_i64() || value.is_u64(),
                Kind::Flag => value.is_boolean(),
                Kind::Object => value
                    .as_object()
                    .is_some_and(|object| object.values().all(Value::is_string)),
            };
            assert!(fits, "{name} is no {kind:?}: {line}");
        }
        let begin: Vec<_> = ["timestamp", "level", "target", "message", "instance"]
            .into_iter()
            .collect();
        assert!(
            begin.iter().all(|name| fields.contains_key(*name)),
            "{line}"
        );
        let own = fields["target"].as_str().unwrap().starts_with("settle");
        assert!(
            !(own && fields.contains_key(OTHER)),
            "fields that are not documented: {line}"
        );
        levels.insert(fields["level"].as_str().unwrap().to_owned());
    }
    assert!(
        levels.contains("INFO") && levels.contains("WARN"),
        "{levels:?}"
    );
}
