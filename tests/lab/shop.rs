//! A stream of changes whose order can be checked: each item counts its own changes in `version`.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::{
    Random,
    table::{Item, Table},
    topic::Message,
};

/// Writes changes of `items` items, each with the next version of its item.
pub struct Shop {
    random: Random,
    /// The last version of each item, and whether the item exists.
    items: Vec<(u64, bool)>,
    pub written: usize,
}

impl Shop {
    pub fn new(seed: u64, items: usize) -> Self {
        Self { random: Random::new(seed), items: vec![(0, false); items], written: 0 }
    }

    fn item(number: usize, version: u64) -> Item {
        let text = |text: String| AttributeValue::S(text);
        Item::from([
            ("pk".into(), text(format!("order-{number}"))),
            ("sk".into(), AttributeValue::N(number.to_string())),
            ("version".into(), AttributeValue::N(version.to_string())),
            ("status".into(), text(["new", "paid", "packed", "sent"][version as usize % 4].into())),
            ("note".into(), text("x".repeat(100 + number % 400))),
        ])
    }

    fn key(number: usize) -> Item {
        let mut item = Self::item(number, 0);
        item.retain(|name, _| name == "pk" || name == "sk");
        item
    }

    /// A batch of up to 25 changes of different items: one in ten is a delete.
    pub async fn change(&mut self, table: &Table, changes: usize) {
        let first = self.random.below(self.items.len() as u64) as usize;
        let batch = (0..changes.min(25)).map(|at| {
            let number = (first + at) % self.items.len();
            let (version, exists) = &mut self.items[number];
            if *exists && self.random.below(10) == 0 {
                *exists = false;
                return Err(Self::key(number));
            }
            *version += 1;
            *exists = true;
            Ok(Self::item(number, *version))
        });
        let batch: Vec<_> = batch.collect();
        self.written += batch.len();
        table.write(batch).await;
    }
}

/// Checks what comes out of the topic: nothing lost, and each item's changes first seen in their order (D1, O1).
#[derive(Default)]
pub struct Seen {
    pub events: usize,
    pub duplicates: usize,
    event_ids: std::collections::BTreeSet<String>,
    /// The newest state of each item: its version, and whether it was deleted after it.
    newest: BTreeMap<String, (u64, bool)>,
}

impl Seen {
    pub fn distinct(&self) -> usize {
        self.event_ids.len()
    }

    pub fn add(&mut self, message: &Message) {
        self.events += 1;
        let change = &message.json["dynamodb"];
        let item = change["Keys"].to_string();
        let version = |image: &str| change[image]["version"]["N"].as_str().map(|text| text.parse::<u64>().expect("a version"));
        let state = match message.properties.get("EVENT_NAME").map(String::as_str) {
            Some("INSERT" | "MODIFY") => (version("NewImage").expect("a new image"), false),
            Some("REMOVE") => (version("OldImage").expect("an old image"), true),
            other => panic!("event name {other:?} in {}", message.text),
        };
        let event_id = message.key.clone().expect("a key");
        if !self.event_ids.insert(event_id) {
            self.duplicates += 1;
            return;
        }
        let newest = self.newest.entry(item.clone()).or_default();
        let next_of = |(version, deleted): (u64, bool)| if state.1 { !deleted && state.0 == version } else { state.0 == version + 1 };
        assert!(next_of(*newest), "O1: {item} went from {newest:?} to {state:?}");
        *newest = state;
    }
}
