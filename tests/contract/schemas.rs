//! The recorded messages of `tests/golden/data/schemas.jsonl` are what Pulsar's, Avro's and Protobuf's classes write.

use serde_json::Value;

use crate::support::java::pulsar_program;

#[test]
fn the_golden_messages_are_what_javas_classes_write() {
    let Some(mut program) = pulsar_program("the_golden_messages_are_what_javas_classes_write", "Schemas") else { return };
    let output = program.arg("cases").output().expect("java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = |text: &str| text.lines().map(|line| serde_json::from_str(line).expect(line)).collect::<Vec<Value>>();
    let written = lines(&String::from_utf8(output.stdout).expect("UTF-8"));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data/schemas.jsonl");
    let golden = lines(&std::fs::read_to_string(path).expect("readable"));
    assert_eq!(written.len(), golden.len());
    for (written, golden) in written.iter().zip(&golden) {
        assert_eq!(written, golden);
    }
}
