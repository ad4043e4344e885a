//! The source's messages, backwards: INSERT and MODIFY store the new image, REMOVE deletes by the keys. What changes items instead of replacing them is told the
//! old image too.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Decoded, OnMissingImage, Rules, not_parseable};
use crate::{
    dynamodb::attribute::{Attributes, Number, Value},
    sink::poison::{Poison, Reason},
};

/// The members that matter; the rest (sequence number, times) is for other readers.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "eventName")]
    name: String,
    #[serde(borrow)]
    dynamodb: Change<'a>,
    #[serde(rename = "userIdentity")]
    user: Option<User>,
}

/// Who made the change, where it was no client.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    principal_id: Option<String>,
}

/// Time to live. Source: "DynamoDB Streams and Time to Live", Amazon DynamoDB Developer Guide.
const DYNAMODB_ITSELF: &str = "dynamodb.amazonaws.com";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change<'a> {
    keys: Option<Attributes>,
    new_image: Option<Attributes>,
    #[serde(borrow)]
    old_image: Option<&'a RawValue>,
    stream_view_type: Option<String>,
}

pub fn decode(text: &str, rules: &Rules) -> Result<Decoded, Poison> {
    let Event { name, dynamodb, user } = serde_json::from_str(text).map_err(not_parseable)?;
    let keys = dynamodb.keys.ok_or_else(|| Poison::new(Reason::NoKey, "the change event has no Keys"))?.0;
    match name.as_str() {
        "INSERT" | "MODIFY" => {
            let Some(Attributes(mut item)) = dynamodb.new_image else {
                if rules.missing_image == OnMissingImage::Ignore {
                    return Ok(Decoded::Nothing);
                }
                let view = dynamodb.stream_view_type.as_deref().unwrap_or("of unknown view type");
                let why = format!("the change event has no NewImage: its stream is {view}, copying needs NEW_IMAGE or NEW_AND_OLD_IMAGES");
                return Err(Poison::new(Reason::NoNewImage, why));
            };
            for (name, value) in keys {
                if item.get(&name).is_some_and(|image| !same(image, &value)) {
                    return Err(Poison::new(Reason::KeyMismatch, format!("NewImage and Keys differ in {name:?}")));
                }
                item.insert(name, value);
            }
            match dynamodb.old_image.filter(|_| rules.old_images) {
                Some(old) => {
                    let Attributes(old) = serde_json::from_str(old.get()).map_err(not_parseable)?;
                    Ok(Decoded::Change { old, new: item })
                }
                None => Ok(Decoded::Put(item)),
            }
        }
        "REMOVE" if !rules.replay_ttl_deletes && user.and_then(|user| user.principal_id).as_deref() == Some(DYNAMODB_ITSELF) => {
            Ok(Decoded::Nothing)
        }
        "REMOVE" => Ok(Decoded::Delete(keys)),
        other => Err(Poison::new(Reason::UnknownEvent, format!("{other:?} is no eventName that is known: INSERT, MODIFY, REMOVE"))),
    }
}

/// Numbers by value, everything else literally.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::N(a), Value::N(b)) => a == b || Number::parse(a).is_some_and(|a| Number::parse(b) == Some(a)),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamodb::attribute::to_json;

    fn event(name: &str, dynamodb: &str) -> Result<Decoded, Poison> {
        decode(
            &format!(r#"{{"eventID":"1","eventName":"{name}","awsRegion":"x","dynamodb":{{"SizeBytes":1,{dynamodb}}}}}"#),
            &Rules::default(),
        )
    }

    #[test]
    fn insert_and_modify_put_and_remove_deletes() {
        for name in ["INSERT", "MODIFY"] {
            let decoded = event(name, r#""Keys":{"p":{"N":"1"}},"NewImage":{"p":{"N":"1.0"},"v":{"S":"x"}},"OldImage":{"p":{"N":"1"}}"#);
            let Ok(Decoded::Put(item)) = decoded else { panic!("{decoded:?}") };
            assert_eq!(to_json(&item), r#"{"p":{"N":"1"},"v":{"S":"x"}}"#);
        }
        let decoded = event("REMOVE", r#""Keys":{"p":{"N":"1"}},"OldImage":{"p":{"N":"1"},"v":{"S":"x"}}"#);
        let Ok(Decoded::Delete(key)) = decoded else { panic!("{decoded:?}") };
        assert_eq!(to_json(&key), r#"{"p":{"N":"1"}}"#);
    }

    #[test]
    fn who_changes_items_is_told_what_they_were() {
        let rules = Rules { old_images: true, ..Rules::default() };
        let images = r#""Keys":{"p":{"N":"1"}},"NewImage":{"v":{"S":"x"}},"OldImage":{"p":{"N":"1"},"w":{"S":"y"}}"#;
        let decoded = decode(&format!(r#"{{"eventName":"MODIFY","dynamodb":{{{images}}}}}"#), &rules).expect("readable");
        let Decoded::Change { old, new } = decoded else { panic!("{decoded:?}") };
        assert_eq!((&*to_json(&old), &*to_json(&new)), (r#"{"p":{"N":"1"},"w":{"S":"y"}}"#, r#"{"p":{"N":"1"},"v":{"S":"x"}}"#));
        let without = r#"{"eventName":"MODIFY","dynamodb":{"Keys":{"p":{"N":"1"}},"NewImage":{"v":{"S":"x"}}}}"#;
        assert!(matches!(decode(without, &rules), Ok(Decoded::Put(_))), "a stream without old images");
    }

    #[test]
    fn keys_complete_the_image() {
        let Ok(Decoded::Put(item)) = event("INSERT", r#""Keys":{"p":{"S":"a"}},"NewImage":{"v":{"S":"x"}}"#) else { panic!("no put") };
        assert_eq!(to_json(&item), r#"{"p":{"S":"a"},"v":{"S":"x"}}"#);
    }

    #[test]
    fn what_may_be_left_out_is() {
        let rules = Rules { missing_image: OnMissingImage::Ignore, replay_ttl_deletes: false, ..Rules::default() };
        let removal = |user: &str| format!(r#"{{"eventName":"REMOVE","userIdentity":{user},"dynamodb":{{"Keys":{{"p":{{"N":"1"}}}}}}}}"#);
        let by_ttl = removal(r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#);
        assert_eq!(decode(&by_ttl, &rules), Ok(Decoded::Nothing));
        assert!(matches!(decode(&by_ttl, &Rules::default()), Ok(Decoded::Delete(_))));
        for user in [r#"{"principalId":"somebody"}"#, "{}", "null"] {
            assert!(matches!(decode(&removal(user), &rules), Ok(Decoded::Delete(_))), "{user}");
        }
        let no_image = r#"{"eventName":"INSERT","dynamodb":{"Keys":{"p":{"N":"1"}}}}"#;
        assert_eq!(decode(no_image, &rules), Ok(Decoded::Nothing));
    }

    #[test]
    fn what_cannot_be_replayed_is_poison() {
        for (name, dynamodb, reason) in [
            ("INSERT", r#""Keys":{"p":{"S":"a"}},"StreamViewType":"KEYS_ONLY""#, Reason::NoNewImage),
            ("MODIFY", r#""Keys":{"p":{"S":"a"}},"OldImage":{"p":{"S":"a"}}"#, Reason::NoNewImage),
            ("INSERT", r#""NewImage":{"p":{"S":"a"}}"#, Reason::NoKey),
            ("REMOVE", r#""OldImage":{"p":{"S":"a"}}"#, Reason::NoKey),
            ("INSERT", r#""Keys":{"p":{"S":"a"}},"NewImage":{"p":{"S":"b"}}"#, Reason::KeyMismatch),
            ("UPSERT", r#""Keys":{"p":{"S":"a"}}"#, Reason::UnknownEvent),
            ("INSERT", r#""Keys":{"p":"a"}"#, Reason::NotParseable),
        ] {
            assert_eq!(event(name, dynamodb).expect_err(dynamodb).reason, reason, "{dynamodb}");
        }
        assert_eq!(decode(r#"{"eventName":"INSERT"}"#, &Rules::default()).expect_err("no change").reason, Reason::NotParseable);
    }
}
