//! One stream record's text into the Java connector's message, byte for byte.
//!
//! The connector puts the record into Java objects and writes those with Jackson, so its output has fixed member order, attributes
//! in the order of a Java `HashMap`, and Jackson's escapes. That order depends on the service's own order, so this starts from the
//! service's text, in one pass: each member is written into a buffer while it is read, then the buffers are joined. Proven on
//! `tests/golden/`. Not imitated: a `HashMap` bucket of more than eight colliding names, where Java grows the table early or makes
//! a tree of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{
    error::{Error, Kind, Result},
    ports::SequenceNumber,
};

/// A record as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The message's key.
    pub event_id: String,
    /// INSERT, MODIFY or REMOVE; passed on unchanged, whatever it is.
    pub event_name: String,
    pub sequence_number: SequenceNumber,
    /// When DynamoDB made the change, to the second. Epoch milliseconds.
    pub created_at: Option<i64>,
    /// The JSON text.
    pub payload: Vec<u8>,
}

/// Converts the JSON text of one record, as GetRecords sent it.
///
/// Fails with [`Kind::Poison`] where the text is not a record: not JSON, a member of a wrong type, or no event id, event name or
/// sequence number.
pub fn convert(record: &[u8]) -> Result<Event> {
    let poison = |why: &dyn fmt::Display| Error::new(Kind::Poison, "convert a stream record", why);
    let text = std::str::from_utf8(record).map_err(|error| poison(&error))?;
    let mut members = RecordMembers::default();
    let mut json = serde_json::Deserializer::from_str(text);
    Object(&mut members).deserialize(&mut json).and_then(|()| json.end()).map_err(|error| poison(&error))?;

    let change = &members.dynamodb;
    let missing = |name| poison(&format_args!("it has no {name}"));
    let sequence_number = change.sequence_number.as_ref().ok_or_else(|| missing("SequenceNumber"))?;
    let event_id = members.event_id.as_ref().ok_or_else(|| missing("eventID"))?;
    let event_name = members.event_name.as_ref().ok_or_else(|| missing("eventName"))?;
    Ok(Event {
        event_id: event_id.plain(),
        event_name: event_name.plain(),
        sequence_number: SequenceNumber::parse(&sequence_number.plain())?,
        created_at: change.created_at,
        payload: members.payload(),
    })
}

/// What a record says, each member already written as JSON.
#[derive(Default)]
struct RecordMembers {
    user_identity: Option<UserIdentity>,
    event_id: Option<Text>,
    event_name: Option<Text>,
    event_version: Option<Text>,
    event_source: Option<Text>,
    aws_region: Option<Text>,
    dynamodb: Change,
    has_dynamodb: bool,
}

#[derive(Default)]
struct UserIdentity {
    principal_id: Option<Text>,
    kind: Option<Text>,
}

#[derive(Default)]
struct Change {
    created_at: Option<i64>,
    keys: Option<Vec<u8>>,
    new_image: Option<Vec<u8>>,
    old_image: Option<Vec<u8>>,
    sequence_number: Option<Text>,
    size_bytes: Option<i64>,
    stream_view_type: Option<Text>,
}

impl RecordMembers {
    fn payload(&self) -> Vec<u8> {
        let change = &self.dynamodb;
        let images = [&change.keys, &change.new_image, &change.old_image].into_iter().flatten().map(Vec::len).sum::<usize>();
        let mut out = Vec::with_capacity(images + 512);
        let mut top = Members::open(&mut out);
        if let Some(identity) = &self.user_identity {
            let mut inner = Members::open(top.name("userIdentity"));
            inner.text("principalId", &identity.principal_id);
            inner.text("type", &identity.kind);
            inner.close();
        }
        top.text("eventID", &self.event_id);
        top.text("eventName", &self.event_name);
        top.text("eventVersion", &self.event_version);
        top.text("eventSource", &self.event_source);
        top.text("awsRegion", &self.aws_region);
        if self.has_dynamodb {
            let mut inner = Members::open(top.name("dynamodb"));
            inner.number("ApproximateCreationDateTime", change.created_at);
            inner.json("Keys", &change.keys);
            inner.json("NewImage", &change.new_image);
            inner.json("OldImage", &change.old_image);
            inner.text("SequenceNumber", &change.sequence_number);
            inner.number("SizeBytes", change.size_bytes);
            inner.text("StreamViewType", &change.stream_view_type);
            inner.close();
        }
        top.close();
        out
    }
}

/// Writes an object's members; absent ones are left out, as Jackson does for this class.
struct Members<'o> {
    out: &'o mut Vec<u8>,
    separator: u8,
}

impl<'o> Members<'o> {
    fn open(out: &'o mut Vec<u8>) -> Self {
        Self { out, separator: b'{' }
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.push(self.separator);
        self.separator = b',';
        write_string(name.as_bytes(), self.out);
        self.out.push(b':');
        self.out
    }

    fn json(&mut self, name: &str, value: &Option<Vec<u8>>) {
        if let Some(json) = value {
            self.name(name).extend_from_slice(json);
        }
    }

    fn text(&mut self, name: &str, value: &Option<Text>) {
        if let Some(Text(text)) = value {
            write_string(text, self.name(name));
        }
    }

    fn number(&mut self, name: &str, value: Option<i64>) {
        if let Some(number) = value {
            self.name(name).extend_from_slice(number.to_string().as_bytes());
        }
    }

    fn close(self) {
        if self.separator == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }
}

/// A string as serde_json gives it in bytes: UTF-8, but lone surrogates stay, as three bytes of WTF-8.
struct Text(Vec<u8>);

impl Text {
    fn plain(&self) -> String {
        let mut utf8 = Vec::with_capacity(self.0.len());
        without_lone_surrogates(&self.0, |part| utf8.extend_from_slice(part));
        String::from_utf8_lossy(&utf8).into_owned()
    }
}

/// Hands out the text in parts, with `?` for each lone surrogate, which is what Java's UTF-8 encoder makes of it.
fn without_lone_surrogates(text: &[u8], mut write: impl FnMut(&[u8])) {
    let mut rest = text;
    // A surrogate is ED A0..BF xx; no other character has such a second byte.
    while let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xED && pair[1] >= 0xA0) {
        write(&rest[..at]);
        write(b"?");
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    write(rest);
}

/// Writes a JSON string with Jackson's escapes: upper-case hex below 0x20, everything else as it is.
fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    without_lone_surrogates(text, |part| {
        let mut done = 0;
        for (at, &byte) in part.iter().enumerate() {
            let short = match byte {
                b'"' => b'"',
                b'\\' => b'\\',
                0x08 => b'b',
                b'\t' => b't',
                b'\n' => b'n',
                0x0C => b'f',
                b'\r' => b'r',
                0x00..=0x1F => b'u',
                _ => continue,
            };
            out.extend_from_slice(&part[done..at]);
            out.extend_from_slice(&[b'\\', short]);
            if short == b'u' {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xF)]]);
            }
            done = at + 1;
        }
        out.extend_from_slice(&part[done..]);
    });
    out.push(b'"');
}

// === Java's HashMap ===

/// `String.hashCode`, spread as `HashMap.hash` does: over UTF-16 units, of a lone surrogate too.
fn java_hash(name: &[u8]) -> u32 {
    let mut hash = 0u32;
    let mut add = |unit: u16| hash = hash.wrapping_mul(31).wrapping_add(u32::from(unit));
    for chunk in wtf8_characters(name) {
        match std::str::from_utf8(chunk).ok().and_then(|text| text.chars().next()) {
            Some(character) => character.encode_utf16(&mut [0; 2]).iter().copied().for_each(&mut add),
            None => add(0xD000 | (u16::from(chunk[1] & 0x3F) << 6) | u16::from(chunk[2] & 0x3F)),
        }
    }
    hash ^ (hash >> 16)
}

/// The byte sequences of the single characters of UTF-8 or WTF-8 text.
fn wtf8_characters(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.chunk_by(|_, next| next & 0xC0 == 0x80)
}

/// How many buckets a `HashMap` has after so many insertions: 16, doubled each time that three quarters are exceeded.
fn java_buckets(entries: usize) -> u32 {
    let mut buckets = 16;
    while entries > buckets / 4 * 3 {
        buckets *= 2;
    }
    u32::try_from(buckets).unwrap_or(1 << 31)
}

// === reading ===

/// Reads an object member by member into something that knows the names.
trait ReadMember<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &[u8], object: &mut A) -> Result<(), A::Error>;
}

struct Object<'t, T>(&'t mut T);

impl<'de, T: ReadMember<'de>> DeserializeSeed<'de> for Object<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: ReadMember<'de>> Visitor<'de> for Object<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(name) = object.next_key_seed(StringSeed)? {
            self.0.member(&name.0, &mut object)?;
        }
        Ok(())
    }
}

impl<'de> ReadMember<'de> for RecordMembers {
    fn member<A: MapAccess<'de>>(&mut self, name: &[u8], object: &mut A) -> Result<(), A::Error> {
        match name {
            b"eventID" => self.event_id = object.next_value_seed(OrNull(StringSeed))?,
            b"eventName" => self.event_name = object.next_value_seed(OrNull(StringSeed))?,
            b"eventVersion" => self.event_version = object.next_value_seed(OrNull(StringSeed))?,
            b"eventSource" => self.event_source = object.next_value_seed(OrNull(StringSeed))?,
            b"awsRegion" => self.aws_region = object.next_value_seed(OrNull(StringSeed))?,
            b"dynamodb" => self.has_dynamodb = object.next_value_seed(OrNull(Object(&mut self.dynamodb)))?.is_some(),
            b"userIdentity" => {
                let mut identity = UserIdentity::default();
                let present = object.next_value_seed(OrNull(Object(&mut identity)))?.is_some();
                self.user_identity = present.then_some(identity);
            }
            _ => drop(object.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl<'de> ReadMember<'de> for UserIdentity {
    fn member<A: MapAccess<'de>>(&mut self, name: &[u8], object: &mut A) -> Result<(), A::Error> {
        match name {
            b"PrincipalId" => self.principal_id = object.next_value_seed(OrNull(StringSeed))?,
            b"Type" => self.kind = object.next_value_seed(OrNull(StringSeed))?,
            _ => drop(object.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl<'de> ReadMember<'de> for Change {
    fn member<A: MapAccess<'de>>(&mut self, name: &[u8], object: &mut A) -> Result<(), A::Error> {
        match name {
            b"ApproximateCreationDateTime" => self.created_at = object.next_value::<Option<f64>>()?.map(whole_milliseconds),
            b"Keys" => self.keys = object.next_value_seed(OrNull(Attributes))?,
            b"NewImage" => self.new_image = object.next_value_seed(OrNull(Attributes))?,
            b"OldImage" => self.old_image = object.next_value_seed(OrNull(Attributes))?,
            b"SequenceNumber" => self.sequence_number = object.next_value_seed(OrNull(StringSeed))?,
            b"SizeBytes" => self.size_bytes = object.next_value()?,
            b"StreamViewType" => self.stream_view_type = object.next_value_seed(OrNull(StringSeed))?,
            _ => drop(object.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// Epoch seconds, with or without a fraction, as milliseconds, cut off below. A double is exact to a quarter of a microsecond
/// here, so a thousandth of a millisecond makes up for what its binary form lacks.
fn whole_milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0 + 0.001).floor() as i64
}

/// A value, or `None` for JSON's null.
struct OrNull<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for OrNull<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for OrNull<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

struct StringSeed;

impl<'de> DeserializeSeed<'de> for StringSeed {
    type Value = Text;

    // As bytes: serde_json refuses a lone surrogate in a `str`, but DynamoDB can hold one.
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for StringSeed {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<Text, E> {
        Ok(Text(text.to_vec()))
    }
}

/// A map of attributes, written in the order of a Java `HashMap`.
struct Attributes;

impl<'de> DeserializeSeed<'de> for Attributes {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let mut out = Vec::new();
        Written { out: &mut out, what: What::Map }.deserialize(deserializer)?;
        Ok(out)
    }
}

/// What kind of value follows, and so how it is read and written.
#[derive(Clone, Copy)]
enum What {
    /// `{"name": {"S": …}, …}`
    Map,
    /// `{"S": …}`
    Value,
    /// `[{"S": …}, …]`
    List,
    /// `["…", …]`
    Strings,
    String,
    Bool,
}

struct Written<'o> {
    out: &'o mut Vec<u8>,
    what: What,
}

impl<'de> DeserializeSeed<'de> for Written<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.what {
            What::Map | What::Value => deserializer.deserialize_map(self),
            What::List | What::Strings => deserializer.deserialize_seq(self),
            What::String => deserializer.deserialize_bytes(self),
            What::Bool => deserializer.deserialize_bool(self),
        }
    }
}

impl<'de> Visitor<'de> for Written<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self.what {
            What::Map => "a map of attributes",
            What::Value => "an attribute value",
            What::List => "a list of attribute values",
            What::Strings => "a list of strings",
            What::String => "a string",
            What::Bool => "a boolean",
        })
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<(), E> {
        write_string(text, self.out);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let what = if matches!(self.what, What::Strings) { What::String } else { What::Value };
        let start = self.out.len();
        self.out.push(b'[');
        while list.next_element_seed(Written { out: self.out, what })?.is_some() {
            self.out.push(b',');
        }
        if self.out.len() > start + 1 {
            self.out.pop();
        }
        self.out.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        match self.what {
            What::Map => write_map(object, self.out),
            _ => write_value(object, self.out),
        }
    }
}

fn write_value<'de, A: MapAccess<'de>>(mut object: A, out: &mut Vec<u8>) -> Result<(), A::Error> {
    let start = out.len();
    out.push(b'{');
    while let Some(tag) = object.next_key_seed(StringSeed)? {
        let what = match tag.0.as_slice() {
            b"S" | b"N" | b"B" => What::String,
            b"SS" | b"NS" | b"BS" => What::Strings,
            b"BOOL" | b"NULL" => What::Bool,
            b"M" => What::Map,
            b"L" => What::List,
            _ => {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
        };
        let before = out.len();
        if before > start + 1 {
            out.push(b',');
        }
        write_string(&tag.0, out);
        out.push(b':');
        if object.next_value_seed(OrNull(Written { out, what }))?.is_none() {
            out.truncate(before);
        }
    }
    out.push(b'}');
    Ok(())
}

fn write_map<'de, A: MapAccess<'de>>(mut object: A, out: &mut Vec<u8>) -> Result<(), A::Error> {
    let start = out.len();
    let mut entries: Vec<(u32, std::ops::Range<usize>)> = Vec::new();
    while let Some(name) = object.next_key_seed(StringSeed)? {
        let entry = out.len();
        out.push(b',');
        write_string(&name.0, out);
        out.push(b':');
        if object.next_value_seed(OrNull(Written { out, what: What::Value }))?.is_none() {
            return Err(A::Error::custom(format_args!("attribute {:?} is null", name.plain())));
        }
        entries.push((java_hash(&name.0), entry - start..out.len() - start));
    }
    let mask = java_buckets(entries.len()) - 1;
    if !entries.is_sorted_by_key(|(hash, _)| hash & mask) {
        entries.sort_by_key(|(hash, _)| hash & mask);
        let unsorted = out.split_off(start);
        entries.iter().for_each(|(_, entry)| out.extend_from_slice(&unsorted[entry.clone()]));
    }
    match out.get_mut(start) {
        Some(first_comma) => *first_comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests;
