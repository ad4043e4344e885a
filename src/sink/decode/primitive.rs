//! Pulsar's primitive schemas. Source of their wire forms: `org.apache.pulsar.client.impl.schema`, Pulsar 4.0; numbers are big-endian.

use super::{
    Rules,
    number::{double, float},
};
use crate::{
    dynamodb::attribute::Value,
    ports::SchemaKind,
    sink::poison::{Poison, Reason},
};

const NANOS: i128 = 1_000_000_000;
const MILLI: i128 = 1_000_000;

/// Reads a primitive value; `None` where the schema is no primitive one.
pub fn read(kind: SchemaKind, payload: &[u8], rules: &Rules) -> Option<Result<Value, Poison>> {
    Some(match kind {
        SchemaKind::Bytes => Ok(Value::B(payload.to_vec())),
        SchemaKind::String => match std::str::from_utf8(payload) {
            Ok(text) => Ok(Value::S(text.to_owned())),
            Err(why) => Err(Poison::new(Reason::NotParseable, format!("the payload of a STRING schema is no UTF-8 text: {why}"))),
        },
        SchemaKind::Boolean => fixed(kind, payload).map(|[byte]: [u8; 1]| Value::Bool(byte != 0)),
        SchemaKind::Int8 => fixed(kind, payload).map(|bytes| whole(i8::from_be_bytes(bytes))),
        SchemaKind::Int16 => fixed(kind, payload).map(|bytes| whole(i16::from_be_bytes(bytes))),
        SchemaKind::Int32 => fixed(kind, payload).map(|bytes| whole(i32::from_be_bytes(bytes))),
        SchemaKind::Int64 => long(kind, payload).map(whole),
        SchemaKind::Float => fixed(kind, payload).and_then(|bytes| float(f32::from_be_bytes(bytes), rules.non_finite)),
        SchemaKind::Double => fixed(kind, payload).and_then(|bytes| double(f64::from_be_bytes(bytes), rules.non_finite)),
        // Java's three classes for dates count milliseconds since 1970 in UTC.
        SchemaKind::Date => long(kind, payload).map(|millis| rules.temporal.date(millis.div_euclid(86_400_000))),
        SchemaKind::Time => long(kind, payload).and_then(|millis| rules.temporal.time(millis.rem_euclid(86_400_000) * 1_000_000)),
        SchemaKind::Timestamp => long(kind, payload).and_then(|millis| rules.temporal.timestamp(i128::from(millis) * MILLI)),
        SchemaKind::Instant => fixed(kind, payload).and_then(|bytes: [u8; 12]| {
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3] = bytes;
            let seconds = i64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let nanos = i32::from_be_bytes([n0, n1, n2, n3]);
            rules.temporal.timestamp(i128::from(seconds) * NANOS + i128::from(nanos))
        }),
        SchemaKind::LocalDate => long(kind, payload).map(|days| rules.temporal.date(days)),
        SchemaKind::LocalTime => long(kind, payload).and_then(|nanos| rules.temporal.time(nanos)),
        SchemaKind::LocalDateTime => fixed(kind, payload).and_then(|bytes: [u8; 16]| {
            let both = u128::from_be_bytes(bytes);
            let (days, nanos) = ((both >> 64) as u64 as i64, both as u64 as i64);
            rules.temporal.local_timestamp(i128::from(days) * 86_400 * NANOS + i128::from(nanos))
        }),
        SchemaKind::Json | SchemaKind::Avro | SchemaKind::Protobuf | SchemaKind::ProtobufNative | SchemaKind::KeyValue => return None,
    })
}

fn whole(number: impl ToString) -> Value {
    Value::N(number.to_string())
}

fn long(kind: SchemaKind, payload: &[u8]) -> Result<i64, Poison> {
    fixed(kind, payload).map(i64::from_be_bytes)
}

fn fixed<const N: usize>(kind: SchemaKind, payload: &[u8]) -> Result<[u8; N], Poison> {
    let wrong = |_| Poison::new(Reason::NotParseable, format!("the payload has {} bytes, its schema {kind:?} takes {N}", payload.len()));
    payload.try_into().map_err(wrong)
}
