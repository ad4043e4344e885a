use super::{
    java_hash::{java_buckets, java_hash},
    java_map,
    read::whole_milliseconds,
    *,
};

fn payload(image: &str) -> String {
    ordered(image, Order::Compat)
}

fn ordered(image: &str, order: Order) -> String {
    let record = format!(
        r#"{{"eventID":"1","eventName":"INSERT","dynamodb":{{"NewImage":{image},"SequenceNumber":"42","ApproximateCreationDateTime":1.5}}}}"#
    );
    let payload = String::from_utf8(Record::read(record.as_bytes(), order).unwrap().event()).unwrap();
    let image = payload.split_once(r#""NewImage":"#).unwrap().1;
    image.split_once(r#","SequenceNumber":"42"}}"#).unwrap().0.to_string()
}

#[test]
fn the_attributes_of_the_java_connectors_page_come_out_in_its_order() {
    let image = r#"{"age":{"N":"30"},"email":{"S":"e"},"name":{"S":"Alice"},"streamnative":{"S":"user2"}}"#;
    assert_eq!(payload(image), r#"{"name":{"S":"Alice"},"streamnative":{"S":"user2"},"age":{"N":"30"},"email":{"S":"e"}}"#);
}

#[test]
fn names_of_one_bucket_keep_the_order_of_the_service() {
    assert_eq!(java_hash(b"Aa"), java_hash(b"BB"));
    assert_eq!(payload(r#"{"Aa":{"S":""},"BB":{"S":""}}"#), r#"{"Aa":{"S":""},"BB":{"S":""}}"#);
    assert_eq!(payload(r#"{"BB":{"S":""},"Aa":{"S":""}}"#), r#"{"BB":{"S":""},"Aa":{"S":""}}"#);
}

#[test]
fn the_table_doubles_when_three_quarters_are_exceeded() {
    assert_eq!([0, 12, 13, 24, 25, 48, 49].map(java_buckets), [16, 16, 32, 32, 64, 64, 128]);
}

#[test]
fn hashes_are_over_utf16_units() {
    // Java: "é".hashCode() == 233; "😀".hashCode() == 0xD83D * 31 + 0xDE00 == 1772899.
    assert_eq!(java_hash("é".as_bytes()), 233);
    assert_eq!(java_hash("😀".as_bytes()), 1_772_899 ^ (1_772_899 >> 16));
    assert_eq!(java_hash(b"\xED\xA0\xBD"), 0xD83D);
}

#[test]
fn escapes_are_jacksons() {
    let image = r#"{"a":{"S":"\" \\ \/ \b\t\n\f\r \u0001\u001f \u007f \u2028 \ud83d\ude00 é"}}"#;
    let expected = "{\"a\":{\"S\":\"\\\" \\\\ / \\b\\t\\n\\f\\r \\u0001\\u001F \u{7f} \u{2028} 😀 é\"}}";
    assert_eq!(payload(image), expected);
}

#[test]
fn a_lone_surrogate_becomes_a_question_mark() {
    assert_eq!(payload(r#"{"a\udc00":{"S":"x\ud800y"},"b":{"S":"\ud800"}}"#), r#"{"b":{"S":"?"},"a?":{"S":"x?y"}}"#);
}

#[test]
fn unknown_and_null_members_are_left_out_at_every_level() {
    let image = r#"{"a":{"X":[1]},"b":{"S":null},"c":{"L":[{"X":1},{"N":"1","Y":2}]},"d":{}}"#;
    assert_eq!(payload(image), r#"{"a":{},"b":{},"c":{"L":[{},{"N":"1"}]},"d":{}}"#);
    assert_eq!(payload("{}"), "{}");
}

#[test]
fn milliseconds_are_cut_not_rounded() {
    assert_eq!(
        [1.5, 1479499740.0, 1479499740.123, 1479499740.1239, 1.47949974E9].map(whole_milliseconds),
        [1500, 1_479_499_740_000, 1_479_499_740_123, 1_479_499_740_123, 1_479_499_740_000]
    );
}

#[test]
fn what_is_no_record_is_poison_with_a_reason() {
    for (record, why) in [
        ("{", "EOF"),
        ("[]", "expected an object"),
        (r#"{"eventName":"INSERT","dynamodb":{"SequenceNumber":"1"}}"#, "no eventID"),
        (r#"{"eventID":"1","dynamodb":{"SequenceNumber":"1"}}"#, "no eventName"),
        (r#"{"eventID":"1","eventName":"INSERT"}"#, "no SequenceNumber"),
        (r#"{"eventID":"1","eventName":"INSERT","dynamodb":{"SequenceNumber":"x"}}"#, "not a decimal number"),
        (r#"{"eventID":7}"#, "expected a string"),
        (r#"{"dynamodb":{"Keys":{"a":{"S":1}}}}"#, "expected a string"),
        (r#"{"dynamodb":{"Keys":{"a":null}}}"#, "is null"),
    ] {
        let error = Record::read(record.as_bytes(), Order::Compat).expect_err(record);
        assert_eq!(error.kind(), Kind::Poison, "{record}");
        assert!(error.to_string().contains(why), "{record}: {error}");
    }
}

#[test]
fn sorted_is_by_name_at_every_level() {
    let image = r#"{"b":{"M":{"z":{"S":"1"},"a":{"L":[{"M":{"é":{"S":""},"e":{"S":""},"E":{"S":""}}}]}}},"a":{"S":"x"},"B":{"S":""}}"#;
    let sorted = r#"{"B":{"S":""},"a":{"S":"x"},"b":{"M":{"a":{"L":[{"M":{"E":{"S":""},"e":{"S":""},"é":{"S":""}}}]},"z":{"S":"1"}}}}"#;
    assert_eq!(ordered(image, Order::Sorted), sorted);
    assert_ne!(payload(image), sorted);
}

#[test]
fn the_images_can_be_left_out() {
    let record = r#"{"eventID":"1","eventName":"MODIFY","dynamodb":{"Keys":{"k":{"S":"a"}},"NewImage":{"k":{"S":"a"}},"OldImage":{},"SequenceNumber":"42","SizeBytes":9}}"#;
    let record = Record::read(record.as_bytes(), Order::Compat).unwrap();
    let expected = r#"{"eventID":"1","eventName":"MODIFY","dynamodb":{"Keys":{"k":{"S":"a"}},"SequenceNumber":"42","SizeBytes":9}}"#;
    assert_eq!(String::from_utf8(record.event_without_images()).unwrap(), expected);
}

/// The ninth of one hash makes a table of 16 grow, the tenth one of 32, the eleventh makes a tree. As a Java 17 iterates.
#[test]
fn r16_a_crowded_bucket_is_in_javas_order() {
    let names: Vec<String> = (0..16).map(|bits| (0..4).map(|at| ["Aa", "BB"][bits >> at & 1]).collect()).collect();
    let order = |count: usize| {
        let keys: Vec<_> = names[..count].iter().map(|name| (java_hash(name.as_bytes()), name.as_bytes())).collect();
        java_map::order(&keys)
    };
    assert_eq!(order(10), (0..10).collect::<Vec<_>>());
    assert_eq!(order(11), [1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(order(16), [1, 0, 2, 3, 13, 4, 12, 5, 6, 14, 7, 15, 11, 8, 9, 10]);
}
