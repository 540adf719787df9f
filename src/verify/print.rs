//! The report, for people and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::verify::Report;
use crate::verify::promise::Promise;

impl Report {
    /// The report as text, with a line for each promise.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("memory takes every text");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{} source records in the committed topics",
            self.sources
        )?;
        for ((kind, reason), count) in &self.outcomes {
            writeln!(out, "  {:<38} {count:>12}", format!("{kind} {reason}"))?;
        }
        if self.under_way.bases > 0 {
            let what = "bases on their way";
            writeln!(out, "  {what:<38} {:>12}", self.under_way.bases)?;
        }
        writeln!(out)?;
        for promise in Promise::ALL {
            let finding = self.findings.of(promise);
            let result = match (finding.checked, finding.breaches) {
                (0, 0) => "not judged".to_owned(),
                (_, 0) => "holds".to_owned(),
                (_, breaches) => format!("BROKEN {breaches} times"),
            };
            let name = promise.to_string();
            let meaning = promise.meaning();
            writeln!(
                out,
                "{name:<14} {meaning:<66} {:>12}  {result}",
                finding.checked
            )?;
            for example in &finding.examples {
                writeln!(out, "    {example}")?;
            }
            for (reason, count) in &finding.unjudged {
                writeln!(out, "    not judged, {count} times: {reason}")?;
            }
        }
        if !self.with_database {
            writeln!(out, "no [postgres] is configured: the tables were not read")?;
        }
        Ok(())
    }

    pub fn json(&self) -> Value {
        let promises: Vec<Value> = Promise::ALL
            .into_iter()
            .map(|promise| {
                let finding = self.findings.of(promise);
                json!({
                    "promise": promise.number(),
                    "name": promise.name(),
                    "checked": finding.checked,
                    "breaches": finding.breaches,
                    "examples": finding.examples,
                    "notJudged": finding.unjudged,
                })
            })
            .collect();
        let outcomes: Vec<Value> = self
            .outcomes
            .iter()
            .map(|((kind, reason), count)| json!({"kind": kind, "reason": reason, "count": count}))
            .collect();
        let positions: Vec<Value> = self
            .positions
            .iter()
            .map(|(partition, (before, after))| {
                json!({"partition": partition, "judgedBelow": before, "noneFrom": after})
            })
            .collect();
        json!({
            "holds": self.findings.hold(),
            "sourceRecords": self.sources,
            "outcomes": outcomes,
            "basesOnTheirWay": self.under_way.bases,
            "positions": positions,
            "promises": promises,
            "database": self.with_database,
        })
    }
}
