//! The text of a record, in one pass: each member is written as JSON while it is read.

use std::{cmp::Ordering, fmt, ops::Range};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    Order,
    java_hash::{java_buckets, java_hash},
    java_map,
    write::{Text, write_string},
};

/// What a record says. Texts are those of the record as far as they can be; what is to be written is written already.
#[derive(Default)]
pub(super) struct RecordMembers<'r> {
    pub(super) user_identity: Option<UserIdentity<'r>>,
    pub(super) event_id: Option<Text<'r>>,
    pub(super) event_name: Option<Text<'r>>,
    pub(super) event_version: Option<Text<'r>>,
    pub(super) event_source: Option<Text<'r>>,
    pub(super) aws_region: Option<Text<'r>>,
    pub(super) dynamodb: Change<'r>,
    pub(super) has_dynamodb: bool,
}

#[derive(Default)]
pub(super) struct UserIdentity<'r> {
    pub(super) principal_id: Option<Text<'r>>,
    pub(super) kind: Option<Text<'r>>,
}

#[derive(Default)]
pub(super) struct Change<'r> {
    pub(super) created_at: Option<i64>,
    keys: Option<Range<usize>>,
    new_image: Option<Range<usize>>,
    old_image: Option<Range<usize>>,
    pub(super) sequence_number: Option<Text<'r>>,
    pub(super) size_bytes: Option<i64>,
    pub(super) stream_view_type: Option<Text<'r>>,
    items: Items<'r>,
}

/// The items of a record as JSON, one behind the other in one buffer.
#[derive(Default)]
struct Items<'r> {
    out: Vec<u8>,
    /// The attributes of the maps that are being written, the innermost one's last.
    entries: Vec<Entry<'r>>,
    order: Order,
}

impl<'r> RecordMembers<'r> {
    /// Reads a whole record; absent and null members stay `None`, unknown ones are left out.
    pub(super) fn read(record: &'r [u8], order: Order) -> serde_json::Result<Self> {
        let items = Items { out: Vec::with_capacity(record.len()), entries: Vec::new(), order };
        let mut members = Self { dynamodb: Change { items, ..Change::default() }, ..Self::default() };
        let mut json = serde_json::Deserializer::from_slice(record);
        Object(&mut members).deserialize(&mut json)?;
        json.end()?;
        Ok(members)
    }
}

impl Change<'_> {
    pub(super) fn keys(&self) -> Option<&[u8]> {
        self.keys.clone().map(|at| &self.items.out[at])
    }

    pub(super) fn new_image(&self) -> Option<&[u8]> {
        self.new_image.clone().map(|at| &self.items.out[at])
    }

    pub(super) fn old_image(&self) -> Option<&[u8]> {
        self.old_image.clone().map(|at| &self.items.out[at])
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
        while let Some(name) = object.next_key_seed(StringSeed)? {
            self.0.member(name.bytes(), &mut object)?;
        }
        Ok(())
    }
}

impl<'de> ReadMember<'de> for RecordMembers<'de> {
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

impl<'de> ReadMember<'de> for UserIdentity<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &[u8], object: &mut A) -> Result<(), A::Error> {
        match name {
            b"PrincipalId" => self.principal_id = object.next_value_seed(OrNull(StringSeed))?,
            b"Type" => self.kind = object.next_value_seed(OrNull(StringSeed))?,
            _ => drop(object.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl<'de> ReadMember<'de> for Change<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &[u8], object: &mut A) -> Result<(), A::Error> {
        match name {
            b"ApproximateCreationDateTime" => self.created_at = object.next_value::<Option<f64>>()?.map(whole_milliseconds),
            b"Keys" => self.keys = object.next_value_seed(OrNull(Attributes(&mut self.items)))?,
            b"NewImage" => self.new_image = object.next_value_seed(OrNull(Attributes(&mut self.items)))?,
            b"OldImage" => self.old_image = object.next_value_seed(OrNull(Attributes(&mut self.items)))?,
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

/// A string, in the text as it stands where it has no escapes: nearly every one, and so costs no memory. A record has dozens.
struct StringSeed;

impl<'de> DeserializeSeed<'de> for StringSeed {
    type Value = Text<'de>;

    // As bytes: serde_json refuses a lone surrogate in a `str`, but DynamoDB can hold one.
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for StringSeed {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, text: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Text::AsItStands(text))
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<Self::Value, E> {
        Ok(Text::Unescaped(text.to_vec()))
    }
}

/// A map of attributes. Where it is written in the buffer.
struct Attributes<'i, 'r>(&'i mut Items<'r>);

impl<'de> DeserializeSeed<'de> for Attributes<'_, 'de> {
    type Value = Range<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let start = self.0.out.len();
        Written { items: &mut *self.0, what: What::Map }.deserialize(deserializer)?;
        Ok(start..self.0.out.len())
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

struct Written<'i, 'r> {
    items: &'i mut Items<'r>,
    what: What,
}

impl<'de> DeserializeSeed<'de> for Written<'_, 'de> {
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

impl<'de> Visitor<'de> for Written<'_, 'de> {
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
        self.items.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn visit_borrowed_bytes<E>(self, text: &'de [u8]) -> Result<(), E> {
        Text::AsItStands(text).write(&mut self.items.out);
        Ok(())
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<(), E> {
        write_string(text, &mut self.items.out);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let what = if matches!(self.what, What::Strings) { What::String } else { What::Value };
        let start = self.items.out.len();
        self.items.out.push(b'[');
        while list.next_element_seed(Written { items: &mut *self.items, what })?.is_some() {
            self.items.out.push(b',');
        }
        if self.items.out.len() > start + 1 {
            self.items.out.pop();
        }
        self.items.out.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        match self.what {
            What::Map => self.items.map(object),
            _ => self.items.value(object),
        }
    }
}

/// One attribute as it was written: where, from the start of its map.
#[derive(Default)]
struct Entry<'r> {
    hash: u32,
    name: Text<'r>,
    text: Range<usize>,
}

impl<'r> Items<'r> {
    fn value<A: MapAccess<'r>>(&mut self, mut object: A) -> Result<(), A::Error> {
        let start = self.out.len();
        self.out.push(b'{');
        while let Some(tag) = object.next_key_seed(StringSeed)? {
            let what = match tag.bytes() {
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
            let before = self.out.len();
            if before > start + 1 {
                self.out.push(b',');
            }
            tag.write(&mut self.out);
            self.out.push(b':');
            if object.next_value_seed(OrNull(Written { items: &mut *self, what }))?.is_none() {
                self.out.truncate(before);
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn map<A: MapAccess<'r>>(&mut self, mut object: A) -> Result<(), A::Error> {
        let (start, first) = (self.out.len(), self.entries.len());
        while let Some(name) = object.next_key_seed(StringSeed)? {
            let entry = self.out.len();
            self.out.push(b',');
            name.write(&mut self.out);
            self.out.push(b':');
            if object.next_value_seed(OrNull(Written { items: &mut *self, what: What::Value }))?.is_none() {
                return Err(A::Error::custom(format_args!("attribute {:?} is null", String::from_utf8_lossy(name.bytes()))));
            }
            let hash = match self.order {
                Order::Compat => java_hash(name.bytes()),
                Order::Sorted => 0,
            };
            self.entries.push(Entry { hash, name, text: entry - start..self.out.len() - start });
        }
        let entries = &mut self.entries[first..];
        let moved = match self.order {
            Order::Compat => java_order(entries),
            Order::Sorted => sort(entries, |a, b| a.name.bytes().cmp(b.name.bytes())),
        };
        if moved {
            let end = self.out.len();
            entries.iter().for_each(|entry| self.out.extend_from_within(start + entry.text.start..start + entry.text.end));
            self.out.copy_within(end.., start);
            self.out.truncate(end);
        }
        self.entries.truncate(first);
        match self.out.get_mut(start) {
            Some(first_comma) => *first_comma = b'{',
            None => self.out.push(b'{'),
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// Brings attributes into the order of a Java `HashMap` into which they were inserted. Whether any has moved.
fn java_order(entries: &mut [Entry]) -> bool {
    if java_map::may_crowd(entries.iter().map(|entry| entry.hash)) {
        let keys: Vec<_> = entries.iter().map(|entry| (entry.hash, entry.name.bytes())).collect();
        let order = java_map::order(&keys);
        let sorted: Vec<_> = order.into_iter().map(|at| std::mem::take(&mut entries[at])).collect();
        sorted.into_iter().zip(entries).for_each(|(entry, place)| *place = entry);
        return true;
    }
    let mask = java_buckets(entries.len()) - 1;
    sort(entries, |a, b| (a.hash & mask).cmp(&(b.hash & mask)))
}

/// Sorts what is not sorted. Whether any has moved.
fn sort(entries: &mut [Entry], rank: impl Fn(&Entry, &Entry) -> Ordering) -> bool {
    if entries.is_sorted_by(|a, b| rank(a, b).is_le()) {
        return false;
    }
    entries.sort_by(rank);
    true
}
