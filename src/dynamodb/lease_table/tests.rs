use serde_json::Value;

use super::*;

/// A row as Scan's JSON shows it.
fn from_json(json: &Value) -> Row {
    let value = |value: &Value| match value.as_object().and_then(|object| object.iter().next()) {
        Some((tag, Value::String(text))) if tag == "S" => AttributeValue::S(text.clone()),
        Some((tag, Value::String(text))) if tag == "N" => AttributeValue::N(text.clone()),
        Some((tag, Value::Array(members))) if tag == "SS" => {
            AttributeValue::Ss(members.iter().map(|member| member.as_str().expect("text").into()).collect())
        }
        other => panic!("{other:?}"),
    };
    json.as_object().expect("a row").iter().map(|(name, json)| (name.clone(), value(json))).collect()
}

/// Every state of the lease table that the Java connector was seen to leave.
fn golden() -> Vec<Row> {
    let files = [
        include_str!("../../../tests/golden/data/lease_rows_nao.jsonl"),
        include_str!("../../../tests/golden/data/lease_rows_split.jsonl"),
    ];
    let states = files.iter().flat_map(|file| file.lines()).map(|line| serde_json::from_str::<Value>(line).expect(line));
    let rows: Vec<Row> =
        states.flat_map(|state| state["items"].as_array().into_iter().flatten().map(from_json).collect::<Vec<_>>()).collect();
    assert!(rows.len() >= 56, "only {} rows", rows.len());
    rows
}

#[test]
fn every_row_of_the_java_connector_is_read_and_written_the_same_l3() {
    for row in golden() {
        let lease = read_row(&row).unwrap_or_else(|| panic!("not read: {row:?}"));
        assert_eq!(write_row(&lease), row);
    }
}

#[test]
fn our_attributes_are_extra_ones_l3() {
    let mut row = golden().remove(0);
    row.insert(START_AT.into(), AttributeValue::N("1700000000000".into()));
    row.insert(NONCE.into(), text("n@me"));
    row.insert(WANTED_BY.into(), text("n2@tenant/ns/name@x-0"));
    row.extend([(EPOCH.into(), number(7)), (ORDINAL.into(), number(3)), (MARKED.into(), text("SHARD_END"))]);
    row.insert(STREAM.into(), text("arn:aws:dynamodb:eu-west-1:1:table/t/stream/l"));
    row.insert(OWNER.into(), text("me"));
    let lease = read_row(&row).expect("a lease");
    assert_eq!((lease.start_at, lease.nonce.as_deref()), (Some(1_700_000_000_000), Some("n")));
    assert_eq!(lease.stream.as_ref().map(|stream| (stream.table(), stream.label())), Some(("arn:aws:dynamodb:eu-west-1:1:table/t", "l")));
    let asker = Holder { id: "tenant/ns/name@x-0".into(), nonce: "n2".into() };
    assert_eq!(lease.wanted_by, Some(asker));
    assert_eq!(lease.mark, Some(Mark { epoch: 7, ordinal: 3, checkpoint: Checkpoint::ShardEnd }));
    assert_eq!(write_row(&lease), row);
}

#[test]
fn the_nonce_of_an_owner_before_is_not_the_javas() {
    let mut row = golden().remove(0);
    row.insert(NONCE.into(), text("n@me"));
    row.insert(OWNER.into(), text("host:java"));
    assert_eq!(read_row(&row).expect("a lease").nonce, None);
}

#[test]
fn what_is_no_lease_is_left_out() {
    for (name, value) in
        [(CHECKPOINT, text("soon")), (CHECKPOINT, number(1)), (COUNTER, text("1")), (COUNTER, AttributeValue::N("-1".into()))]
    {
        let mut row = golden().remove(0);
        row.insert(name.into(), value);
        assert_eq!(read_row(&row), None, "{name}");
    }
    assert!(is_shards_row(&golden().remove(0)), "a shard's row that cannot be read must not be left out (S1)");
    assert!(!is_shards_row(&Row::from([(KEY.to_string(), text("Leader"))])));
    assert_eq!(read_row(&Row::from([(KEY.to_string(), text("Leader")), ("entityType".to_string(), text("LEADER"))])), None);
}
