//! Table A's changes, through what the source publishes and the sink reads, make table B the same. Everything but the wire: that is for the lab.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::{
    collection::{btree_map, btree_set, vec},
    prelude::*,
};
use pulsar_io_dynamodb::{
    dynamodb::attribute::{Item, ItemKey, Value, item_from_json},
    ports::{Action, EntryId, InboundMessage, KeySchema, KeyType, OutboundMessage, ShardId},
    sink::{
        decode::{Decoder, Rules},
        map::map,
        mode::{Mode, What},
        shape::Shape as SinkShape,
    },
    source::convert::{Order, Record, shape::Shape},
};
use serde_json::{Map, json};

use crate::golden::golden;

/// What the sink does with a message, under its default configuration.
fn written(message: &OutboundMessage, schema: &KeySchema) -> Action {
    written_as(What::Put, message, schema)
}

fn written_as(what: What, message: &OutboundMessage, schema: &KeySchema) -> Action {
    let inbound = InboundMessage {
        entry: EntryId { topic: "persistent://public/default/orders".into(), ledger: 1, entry: 1, batch_index: None },
        batch_index: 0,
        batch_size: 1,
        key: message.key.clone(),
        key_is_base64: false,
        ordering_key: None,
        payload: message.payload.clone().into(),
        null_value: false,
        properties: message.properties.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        publish_time: 1_700_000_000_000,
        event_time: None,
        producer_name: "standalone-0-1".into(),
        sequence_id: None,
        schema_version: None,
    };
    let rules = Rules { old_images: what == What::Update, ..Rules::default() };
    let record = Decoder::new(rules).decode(&inbound).expect("readable");
    let decoded = SinkShape::default().shape(record, &inbound, schema, inbound.publish_time).expect("of this shape");
    let table: Arc<str> = "copies".into();
    let mapped = map(decoded, &table, schema).expect("an item of the table").expect("something to write");
    Mode { what, ..Mode::default() }.shape(mapped, schema, &inbound, 1_700_000_000).expect("a write").write.action
}

fn message(record: &str, order: Order) -> OutboundMessage {
    let shape = Shape { order, ..Shape::default() };
    let record = Record::read(record.as_bytes(), order).expect("a record");
    shape.message(&record, &ShardId::new("shard")).expect("a message")
}

/// The service's text of an item.
fn text(item: &Item) -> serde_json::Value {
    item.iter().map(|(name, value)| (name.clone(), typed(value))).collect::<Map<_, _>>().into()
}

fn typed(value: &Value) -> serde_json::Value {
    match value {
        Value::S(text) => json!({ "S": text }),
        Value::N(number) => json!({ "N": number }),
        Value::B(bytes) => json!({"B": BASE64_STANDARD.encode(bytes)}),
        Value::Bool(flag) => json!({ "BOOL": flag }),
        Value::Null => json!({"NULL": true}),
        Value::Ss(texts) => json!({ "SS": texts }),
        Value::Ns(numbers) => json!({ "NS": numbers }),
        Value::Bs(all) => json!({"BS": all.iter().map(|bytes| BASE64_STANDARD.encode(bytes)).collect::<Vec<_>>()}),
        Value::L(list) => json!({"L": list.iter().map(typed).collect::<Vec<_>>()}),
        Value::M(item) => json!({"M": text(item)}),
    }
}

/// Up to 38 digits, as DynamoDB holds them, and in all ways to write them.
fn number() -> impl Strategy<Value = String> {
    prop_oneof!["-?[1-9][0-9]{0,37}", "-?0\\.[0-9]{0,20}[1-9]", "[1-9]E-?([0-9]{1,2}|1[0-2][0-5])", "0", "1\\.50"]
}

fn value() -> impl Strategy<Value = Value> {
    let flat = prop_oneof![
        any::<String>().prop_map(Value::S),
        number().prop_map(Value::N),
        vec(any::<u8>(), 0..40).prop_map(Value::B),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
        btree_set(any::<String>(), 1..4).prop_map(|texts| Value::Ss(texts.into_iter().collect())),
        btree_set(any::<i64>(), 1..4).prop_map(|numbers| Value::Ns(numbers.iter().map(i64::to_string).collect())),
        btree_set(vec(any::<u8>(), 0..9), 1..4).prop_map(|all| Value::Bs(all.into_iter().collect())),
    ];
    flat.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![vec(inner.clone(), 0..6).prop_map(Value::L), btree_map(".{1,20}", inner, 0..6).prop_map(Value::M)]
    })
}

/// An item's key, a number and bytes, and what becomes of it: `None` where it is removed.
fn changes() -> impl Strategy<Value = Vec<(Item, Option<Item>)>> {
    let key = (0..3u8, 0..2u8).prop_map(|(number, byte)| {
        Item::from([("pk".to_owned(), Value::N(number.to_string())), ("sk".to_owned(), Value::B(vec![byte, 0xff]))])
    });
    vec((key, prop::option::weighted(0.8, btree_map("[^ps].{0,20}", value(), 0..8))), 1..12)
}

proptest! {
    #[test]
    fn t40_any_table_through_source_and_sink_is_the_same_table(changes in changes(), sorted in any::<bool>(), updated in any::<bool>()) {
        let schema = KeySchema { partition: ("pk".into(), KeyType::N), sort: Some(("sk".into(), KeyType::B)) };
        let place = |item: &Item| ItemKey::of(item, &schema).expect("a key");
        let (mut a, mut b): (BTreeMap<_, Item>, BTreeMap<_, Item>) = Default::default();
        for (at, (key, rest)) in changes.into_iter().enumerate() {
            let old = a.get(&place(&key)).cloned();
            let new = rest.map(|mut item| {
                item.extend(key.clone());
                item
            });
            let name = match (&old, &new) {
                (None, None) => continue,
                (None, Some(_)) => "INSERT",
                (Some(_), Some(_)) => "MODIFY",
                (Some(_), None) => "REMOVE",
            };
            let mut change = json!({"ApproximateCreationDateTime": 1.7e9, "SequenceNumber": format!("{at:021}"), "Keys": text(&key)});
            if let Some(item) = &old {
                change["OldImage"] = text(item);
            }
            if let Some(item) = &new {
                change["NewImage"] = text(item);
            }
            let record = json!({"eventID": at.to_string(), "eventName": name, "dynamodb": change}).to_string();
            match new {
                Some(item) => drop(a.insert(place(&item), item)),
                None => drop(a.remove(&place(&key))),
            }
            // In the mode `update`, attributes that the old image has and the new one has not are gone in B too.
            let what = if updated { What::Update } else { What::Put };
            match written_as(what, &message(&record, if sorted { Order::Sorted } else { Order::Compat }), &schema) {
                Action::Put(item) => {
                    prop_assert!(!updated);
                    b.insert(place(&item), item);
                }
                Action::Delete(key) => drop(b.remove(&place(&key))),
                Action::Update { key, set, remove } => {
                    prop_assert!(updated);
                    let item = b.entry(place(&key)).or_insert(key);
                    item.retain(|name, _| !remove.contains(name));
                    item.extend(set);
                }
            }
        }
        prop_assert_eq!(a, b);
    }
}

/// What the Java connector has published is read as what ours does: each of its recorded messages, whole.
#[test]
fn t41_the_java_connectors_messages_are_the_changes_that_they_were_made_of() {
    let mut compared = 0;
    for file in ["golden_new_image.jsonl", "golden_new_and_old_images.jsonl", "golden_numkey.jsonl", "golden_ttl.jsonl"] {
        for (line, message) in golden(file).into_iter().enumerate() {
            let of = format!("{file}:{}", line + 1);
            let record: serde_json::Value = serde_json::from_str(&message.record).expect(&of);
            let item = |name: &str| item_from_json(&record["dynamodb"][name].to_string()).ok();
            let keys = item("Keys").expect(&of);
            let mut parts = keys.iter().map(|(name, value)| {
                let kind = match value {
                    Value::N(_) => KeyType::N,
                    Value::B(_) => KeyType::B,
                    _ => KeyType::S,
                };
                (name.clone(), kind)
            });
            let schema = KeySchema { partition: parts.next().expect(&of), sort: parts.next() };
            let published = OutboundMessage {
                key: Some(message.key),
                payload: message.payload.into(),
                properties: message.properties.into_iter().collect(),
                ..OutboundMessage::default()
            };
            let expected = match item("NewImage") {
                Some(image) if record["eventName"] != "REMOVE" => Action::Put(image),
                _ => Action::Delete(keys),
            };
            assert_eq!(written(&published, &schema), expected, "{of}");
            compared += 1;
        }
    }
    assert_eq!(compared, 434);
}
