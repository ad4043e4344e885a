//! The text of a record, in one pass: each member is written as JSON while it is read.

use std::{borrow::Cow, cmp::Ordering, fmt, ops::Range};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    Order,
    java_hash::{java_buckets, java_hash},
    java_map,
    write::{Text, write_string},
};

/// What a record says, each member already written as JSON.
#[derive(Default)]
pub(super) struct RecordMembers {
    pub(super) user_identity: Option<UserIdentity>,
    pub(super) event_id: Option<Text>,
    pub(super) event_name: Option<Text>,
    pub(super) event_version: Option<Text>,
    pub(super) event_source: Option<Text>,
    pub(super) aws_region: Option<Text>,
    pub(super) dynamodb: Change,
    pub(super) has_dynamodb: bool,
}

#[derive(Default)]
pub(super) struct UserIdentity {
    pub(super) principal_id: Option<Text>,
    pub(super) kind: Option<Text>,
}

#[derive(Default)]
pub(super) struct Change {
    pub(super) created_at: Option<i64>,
    pub(super) keys: Option<Vec<u8>>,
    pub(super) new_image: Option<Vec<u8>>,
    pub(super) old_image: Option<Vec<u8>>,
    pub(super) sequence_number: Option<Text>,
    pub(super) size_bytes: Option<i64>,
    pub(super) stream_view_type: Option<Text>,
    order: Order,
}

impl RecordMembers {
    /// Reads a whole record; absent and null members stay `None`, unknown ones are left out.
    pub(super) fn read(record: &[u8], order: Order) -> serde_json::Result<Self> {
        let text = std::str::from_utf8(record).map_err(serde_json::Error::custom)?;
        let mut members = Self { dynamodb: Change { order, ..Change::default() }, ..Self::default() };
        let mut json = serde_json::Deserializer::from_str(text);
        Object(&mut members).deserialize(&mut json)?;
        json.end()?;
        Ok(members)
    }
}

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
        while let Some(name) = object.next_key_seed(NameSeed)? {
            self.0.member(&name, &mut object)?;
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
            b"Keys" => self.keys = object.next_value_seed(OrNull(Attributes(self.order)))?,
            b"NewImage" => self.new_image = object.next_value_seed(OrNull(Attributes(self.order)))?,
            b"OldImage" => self.old_image = object.next_value_seed(OrNull(Attributes(self.order)))?,
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
pub(super) fn whole_milliseconds(seconds: f64) -> i64 {
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

/// A member's name. Nearly every one is a part of the text as it stands, and so costs no memory: an item has dozens.
struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_bytes<E>(self, text: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_vec()))
    }
}

/// What an item has at first room for, written: most need no more.
const ITEM_BYTES: usize = 512;

/// A map of attributes.
struct Attributes(Order);

impl<'de> DeserializeSeed<'de> for Attributes {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let mut out = Vec::with_capacity(ITEM_BYTES);
        Written { out: &mut out, what: What::Map, order: self.0 }.deserialize(deserializer)?;
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
    order: Order,
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
        while list.next_element_seed(Written { out: self.out, what, order: self.order })?.is_some() {
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
            What::Map => write_map(object, self.out, self.order),
            _ => write_value(object, self.out, self.order),
        }
    }
}

fn write_value<'de, A: MapAccess<'de>>(mut object: A, out: &mut Vec<u8>, order: Order) -> Result<(), A::Error> {
    let start = out.len();
    out.push(b'{');
    while let Some(tag) = object.next_key_seed(NameSeed)? {
        let what = match tag.as_ref() {
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
        write_string(&tag, out);
        out.push(b':');
        if object.next_value_seed(OrNull(Written { out, what, order }))?.is_none() {
            out.truncate(before);
        }
    }
    out.push(b'}');
    Ok(())
}

/// One attribute as it was written.
struct Entry<'n> {
    hash: u32,
    name: Cow<'n, [u8]>,
    text: Range<usize>,
}

fn write_map<'de, A: MapAccess<'de>>(mut object: A, out: &mut Vec<u8>, order: Order) -> Result<(), A::Error> {
    let start = out.len();
    let mut entries: Vec<Entry> = Vec::new();
    while let Some(name) = object.next_key_seed(NameSeed)? {
        let entry = out.len();
        out.push(b',');
        write_string(&name, out);
        out.push(b':');
        if object.next_value_seed(OrNull(Written { out, what: What::Value, order }))?.is_none() {
            return Err(A::Error::custom(format_args!("attribute {:?} is null", String::from_utf8_lossy(&name))));
        }
        let text = entry - start..out.len() - start;
        entries.push(match order {
            Order::Compat => Entry { hash: java_hash(&name), name, text },
            Order::Sorted => Entry { hash: 0, name, text },
        });
    }
    let sorted = match order {
        Order::Compat => java_order(&entries),
        Order::Sorted => by(&entries, |a, b| a.name.cmp(&b.name)),
    };
    if let Some(sorted) = sorted {
        let unsorted = out.split_off(start);
        sorted.into_iter().for_each(|entry| out.extend_from_slice(&unsorted[entries[entry].text.clone()]));
    }
    match out.get_mut(start) {
        Some(first_comma) => *first_comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
    Ok(())
}

/// The order of a Java `HashMap` after these were inserted; `None` where they are in it.
fn java_order(entries: &[Entry]) -> Option<Vec<usize>> {
    let hashes = entries.iter().map(|entry| entry.hash);
    if java_map::may_crowd(hashes) {
        let keys: Vec<_> = entries.iter().map(|entry| (entry.hash, &entry.name[..])).collect();
        return Some(java_map::order(&keys));
    }
    let mask = java_buckets(entries.len()) - 1;
    by(entries, |a, b| (a.hash & mask).cmp(&(b.hash & mask)))
}

fn by(entries: &[Entry], rank: impl Fn(&Entry, &Entry) -> Ordering) -> Option<Vec<usize>> {
    if entries.is_sorted_by(|a, b| rank(a, b).is_le()) {
        return None;
    }
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by(|a, b| rank(&entries[*a], &entries[*b]));
    Some(order)
}
