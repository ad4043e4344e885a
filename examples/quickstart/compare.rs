//! Whether the copy equals the original, and how long a write takes to get there.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::time::Instant;

use crate::{
    Result,
    events::{percentiles, sample},
    shop::{Shop, now_micros},
    tables::{COPY, Item, ORIGINAL, Tables},
};

/// Two tables, item by item.
pub struct Comparison {
    pub original: usize,
    pub copy: usize,
    differing: Vec<String>,
}

impl Comparison {
    pub async fn of(tables: &Tables) -> Result<Self> {
        // The original last: what the copy has must then be in it, or deleted since.
        let copy = by_order(tables.scan(COPY).await?);
        let original = by_order(tables.scan(ORIGINAL).await?);
        let keys: std::collections::BTreeSet<&String> = original.keys().chain(copy.keys()).collect();
        let differing = keys.into_iter().filter(|key| original.get(*key) != copy.get(*key)).cloned().collect();
        Ok(Self { original: original.len(), copy: copy.len(), differing })
    }

    pub fn is_equal(&self) -> bool {
        self.differing.is_empty()
    }

    pub fn behind(&self) -> usize {
        self.differing.len()
    }

    pub fn differences(&self) -> impl Iterator<Item = String> {
        self.differing.iter().take(10).map(|order| format!("differs: {order}"))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.behind() {
            0 => write!(f, "the copy is equal: {} items in {ORIGINAL}, {} in {COPY}, none differs", self.original, self.copy),
            differing => write!(f, "NOT EQUAL: {} items in {ORIGINAL}, {} in {COPY}, {differing} differ", self.original, self.copy),
        }
    }
}

fn by_order(items: Vec<Item>) -> BTreeMap<String, BTreeMap<String, String>> {
    let text = |item: &Item| item.get("orderId").and_then(|id| id.as_s().ok()).cloned().unwrap_or_default();
    items.into_iter().map(|item| (text(&item), item.into_iter().map(|(name, value)| (name, comparable(value))).collect())).collect()
}

/// Sets have no order.
fn comparable(value: AttributeValue) -> String {
    match value {
        AttributeValue::Ss(mut members) => {
            members.sort();
            format!("{members:?}")
        }
        AttributeValue::L(members) => format!("{:?}", members.into_iter().map(comparable).collect::<Vec<_>>()),
        AttributeValue::M(members) => {
            format!("{:?}", members.into_iter().map(|(name, value)| (name, comparable(value))).collect::<BTreeMap<_, _>>())
        }
        other => format!("{other:?}"),
    }
}

/// Follows one write at a time until it is in the copy.
#[derive(Default)]
pub struct Probe {
    /// Order, when it was written (epoch microseconds), when to look.
    waiting: Option<(String, i64, Instant)>,
    latencies: VecDeque<f64>,
}

/// How often the copy is asked: the measure's grain.
const GRAIN: Duration = Duration::from_millis(10);

impl Probe {
    pub fn written(&mut self, shop: &Shop) {
        if self.waiting.is_none() {
            self.waiting = shop.last.clone().map(|(order, written_at)| (order, written_at, Instant::now()));
        }
    }

    /// When to look again, if there is something to look for.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|(_, _, look)| *look)
    }

    pub async fn look(&mut self, tables: &Tables, shop: &Shop) -> Result<()> {
        let Some((order, written_at, look)) = &mut self.waiting else { return Ok(()) };
        let key = AttributeValue::S(order.clone());
        let found = tables.client.get_item().table_name(COPY).key("orderId", key).consistent_read(true).send().await?;
        let copied = found.item.as_ref().and_then(|item| item.get("writtenAtMicros")?.as_n().ok()?.parse::<i64>().ok());
        if copied.is_some_and(|copied| copied >= *written_at) {
            sample(&mut self.latencies, (now_micros() - *written_at) as f64 / 1000.0);
            self.waiting = None;
        } else if !shop.has(order) {
            // Deleted before it was seen: another one is followed.
            self.waiting = None;
        } else {
            *look = Instant::now() + GRAIN;
        }
        Ok(())
    }

    /// How many writes were found in the copy.
    pub fn seen(&self) -> usize {
        self.latencies.len()
    }

    pub fn latency(&self) -> String {
        percentiles(&self.latencies)
    }
}
