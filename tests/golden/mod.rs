//! The Java connector's messages, byte for byte: `data/` holds real stream records and what it published for each.

pub mod schemas;

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use pulsar_io_dynamodb::{
    ports::ShardId,
    source::convert::{Order, Record, shape::Shape},
};
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Golden {
    pub record: String,
    pub key: String,
    pub properties: BTreeMap<Cow<'static, str>, String>,
    pub payload: String,
}

pub fn golden(name: &str) -> Vec<Golden> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn every_record_becomes_the_java_connectors_message() {
    println!("{} records compared", compare_all());
}

/// The Java connector's shards share one decoder, which drops records when two of them use it at a time.
#[test]
fn w7_shards_that_are_converted_at_the_same_time_do_not_disturb_each_other() {
    let compared: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(compare_all)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no difference")).sum()
    });
    assert_eq!(compared, 8 * 660);
}

fn compare_all() -> usize {
    let mut compared = 0;
    for (file, records) in [
        ("golden_keys_only.jsonl", 212),
        ("golden_new_image.jsonl", 212),
        ("golden_new_and_old_images.jsonl", 212),
        ("golden_numkey.jsonl", 4),
        ("golden_ttl.jsonl", 6),
        ("edges_benign.jsonl", 14),
    ] {
        let golden = golden(file);
        assert_eq!(golden.len(), records, "{file} is not complete");
        for (line, expected) in golden.iter().enumerate() {
            let record =
                Record::read(expected.record.as_bytes(), Order::Compat).unwrap_or_else(|error| panic!("{file}:{}: {error}", line + 1));
            let message = Shape::default().message(&record, &ShardId::new("shard")).expect("a message");
            assert_eq!(String::from_utf8(message.payload).expect("UTF-8"), expected.payload, "{file}:{}", line + 1);
            assert_eq!(message.key.as_ref(), Some(&expected.key), "{file}:{}: key", line + 1);
            assert_eq!(message.properties.into_iter().collect::<BTreeMap<_, _>>(), expected.properties, "{file}:{}: properties", line + 1);
            compared += 1;
        }
    }
    compared
}
