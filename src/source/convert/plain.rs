//! An item as plain JSON, without DynamoDB's types: `{"pk":{"S":"a"},"n":{"N":"1"}}` → `{"pk":"a","n":1}`.
//!
//! | type | becomes |
//! |---|---|
//! | S, B | a string; bytes are base64, as in DynamoDB JSON |
//! | N | a number with its digits as they are, not rounded |
//! | BOOL, NULL | `true`, `false`, `null` |
//! | SS, NS, BS, L | an array |
//! | M | an object |

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::write::write_string;

/// Writes a map of attributes, which `read` has written, as a plain object; the order stays.
pub fn plain(attributes: &[u8]) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(attributes.len());
    Plain { out: &mut out, what: What::Map }.deserialize(&mut serde_json::Deserializer::from_slice(attributes))?;
    Ok(out)
}

#[derive(Clone, Copy)]
enum What {
    Map,
    Value,
    /// An array of this.
    Values,
    Strings,
    Numbers,
    String,
    Number,
    Bool,
    Null,
}

struct Plain<'o> {
    out: &'o mut Vec<u8>,
    what: What,
}

impl<'de> DeserializeSeed<'de> for Plain<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.what {
            What::Map | What::Value => deserializer.deserialize_map(self),
            What::Values | What::Strings | What::Numbers => deserializer.deserialize_seq(self),
            What::String | What::Number => deserializer.deserialize_str(self),
            What::Bool | What::Null => deserializer.deserialize_bool(self),
        }
    }
}

impl<'de> Visitor<'de> for Plain<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("DynamoDB JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.out.extend_from_slice(match (self.what, value) {
            (What::Null, _) => b"null",
            (_, true) => b"true",
            (_, false) => b"false",
        });
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        match self.what {
            What::Number if is_json_number(text) => self.out.extend_from_slice(text.as_bytes()),
            _ => write_string(text.as_bytes(), self.out),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let what = match self.what {
            What::Strings => What::String,
            What::Numbers => What::Number,
            _ => What::Value,
        };
        let start = self.out.len();
        self.out.push(b'[');
        while list.next_element_seed(Plain { out: self.out, what })?.is_some() {
            self.out.push(b',');
        }
        if self.out.len() > start + 1 {
            self.out.pop();
        }
        self.out.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        if let What::Value = self.what {
            return write_value(object, self.out);
        }
        let mut separator = b'{';
        while let Some(Text(name)) = object.next_key()? {
            self.out.push(separator);
            separator = b',';
            write_string(name.as_bytes(), self.out);
            self.out.push(b':');
            object.next_value_seed(Plain { out: self.out, what: What::Value })?;
        }
        if separator == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// `{"S":"a"}` → `"a"`. A value of a type that is not known yet has no member left, and becomes null.
fn write_value<'de, A: MapAccess<'de>>(mut object: A, out: &mut Vec<u8>) -> Result<(), A::Error> {
    let Some(Text(tag)) = object.next_key()? else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let what = match &*tag {
        "N" => What::Number,
        "BOOL" => What::Bool,
        "NULL" => What::Null,
        "SS" | "BS" => What::Strings,
        "NS" => What::Numbers,
        "L" => What::Values,
        "M" => What::Map,
        _ => What::String,
    };
    object.next_value_seed(Plain { out, what })?;
    while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// JSON's grammar of a number. DynamoDB's own texts are all of it; what another endpoint sends may not be.
fn is_json_number(text: &str) -> bool {
    fn digits(text: &str) -> Option<&str> {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        (rest.len() < text.len()).then_some(rest)
    }
    let whole = text.strip_prefix('-').unwrap_or(text);
    let Some(mut rest) = whole.strip_prefix('0').or_else(|| digits(whole)) else { return false };
    if let Some(fraction) = rest.strip_prefix('.') {
        let Some(after) = digits(fraction) else { return false };
        rest = after;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let Some(after) = digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)) else { return false };
        rest = after;
    }
    rest.is_empty()
}

/// Borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_plain_form() {
        let item = r#"{"s":{"S":"\"é\u0001"},"n":{"N":"-1.5E+10"},"long":{"N":"12345678901234567890.123456789012345678"},"b":{"B":"AAH//g=="},"ss":{"SS":["x","y"]},"ns":{"NS":["1","2.50"]},"bs":{"BS":["AQ=="]},"t":{"BOOL":true},"f":{"BOOL":false},"null":{"NULL":true},"m":{"M":{"k":{"N":"1"},"e":{"M":{}}}},"l":{"L":[{"S":"q"},{"L":[]},{"NULL":true}]},"new":{}}"#;
        let expected = r#"{"s":"\"é\u0001","n":-1.5E+10,"long":12345678901234567890.123456789012345678,"b":"AAH//g==","ss":["x","y"],"ns":[1,2.50],"bs":["AQ=="],"t":true,"f":false,"null":null,"m":{"k":1,"e":{}},"l":["q",[],null],"new":null}"#;
        assert_eq!(String::from_utf8(plain(item.as_bytes()).expect("readable")).expect("UTF-8"), expected);
        assert_eq!(plain(b"{}").expect("readable"), b"{}");
    }

    #[test]
    fn what_is_no_json_number_stays_text() {
        for number in ["0", "-0", "10", "1.5", "1E-130", "-1.50e+7"] {
            assert!(is_json_number(number) && serde_json::from_str::<serde_json::Value>(number).is_ok(), "{number}");
        }
        for text in ["", "-", "01", "1.", ".5", "+1", "1e", "NaN", "1 ", "0x1"] {
            assert!(!is_json_number(text), "{text}");
        }
        assert_eq!(plain(br#"{"n":{"N":"+1"}}"#).expect("readable"), br#"{"n":"+1"}"#);
    }
}
