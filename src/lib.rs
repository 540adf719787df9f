//! settle: payments in, settlements out, exactly once.
//!
//! This page is the architecture. It is kept true with the code; `tests/tidy.rs` checks the layers.
//!
//! # Words
//!
//! *Payment*: one record of the source topic, known by its payment id (the record key). *Base*: a
//! payment that passed ingest, keyed by its rule key, on its way to be settled. *Rule key*:
//! `merchantNumber/paymentDay/paymentActionType/paymentMethodType`. *Settlement*, *exclusion*, *dead
//! letter*: the three outcomes; every source record has exactly one. *Task*: what owns one
//! partition. *Position*: the next source offset of a task. *Position record*: the position,
//! written into the task's changelog in the same transaction as the outputs it stands for.
//! *Suspect*: a producer that has seen a deciding request go unanswered.
//!
//! # Dataflow
//!
//! ```text
//! payments ──ingest──► bases ──settle──► settlements, statistics, rules, changelog
//!             │                   └─────► dead letters (amount overflow)
//!             ├─► exclusions
//!             └─► dead letters             all of them ──sink──► PostgreSQL
//! ```
//!
//! *Ingest* ([`engine`], one task per source partition) parses, classifies, drops duplicates and
//! re-keys. *Settle* (one task per bases partition) finds the payout rule, dates the settlement and
//! adds it to the total of its rule key. A rule key lives in one partition of bases, rules,
//! settlements, statistics and changelog, so one task owns its rule and its total, and no two
//! instances ask for the same rule.
//!
//! The eight steps of a payment, and where each stands:
//!
//! | step | place |
//! | --- | --- |
//! | receive | `engine/worker.rs` (`gather`), `broker/consumer.rs` |
//! | log every message | `sink/` (table `payment_log`) |
//! | map to the base | `codec/payment/`, `engine/ingest.rs` |
//! | exclude, drop duplicates | `domain/classify.rs`, `state/seen/` |
//! | find the payout rule | `engine/settle/`, `rules/` |
//! | save | `sink/` (table `settlement`) |
//! | aggregate | `domain/totals.rs`, `engine/settle/`, `state/totals.rs` |
//! | publish statistics | `engine/settle/` (`publish`) |
//!
//! # The loop
//!
//! One [`engine::worker::Worker`] is one OS thread with one group consumer and one transactional
//! producer. It owns the tasks of the partitions that the group gives it; nobody else touches them.
//!
//! ```text
//! gather ──► trust the ──► look for ──► follow logs ──► stage ──► commit ──► apply
//! poll into  producer      hanging      restores,       decide    begin      stores advance,
//! inboxes    replace it    records      rules topic     purely    send       only with a
//!            unless        end them                               flush      `Committed`
//!            trusted       (I5)                                   offsets    permit
//!                                                                 commit
//! ```
//!
//! After these a turn starts to end what former owners have left, pauses partitions whose tasks have
//! enough to wait with, begins a checkpoint when one is due, and looks every 30 s whether the client
//! library still reads (`engine/standstill.rs`).
//!
//! Nothing between begin and commit waits for HTTP or a disk, and no poll lies between them. A batch
//! ends when the input runs dry (with 5 ms between commits at least), at `max_batch_records` or at
//! `commit_interval`. A change of the assignment reaches the worker as a value between two
//! transactions; until it is answered, the group gives a revoked partition to nobody else.
//!
//! # Invariants
//!
//! * **I1** Source positions, outputs, rules, totals and the position record of a batch are committed
//!   in one transaction or not at all.
//! * **I2** The position record decides where a task goes on. The group's committed offset is compared
//!   with it; where they differ the task follows the record, says so, and repairs the offset.
//! * **I3** A store changes only with a `Committed` permit, or by reading committed records. It may lag
//!   the log and never leads it: a restore begins at the store's own last record, and a store whose
//!   record is not committed is set aside and rebuilt.
//! * **I4** A task runs only after it has read its changelog up to the high watermark that was taken
//!   after the committed offsets, and no further.
//! * **I5** A suspect producer is replaced, under the same transactional id, before the next begin; its
//!   tasks read the log again; and nothing is committed before it is known that no records of this id
//!   hang.
//! * **I6** Offsets are sent with membership fetched after the last poll, never with generation -1 or
//!   an empty member id.
//! * **I7** A settlement is dated by a rule that is committed with it or before it, or by default dates
//!   after the service said that there is no rule; never because the service failed.
//! * **I8** Totals are added with overflow checked; a payment that would overflow is a dead letter.
//! * **I9** PostgreSQL rows and their positions change in one database transaction, and only when the
//!   positions are where this sink expects them.
//!
//! # Failures are reactions
//!
//! `broker/classify.rs` reads the client library's errors; `engine/failure.rs` says what the loop
//! does: *wait* (nothing changed), *recover*, *rejoin* (the group has replaced this member, and no
//! other process did it, or its client reads no more), *rebuild* (a file is damaged: set it aside),
//! or *stop* with an exit code. There is one way to recover from every failure whose outcome is
//! unknown: drop what is not committed, replace the producer (its initialisation decides the open
//! transaction), and take up every task again from the log, where the position record says whether
//! the transaction was committed. Nothing is guessed, nothing is resolved twice, and the path is
//! the one that every assignment takes. It costs a few milliseconds. The service never aborts its
//! own open transaction: the new producer's initialisation does. The one exception is hanging
//! records that nobody has seen committed (`engine/hanging.rs`).
//!
//! A transaction that a dead instance has left open would keep readers back until it times out. The
//! task that takes the partition over finds the writer in its position record, or in the mark of the
//! undecided one, and ends the transaction by taking that transactional id over for a moment.
//!
//! A broker that dies at the wrong moment can lose the markers of an ended transaction, and the next
//! marker of the same transactional id then decides its records. So every transaction marks the first
//! record that it writes to each partition, and a worker looks for records of its own that hang before
//! it commits anything (`engine/hanging.rs`): it ends them the way the rest of their transaction ended.
//!
//! A partition that the group has given to nobody, which a static member can bring about by dying
//! between giving it up and joining anew, is noticed by looking at the group (`broker/ownerless.rs`).
//!
//! Every step at which dying could matter is a [`failpoint::Point`]. A build with the feature
//! `failpoints` can be told to die, wait or fail there; the crash matrix in `tests/pipeline/crash`
//! goes through all of them and cannot leave one out. In every other build they are nothing.
//!
//! # State
//!
//! One redb file per task. Committed changes lie in memory in front of the file and reach it every two
//! seconds, in the background, sorted; the log covers the gap after a crash. Settle keeps totals and
//! rules by key ([`state::totals`]). Ingest keeps the first payment of every id inside the duplicate
//! window as sorted runs with filters ([`state::seen`]); the source topic is its log, so a lost file
//! is rebuilt by reading the window again, from where the position record says; the log of exclusions
//! tells which payments were repeats (`engine/window.rs`). Values carry checksums: a flipped bit is
//! noticed, never used.
//!
//! # Layers
//!
//! A module sees only modules above it.
//!
//! | module | owns |
//! | --- | --- |
//! | [`domain`] | values and decisions; no clock, no I/O |
//! | [`clock`] | time; a thread may have a simulated one |
//! | [`lock`] | taking a mutex, whatever has panicked with it |
//! | [`exit`] | exit codes |
//! | [`tls`] | transport security of PostgreSQL and HTTP; the only place that names native-tls |
//! | [`failpoint`] | steps at which tests have the process die, wait or fail; empty in what ships |
//! | [`config`] | configuration |
//! | [`codec`] | bytes and domain |
//! | [`broker`] | Kafka; the only place that names rdkafka |
//! | [`topics`] | which topics there must be |
//! | [`state`] | local state; the only place that names redb |
//! | [`rules`] | the rule service; the only place that names reqwest |
//! | [`metrics`] | the registry of metrics; the only place that names their exporter |
//! | [`engine`] | worker, tasks, restore |
//! | [`sink`] | PostgreSQL; the only place that names tokio-postgres |
//! | [`http`] | queries, health, metrics; the only place that names axum |
//! | [`notify`] | life signs for the service manager; the only place that names `sd_notify` |
//! | [`telemetry`] | logs; the only place that names `tracing_subscriber` |
//! | [`app`] | puts the parts together |
//! | [`verify`] | proves from the committed topics that the promises hold; shares no decision with the above |
//! | [`inspect`] | read-only views for an operator: payments, dead letters, instances, offsets, rules, state |
//! | [`operate`] | what an operator writes: replayed dead letters, rules |
//! | [`positions`] | what an operator may decide about where partitions go on |
//! | [`cli`] | the command line |
//!
//! # Simulation
//!
//! The engine sees Kafka through [`broker::port`], the rule service through [`rules::Service`] and
//! time through [`clock`]. `tests/simulation` puts a broker in memory behind the first: producer
//! epochs, transactions whose markers reach each partition at a time of its own, group generations,
//! and requests that are lost, repeated or late as they are with librdkafka. That broker dies, too,
//! and comes back without some of its markers. One seed is one run of several processes on one
//! thread: they die, freeze, lose files, share an identity by mistake and run inside each other's
//! requests; then all heals, and everything must come to rest. Its oracle recomputes every promise
//! from the raw logs. `tests/mutants/sim-*.patch` break the engine on purpose, each with the command
//! that must notice.
//!
//! What this service relies on in Kafka and its client library, with measurements, stands in
//! `docs/kafka.md`.

pub mod app;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod domain;
pub mod engine;
pub mod exit;
pub mod failpoint;
pub mod http;
pub mod inspect;
pub mod lock;
pub mod metrics;
pub mod notify;
pub mod operate;
pub mod positions;
pub mod rules;
pub mod sink;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod topics;
pub mod verify;
