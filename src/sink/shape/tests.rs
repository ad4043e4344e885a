use serde_json::json;

use super::*;
use crate::{
    dynamodb::attribute::to_json,
    ports::{EntryId, KeyType},
    sink::decode::{Rules, text},
};

const NOW: u64 = 1_600_000_000_500;

fn message() -> InboundMessage {
    InboundMessage {
        entry: EntryId { topic: "persistent://acme/shop/orders-partition-3".into(), ledger: 5, entry: 6, batch_index: None },
        batch_index: 7,
        batch_size: 8,
        key: Some(r#"{"id":"k"}"#.into()),
        key_is_base64: false,
        ordering_key: None,
        payload: Default::default(),
        null_value: false,
        properties: vec![("op".into(), "d".into())],
        publish_time: 1_600_000_000_000,
        event_time: Some(1_500_000_000_000),
        producer_name: "p".into(),
        sequence_id: None,
        schema_version: None,
    }
}

fn schema() -> KeySchema {
    KeySchema { partition: ("pk".into(), KeyType::S), sort: None }
}

fn record(value: &serde_json::Value) -> Record {
    Record { key: None, asks: text(value.to_string().as_bytes(), &Rules::default()).expect("readable") }
}

fn shaped(shape: &Shape, value: &serde_json::Value) -> Result<Decoded, Poison> {
    shape.shape(record(value), &message(), &schema(), NOW)
}

fn put(shape: &Shape, value: serde_json::Value) -> String {
    match shaped(shape, &value) {
        Ok(Decoded::Document(item) | Decoded::Put(item)) => to_json(&item),
        other => panic!("{other:?}"),
    }
}

fn with_fields(fields: Fields) -> Shape {
    Shape { fields, ..Shape::default() }
}

fn names<const N: usize>(names: [(&str, &str); N]) -> BTreeMap<String, String> {
    names.map(|(old, new)| (old.to_owned(), new.to_owned())).into()
}

fn expressions<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, Expression> {
    entries.map(|(name, text)| (name.to_owned(), Expression::parse(text).expect(text))).into()
}

#[test]
fn fields_are_chosen_and_renamed_and_the_key_stays() {
    let include = with_fields(Fields { include: ["a".into()].into(), rename: names([("id", "pk")]), ..Fields::default() });
    assert_eq!(put(&include, json!({"id": "x", "a": true, "b": true})), r#"{"a":{"BOOL":true},"pk":{"S":"x"}}"#);
    let exclude = with_fields(Fields { exclude: ["b".into(), "pk".into()].into(), rename: names([("a", "c")]), ..Fields::default() });
    assert_eq!(put(&exclude, json!({"pk": "x", "a": true, "b": true})), r#"{"c":{"BOOL":true},"pk":{"S":"x"}}"#);
    let clash = shaped(&exclude, &json!({"pk": "x", "a": 1, "c": 2})).expect_err("two of one name");
    assert_eq!(clash.reason, Reason::NameInvalid);
}

#[test]
fn flattening_takes_maps_apart_at_all_levels() {
    let flat = with_fields(Fields { flatten: Some("_".into()), exclude: ["a_b_c".into()].into(), ..Fields::default() });
    let item = json!({"pk": "x", "a": {"b": {"c": "1", "d": "2"}, "e": {}}, "l": [{"m": "3"}]});
    assert_eq!(put(&flat, item), r#"{"a_b_d":{"S":"2"},"a_e":{"M":{}},"l":{"L":[{"M":{"m":{"S":"3"}}}]},"pk":{"S":"x"}}"#);
    assert!(shaped(&flat, &json!({"pk": "x", "a": {"b": 1}, "a_b": 2})).is_err());
}

/// 38: no duplicates by value, an empty set is left out, what is no member is poison.
#[test]
fn t38_lists_become_sets() {
    let sets = [("s".into(), SetType::Strings), ("n".into(), SetType::Numbers)].into();
    let shape = with_fields(Fields { sets, ..Fields::default() });
    assert_eq!(
        put(&shape, json!({"pk": "x", "s": ["b", "a", "b"], "n": [1, 1.0, "2"]})),
        r#"{"n":{"NS":["1","2"]},"pk":{"S":"x"},"s":{"SS":["b","a"]}}"#
    );
    assert_eq!(put(&shape, json!({"pk": "x", "s": [], "n": null})), r#"{"pk":{"S":"x"}}"#);
    assert_eq!(put(&shape, json!({"pk": "x", "s": "one"})), r#"{"pk":{"S":"x"},"s":{"SS":["one"]}}"#);
    let poison = shaped(&shape, &json!({"pk": "x", "n": ["a"]})).expect_err("no number");
    assert_eq!(poison.reason, Reason::SetInvalid);
}

/// 39: nulls inside of maps stay with `omit`, as Flink has it.
#[test]
fn t39_nulls_and_empty_strings_follow_their_policies() {
    let item = json!({"pk": "x", "a": null, "m": {"b": null, "l": [null]}, "e": ""});
    for (nulls, empty_strings, expected) in [
        (
            Nulls::Keep,
            EmptyStrings::Keep,
            r#"{"a":{"NULL":true},"e":{"S":""},"m":{"M":{"b":{"NULL":true},"l":{"L":[{"NULL":true}]}}},"pk":{"S":"x"}}"#,
        ),
        (Nulls::Omit, EmptyStrings::Omit, r#"{"m":{"M":{"b":{"NULL":true},"l":{"L":[{"NULL":true}]}}},"pk":{"S":"x"}}"#),
        (Nulls::OmitNested, EmptyStrings::Null, r#"{"e":{"NULL":true},"m":{"M":{"l":{"L":[{"NULL":true}]}}},"pk":{"S":"x"}}"#),
    ] {
        assert_eq!(put(&with_fields(Fields { nulls, empty_strings, ..Fields::default() }), item.clone()), expected);
    }
}

#[test]
fn the_key_comes_from_wherever_it_is_told() {
    for (expression, expected) in [
        ("value.a.b", r#"{"N":"1"}"#),
        ("key.id", r#"{"S":"k"}"#),
        ("key", r#"{"S":"{\"id\":\"k\"}"}"#),
        ("property.op", r#"{"S":"d"}"#),
        ("topic", r#"{"S":"persistent://acme/shop/orders"}"#),
        ("topicName", r#"{"S":"orders"}"#),
        ("tenant", r#"{"S":"acme"}"#),
        ("partition", r#"{"N":"3"}"#),
        ("messageId", r#"{"S":"5:6:7"}"#),
        ("publishTime", r#"{"N":"1600000000000"}"#),
        ("eventTime", r#"{"N":"1500000000000"}"#),
    ] {
        let shape = Shape { primary_key: expressions([("pk", expression)]), ..Shape::default() };
        assert_eq!(put(&shape, json!({"a": {"b": 1}})), format!(r#"{{"a":{{"M":{{"b":{{"N":"1"}}}}}},"pk":{expected}}}"#), "{expression}");
    }
    let shape = Shape { primary_key: expressions([("pk", "value.gone")]), ..Shape::default() };
    let poison = shaped(&shape, &json!({"a": 1})).expect_err("no key");
    assert!(poison.reason == Reason::NoKey && poison.message.contains("value.gone"), "{poison}");
}

#[test]
fn a_primary_key_has_to_be_the_tables() {
    let shape = |entries| Shape { primary_key: entries, ..Shape::default() };
    assert_eq!(shape(expressions([])).contradicts(&schema()), None);
    assert_eq!(shape(expressions([("pk", "key")])).contradicts(&schema()), None);
    for wrong in [expressions([("id", "key")]), expressions([("pk", "key"), ("sk", "topic")])] {
        assert!(shape(wrong).contradicts(&schema()).expect("wrong").contains("the table's key is [\"pk\"]"));
    }
}

#[test]
fn what_the_message_does_not_say_is_added() {
    let shape = Shape {
        fixed: Item::from([("origin".into(), Value::S("pulsar".into()))]),
        metadata: expressions([("headers", "properties"), ("at", "publishTime"), ("seq", "sequenceId")]),
        ..Shape::default()
    };
    let expected = r#"{"at":{"N":"1600000000000"},"headers":{"M":{"op":{"S":"d"}}},"origin":{"S":"pulsar"},"pk":{"S":"x"}}"#;
    assert_eq!(put(&shape, json!({"pk": "x", "origin": "other"})), expected);
    // Typed items too.
    assert_eq!(put(&shape, json!({"pk": {"S": "x"}})), expected);
}

#[test]
fn time_to_live_is_in_seconds() {
    let ttl = |since, seconds| Shape { ttl: Some(Ttl { attribute: "t".into(), since, seconds }), ..Shape::default() };
    let field = || Since::Field(Expression::parse("value.e").expect("an expression"));
    for (shape, item, expected) in [
        (ttl(Since::Now, 60), json!({"pk": "x"}), Some("1600000060")),
        (ttl(Since::PublishTime, 1), json!({"pk": "x"}), Some("1600000001")),
        (ttl(Since::EventTime, 0), json!({"pk": "x"}), Some("1500000000")),
        (ttl(field(), 5), json!({"pk": "x", "e": 1_700_000_000.9}), Some("1700000005")),
        (ttl(field(), 5), json!({"pk": "x"}), None),
    ] {
        let item = put(&shape, item);
        let expected = expected.map(|seconds| format!(r#""t":{{"N":"{seconds}"}}"#));
        assert_eq!(item.contains("\"t\""), expected.is_some(), "{item}");
        assert!(expected.is_none_or(|expected| item.contains(&expected)), "{item}");
    }
    for wrong in [json!(1_700_000_000_000_u64), json!("soon"), json!(-1), json!([])] {
        let poison = shaped(&ttl(field(), 5), &json!({"pk": "x", "e": wrong})).expect_err("no seconds");
        assert_eq!(poison.reason, Reason::TtlInvalid, "{poison}");
    }
}

#[test]
fn deletes_are_marked_by_a_field_or_a_property() {
    let marked = |found: &str| {
        let found = Expression::parse(found).expect("an expression");
        Shape { delete_marker: Some(DeleteMarker { found, values: vec!["d".into(), "true".into()] }), ..Shape::default() }
    };
    for (found, item, is_delete) in [
        ("value.op", json!({"pk": "x", "op": "d"}), true),
        ("value.op", json!({"pk": "x", "op": true}), true),
        ("value.op", json!({"pk": "x", "op": "u"}), false),
        ("value.op", json!({"pk": "x"}), false),
        ("property.op", json!({"pk": "x"}), true),
    ] {
        let asks = shaped(&marked(found), &item).expect("readable");
        assert_eq!(matches!(asks, Decoded::DeleteLike(_)), is_delete, "{found} {item}: {asks:?}");
    }
}

#[test]
fn a_tombstone_deletes_what_its_key_names() {
    let tombstone = |shape: &Shape, key: Option<Value>, schema: &KeySchema| {
        shape.shape(Record { key, asks: Decoded::Tombstone }, &message(), schema, NOW)
    };
    let item = |json: &str| Ok(Decoded::DeleteLike(crate::dynamodb::attribute::item_from_json(json).expect("typed")));
    let plain = Shape { key_attribute: "pk".into(), ..Shape::default() };
    assert_eq!(tombstone(&plain, Some(Value::N("7".into())), &schema()), item(r#"{"pk":{"N":"7"}}"#));
    assert_eq!(tombstone(&plain, None, &schema()), item(r#"{"pk":{"S":"{\"id\":\"k\"}"}}"#));
    let by_field = Shape { primary_key: expressions([("pk", "key.id")]), ..Shape::default() };
    assert_eq!(tombstone(&by_field, None, &schema()), item(r#"{"pk":{"S":"k"}}"#));
    let two = KeySchema { sort: Some(("sk".into(), KeyType::N)), ..schema() };
    assert_eq!(tombstone(&plain, None, &two).expect_err("two attributes").reason, Reason::NoKey);
    let ignored = Shape { tombstones: Tombstones::Ignore, ..Shape::default() };
    assert_eq!(tombstone(&ignored, None, &two), Ok(Decoded::Nothing));
    let refused = Shape { tombstones: Tombstones::Poison, ..Shape::default() };
    assert_eq!(tombstone(&refused, None, &schema()).expect_err("dlq").reason, Reason::Tombstone);
}

/// 37: a record key is attributes by itself, anything else is one, and both win over the value.
#[test]
fn t37_the_key_of_key_value_becomes_attributes() {
    let put = |key: Value| {
        let record = Record { key: Some(key), ..record(&json!({"pk": "from the value", "v": "1"})) };
        match (Shape { key_attribute: "pk".into(), ..Shape::default() }).shape(record, &message(), &schema(), NOW) {
            Ok(Decoded::Document(item)) => to_json(&item),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(put(Value::N("7".into())), r#"{"pk":{"N":"7"},"v":{"S":"1"}}"#);
    let key = Item::from([("pk".into(), Value::S("a".into())), ("k".into(), Value::Bool(true))]);
    assert_eq!(put(Value::M(key)), r#"{"k":{"BOOL":true},"pk":{"S":"a"},"v":{"S":"1"}}"#);
}

#[test]
fn a_table_is_chosen_within_what_is_allowed() {
    let route = |template: &str| Route::parse(template, vec!["orders-*".into()]).expect("a template");
    let table = |template: &str, value: serde_json::Value| {
        let shape = Shape { route: Some(route(template)), ..Shape::default() };
        shape.table(&record(&value), &message()).expect("a route").map(|table| table.to_string()).map_err(|poison| poison.to_string())
    };
    assert_eq!(table("orders-${value.region}", json!({"region": "eu/1"})), Ok("orders-eu_1".into()));
    assert_eq!(table("${topicName}-${property.op}", json!({})), Ok("orders-d".into()));
    for (template, value, why) in [
        ("orders-${value.region}", json!({}), "no value.region"),
        ("orders-${value.region}", json!({"region": {}}), "no part of a table's name"),
        ("${value.region}", json!({"region": "secrets"}), "none of allowedTables"),
        ("orders-${value.region}", json!({"region": "x".repeat(300)}), "no table name"),
    ] {
        let poison = table(template, value).expect_err(why);
        assert!(poison.contains(why), "{poison}");
    }
}

/// What the sink would have written before and would not now: by the names, the choice of fields and the policies that the new image has too.
#[test]
fn both_images_of_a_change_take_the_same_shape() {
    let item = |value: serde_json::Value| match record(&value).asks {
        Decoded::Document(item) => item,
        other => panic!("{other:?}"),
    };
    let old = item(json!({"pk": "a", "name": "x", "secret": 1, "at": {"city": "y", "street": "z"}, "note": "old"}));
    let new = item(json!({"pk": "a", "at": {"city": "y"}, "note": null}));
    let shape = with_fields(Fields {
        flatten: Some("_".into()),
        exclude: ["secret".to_owned()].into(),
        rename: names([("name", "title")]),
        nulls: Nulls::Omit,
        ..Fields::default()
    });
    let change = Record { key: None, asks: Decoded::Change { old, new } };
    let shaped = shape.shape(change, &message(), &schema(), NOW).expect("of this shape");
    let Decoded::Change { old, new } = &shaped else { panic!("{shaped:?}") };
    assert_eq!(new.keys().collect::<Vec<_>>(), ["at_city", "pk"]);
    let gone: Vec<&String> = old.keys().filter(|name| !new.contains_key(*name)).collect();
    assert_eq!(gone, ["at_street", "note", "title"], "secret was never written");
}
