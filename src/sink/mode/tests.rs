use super::*;
use crate::{
    dynamodb::attribute::{ItemKey, item_from_json, to_json},
    ports::{EntryId, KeyType},
};

fn schema() -> KeySchema {
    KeySchema { partition: ("p".into(), KeyType::S), sort: None }
}

fn item(json: &str) -> Item {
    item_from_json(json).expect("test data")
}

fn message(payload: &str, properties: &[(&str, &str)]) -> InboundMessage {
    InboundMessage {
        entry: EntryId { topic: "persistent://public/default/in".into(), ledger: 7, entry: 12, batch_index: None },
        batch_index: 3,
        batch_size: 4,
        key: None,
        key_is_base64: false,
        ordering_key: None,
        payload: payload.as_bytes().to_vec().into(),
        properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        publish_time: 1_700_000_000_123,
        event_time: None,
        producer_name: String::new(),
        sequence_id: None,
        null_value: false,
        schema_version: None,
    }
}

fn shape(mode: &Mode, action: Action, message: &InboundMessage) -> Result<Shaped, Poison> {
    let key = Target { table: "copies".into(), key: ItemKey::of(action.item(), &schema()).expect("a key") };
    let mapped = Mapped { write: Write { table: "copies".into(), action, condition: None }, key };
    mode.shape(mapped, &schema(), message, 1000)
}

fn newest(source: VersionSource, deletes: Deletes) -> Mode {
    Mode { what: What::Newest(Versioning { attribute: "v".into(), source, deletes }), ..Mode::default() }
}

fn put() -> Action {
    Action::Put(item(r#"{"p":{"S":"a"},"x":{"N":"1"},"n":{"NULL":true}}"#))
}

fn delete() -> Action {
    Action::Delete(item(r#"{"p":{"S":"a"}}"#))
}

#[test]
fn each_mode_makes_its_write() {
    let plain = message("", &[]);
    let of = |what: What, action: Action| {
        let shaped = shape(&Mode { what, ..Mode::default() }, action, &plain).expect("a write");
        (shaped.write.action, shaped.write.condition.map(|condition| condition.expression.clone()))
    };
    assert_eq!(of(What::Put, put()), (put(), None));
    assert_eq!(of(What::Insert, put()), (put(), Some("attribute_not_exists(#io_key)".into())));
    assert_eq!(of(What::Insert, delete()), (delete(), None));
    let set = item(r#"{"x":{"N":"1"},"n":{"NULL":true}}"#);
    let update = Action::Update { key: item(r#"{"p":{"S":"a"}}"#), set, remove: Default::default() };
    assert_eq!(of(What::Update, put()), (update, None));
    assert_eq!(of(What::Update, delete()), (delete(), None));
    assert_eq!(of(What::Delete, put()), (delete(), None));
}

/// 30: as texts of one length, sequence numbers are ordered as numbers, whatever their lengths were.
#[test]
fn s30_sequence_numbers_are_ordered_by_value() {
    let mode = newest(VersionSource::SequenceNumber, Deletes::Hard);
    let version = |number: &str| shape(&mode, put(), &message("", &[("SEQUENCE_NUMBER", number)])).map(|shaped| shaped.version);
    let ordered = ["1", "99", "100", &"9".repeat(21), &"1".repeat(39), &"9".repeat(39), &"1".repeat(40)]
        .map(|number| version(number).expect("legal"));
    assert!(ordered.is_sorted_by(|a, b| a < b), "{ordered:?}");
    for bad in ["", "-1", "x", &"1".repeat(41)] {
        assert_eq!(version(bad).expect_err(bad).reason, Reason::NoVersion);
    }
    let payload = message(r#"{"eventName":"REMOVE","dynamodb":{"SequenceNumber":"5"}}"#, &[]);
    let shaped = shape(&mode, delete(), &payload).expect("a version");
    assert_eq!(shaped.version, Some(Version::Text(format!("{:0>40}", 5))), "from the payload");
    assert_eq!(shape(&mode, put(), &message("{}", &[])).expect_err("none").reason, Reason::NoVersion);
}

#[test]
fn each_source_has_its_version() {
    let plain = message("", &[]);
    let version = |source, action: Action| {
        let shaped = shape(&newest(source, Deletes::Hard), action, &plain);
        shaped.map(|shaped| to_json(&shaped.write.condition.expect("a condition").values))
    };
    assert_eq!(
        version(VersionSource::MessageId, put()).as_deref(),
        Ok(r#"{":io_version":{"S":"00000000000000000007:00000000000000000012:000003"}}"#)
    );
    assert_eq!(version(VersionSource::PublishTime, put()).as_deref(), Ok(r#"{":io_version":{"N":"1700000000123"}}"#));
    assert_eq!(version(VersionSource::EventTime, put()).expect_err("none").reason, Reason::NoVersion);
    let own = |json: &str| version(VersionSource::Attribute, Action::Put(item(json)));
    assert_eq!(own(r#"{"p":{"S":"a"},"v":{"N":"1.50"}}"#).as_deref(), Ok(r#"{":io_version":{"N":"1.50"}}"#));
    for bad in [r#"{"p":{"S":"a"}}"#, r#"{"p":{"S":"a"},"v":{"BOOL":true}}"#] {
        assert_eq!(own(bad).expect_err(bad).reason, Reason::NoVersion);
    }
}

/// 29: what is left of an item says until when.
#[test]
fn s29_a_delete_leaves_a_tombstone() {
    let sequenced = message("", &[("SEQUENCE_NUMBER", "5")]);
    let left = |deletes: Deletes| shape(&newest(VersionSource::SequenceNumber, deletes), delete(), &sequenced).expect("a write").write;
    let version = format!("{:0>40}", 5);
    let forever = left(Deletes::Tombstone(None)).action;
    assert_eq!(forever, Action::Put(item(&format!(r#"{{"p":{{"S":"a"}},"v":{{"S":"{version}"}},"_deleted":{{"BOOL":true}}}}"#))));
    let Action::Put(tomb) = left(Deletes::Tombstone(Some(("t".into(), Duration::from_secs(60))))).action else { panic!("no put") };
    assert_eq!(tomb["t"], Value::N("1060".into()));
    let hard = left(Deletes::Hard);
    assert_eq!(hard.action, delete());
    assert_eq!(hard.condition.expect("a condition").expression, "attribute_not_exists(#io_version) OR #io_version <= :io_version");
}

#[test]
fn a_version_cannot_be_a_key_of_the_table() {
    let mut mode = newest(VersionSource::MessageId, Deletes::Tombstone(Some(("p".into(), Duration::ZERO))));
    assert!(mode.contradiction(&schema()).expect("the time to live").contains("\"p\" is a key"));
    mode = newest(VersionSource::MessageId, Deletes::Hard);
    assert_eq!(mode.contradiction(&schema()), None);
    let other = KeySchema { partition: ("p".into(), KeyType::S), sort: Some(("v".into(), KeyType::S)) };
    assert!(mode.contradiction(&other).is_some());
}

#[test]
fn what_is_there_as_it_would_be_written_is_written() {
    let there = item(r#"{"p":{"S":"a"},"x":{"N":"1.0"},"n":{"NULL":true}}"#);
    assert!(is_as_written(&put(), Some(&there)));
    assert!(!is_as_written(&put(), None) && !is_as_written(&put(), Some(&item(r#"{"p":{"S":"a"}}"#))));
    assert!(is_as_written(&delete(), None) && !is_as_written(&delete(), Some(&there)));
    let update = |set: &str, remove: &[&str]| Action::Update {
        key: item(r#"{"p":{"S":"a"}}"#),
        set: item(set),
        remove: remove.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert!(is_as_written(&update(r#"{"x":{"N":"1"}}"#, &["y"]), Some(&there)));
    assert!(!is_as_written(&update(r#"{"x":{"N":"2"}}"#, &[]), Some(&there)));
    assert!(!is_as_written(&update("{}", &["x"]), Some(&there)));
    assert!(!is_as_written(&update("{}", &[]), None));
}
