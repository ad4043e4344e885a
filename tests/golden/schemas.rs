//! Messages that Pulsar's, Avro's and Protobuf's own Java classes have encoded (`tests/java/pulsar/Schemas.java`), read by their schemas. What
//! Flink makes of the same values comes from the AWS converters that its sink uses; what RisingWave makes of them is PostgreSQL's text.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use pulsar_io_dynamodb::{
    dynamodb::attribute::{Item, Number, Value, item_from_json, to_json},
    ports::{EntryId, InboundMessage, Schema, SchemaKind},
    sink::decode::{Decoded, Decoder, InputFormat, Record, Rules, TemporalFormat},
};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    kind: String,
    definition: String,
    properties: BTreeMap<String, String>,
    key: Option<String>,
    payload: String,
    flink: Option<Box<RawValue>>,
}

impl Case {
    pub fn schema(&self) -> Schema {
        Schema {
            kind: SchemaKind::by_name(&self.kind).expect("a kind"),
            definition: BASE64.decode(&self.definition).expect("base64"),
            properties: self.properties.clone(),
        }
    }

    fn message(&self) -> InboundMessage {
        InboundMessage {
            entry: EntryId { topic: "persistent://public/default/t-partition-7".into(), ledger: 1, entry: 2, batch_index: None },
            batch_index: 0,
            batch_size: 1,
            key: self.key.clone(),
            key_is_base64: self.key.is_some(),
            ordering_key: None,
            payload: BASE64.decode(&self.payload).expect("base64").into(),
            null_value: false,
            properties: Vec::new(),
            publish_time: 0,
            event_time: None,
            producer_name: "p".into(),
            sequence_id: None,
            schema_version: Some(vec![0]),
        }
    }

    fn record(&self, temporal: TemporalFormat) -> Record {
        let mut decoder = Decoder::new(Rules { format: InputFormat::Schema, temporal, ..Rules::default() });
        let message = self.message();
        let id = decoder.missing(&message).expect("not known yet");
        assert_eq!(&*id.topic, "persistent://public/default/t", "partitions share the schema");
        decoder.learn(id, Some(self.schema())).expect("needs no configuration");
        assert_eq!(decoder.missing(&message), None);
        decoder.decode(&message).unwrap_or_else(|poison| panic!("{}: {poison}", self.name))
    }

    fn item(&self, temporal: TemporalFormat) -> Item {
        match self.record(temporal) {
            Record { key: None, asks: Decoded::Document(item) } => item,
            other => panic!("{}: {other:?}", self.name),
        }
    }
}

pub fn cases() -> Vec<Case> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/schemas.jsonl");
    let text = std::fs::read_to_string(path).expect("readable");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
}

/// As DynamoDB sees it: numbers by value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::N(a), Value::N(b)) => Number::parse(a).expect("a number") == Number::parse(b).expect("a number"),
        _ => a == b,
    }
}

/// 33: a table that Flink writes goes on unchanged.
#[test]
fn t33_flinks_texts() {
    let mut compared = 0;
    for case in cases() {
        let Some(flink) = &case.flink else { continue };
        let (expected, item) = (item_from_json(flink.get()).expect("typed"), case.item(TemporalFormat::Flink));
        for (name, expected) in expected {
            assert!(same(&item[&name], &expected), "{}: {name}: {:?}, Flink writes {expected:?}", case.name, item[&name]);
            compared += 1;
        }
    }
    assert_eq!(compared, 45);
}

/// 33: a table that RisingWave writes goes on unchanged. For each of its types, the schema type that stands for it.
#[test]
fn t33_risingwaves_texts() {
    let avro = case("avro").item(TemporalFormat::Risingwave);
    for (attribute, json) in [
        ("flag", r#"{"BOOL":true}"#),                                        // boolean
        ("small", r#"{"N":"-1"}"#),                                          // smallint, integer
        ("big", r#"{"N":"9223372036854775807"}"#),                           // bigint, serial
        ("price", r#"{"N":"123456789012345678901234567890123456.10"}"#),     // numeric
        ("single", r#"{"N":"0.1"}"#),                                        // real
        ("exact", r#"{"N":"1234567.125"}"#),                                 // double precision
        ("id", r#"{"S":"outer"}"#),                                          // varchar
        ("blob", r#"{"B":"AP8="}"#),                                         // bytea
        ("day", r#"{"S":"2020-01-31"}"#),                                    // date
        ("timeMillis", r#"{"S":"10:15:00"}"#),                               // time
        ("localMillis", r#"{"S":"2020-01-31 10:15:00.123"}"#),               // timestamp
        ("localMicros", r#"{"S":"2020-01-31 10:15:00.123456"}"#),            // timestamp
        ("atMicros", r#"{"S":"2020-01-31 10:15:00.123456+00:00"}"#),         // timestamptz
        ("months", r#"{"S":"1 year 2 mons"}"#),                              // interval
        ("took", r#"{"S":"1 day 00:00:00.007"}"#),                           // interval
        ("lines", r#"{"L":[{"M":{"sku":{"S":"x"},"state":{"S":"NEW"}}}]}"#), // array, struct
        ("tags", r#"{"L":[{"S":"a"},{"S":"b"}]}"#),                          // array
        ("maybeNot", r#"{"NULL":true}"#),                                    // null
    ] {
        let expected = &item_from_json(&format!("{{\"x\":{json}}}")).expect("typed")["x"];
        assert_eq!(&avro[attribute], expected, "{attribute}");
    }
    for (name, text) in [
        ("local time 2020-01-31T10:15:30.000005", "10:15:30.000005"),
        ("local date-time 2020-01-31T10:15", "2020-01-31 10:15:00"),
        ("instant 2020-01-31T10:15", "2020-01-31 10:15:00+00:00"),
        ("instant 2020-01-31T10:15:30.005", "2020-01-31 10:15:30.005+00:00"),
    ] {
        assert_eq!(case(name).item(TemporalFormat::Risingwave)["value"], Value::S(text.into()), "{name}");
    }
}

/// 35: every type of Avro, also the logical ones, by the writer's schema.
#[test]
fn t35_every_avro_type() {
    let item = case("avro").item(TemporalFormat::Iso);
    let Value::M(inner) = &item["parent"] else { panic!("{:?}", item["parent"]) };
    assert_eq!(inner["id"], Value::S("inner".into()));
    assert_eq!(
        to_json(inner),
        r#"{"atMicros":{"S":"2020-01-31T10:15:00.123456Z"},"atMillis":{"S":"2020-01-31T10:15:00.123Z"},"big":{"N":"9223372036854775807"},"blob":{"B":"AP8="},"counts":{"M":{"k":{"N":"5"}}},"day":{"S":"2020-01-31"},"debt":{"N":"-1.500"},"exact":{"N":"1234567.125"},"flag":{"BOOL":true},"four":{"B":"AQIDBA=="},"id":{"S":"inner"},"lines":{"L":[{"M":{"sku":{"S":"x"},"state":{"S":"NEW"}}}]},"localMicros":{"S":"2020-01-31T10:15:00.123456"},"localMillis":{"S":"2020-01-31T10:15:00.123"},"maybe":{"S":"yes"},"maybeNot":{"NULL":true},"months":{"S":"P1Y2M"},"no":{"NULL":true},"parent":{"NULL":true},"price":{"N":"123456789012345678901234567890123456.10"},"single":{"N":"0.1"},"small":{"N":"-1"},"state":{"S":"PAID"},"tags":{"L":[{"S":"a"},{"S":"b"}]},"timeMicros":{"S":"10:15:00"},"timeMillis":{"S":"10:15:00"},"took":{"S":"P1DT0.007S"},"uuid":{"S":"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"}}"#
    );
    assert_eq!(to_json(&case("avro array").item(TemporalFormat::Iso)), r#"{"value":{"L":[{"N":"1"},{"N":"2"}]}}"#);
    let epochs = case("avro").item(TemporalFormat::EpochMillis);
    assert_eq!((&epochs["atMicros"], &epochs["day"]), (&Value::N("1580465700123.456".into()), &Value::N("1580428800000".into())));
}

/// 36
#[test]
fn t36_protobuf_nested_oneof_and_map() {
    assert_eq!(
        to_json(&case("protobuf native").item(TemporalFormat::Iso)),
        r#"{"at":{"S":"2020-01-31T10:15:00.123456Z"},"big":{"N":"-9223372036854775808"},"blob":{"B":"AP8="},"cash":{"N":"-3"},"counts":{"M":{"k":{"N":"5"}}},"extra":{"M":{"a":{"N":"1.5"},"z":{"NULL":true}}},"flag":{"BOOL":false},"id":{"S":"a"},"lines":{"L":[{"M":{"n":{"N":"0"},"sku":{"S":"x"}}}]},"packed":{"L":[{"N":"-1"},{"N":"300"}]},"price":{"N":"2.5"},"single":{"N":"0"},"state":{"S":"PAID"},"took":{"S":"PT3.5S"},"unsigned":{"N":"18446744073709551615"},"wrapped":{"N":"0"}}"#
    );
    assert_eq!(
        to_json(&case("protobuf defaults").item(TemporalFormat::Iso)),
        r#"{"big":{"N":"0"},"blob":{"B":""},"counts":{"M":{}},"flag":{"BOOL":false},"id":{"S":""},"lines":{"L":[]},"packed":{"L":[]},"price":{"N":"0"},"single":{"N":"0"},"state":{"S":"NEW"},"unsigned":{"N":"0"}}"#
    );
}

/// 37
#[test]
fn t37_key_and_value_inline_and_separated_with_null() {
    let record = |name: &str| case(name).record(TemporalFormat::Iso);
    let document = |json: &str| Decoded::Document(item_from_json(json).expect("typed"));
    let small = document(r#"{"id":{"S":"r"},"v":{"N":"1"}}"#);
    assert_eq!(record("inline"), Record { key: Some(Value::S("k".into())), asks: small.clone() });
    assert_eq!(record("inline null value"), Record { key: Some(Value::S("k".into())), asks: Decoded::Tombstone });
    assert_eq!(record("inline null key"), Record { key: None, asks: small.clone() });
    let Decoded::Document(key) = small else { unreachable!("a document") };
    let seven = document(r#"{"value":{"N":"7"}}"#);
    assert_eq!(record("separated"), Record { key: Some(Value::M(key)), asks: seven.clone() });
    assert_eq!(record("separated null key"), Record { key: None, asks: seven });
}

#[test]
fn every_primitive_has_its_type_and_text() {
    for (name, json) in [
        ("boolean", r#"{"BOOL":true}"#),
        ("int8", r#"{"N":"-128"}"#),
        ("int16", r#"{"N":"-32768"}"#),
        ("int32", r#"{"N":"-2147483648"}"#),
        ("int64", r#"{"N":"-9223372036854775808"}"#),
        ("float", r#"{"N":"0.1"}"#),
        ("double", r#"{"N":"10000000000"}"#),
        ("string", r#"{"S":"é \"😀\""}"#),
        ("bytes", r#"{"B":"AP8="}"#),
        ("date", r#"{"S":"2020-01-31"}"#),
        ("time", r#"{"S":"10:15:30.123"}"#),
        ("timestamp", r#"{"S":"2020-01-31T10:15:30.123Z"}"#),
        ("instant 2020-01-31T10:15", r#"{"S":"2020-01-31T10:15:00Z"}"#),
        ("local time 2020-01-31T10:15", r#"{"S":"10:15:00"}"#),
        ("local date-time 2020-01-31T10:15:30.123456789", r#"{"S":"2020-01-31T10:15:30.123456789"}"#),
        ("local date 1969-12-31", r#"{"S":"1969-12-31"}"#),
    ] {
        assert_eq!(to_json(&case(name).item(TemporalFormat::Iso)), format!(r#"{{"value":{json}}}"#), "{name}");
    }
}

/// Cut anywhere, a payload is poison and no panic.
#[test]
fn what_is_cut_short_is_poison() {
    for case in cases().into_iter().filter(|case| !["STRING", "BYTES"].contains(&case.kind.as_str())) {
        let whole = case.message();
        let mut decoder = Decoder::new(Rules { format: InputFormat::Schema, ..Rules::default() });
        decoder.learn(decoder.missing(&whole).expect("not known yet"), Some(case.schema())).expect("a schema");
        for length in 1..whole.payload.len() {
            let cut = InboundMessage { payload: whole.payload.slice(..length), ..whole.clone() };
            // Protobuf has no end of its own: cut between two fields it is a shorter message.
            assert!(decoder.decode(&cut).is_err() || case.kind == "PROTOBUF_NATIVE", "{}: {length} bytes", case.name);
        }
    }
}
