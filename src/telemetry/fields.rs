//! The fields of a log line: the one list of them. `docs/logs.md` shows it.

/// What a field holds, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Flag,
    /// Of texts.
    Object,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Flag => "true or false",
            Self::Object => "object of texts",
        }
    }
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub doc: &'static str,
}

const fn text(name: &'static str, doc: &'static str) -> Field {
    let kind = Kind::Text;
    Field { name, kind, doc }
}

const fn integer(name: &'static str, doc: &'static str) -> Field {
    let kind = Kind::Integer;
    Field { name, kind, doc }
}

const fn flag(name: &'static str, doc: &'static str) -> Field {
    let kind = Kind::Flag;
    Field { name, kind, doc }
}

/// Of what a library logs under names that are not in this list.
pub const OTHER: &str = "other";

/// The first four are in every line, `instance` in every line of a running service.
pub static FIELDS: &[Field] = &[
    text("timestamp", "UTC, RFC 3339, with microseconds."),
    text(
        "level",
        "`ERROR` somebody must act, `WARN` it heals by itself or says that it does not, `INFO` a change of state, `DEBUG`, `TRACE`.",
    ),
    text(
        "target",
        "The part of the program. `settle::kafka` is the client library of Kafka.",
    ),
    text(
        "message",
        "What happened. The same text for the same event; what differs stands in the other fields.",
    ),
    text("instance", "`kafka.instance_id`."),
    integer("worker", "Number of the worker thread, from 0."),
    text("topic", "A topic."),
    text("topics", "Several topics."),
    integer("partition", "Partition of `topic`, or of the source topic."),
    text("partitions", "Several partitions, each with its topic."),
    integer("offset", "Offset of the record that is meant."),
    integer("from", "First offset of a range."),
    integer("to", "Offset behind a range."),
    integer("start", "Offset at which a task goes on."),
    integer(
        "behind",
        "Records that a transaction keeps back that has not ended.",
    ),
    integer("recorded", "Position that was committed with the outputs."),
    integer(
        "committed_offset",
        "Offset of the consumer group, where it differs from `recorded`.",
    ),
    integer(
        "believed",
        "Position that the sink had left in the database.",
    ),
    integer("found", "Position that it found there instead."),
    text("error", "What went wrong, in one line."),
    text("reason", "Why, where it is no error of a call."),
    text(
        "kind",
        "Kind of failure of the rule service, as the metric of its calls has it.",
    ),
    text("key", "Rule key that is asked for."),
    text("attempt", "What was being done."),
    text(
        "transaction",
        "A transaction, by the mark that its records carry.",
    ),
    flag("committed", "Whether that transaction was committed."),
    text("transactional_id", "Transactional id of a producer."),
    text("group", "Consumer group."),
    flag(
        "lost",
        "Partitions were taken away without being asked back.",
    ),
    text("facility", "Part of the client library of Kafka."),
    text("file", "A file."),
    text("aside", "Where that file was moved."),
    text("address", "Address that is listened on."),
    text("filter", "What lines are logged, as in `log.filter`."),
    text("missing", "Tables that are gone."),
    integer("refused", "Bodies that the database did not take as JSON."),
    integer("version", "Version of the database schema."),
    integer("exit", "Exit code."),
    integer(
        "suppressed",
        "Lines that were left out since the last one of this kind.",
    ),
    text("repeated", "The line that was left out."),
    Field {
        name: OTHER,
        kind: Kind::Object,
        doc: "What a library logs under names of its own. Lines whose `target` begins with `settle` have none.",
    },
];

/// The kind of a field; `None` when it is not listed.
pub fn kind(name: &str) -> Option<Kind> {
    let field = FIELDS.iter().find(|field| field.name == name);
    field.map(|field| field.kind)
}

/// The list as a table in Markdown.
pub fn table() -> String {
    let head = "| field | holds | meaning |\n| --- | --- | --- |\n".to_owned();
    let row = |field: &Field| {
        format!(
            "| `{}` | {} | {} |\n",
            field.name,
            field.kind.name(),
            field.doc
        )
    };
    head + &FIELDS.iter().map(row).collect::<String>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{FIELDS, table};

    #[test]
    fn the_documentation_shows_the_list() {
        let page = include_str!("../../docs/logs.md");
        assert!(page.contains(&table()), "docs/logs.md wants:\n{}", table());
        let names: BTreeSet<_> = FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(names.len(), FIELDS.len());
    }
}
