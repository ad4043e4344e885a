//! The item table against DynamoDB Local (or any DynamoDB): `DYNAMODB_ENDPOINT` says where. Also checks that what the sink refuses
//! before sending is what the service refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use aws_sdk_dynamodb::{
    Client,
    config::{Builder, Credentials, Region, retry::RetryConfig},
    types::{AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType as Role, ScalarAttributeType},
};
use aws_smithy_http_client::{Builder as HttpBuilder, tls};
use pulsar_io_dynamodb::{
    dynamodb::{
        attribute::{Item, MAX_ITEM_BYTES, Value, check_item, item_from_json, item_size},
        item_table::ItemTables,
    },
    error::Kind,
    ports::{Action, Condition, Fate, ItemTables as _, KeySchema, KeyType, Vehicle, Write},
};

/// A client for the endpoint that the environment names; says so loudly when there is none.
pub fn client(test: &str) -> Option<Client> {
    let Ok(endpoint) = std::env::var("DYNAMODB_ENDPOINT") else {
        eprintln!("SKIPPED {test}: set DYNAMODB_ENDPOINT to the URL of a DynamoDB Local, such as http://127.0.0.1:8000");
        return None;
    };
    let http = HttpBuilder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
    let config = Builder::new()
        .behavior_version_latest()
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "contract"))
        .retry_config(RetryConfig::disabled())
        .http_client(http)
        .endpoint_url(endpoint);
    Some(Client::from_conf(config.build()))
}

/// A table of its own for each test, with an S partition key `p` and an N sort key `s`.
pub async fn create(client: &Client) -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos();
    let name = format!("item-table-{nanos}-{:x}", fastrand::u64(..));
    let attribute = |name: &str, kind| AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().expect("complete");
    let key = |name: &str, role| KeySchemaElement::builder().attribute_name(name).key_type(role).build().expect("complete");
    let request = client
        .create_table()
        .table_name(&name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("s", ScalarAttributeType::N))
        .attribute_definitions(attribute("p", ScalarAttributeType::S))
        .key_schema(key("p", Role::Hash))
        .key_schema(key("s", Role::Range));
    request.send().await.expect("a table");
    name
}

fn schema() -> KeySchema {
    KeySchema { partition: ("p".into(), KeyType::S), sort: Some(("s".into(), KeyType::N)) }
}

fn put(table: &str, json: &str) -> Arc<Write> {
    Arc::new(Write { table: table.into(), action: Action::Put(item_from_json(json).expect("test data")), condition: None })
}

/// All items of a small table, by partition key.
async fn scan(client: &Client, table: &str) -> BTreeMap<String, std::collections::HashMap<String, AttributeValue>> {
    let page = client.scan().table_name(table).consistent_read(true).send().await.expect("a scan");
    assert!(page.last_evaluated_key.is_none(), "more than a page");
    page.items.unwrap_or_default().into_iter().map(|item| (item["p"].as_s().expect("S").clone(), item)).collect()
}

#[tokio::test]
async fn describes_writes_and_deletes() {
    let Some(client) = client("describes_writes_and_deletes") else { return };
    let name = create(&client).await;
    let table = ItemTables::new(client.clone());
    assert_eq!(table.describe(&name).await.expect("described"), schema());
    let every_type = r#"{"p":{"S":"all"},"s":{"N":"1.50"},"b":{"B":"AAH/"},"e":{"S":""},"t":{"BOOL":true},"z":{"NULL":true},
        "ss":{"SS":["a","b"]},"ns":{"NS":["1","1E2"]},"bs":{"BS":["AA=="]},"l":{"L":[{"N":"12345678901234567890.123"},{"L":[]}]},
        "m":{"M":{"x":{"M":{}}}}}"#;
    let writes: Vec<_> =
        (0..24).map(|n| put(&name, &format!(r#"{{"p":{{"S":"{n}"}},"s":{{"N":"{n}"}}}}"#))).chain([put(&name, every_type)]).collect();
    assert_eq!(table.write(Vehicle::Batch, &writes).await.expect("written").fates, vec![Fate::Stored; 25]);
    let stored = scan(&client, &name).await;
    assert_eq!(stored.len(), 25);
    let all = &stored["all"];
    assert_eq!(all.len(), 11);
    assert_eq!(all["s"], AttributeValue::N("1.5".into()));
    assert_eq!(all["b"].as_b().expect("B").as_ref(), [0, 1, 255]);
    assert_eq!(all["l"].as_l().expect("L")[0], AttributeValue::N("12345678901234567890.123".into()));
    assert_eq!(all["z"], AttributeValue::Null(true));
    assert!(all["m"].as_m().expect("M")["x"].is_m());

    let key = Item::from([("p".into(), Value::S("all".into())), ("s".into(), Value::N("15e-1".into()))]);
    let delete = Write { table: name.as_str().into(), action: Action::Delete(key), condition: None };
    table.write(Vehicle::Batch, &[Arc::new(delete)]).await.expect("deleted");
    assert!(!scan(&client, &name).await.contains_key("all"), "N 15e-1 is the key 1.50");
}

#[tokio::test]
async fn a_bad_item_is_refused_with_its_whole_batch() {
    let Some(client) = client("a_bad_item_is_refused_with_its_whole_batch") else { return };
    let name = create(&client).await;
    let table = ItemTables::new(client.clone());
    let error = table
        .write(Vehicle::Batch, &[put(&name, r#"{"p":{"S":"a"},"s":{"N":"1"}}"#), put(&name, r#"{"p":{"S":""},"s":{"N":"1"}}"#)])
        .await
        .expect_err("an empty key");
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains(&name) && error.to_string().contains("BatchWriteItem"), "{error}");
    assert!(scan(&client, &name).await.is_empty(), "the good neighbour is not written");
    let missing = ItemTables::new(client);
    assert_eq!(missing.describe("no-such-table").await.expect_err("no table").kind(), Kind::NotFound);
    let error = missing.write(Vehicle::Batch, &[put("no-such-table", r#"{"p":{"S":"a"},"s":{"N":"1"}}"#)]).await.expect_err("no table");
    assert_eq!(error.kind(), Kind::NotFound);
}

/// What passes `check_item` is taken by the service, and what does not is refused, one by one.
#[tokio::test]
async fn the_service_and_the_check_agree() {
    let Some(client) = client("the_service_and_the_check_agree") else { return };
    let name = create(&client).await;
    let table = ItemTables::new(client);
    let item = |attributes: &str| item_from_json(&format!(r#"{{"p":{{"S":"a"}},"s":{{"N":"1"}}{attributes}}}"#)).expect("test data");
    let sized = |bytes: usize, attributes: &str| {
        let rest = item_size(&item(&format!(r#"{attributes},"x":{{"S":""}}"#)));
        item(&format!(r#"{attributes},"x":{{"S":"{}"}}"#, "x".repeat(bytes - rest)))
    };
    let nested =
        |levels: usize, open: &str, close: &str| item(&format!(r#","x":{}{{"N":"1"}}{}"#, open.repeat(levels), close.repeat(levels)));
    let key = |p: usize, s: &str| item_from_json(&format!(r#"{{"p":{{"S":"{}"}},"s":{{"N":"{s}"}}}}"#, "k".repeat(p))).expect("test data");
    let mixed = r#","n":{"N":"123456"},"l":{"L":[{"BOOL":true},{"M":{"k":{"S":"v"}}}]},"ns":{"NS":["1","22","-333"]},"b":{"B":"AAEC"}"#;
    let cases = [
        ("400 KB", sized(MAX_ITEM_BYTES, "")),
        ("400 KB and a byte", sized(MAX_ITEM_BYTES + 1, "")),
        ("well over 400 KB, mixed", sized(MAX_ITEM_BYTES + 100, mixed)),
        ("well below 400 KB, mixed", sized(MAX_ITEM_BYTES - 100, mixed)),
        ("a partition key of 2048", key(2048, "1")),
        ("a partition key of 2049", key(2049, "1")),
        ("an empty key", key(0, "1")),
        ("38 digits", item(&format!(r#","x":{{"N":"{}"}}"#, "9".repeat(38)))),
        ("39 digits", item(&format!(r#","x":{{"N":"{}"}}"#, "9".repeat(39)))),
        ("38 digits and zeros", item(&format!(r#","x":{{"N":"{}000"}}"#, "9".repeat(38)))),
        ("the largest", item(r#","x":{"N":"9.9999999999999999999999999999999999999E+125"}"#)),
        ("too large", item(r#","x":{"N":"1E126"}"#)),
        ("the smallest", item(r#","x":{"N":"1E-130"}"#)),
        ("too small", item(r#","x":{"N":"1E-131"}"#)),
        ("negative and small", item(r#","x":{"N":"-1E-130"}"#)),
        ("a plus sign", item(r#","x":{"N":"+1"}"#)),
        ("no digit before the point", item(r#","x":{"N":".5"}"#)),
        ("no digit after the point", item(r#","x":{"N":"5."}"#)),
        ("NaN", item(r#","x":{"N":"NaN"}"#)),
        ("no number", item(r#","x":{"N":""}"#)),
        ("a number with a space", item(r#","x":{"N":" 1"}"#)),
        ("an empty set", item(r#","x":{"SS":[]}"#)),
        ("an empty member", item(r#","x":{"SS":[""]}"#)),
        ("a text twice", item(r#","x":{"SS":["a","a"]}"#)),
        ("a number twice", item(r#","x":{"NS":["1","1.0"]}"#)),
        ("bytes twice", item(r#","x":{"BS":["AA==","AA=="]}"#)),
        ("empty values", item(r#","x":{"S":""},"y":{"B":""},"z":{"L":[]},"w":{"M":{}}"#)),
        ("an empty name", item(r#","":{"S":"x"}"#)),
        ("an empty name inside", item(r#","x":{"M":{"":{"S":"x"}}}"#)),
        ("31 maps", nested(31, r#"{"M":{"m":"#, "}}")),
        ("32 maps", nested(32, r#"{"M":{"m":"#, "}}")),
        ("31 lists", nested(31, r#"{"L":["#, "]}")),
        ("32 lists", nested(32, r#"{"L":["#, "]}")),
        ("31 lists, the last empty", item(&format!(r#","x":{}{}"#, r#"{"L":["#.repeat(31), "]}".repeat(31)))),
        ("32 lists, the last empty", item(&format!(r#","x":{}{}"#, r#"{"L":["#.repeat(32), "]}".repeat(32)))),
    ];
    let mut disagree = Vec::new();
    for (what, item) in cases {
        let checked = check_item(&item, &schema());
        let put = Write { table: name.as_str().into(), action: Action::Put(item), condition: None };
        match (table.write(Vehicle::Batch, &[Arc::new(put)]).await, checked) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(_)) => assert_eq!(error.kind(), Kind::Invalid, "{what}: {error}"),
            (Ok(_), Err(why)) => disagree.push(format!("{what}: the service takes it, the check says: {why}")),
            (Err(error), Ok(())) => disagree.push(format!("{what}: the check takes it, the service says: {error}")),
        }
    }
    assert!(disagree.is_empty(), "{disagree:#?}");
}

fn write(table: &str, action: Action, condition: Option<(&str, &str, &str)>) -> Arc<Write> {
    let condition = condition.map(|(expression, name, value)| {
        let item = item_from_json(value).expect("test data");
        Arc::new(Condition { expression: expression.into(), names: BTreeMap::from([("#c".into(), name.into())]), values: item })
    });
    Arc::new(Write { table: table.into(), action, condition })
}

fn item(json: &str) -> Item {
    item_from_json(json).expect("test data")
}

/// Each kind of write alone, with a condition that is met and one that is not.
#[tokio::test]
async fn single_writes_and_their_conditions() {
    let Some(client) = client("single_writes_and_their_conditions") else { return };
    let name = create(&client).await;
    let tables = ItemTables::new(client.clone());
    let newer = |n: u32| Some(format!(r#"{{":v":{{"N":"{n}"}}}}"#));
    let put = |n: u32| Action::Put(item(&format!(r#"{{"p":{{"S":"a"}},"s":{{"N":"1"}},"version":{{"N":"{n}"}}}}"#)));
    let there = |n: u32| {
        let item = item(&format!(r#"{{"p":{{"S":"a"}},"s":{{"N":"1"}},"version":{{"N":"{n}"}}}}"#));
        Fate::ConditionFailed { there: Some(item) }
    };
    let key = || item(r#"{"p":{"S":"a"},"s":{"N":"1"}}"#);
    let update = || Action::Update {
        key: key(),
        set: item(r#"{"size":{"S":"large"}}"#),
        remove: BTreeSet::from(["version".to_owned(), "absent".into()]),
    };
    for (action, version, expected) in [
        (put(5), newer(5), Fate::Stored),
        (put(4), newer(4), there(5)),
        (put(6), newer(6), Fate::Stored),
        (Action::Delete(key()), newer(2), there(6)),
        (update(), newer(6), there(6)),
        (update(), newer(7), Fate::Stored),
        (update(), None, Fate::Stored),
    ] {
        let condition = version.as_deref().map(|version| ("attribute_not_exists(#c) OR #c < :v", "version", version));
        let fates = tables.write(Vehicle::Single, &[write(&name, action.clone(), condition)]).await.expect("answered").fates;
        assert_eq!(fates, [expected], "{action:?}, {version:?}");
    }
    let stored = scan(&client, &name).await;
    let mut attributes: Vec<_> = stored["a"].keys().cloned().collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["p", "s", "size"], "an update sets, removes, and leaves the rest");
    let created = Action::Update { key: item(r#"{"p":{"S":"b"},"s":{"N":"1"}}"#), set: Item::new(), remove: BTreeSet::new() };
    let created = tables.write(Vehicle::Single, &[write(&name, created, None)]).await.expect("answered");
    assert_eq!((created.fates, created.consumed), (vec![Fate::Stored], Some(1.0)));
    assert!(scan(&client, &name).await.contains_key("b"), "an update of nothing creates the item");
    let gone = tables.write(Vehicle::Single, &[write(&name, Action::Delete(key()), None)]).await;
    assert_eq!(gone.expect("answered").fates, [Fate::Stored]);
    assert!(!scan(&client, &name).await.contains_key("a"));
}

/// A cancelled transaction stores nothing, and each write learns its own reason.
#[tokio::test]
async fn a_transaction_is_stored_whole_or_not_at_all() {
    let Some(client) = client("a_transaction_is_stored_whole_or_not_at_all") else { return };
    let (one, other) = (create(&client).await, create(&client).await);
    let tables = ItemTables::new(client.clone());
    let put = |table: &str, p: &str| write(table, Action::Put(item(&format!(r#"{{"p":{{"S":"{p}"}},"s":{{"N":"1"}}}}"#))), None);
    let fails = |p: &str| {
        let action = Action::Put(item(&format!(r#"{{"p":{{"S":"{p}"}},"s":{{"N":"1"}}}}"#)));
        write(&one, action, Some(("#c = :v", "size", r#"{":v":{"N":"1"}}"#)))
    };
    let fates = tables.write(Vehicle::Transaction, &[put(&one, "a"), fails("b"), put(&other, "c")]).await.expect("answered").fates;
    assert_eq!(fates, [Fate::RolledBack, Fate::ConditionFailed { there: None }, Fate::RolledBack]);
    assert!(scan(&client, &one).await.is_empty() && scan(&client, &other).await.is_empty());
    let fates = tables.write(Vehicle::Transaction, &[put(&one, "a"), put(&other, "c")]).await.expect("answered").fates;
    assert_eq!(fates, [Fate::Stored, Fate::Stored]);
    assert!(scan(&client, &one).await.contains_key("a") && scan(&client, &other).await.contains_key("c"));
}

/// One request for two tables; what comes back is told apart.
#[tokio::test]
async fn a_batch_may_span_tables() {
    let Some(client) = client("a_batch_may_span_tables") else { return };
    let (one, other) = (create(&client).await, create(&client).await);
    let tables = ItemTables::new(client.clone());
    let json = r#"{"p":{"S":"a"},"s":{"N":"1"}}"#;
    let fates = tables.write(Vehicle::Batch, &[put(&one, json), put(&other, json)]).await.expect("answered").fates;
    assert_eq!(fates, [Fate::Stored, Fate::Stored]);
    assert!(scan(&client, &one).await.contains_key("a") && scan(&client, &other).await.contains_key("a"));
}
