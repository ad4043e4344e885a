//! What an item weighs, for DynamoDB's limit and on the wire.

use super::{Item, Number, Value};

/// Bytes of an item as DynamoDB counts them for its 400 KB limit: names and values.
///
/// Source: "DynamoDB item sizes and formats", Amazon DynamoDB Developer Guide. It calls the size of a number approximate; where this
/// comes out too small, DynamoDB refuses the item itself.
pub fn item_size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    /// Of each list or map, whatever it holds.
    const CONTAINER: usize = 3;
    /// Of each element of a list or map.
    const ELEMENT: usize = 1;
    match value {
        Value::S(text) => text.len(),
        Value::N(text) => number_size(text),
        Value::B(bytes) => bytes.len(),
        Value::Bool(_) | Value::Null => 1,
        Value::Ss(texts) => texts.iter().map(String::len).sum(),
        Value::Ns(texts) => texts.iter().map(|text| number_size(text)).sum(),
        Value::Bs(blobs) => blobs.iter().map(Vec::len).sum(),
        Value::L(values) => CONTAINER + values.iter().map(|value| ELEMENT + value_size(value)).sum::<usize>(),
        Value::M(map) => CONTAINER + map.len() * ELEMENT + item_size(map),
    }
}

/// One byte for two significant digits, and one more.
fn number_size(text: &str) -> usize {
    Number::parse(text).map_or(text.len(), |number| number.digits().div_ceil(2) + 1)
}

/// Bytes of an item in a request's JSON, never too low: for the 16 MB limit of a request.
pub fn wire_size(item: &Item) -> usize {
    /// Where every byte of an item of this size had to be escaped, a hundred of them would still fit any request: nobody has to look at the bytes.
    const SMALL: usize = 4 * 1024;
    let plain = plain_wire_size(item);
    if plain <= SMALL { plain * ESCAPED } else { item_wire(item, text_wire) }
}

/// As `wire_size`, if nothing has to be escaped.
pub fn plain_wire_size(item: &Item) -> usize {
    item_wire(item, |text| 2 + text.len())
}

/// Bytes of a control character (`\u0001`).
const ESCAPED: usize = 6;

fn item_wire(item: &Item, text_wire: fn(&str) -> usize) -> usize {
    item.iter().map(|(name, value)| text_wire(name) + 2 + value_wire(value, text_wire)).sum::<usize>() + 2
}

fn value_wire(value: &Value, text_wire: fn(&str) -> usize) -> usize {
    /// `{"NULL":}` and a comma: the type tag around a value.
    const TAG: usize = 10;
    let blob = |bytes: &[u8]| bytes.len().div_ceil(3) * 4 + 3;
    TAG + match value {
        Value::S(text) | Value::N(text) => text_wire(text),
        Value::B(bytes) => blob(bytes),
        Value::Bool(_) | Value::Null => 5,
        Value::Ss(texts) | Value::Ns(texts) => 2 + texts.iter().map(|text| text_wire(text) + 1).sum::<usize>(),
        Value::Bs(blobs) => 2 + blobs.iter().map(|bytes| blob(bytes)).sum::<usize>(),
        Value::L(values) => 2 + values.iter().map(|value| value_wire(value, text_wire) + 1).sum::<usize>(),
        Value::M(map) => item_wire(map, text_wire),
    }
}

/// A JSON string with its quotes.
fn text_wire(text: &str) -> usize {
    2 + text
        .bytes()
        .map(|byte| match byte {
            0..0x20 | 0x7f => ESCAPED,
            b'"' | b'\\' => 2,
            _ => 1,
        })
        .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{item_from_json, to_json},
        *,
    };

    fn item(json: &str) -> Item {
        item_from_json(json).expect("test data")
    }

    #[test]
    fn sizes_follow_the_published_rule() {
        for (json, size) in [
            (r#"{}"#, 0),
            (r#"{"pk":{"S":"a"}}"#, 3),
            (r#"{"é":{"S":"é"}}"#, 4),
            (r#"{"n":{"N":"0"}}"#, 2),
            (r#"{"n":{"N":"-00120.00"}}"#, 3),
            (r#"{"n":{"N":"123"}}"#, 4),
            (r#"{"b":{"B":"AAEC"}}"#, 4),
            (r#"{"t":{"BOOL":true},"z":{"NULL":true}}"#, 4),
            (r#"{"l":{"L":[]},"m":{"M":{}}}"#, 8),
            (r#"{"l":{"L":[{"S":"abc"},{"BOOL":true}]}}"#, 1 + 3 + 4 + 2),
            (r#"{"m":{"M":{"ab":{"S":"abc"}}}}"#, 1 + 3 + 1 + 2 + 3),
            (r#"{"s":{"SS":["ab","c"]},"n":{"NS":["1","22"]},"b":{"BS":["AAEC"]}}"#, 4 + 5 + 4),
        ] {
            assert_eq!(item_size(&item(json)), size, "{json}");
        }
    }

    #[test]
    fn the_wire_size_is_never_too_low() {
        for json in [
            r#"{}"#,
            r#"{"":{"S":""}}"#,
            r#"{"a\"\u0001":{"S":"\u0000\n\\\"é"}}"#,
            r#"{"n":{"N":"1.50"},"b":{"B":"AAEC"},"c":{"B":"AA=="},"t":{"BOOL":false},"z":{"NULL":true}}"#,
            r#"{"l":{"L":[{"L":[{"M":{"x":{"NS":["1","22"]}}}]},{"BS":["AAEC","AA=="]},{"SS":["é"]}]}}"#,
        ] {
            let mut item = item(json);
            assert!(wire_size(&item) >= to_json(&item).len() && item_wire(&item, text_wire) >= to_json(&item).len(), "{json}");
            item.insert("long".into(), Value::S("\u{1}x".repeat(3000)));
            let (size, length) = (wire_size(&item), to_json(&item).len());
            assert!(size >= length && size < length + length / 10, "{json}: {size} for {length}");
        }
    }
}
