//! The independent proof: reads the raw source, every committed output, the database and HTTP, computes again from the
//! raw input what must have come out, and says of each promise whether it holds.

pub mod answers;
pub mod database;
pub mod ledger;
pub mod promise;
pub mod settled;
pub mod tables;

mod close;
mod outputs;
mod source;

#[cfg(test)]
mod corruption;
#[cfg(test)]
mod corruption_outside;
#[cfg(test)]
mod real;
#[cfg(test)]
mod reference;

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::model::outgoing::Totals;
use crate::model::{Contract, Record, Rule};
use crate::oracle::database::Database;
use crate::oracle::ledger::{Kind, Ledger, Shape};
use crate::oracle::promise::{Findings, Promise};
use crate::oracle::settled::{Run, Watch};
use crate::topics_reader;

/// Key of such a record.
pub(crate) const TOUCH_KEY: &[u8] = b"@touch";

/// What the proof says of a run.
#[derive(Debug, Clone)]
pub struct Proof {
    pub findings: Findings,
    /// Source records.
    pub sources: u64,
    /// Outcomes by kind and reason; of settlements the basis.
    pub tally: BTreeMap<(Kind, String), u64>,
    /// The statistics with the largest counts.
    pub largest: Vec<(String, Totals)>,
}

/// Proves a run that has come to rest; `service` is what the rule service answers for a rule key.
pub fn prove(
    run: &Run,
    contract: &Contract,
    service: &dyn Fn(&str) -> Option<Rule>,
) -> Result<Proof> {
    let names = &run.names;
    let consumer = topics_reader::committed_consumer(&run.bootstrap, "none")?;
    let count = |topic: &str| topics_reader::partitions(&consumer, topic);
    let shape = Shape {
        keyed: count(&names.settlements)?,
        exclusions: count(&names.exclusions)?,
        dead_letters: count(&names.dead_letter)?,
    };
    let mut ledger = Ledger::new(contract, shape, service);
    if run.postgres.is_some() {
        ledger = ledger.with_tables();
    }
    let bootstrap = run.bootstrap.as_str();
    each(bootstrap, &names.rules, &mut ledger, Ledger::rule)?;
    each(
        bootstrap,
        &names.settlements,
        &mut ledger,
        Ledger::settlement,
    )?;
    each(bootstrap, &names.exclusions, &mut ledger, Ledger::exclusion)?;
    each(
        bootstrap,
        &names.dead_letter,
        &mut ledger,
        Ledger::dead_letter,
    )?;
    each(
        bootstrap,
        &names.statistics,
        &mut ledger,
        Ledger::statistics,
    )?;
    each(bootstrap, &names.bases, &mut ledger, Ledger::base)?;
    each(bootstrap, &names.changelog, &mut ledger, Ledger::changelog)?;
    topics_reader::read(bootstrap, &names.source, |record| ledger.payment(record))?;
    if let Some(url) = &run.postgres {
        Database::connect(url)?
            .feed(&mut ledger)
            .context("compare the tables")?;
    }
    if !run.instances.is_empty() {
        answers::feed(&run.instances, &mut ledger).context("ask the instances")?;
    }
    ledger.close();
    let behind = Watch::new(run)?.behind()?;
    ledger
        .findings()
        .check(Promise::AtRest, behind.group == 0, || {
            format!(
                "the group {} has {} offsets to commit",
                names.application_id, behind.group
            )
        });
    if run.postgres.is_some() {
        ledger
            .findings()
            .check(Promise::Tables, behind.database == 0, || {
                format!(
                    "sink_position is {} offsets behind the topics",
                    behind.database
                )
            });
    }
    Ok(Proof {
        sources: ledger.sources(),
        tally: ledger.tally(),
        largest: ledger.largest(10),
        findings: ledger.findings().clone(),
    })
}

/// Reads a topic that the service writes. What stands where it ended a transaction again, whose
/// markers a broker had lost, says nothing.
fn each<'a>(
    bootstrap: &str,
    topic: &str,
    ledger: &mut Ledger<'a>,
    feed: impl Fn(&mut Ledger<'a>, &Record),
) -> Result<()> {
    topics_reader::read(bootstrap, topic, |record| {
        let says_nothing = record.key == Some(TOUCH_KEY) && record.value.is_none();
        if !says_nothing {
            feed(ledger, record);
        }
    })?;
    Ok(())
}
