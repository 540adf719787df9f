//! `settle status`: every instance of the group, what it owns, and what it lacks.
//!
//! The group's description names the instances and what each owns; the instances say the rest
//! themselves over HTTP. What one of them does not say stays empty, and the table names it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::broker::client::Settings;
use crate::broker::group::{Client, Group};
use crate::broker::{Names, Topic, classify};
use crate::config::Config;
use crate::config::secret::Secret;
use crate::exit::Exit;
use crate::http::ask::{Asker, Told};
use crate::inspect::table::{Table, or_dash};

/// Looks as often as wanted.
pub struct Watcher {
    asker: Asker,
    /// `None` asks one instance and not the broker.
    group: Option<Client>,
    names: Names,
    /// Asked whatever the group says: this configuration's instance, or the one that was named.
    address: String,
}

/// What was seen at one moment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// `healthy`, `not ready` or `no answer`.
    pub state: &'static str,
    /// `null` when one instance was asked, or when Kafka does not answer.
    pub group: Option<GroupState>,
    /// Why the group is not known.
    pub kafka_problem: Option<String>,
    pub instances: Vec<Instance>,
    pub partitions: Vec<Owned>,
    /// `topic/partition`.
    pub without_owner: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct GroupState {
    pub name: String,
    /// As Kafka calls it.
    pub state: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// `null` when it does not say and is no member of the group.
    pub instance: Option<String>,
    pub address: String,
    pub version: Option<String>,
    pub answers: bool,
    pub ready: bool,
    /// Required checks that fail, or why there is no answer.
    pub why_not: Vec<String>,
    /// What it says of each dependency.
    pub dependencies: BTreeMap<&'static str, Dependency>,
    /// The last trouble of each part; it may be over.
    pub last_problems: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Dependency {
    pub ok: bool,
    pub detail: String,
}

/// A consumed partition with its owner.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owned {
    pub topic: String,
    pub partition: i32,
    pub owner: Option<String>,
    pub phase: Option<String>,
    pub position: Option<i64>,
    pub lag: Option<i64>,
    /// Records that a restore has still to read.
    pub restore_remaining: Option<i64>,
}

/// What owners say of a task: instance, phase, position, lag, remaining.
type Tasks = BTreeMap<(Topic, i32), (String, Value)>;

impl Watcher {
    /// `instance` is the address of the one instance to ask, instead of all of the group.
    pub fn new(config: &Config, instance: Option<&str>) -> Result<Self, classify::Error> {
        let failed = |error: std::io::Error| {
            let stop = classify::Reaction::Stop(classify::Stop::Failed);
            classify::Error::new("create the HTTP client (http.token)", error, stop)
        };
        let settings = Settings::new(config);
        let token = config.http.token.as_ref().map(Secret::expose);
        let group = match instance {
            Some(_) => None,
            None => Some(Client::new(&settings)?),
        };
        Ok(Self {
            asker: Asker::new(token).map_err(failed)?,
            group,
            names: settings.topics,
            address: instance.unwrap_or(&config.http.advertise).to_owned(),
        })
    }

    pub fn look(&self) -> Seen {
        let (group, kafka_problem) = match self.group.as_ref().map(Client::describe) {
            None => (None, None),
            Some(Ok(group)) => (Some(group), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        let members = group.iter().flat_map(|group| &group.members);
        let mut known: BTreeMap<&str, Option<&str>> =
            BTreeMap::from([(self.address.as_str(), None)]);
        known.extend(
            members.map(|member| (member.address.as_str(), Some(member.instance.as_str()))),
        );
        let addresses: Vec<&str> = known.keys().copied().collect();
        let told = self.asker.ask(&addresses);
        let mut tasks = Tasks::new();
        let mut instances = Vec::new();
        for ((address, name), told) in known.into_iter().zip(told) {
            let instance = Instance::new(address, name, &told);
            let of = instance
                .instance
                .clone()
                .unwrap_or_else(|| address.to_owned());
            collect(&mut tasks, &of, told.status.as_ref().ok());
            instances.push(instance);
        }
        instances.sort_by(|a, b| (&a.instance, &a.address).cmp(&(&b.instance, &b.address)));
        let partitions = self.partitions(group.as_ref(), &tasks);
        let without_owner: Vec<String> = partitions
            .iter()
            .filter(|owned| owned.owner.is_none())
            .map(|owned| format!("{}/{}", owned.topic, owned.partition))
            .collect();
        let all = |is: fn(&Instance) -> bool| instances.iter().all(is);
        let state = if kafka_problem.is_some() || !all(|instance| instance.answers) {
            "no answer"
        } else if !without_owner.is_empty() || !all(|instance| instance.ready) {
            "not ready"
        } else {
            "healthy"
        };
        Seen {
            state,
            group: group.map(|Group { name, state, .. }| GroupState { name, state }),
            kafka_problem,
            instances,
            partitions,
            without_owner,
        }
    }

    /// By the group's description, or by what the asked instances say where there is none.
    fn partitions(&self, group: Option<&Group>, tasks: &Tasks) -> Vec<Owned> {
        let mut owners: BTreeMap<(Topic, i32), Option<String>> = BTreeMap::new();
        if let Some(group) = group {
            let all = group.partitions.iter();
            owners.extend(all.map(|partition| ((partition.topic, partition.number), None)));
            for member in &group.members {
                let of = member.partitions.iter();
                let owner = Some(member.instance.clone());
                owners.extend(
                    of.map(|partition| ((partition.topic, partition.number), owner.clone())),
                );
            }
        } else {
            owners.extend(
                tasks
                    .iter()
                    .map(|(place, (owner, _))| (*place, Some(owner.clone()))),
            );
        }
        let owned = owners.into_iter().map(|((topic, number), owner)| {
            let task = tasks.get(&(topic, number)).map(|(_, task)| task);
            let field = |name: &str| task.and_then(|task| task[name].as_i64());
            Owned {
                topic: self.names.of(topic).to_owned(),
                partition: number,
                owner,
                phase: task.and_then(|task| Some(task["phase"].as_str()?.to_owned())),
                position: field("position"),
                lag: field("lag"),
                restore_remaining: field("remaining"),
            }
        });
        owned.collect()
    }
}

fn collect(tasks: &mut Tasks, instance: &str, status: Option<&Value>) {
    let partitions = status.and_then(|status| status["partitions"].as_array());
    for task in partitions.into_iter().flatten() {
        let topic = match task["kind"].as_str() {
            Some("ingest") => Topic::Source,
            _ => Topic::Bases,
        };
        let number = task["partition"].as_i64();
        if let Some(number) = number.and_then(|number| i32::try_from(number).ok()) {
            tasks.insert((topic, number), (instance.to_owned(), task.clone()));
        }
    }
}

impl Instance {
    fn new(address: &str, name: Option<&str>, told: &Told) -> Self {
        let status = told.status.as_ref().ok();
        let text = |field: &str| Some(status?[field].as_str()?.to_owned());
        let (ready, why_not) = match &told.ready {
            Err(problem) if name.is_none() => (
                false,
                vec![format!(
                    "{problem} (this instance is no member of the group)"
                )],
            ),
            Err(problem) => (false, vec![problem.clone()]),
            Ok(body) => (body["ready"] == true, failing(&body["checks"])),
        };
        let mut last_problems = told
            .ready
            .is_ok()
            .then(|| told.status.as_ref().err().cloned())
            .flatten()
            .into_iter()
            .collect::<Vec<_>>();
        last_problems.extend(status.map(problems).unwrap_or_default());
        Self {
            instance: text("instance").or_else(|| name.map(str::to_owned)),
            address: address.to_owned(),
            version: text("version"),
            answers: told.ready.is_ok(),
            ready,
            why_not,
            dependencies: dependencies(told),
            last_problems,
        }
    }
}

/// The required checks that do not hold.
fn failing(checks: &Value) -> Vec<String> {
    let checks = checks.as_object().into_iter().flatten();
    let failing = checks.filter(|(_, check)| check["required"] == true && check["ok"] == false);
    let text = |(name, check): (&String, &Value)| {
        format!("{name}: {}", check["detail"].as_str().unwrap_or_default())
    };
    failing.map(text).collect()
}

fn dependencies(told: &Told) -> BTreeMap<&'static str, Dependency> {
    let named = [
        ("Kafka", "connected"),
        ("rule service", "rules"),
        ("PostgreSQL", "sink"),
    ];
    let checks = told
        .ready
        .as_ref()
        .map_or(&Value::Null, |body| &body["checks"]);
    let of = |(name, check): (&'static str, &str)| {
        let check = checks.get(check)?;
        let ok = check["ok"] == true;
        // A check that holds keeps the last trouble as its detail.
        let detail = check["detail"].as_str().filter(|_| !ok).unwrap_or_default();
        let mut detail = detail.to_owned();
        if name == "PostgreSQL"
            && let Some(lag) = sink_lag(told)
        {
            let comma = if detail.is_empty() { "" } else { "; " };
            write!(detail, "{comma}{lag} records behind").expect("memory takes every text");
        }
        Some((name, Dependency { ok, detail }))
    };
    named.into_iter().filter_map(of).collect()
}

/// Records that are not in the database yet, of the partitions that this instance writes there.
fn sink_lag(told: &Told) -> Option<i64> {
    let lag = told.status.as_ref().ok()?["sink"]["lag"].as_array()?.iter();
    Some(lag.filter_map(|entry| entry["lag"].as_i64()).sum())
}

fn problems(status: &Value) -> Vec<String> {
    let workers = status["workers"].as_array().into_iter().flatten();
    let workers = workers
        .enumerate()
        .map(|(number, worker)| (format!("worker {number}"), worker));
    let parts = [("PostgreSQL", "sink"), ("rule service", "rules")];
    let parts = parts.map(|(name, part)| (name.to_owned(), &status[part]));
    let all = workers.chain(parts);
    all.filter_map(|(name, part)| Some(format!("{name}: {}", part["lastProblem"].as_str()?)))
        .collect()
}

impl Seen {
    pub fn exit(&self) -> Exit {
        match self.state {
            "healthy" => Exit::Clean,
            "not ready" => Exit::Failed,
            _ => Exit::Unavailable,
        }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let names: BTreeSet<_> = self.instances.iter().map(|of| &of.address).collect();
        let group = match (&self.group, &self.kafka_problem) {
            (Some(group), _) => format!("group {} is {}, ", group.name, group.state),
            (None, Some(problem)) => format!("Kafka does not answer ({problem}), "),
            (None, None) => String::new(),
        };
        let count = names.len();
        let plural = if count == 1 { "" } else { "s" };
        let _ = writeln!(
            out,
            "{}: {group}{count} instance{plural} asked\n",
            self.state
        );
        self.write_instances(&mut out);
        self.write_partitions(&mut out);
        out
    }

    fn write_instances(&self, out: &mut String) {
        let mut table = Table::new(["INSTANCE", "ADDRESS", "VERSION", "READY", "WHY NOT"]);
        let mut dependencies = Table::new(["DEPENDENCY", "OF", "STATE", "DETAIL"]);
        let mut problems = Table::new(["LAST PROBLEM OF", ""]);
        for of in &self.instances {
            let name = or_dash(of.instance.as_ref());
            let ready = match (of.answers, of.ready) {
                (false, _) => "no answer",
                (true, true) => "yes",
                (true, false) => "no",
            };
            table.row([
                name.clone(),
                of.address.clone(),
                or_dash(of.version.as_ref()),
                ready.to_owned(),
                of.why_not.join("; "),
            ]);
            for (dependency, state) in &of.dependencies {
                let ok = if state.ok { "ok" } else { "FAILS" };
                dependencies.row([
                    (*dependency).to_owned(),
                    name.clone(),
                    ok.to_owned(),
                    state.detail.clone(),
                ]);
            }
            for problem in &of.last_problems {
                problems.row([name.clone(), problem.clone()]);
            }
        }
        out.push_str(&table.text());
        if !dependencies.is_empty() {
            out.push('\n');
            out.push_str(&dependencies.text());
        }
        if !problems.is_empty() {
            out.push('\n');
            out.push_str(&problems.text());
        }
    }

    fn write_partitions(&self, out: &mut String) {
        let mut table = Table::new([
            "PARTITION",
            "OWNER",
            "PHASE",
            "POSITION",
            "LAG",
            "LEFT TO RESTORE",
        ]);
        for owned in &self.partitions {
            table.row([
                format!("{}/{}", owned.topic, owned.partition),
                owned.owner.clone().unwrap_or_else(|| "NOBODY".to_owned()),
                or_dash(owned.phase.as_ref()),
                or_dash(owned.position),
                or_dash(owned.lag),
                or_dash(owned.restore_remaining),
            ]);
        }
        if !table.is_empty() {
            out.push('\n');
            out.push_str(&table.text());
        }
        if !self.without_owner.is_empty() {
            let _ = writeln!(out, "\nwithout owner: {}", self.without_owner.join(", "));
        }
    }
}
