//! `GET /api/aggregation-data/all`: the totals of all keys of all instances, in rule-key order.
//!
//! Partitions are read page by page and merged while the answer is on its way. The first page of
//! each is there before the first byte, so what is unavailable then is a 503; what becomes
//! unavailable later cuts the connection, never ends the array. A page is read where its partition
//! is served at that moment: a partition that moves meanwhile is read on at its new owner.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use futures_util::stream::try_unfold;
use serde::Serialize;

use crate::codec::wire::{StatisticsKey, StatisticsValue, write};
use crate::domain::rule::{Fields, RuleKey};
use crate::domain::totals::Totals;
use crate::http::partition::{PAGE, POSITION, Page, page};
use crate::http::query::{Filter, Pairs, Parameters};
use crate::http::refusal::Refusal;
use crate::http::routes::App;

/// Bytes after which a chunk is sent.
const CHUNK: usize = 16 * 1024;

#[derive(Serialize)]
struct Entry<'a> {
    key: StatisticsKey<'a>,
    value: StatisticsValue,
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    pairs: Pairs,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let parameters = Parameters::new(pairs)?;
    let limit = parameters.limit()?;
    let after = parameters.after()?;
    let filter = parameters.filter()?;
    let reader = Reader {
        scan: match limit {
            Some(limit) if !filter.is_sparse() => limit.min(PAGE),
            _ => PAGE,
        },
        filter,
        authorization: headers.get(header::AUTHORIZATION).cloned(),
        app,
    };
    let after = after.as_ref().map(RuleKey::as_str);
    let merge = Merge::start(reader, after, limit).await?;
    let headers = HeaderMap::from_iter([
        (POSITION, merge.positions()),
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
    ]);
    let chunks = try_unfold(merge, |mut merge| async {
        match merge.chunk().await {
            Ok(chunk) => Ok(chunk.map(|chunk| (chunk, merge))),
            Err(refusal) => {
                tracing::warn!(error = ?refusal, "a listing was cut off: a partition became unavailable");
                Err(std::io::Error::other("a partition became unavailable"))
            }
        }
    });
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// Where and what to read.
struct Reader {
    app: Arc<App>,
    filter: Filter,
    scan: usize,
    authorization: Option<HeaderValue>,
}

impl Reader {
    async fn page(&self, partition: i32, after: Option<String>) -> Result<Page, Refusal> {
        let from = (after, self.scan);
        let authorization = self.authorization.clone();
        page(&self.app, partition, &self.filter, from, authorization).await
    }
}

/// The pages of all partitions as one sequence.
struct Merge {
    reader: Reader,
    /// By partition; each holds what is not sent yet.
    pages: Vec<(i32, Page)>,
    /// Entries that may still be sent.
    left: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    First,
    Rest,
    Ended,
}

impl Merge {
    async fn start(
        reader: Reader,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Self, Refusal> {
        let first = |partition| {
            let page = reader.page(partition, after.map(str::to_owned));
            async move { Ok((partition, page.await?)) }
        };
        let pages = try_join_all((0..reader.app.services.bases_partitions).map(first)).await?;
        Ok(Self {
            reader,
            pages,
            left: limit.unwrap_or(usize::MAX),
            stage: Stage::Before,
        })
    }

    fn positions(&self) -> HeaderValue {
        let positions: Vec<_> = self
            .pages
            .iter()
            .map(|(partition, page)| format!("{partition}/{}", page.position))
            .collect();
        HeaderValue::from_str(&positions.join(", ")).expect("digits, slashes and commas")
    }

    /// The next bytes of the array; `None` after its end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Refusal> {
        let mut out = Vec::with_capacity(CHUNK + 512);
        while out.len() < CHUNK {
            match self.stage {
                Stage::Before => {
                    out.push(b'[');
                    self.stage = Stage::First;
                }
                Stage::First | Stage::Rest => {
                    let Some((key, totals)) = self.next().await? else {
                        out.push(b']');
                        self.stage = Stage::Ended;
                        break;
                    };
                    if self.stage == Stage::Rest {
                        out.push(b',');
                    }
                    self.stage = Stage::Rest;
                    entry(&key, totals, &mut out)?;
                }
                Stage::Ended => break,
            }
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }

    /// The smallest key that is left.
    async fn next(&mut self) -> Result<Option<(String, Totals)>, Refusal> {
        if self.left == 0 {
            return Ok(None);
        }
        for (partition, page) in &mut self.pages {
            while page.entries.is_empty() {
                let Some(after) = page.more.take() else { break };
                *page = self.reader.page(*partition, Some(after)).await?;
            }
        }
        let heads = self.pages.iter_mut().map(|(_, page)| &mut page.entries);
        let smallest = heads
            .filter(|entries| !entries.is_empty())
            .min_by(|one, other| one[0].0.cmp(&other[0].0));
        let Some((key, amount, count)) = smallest.and_then(VecDeque::pop_front) else {
            return Ok(None);
        };
        self.left -= 1;
        Ok(Some((key, Totals { amount, count })))
    }
}

fn entry(key: &str, totals: Totals, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let fields = Fields::parse(key).ok_or_else(|| Refusal::Failed("not a rule key".into()))?;
    let entry = Entry {
        key: fields.into(),
        value: totals.into(),
    };
    write(&entry, out);
    Ok(())
}
