//! The Java connector's messages, byte for byte: `data/` holds real stream records and what it published for each.

use std::{fs, path::Path};

use pulsar_io_dynamodb::source::convert::convert;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    record: String,
    key: String,
    properties: std::collections::BTreeMap<String, String>,
    payload: String,
}

fn golden(name: &str) -> Vec<Golden> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn every_record_becomes_the_java_connectors_message() {
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
            let event = convert(expected.record.as_bytes()).unwrap_or_else(|error| panic!("{file}:{}: {error}", line + 1));
            let payload = String::from_utf8(event.payload).expect("UTF-8");
            assert_eq!(payload, expected.payload, "{file}:{}", line + 1);
            assert_eq!(event.event_id, expected.key, "{file}:{}: key", line + 1);
            assert_eq!(Some(&event.event_name), expected.properties.get("EVENT_NAME"), "{file}:{}", line + 1);
            let sequence_number = expected.properties.get("SEQUENCE_NUMBER").map(String::as_str);
            assert_eq!(Some(event.sequence_number.as_str()), sequence_number, "{file}:{}", line + 1);
            compared += 1;
        }
    }
    println!("{compared} records compared");
}
