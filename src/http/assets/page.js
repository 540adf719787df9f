// Asks this instance for its numbers and shows them. Nothing is ever changed by it, and no text that
// comes from outside is taken for markup.
"use strict";

const PAUSE = 2000; // milliseconds between two questions
const PATIENCE = 5000; // milliseconds for one answer
const WINDOW = 10000; // milliseconds that rates are taken over
const TOKEN = "settle-token";
const NONE = "–";

const at = (id) => document.getElementById(id);
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

// --- words and numbers -----------------------------------------------------------------------

const grouped = (number) => String(number).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");

function amount(number) {
  return Number.isFinite(number) ? grouped(Math.round(number)) : NONE;
}

function rate(number) {
  if (!Number.isFinite(number)) return NONE;
  return number > 0 && number < 10 ? number.toFixed(1) : amount(number);
}

function time(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  if (seconds < 1) return "< 1 s";
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

// --- elements --------------------------------------------------------------------------------

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const cell = (text, attributes) => element("td", text, attributes);
const head = (text) => element("th", text, { scope: "row" });
const number = (value) => cell(amount(value), { class: "number", "data-value": value });

function mark(state, text) {
  const made = cell("");
  made.append(element("span", text, { class: "mark", "data-state": state }));
  return made;
}

function link(address) {
  const made = cell("");
  made.append(element("a", address, { href: `http://${address}/`, rel: "noreferrer" }));
  return made;
}

function fill(table, rows, empty) {
  const made = rows.map((cells) => {
    const row = element("tr", "");
    row.append(...cells);
    return row;
  });
  if (made.length === 0) {
    const row = element("tr", "");
    const columns = at(table).tHead.rows[0].cells.length;
    row.append(cell(empty, { colspan: columns, class: "quiet" }));
    made.push(row);
  }
  at(table).tBodies[0].replaceChildren(...made);
}

function show(name, value, text) {
  for (const place of document.querySelectorAll(`[data-show="${name}"]`)) {
    place.textContent = text;
    place.dataset.value = value;
  }
}

// --- metrics ---------------------------------------------------------------------------------

// Text of Prometheus → [{name, labels, value}].
function parse(text) {
  const series = [];
  for (const line of text.split("\n")) {
    const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    series.push({ name: found[1], labels, value: Number(found[3]) });
  }
  return series;
}

const of = (series, name, labels = {}) =>
  series.filter((one) => one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value));

const total = (series, name, labels) => sum(of(series, name, labels).map((one) => one.value));

const COUNTERS = {
  consumed: ["settle_consumed_records_total", { kind: "ingest" }],
  bases: ["settle_bases_total"],
  taken: ["settle_consumed_records_total", { kind: "settle" }],
  settlements: ["settle_records_total", { outcome: "settlement" }],
  exclusions: ["settle_records_total", { outcome: "exclusion" }],
  letters: ["settle_records_total", { outcome: "dead_letter" }],
  calls: ["settle_rule_calls_total"],
  rows: ["settle_sink_rows_total"],
};

let samples = []; // [{when, counts}], the oldest first
let opened = null; // outcomes when the page was opened

function showRates(series) {
  const now = performance.now();
  const counts = {};
  for (const [name, [metric, labels]] of Object.entries(COUNTERS)) counts[name] = total(series, metric, labels);
  // A counter that goes back is another process.
  const last = samples.at(-1);
  if (last && Object.keys(counts).some((name) => counts[name] < last.counts[name])) {
    samples = [];
    opened = null;
  }
  samples.push({ when: now, counts });
  while (samples.length > 2 && samples[1].when < now - WINDOW) samples.shift();
  const first = samples[0];
  for (const place of document.querySelectorAll("[data-rate]")) {
    const name = place.dataset.rate;
    const taken = now - first.when;
    place.textContent = rate(taken > 0 ? ((counts[name] - first.counts[name]) * 1000) / taken : NaN);
    place.dataset.value = counts[name];
  }
}

const OUTCOMES = [
  ["settlement", "Settlements"],
  ["exclusion", "Exclusions"],
  ["dead_letter", "Dead letters"],
];

function showOutcomes(series) {
  const counts = new Map();
  for (const one of of(series, "settle_records_total")) {
    counts.set(`${one.labels.outcome}/${one.labels.reason ?? ""}`, one.value);
  }
  opened ??= counts;
  const since = (key) => counts.get(key) - (opened.get(key) ?? 0);
  const rows = [];
  for (const [outcome, title] of OUTCOMES) {
    const keys = [...counts.keys()].filter((key) => key.startsWith(`${outcome}/`)).sort();
    rows.push([head(title), number(sum(keys.map((key) => counts.get(key)))), number(sum(keys.map(since)))]);
    for (const key of keys.filter((one) => one !== `${outcome}/` && counts.get(one) > 0)) {
      rows.push([head(key.split("/")[1]), number(counts.get(key)), number(since(key))]);
    }
  }
  fill("outcomes", rows, "None yet");
  for (const row of at("outcomes").tBodies[0].rows) {
    const title = row.cells[0].textContent;
    row.classList.toggle("part", !OUTCOMES.some(([, known]) => known === title));
    row.dataset.outcome = title;
  }
}

function showTiles(series) {
  const lag = total(series, "settle_lag_records", { kind: "ingest" }) + total(series, "settle_lag_records", { kind: "settle" });
  show("lag", lag, amount(lag));
  const waiting = total(series, "settle_waiting_records");
  show("waiting", waiting, amount(waiting));
  const ages = of(series, "settle_oldest_unsettled_seconds").map((one) => one.value);
  const oldest = ages.length > 0 ? Math.max(...ages) : NaN;
  show("oldest", oldest, oldest === 0 ? NONE : time(oldest));
}

// --- status ----------------------------------------------------------------------------------

function state(kind, text, reasons) {
  const place = at("state");
  // Only a change is read out.
  if (place.textContent !== text) place.textContent = text;
  place.dataset.state = kind;
  if (at("reasons").textContent !== reasons) at("reasons").textContent = reasons;
}

const CHECKS = [
  ["connected", "Connected to Kafka"],
  ["assigned", "Has its partitions"],
  ["restored", "State restored"],
];

function showReadiness(status) {
  const failing = CHECKS.filter(([name]) => !status.checks[name].ok);
  const reasons = failing.map(([name]) => status.checks[name].detail).join("; ");
  if (status.ready) state("ready", "Ready", "");
  else state("not-ready", "Not ready", reasons);
  fill("checks", CHECKS.map(([name, title]) => {
    const check = status.checks[name];
    return [head(title), mark(check.ok ? "good" : "warn", check.ok ? "yes" : "not yet"), cell(check.detail)];
  }));
}

function showNeeds(status) {
  const connected = status.checks.connected;
  const rows = [[head("Kafka"), mark(connected.ok ? "good" : "bad", connected.ok ? "connected" : "not connected"), cell(connected.detail)]];
  const rules = status.rules;
  const calls = sum(Object.values(rules.calls));
  const words = rules.outage
    ? `Payments of unknown rules wait. ${rules.lastProblem ?? ""}`
    : `${amount(calls)} calls, ${amount(rules.inFlight)} under way`;
  rows.push([head("Rule service"), mark(rules.outage ? "bad" : calls > 0 ? "good" : "off", rules.outage ? "down" : calls > 0 ? "answers" : "not asked yet"), cell(words)]);
  const sink = status.sink;
  if (sink) {
    const behind = sum(sink.lag.map((one) => one.lag));
    const detail = sink.connected ? `${amount(behind)} records behind` : sink.lastProblem ?? "";
    rows.push([head("PostgreSQL"), mark(sink.connected ? "good" : "bad", sink.connected ? "connected" : "not connected"), cell(detail)]);
  } else {
    rows.push([head("PostgreSQL"), mark("off", "not used"), cell("There is no [postgres] in the configuration.")]);
  }
  fill("needs", rows);
  const parts = { rules: rules.outage ? "bad" : "good", sink: sink ? (sink.connected ? "good" : "bad") : "off" };
  for (const place of document.querySelectorAll("[data-part]")) place.dataset.state = parts[place.dataset.part];
}

function showProblems(status) {
  const rows = [];
  status.workers.forEach((worker, index) => {
    if (worker.turnedMillisAgo > 5000) {
      rows.push([head(`worker ${index}`), cell("now", { class: "mark", "data-state": "bad" }),
        cell(`Its loop has not gone round for ${time(worker.turnedMillisAgo / 1000)}.`)]);
    }
    if (worker.lastProblem) {
      rows.push([head(`worker ${index}`), cell(`${time(worker.lastProblemMillisAgo / 1000)} ago`), cell(worker.lastProblem)]);
    }
  });
  if (status.rules.lastProblem) rows.push([head("rule service"), cell(status.rules.outage ? "now" : "before"), cell(status.rules.lastProblem)]);
  if (status.sink?.lastProblem) rows.push([head("PostgreSQL"), cell(status.sink.connected ? "before" : "now"), cell(status.sink.lastProblem)]);
  fill("problems", rows, "None since it started");
}

const PHASES = {
  running: ["good", "running"],
  restoring: ["warn", "restoring"],
  waiting_for_rule: ["warn", "waits for a rule"],
};

function showPartitions(status, kind, owners) {
  const own = new Map(status.partitions.filter((task) => task.kind === kind).map((task) => [String(task.partition), task]));
  const rows = Object.entries(owners).map(([partition, owner]) => {
    const task = own.get(partition);
    const no = number(Number(partition));
    if (!task) {
      const elsewhere = owner === null ? [mark("bad", "nobody"), cell(NONE)] : [link(owner), cell(NONE)];
      return [no, ...elsewhere, cell(NONE, { class: "number" }), cell(NONE, { class: "number" })];
    }
    const [colour, words] = PHASES[task.phase];
    const left = task.phase === "restoring" ? `${words}, ${amount(task.remaining)} left` : words;
    const position = task.position < 0 ? NaN : task.position;
    return [no, cell("here"), mark(colour, left), number(position), number(task.lag ?? NaN)];
  });
  fill(kind, rows, "None");
}

function showInstances(status) {
  const found = new Map([[status.address, [0, 0]]]);
  [status.sourceOwners, status.owners].forEach((owners, column) => {
    for (const owner of Object.values(owners)) {
      if (owner === null) continue;
      if (!found.has(owner)) found.set(owner, [0, 0]);
      found.get(owner)[column] += 1;
    }
  });
  fill("instances", [...found].map(([address, [ingest, settle]]) => {
    const name = address === status.address ? cell(`${address} (this one)`) : link(address);
    return [name, number(ingest), number(settle)];
  }));
}

function showStatus(status) {
  at("instance").textContent = status.instance;
  document.title = `${status.ready ? "" : "! "}${status.instance} – settle`;
  at("about").textContent = `Version ${status.version}, up ${time(status.upMillis / 1000)}. Payments in, settlements out, each exactly once.`;
  for (const section of document.querySelectorAll("[data-from=status]")) section.hidden = false;
  showReadiness(status);
  showNeeds(status);
  showProblems(status);
  showPartitions(status, "ingest", status.sourceOwners);
  showPartitions(status, "settle", status.owners);
  showInstances(status);
}

// --- asking ----------------------------------------------------------------------------------

let token = sessionStorage.getItem(TOKEN);
let refused = false; // the instance wants another token than this
let seen = null;

async function ask(path) {
  const headers = token === null || path === "/metrics" ? {} : { Authorization: `Bearer ${token}` };
  return fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
}

function wantToken(wrong) {
  refused = true;
  at("token-error").textContent = wrong ? "That token is not the right one." : "";
  if (wrong) sessionStorage.removeItem(TOKEN);
  token = null;
  if (at("token").hidden) {
    at("token").hidden = false;
    at("secret").focus();
  }
}

at("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("secret").value;
  at("secret").value = "";
  refused = false;
  poll();
});

async function askStatus(series) {
  if (!refused) {
    const answer = await ask("/api/status");
    if (answer.ok) {
      if (token !== null) sessionStorage.setItem(TOKEN, token);
      at("token").hidden = true;
      showStatus(await answer.json());
      return;
    }
    if (answer.status !== 401) throw new Error(`/api/status answers ${answer.status}`);
    wantToken(token !== null);
  }
  // Without a token there are the metrics.
  const ready = total(series, "settle_ready") === 1;
  state(ready ? "ready" : "not-ready", ready ? "Ready" : "Not ready", ready ? "" : "/readyz says why");
}

let asking = false;
let next = null;

async function poll() {
  if (asking || document.hidden) return;
  asking = true;
  clearTimeout(next);
  try {
    const answer = await ask("/metrics");
    if (!answer.ok) throw new Error(`/metrics answers ${answer.status}`);
    const series = parse(await answer.text());
    showRates(series);
    showOutcomes(series);
    showTiles(series);
    await askStatus(series);
    seen = Date.now();
    at("main").dataset.polls = Number(at("main").dataset.polls) + 1;
    at("seen").textContent = `Asked every ${PAUSE / 1000} s`;
  } catch (error) {
    samples = [];
    const since = seen === null ? "" : `, for ${time((Date.now() - seen) / 1000)}`;
    state("lost", "No answer", `What stands here is old${since}.`);
    at("seen").textContent = String(error.message ?? error);
  }
  asking = false;
  next = setTimeout(poll, PAUSE);
}

document.addEventListener("visibilitychange", poll);
poll();
