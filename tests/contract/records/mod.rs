//! Generated stream records, converted by us and by the Java connector's own classes (`tests/java/Convert.java`): the same bytes.

mod generate;

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use pulsar_io_dynamodb::{
    ports::ShardId,
    source::convert::{Order, Record, shape::Shape},
};

use self::generate::Generator;
use super::super::lab::seed;
use crate::support::java::{self, Dialogue};

const RECORDS: usize = 1_000;

#[test]
fn r16_a_thousand_generated_records_become_the_java_connectors_bytes() {
    let Some(program) = java::program("r16_a_thousand_generated_records", "Convert") else { return };
    let mut java = Dialogue::start(program);
    let seed = seed("r16_a_thousand_generated_records");
    let mut generator = Generator::new(seed);
    for number in 0..RECORDS {
        let text = generator.record();
        let theirs = java.ask(&text);
        let text_of =
            |name: &str| theirs[name].as_str().unwrap_or_else(|| panic!("SEED={seed}, record {number}: {theirs}\nof {text}")).to_owned();
        let record =
            Record::read(text.as_bytes(), Order::Compat).unwrap_or_else(|error| panic!("SEED={seed}, record {number}: {error}\nof {text}"));
        let ours = Shape::default().message(&record, &ShardId::new("shard")).expect("a message");
        let value = BASE64_STANDARD.decode(text_of("value")).expect("base64");
        assert!(
            ours.payload == value,
            "SEED={seed}, record {number}:\nours   {}\ntheirs {}\nof     {text}",
            String::from_utf8_lossy(&ours.payload),
            String::from_utf8_lossy(&value)
        );
        assert_eq!(ours.key, Some(text_of("key")), "SEED={seed}, record {number}: {text}");
        let properties: BTreeMap<Cow<'static, str>, String> = serde_json::from_value(theirs["properties"].clone()).expect("texts");
        assert_eq!(ours.properties.into_iter().collect::<BTreeMap<_, _>>(), properties, "SEED={seed}, record {number}: {text}");
    }
    println!("{RECORDS} records compared: {:?}", generator.seen);
    assert!(generator.seen.is_complete(), "{:?}", generator.seen);
}
