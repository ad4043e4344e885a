//! Avro's binary encoding → attribute values. Nothing that comes from outside is trusted: no length, no count, no index.

use super::schema::{AvroSchema, Type, TypeId};
use crate::{
    dynamodb::attribute::{Item, MAX_ITEM_BYTES, MAX_NESTING, Value},
    sink::{
        decode::{
            Rules,
            number::{decimal, double, float},
        },
        poison::{Poison, Reason},
    },
};

impl AvroSchema {
    /// Reads a value that fills the payload.
    pub fn read(&self, payload: &[u8], rules: &Rules) -> Result<Value, Poison> {
        let mut reader = Reader { schema: self, rules, rest: payload, budget: MAX_ITEM_BYTES };
        // The item itself is no level of nesting.
        let value = reader.value(self.root, MAX_NESTING + 1)?;
        match reader.rest.len() {
            0 => Ok(value),
            more => Err(broken(format!("{more} bytes are left over"))),
        }
    }
}

struct Reader<'a> {
    schema: &'a AvroSchema,
    rules: &'a Rules,
    rest: &'a [u8],
    /// How many values may still come. Each takes a byte of an item at least; but a billion nulls take a few bytes of a payload.
    budget: usize,
}

impl<'a> Reader<'a> {
    /// `levels`: how many maps and lists may be nested from here on.
    fn value(&mut self, id: TypeId, levels: usize) -> Result<Value, Poison> {
        let inner = || levels.checked_sub(1).ok_or_else(|| Poison::new(Reason::TooDeep, format!("deeper than {MAX_NESTING} levels")));
        self.budget =
            self.budget.checked_sub(1).ok_or_else(|| Poison::new(Reason::ItemTooLarge, "it has more values than an item can hold"))?;
        let (schema, rules) = (self.schema, self.rules);
        Ok(match &schema.types[id] {
            Type::Null => Value::Null,
            Type::Boolean => Value::Bool(self.bytes(1)? != [0]),
            Type::Int | Type::Long => Value::N(self.long()?.to_string()),
            Type::Float => float(f32::from_le_bytes(self.array()?), rules.non_finite)?,
            Type::Double => double(f64::from_le_bytes(self.array()?), rules.non_finite)?,
            Type::Bytes => Value::B(self.prefixed()?.to_vec()),
            Type::String => Value::S(self.text()?),
            Type::Fixed(size) => Value::B(self.bytes(*size)?.to_vec()),
            Type::Enum(symbols) => Value::S(self.chosen(symbols, "symbol")?.clone()),
            Type::Union(branches) => {
                let branch = *self.chosen(branches, "branch")?;
                self.value(branch, levels)?
            }
            Type::Array(items) => {
                let levels = inner()?;
                let mut list = Vec::new();
                self.blocks(|reader| {
                    list.push(reader.value(*items, levels)?);
                    Ok(())
                })?;
                Value::L(list)
            }
            Type::Map(values) => {
                let levels = inner()?;
                let mut map = Item::new();
                self.blocks(|reader| {
                    let name = reader.text()?;
                    let value = reader.value(*values, levels).map_err(|poison| poison.at(&name))?;
                    map.insert(name, value);
                    Ok(())
                })?;
                Value::M(map)
            }
            Type::Record(fields) => {
                let levels = inner()?;
                let read = |(name, id): &(String, TypeId)| Ok((name.clone(), self.value(*id, levels).map_err(|poison| poison.at(name))?));
                Value::M(fields.iter().map(read).collect::<Result<_, Poison>>()?)
            }
            Type::Decimal { scale, size: None } => decimal(self.prefixed()?, *scale)?,
            Type::Decimal { scale, size: Some(size) } => decimal(self.bytes(*size)?, *scale)?,
            Type::BigDecimal => {
                let bytes = self.prefixed()?;
                let mut inside = Reader { schema, rules, rest: bytes, budget: 0 };
                let unscaled = inside.prefixed()?;
                decimal(unscaled, inside.long()?)?
            }
            Type::UuidBytes => Value::S(uuid(self.array()?)),
            Type::Date => rules.temporal.date(self.long()?),
            Type::Time { step } => {
                let steps = self.long()?;
                rules.temporal.time(steps.checked_mul(*step).ok_or_else(|| broken(format!("{steps} is no time of a day")))?)?
            }
            Type::Timestamp { step, local } => {
                let nanos = i128::from(self.long()?) * i128::from(*step);
                if *local { rules.temporal.local_timestamp(nanos)? } else { rules.temporal.timestamp(nanos)? }
            }
            Type::Duration => {
                let parts = [self.array()?, self.array()?, self.array()?].map(u32::from_le_bytes);
                rules.temporal.duration(parts[0], parts[1], i128::from(parts[2]) * 1_000_000)
            }
        })
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Poison> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| broken("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Poison> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| broken("it ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A variable-length zig-zag number.
    fn long(&mut self) -> Result<i64, Poison> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        Err(broken("a number of more than 64 bits"))
    }

    fn prefixed(&mut self) -> Result<&'a [u8], Poison> {
        let length = self.long()?;
        self.bytes(usize::try_from(length).map_err(|_| broken(format!("a length of {length}")))?)
    }

    fn text(&mut self) -> Result<String, Poison> {
        std::str::from_utf8(self.prefixed()?).map(str::to_owned).map_err(|why| broken(format!("a string is no UTF-8: {why}")))
    }

    fn chosen<'t, T>(&mut self, among: &'t [T], what: &str) -> Result<&'t T, Poison> {
        let index = self.long()?;
        let chosen = usize::try_from(index).ok().and_then(|index| among.get(index));
        chosen.ok_or_else(|| broken(format!("there is no {what} {index}")))
    }

    /// The items of an array or a map come in blocks; an empty one ends them.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Poison>) -> Result<(), Poison> {
        loop {
            let mut count = self.long()?;
            if count < 0 {
                // Its size in bytes follows, for readers that skip it.
                self.long()?;
                count = count.checked_neg().ok_or_else(|| broken("a block of too many items"))?;
            }
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                item(self)?;
            }
        }
    }
}

fn broken(why: impl std::fmt::Display) -> Poison {
    Poison::new(Reason::NotParseable, format!("the payload does not follow its Avro schema: {why}"))
}

fn uuid(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dynamodb::attribute::to_json;

    fn read(schema: &str, payload: &[u8]) -> Result<Value, Poison> {
        AvroSchema::parse(schema.as_bytes()).expect("a schema").read(payload, &Rules::default())
    }

    #[test]
    fn numbers_strings_and_unions() {
        let schema = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"},{"name":"s","type":["null","string"]}]}"#;
        let Ok(Value::M(item)) = read(schema, &[1, 2, 4, b'h', b'i']) else { panic!("no record") };
        assert_eq!(to_json(&item), r#"{"n":{"N":"-1"},"s":{"S":"hi"}}"#);
        let longest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(read(r#""long""#, &longest), Ok(Value::N(i64::MIN.to_string())));
    }

    #[test]
    fn what_does_not_follow_its_schema_is_poison() {
        for (schema, payload, why) in [
            (r#""string""#, &[4, b'h'][..], "ends too early"),
            (r#""string""#, &[1], "a length of -1"),
            (r#""string""#, &[2, 0xff], "no UTF-8"),
            (r#"["null","int"]"#, &[4], "no branch 2"),
            (r#""int""#, &[2, 2], "1 bytes are left over"),
            (r#""long""#, &[0xff; 11], "more than 64 bits"),
            (
                r#"{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"map","values":"int"}}]}"#,
                &[2, 2, b'k'],
                "\"a\".\"k\": ",
            ),
        ] {
            let poison = read(schema, payload).expect_err(schema);
            assert!(poison.reason == Reason::NotParseable && poison.message.contains(why), "{schema}: {poison}");
        }
    }

    #[test]
    fn few_bytes_cannot_ask_for_much() {
        let mut billion_nulls = vec![0x80, 0x94, 0xeb, 0xdc, 0x07];
        billion_nulls.push(0);
        assert_eq!(read(r#"{"type":"array","items":"null"}"#, &billion_nulls).expect_err("large").reason, Reason::ItemTooLarge);
        let endless = r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#;
        assert_eq!(read(endless, &[]).expect_err("deep").reason, Reason::TooDeep);
    }

    proptest! {
        /// Whatever the bytes, there is an answer and no panic.
        #[test]
        fn any_bytes_have_an_answer(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let schema = r#"{"type":"record","name":"R","fields":[{"name":"l","type":{"type":"array","items":["null","R","double"]}},
                {"name":"d","type":{"type":"bytes","logicalType":"decimal","scale":2}},{"name":"t","type":{"type":"long","logicalType":"time-micros"}},
                {"name":"b","type":{"type":"bytes","logicalType":"big-decimal"}},{"name":"m","type":{"type":"map","values":"R"}}]}"#;
            let _ = read(schema, &payload);
        }
    }
}
