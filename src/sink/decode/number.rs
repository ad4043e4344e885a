//! Numbers of binary formats as decimal literals.

use crate::{
    dynamodb::attribute::Value,
    sink::poison::{Poison, Reason},
};

/// What becomes of NaN and the infinities, which DynamoDB has no number for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NonFinite {
    /// The message cannot be written.
    #[default]
    Poison,
    Null,
    /// `NaN`, `Infinity`, `-Infinity` as S.
    String,
}

/// The shortest literal that reads as the same `f64`.
pub fn double(number: f64, non_finite: NonFinite) -> Result<Value, Poison> {
    match number.is_finite() {
        true if is_plain(number) => Ok(Value::N(format!("{number}"))),
        true => Ok(Value::N(format!("{number:e}"))),
        false => special(number, non_finite),
    }
}

/// The shortest literal that reads as the same `f32`: 0.1 and not 0.10000000149011612.
pub fn float(number: f32, non_finite: NonFinite) -> Result<Value, Poison> {
    match number.is_finite() {
        true if is_plain(f64::from(number)) => Ok(Value::N(format!("{number}"))),
        true => Ok(Value::N(format!("{number:e}"))),
        false => special(f64::from(number), non_finite),
    }
}

fn is_plain(number: f64) -> bool {
    number == 0.0 || (1e-7..1e21).contains(&number.abs())
}

fn special(number: f64, non_finite: NonFinite) -> Result<Value, Poison> {
    let text = match number {
        _ if number.is_nan() => "NaN",
        _ if number > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    match non_finite {
        NonFinite::Poison => Err(Poison::new(
            Reason::NumberInvalid,
            format!("{text} is no number for DynamoDB; nonFinite: null or string writes it otherwise"),
        )),
        NonFinite::Null => Ok(Value::Null),
        NonFinite::String => Ok(Value::S(text.into())),
    }
}

/// More bytes than this are far beyond what DynamoDB can hold, and would take long to convert.
const MAX_UNSCALED: usize = 64;

/// `unscaled` × 10^-`scale`; `unscaled` is big-endian, two's complement, as Java's `BigInteger` has it. Keeps all digits: 1.10 stays 1.10.
pub fn decimal(unscaled: &[u8], scale: i64) -> Result<Value, Poison> {
    if unscaled.len() > MAX_UNSCALED || scale.unsigned_abs() > 1000 {
        let why = format!("a decimal of {} bytes and scale {scale} is more than DynamoDB can hold", unscaled.len());
        return Err(Poison::new(Reason::NumberInvalid, why));
    }
    let negative = unscaled.first().is_some_and(|first| first & 0x80 != 0);
    let mut magnitude = unscaled.to_vec();
    if negative {
        magnitude.iter_mut().for_each(|byte| *byte = !*byte);
        for byte in magnitude.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
    }
    let digits = digits(magnitude);
    let literal = match usize::try_from(scale) {
        Ok(0) => digits,
        Ok(scale) => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            format!("{whole}.{fraction}")
        }
        Err(_) => format!("{digits}E{}", scale.unsigned_abs()),
    };
    Ok(Value::N(format!("{}{literal}", if negative { "-" } else { "" })))
}

/// A big-endian magnitude in decimal, by repeated division.
fn digits(mut magnitude: Vec<u8>) -> String {
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0_u16;
        for byte in &mut magnitude {
            let all = rest << 8 | u16::from(*byte);
            *byte = u8::try_from(all / 10).unwrap_or(u8::MAX);
            rest = all % 10;
        }
        digits.push(char::from(b'0' + u8::try_from(rest).unwrap_or(0)));
    }
    if digits.is_empty() { "0".into() } else { digits.iter().rev().collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_have_their_shortest_literal() {
        for (number, literal) in
            [(0.1, "0.1"), (1e10, "10000000000"), (1e300, "1e300"), (-2.5e-9, "-2.5e-9"), (0.0, "0"), (4e15, "4000000000000000")]
        {
            assert_eq!(double(number, NonFinite::Poison), Ok(Value::N(literal.into())));
        }
        assert_eq!(float(0.1, NonFinite::Poison), Ok(Value::N("0.1".into())));
        assert_eq!(float(f32::MAX, NonFinite::Poison), Ok(Value::N("3.4028235e38".into())));
    }

    #[test]
    fn what_is_not_finite_follows_the_policy() {
        assert_eq!(double(f64::NAN, NonFinite::Poison).expect_err("poison").reason, Reason::NumberInvalid);
        assert_eq!(double(f64::NEG_INFINITY, NonFinite::String), Ok(Value::S("-Infinity".into())));
        assert_eq!(float(f32::NAN, NonFinite::Null), Ok(Value::Null));
    }

    #[test]
    fn decimals_keep_their_digits() {
        for (unscaled, scale, literal) in [
            (&[110][..], 2, "1.10"),
            (&[0xff], 2, "-0.01"),
            (&[], 0, "0"),
            (&[0], 3, "0.000"),
            (&[0x80, 0], 0, "-32768"),
            (&[1], -3, "1E3"),
        ] {
            assert_eq!(decimal(unscaled, scale), Ok(Value::N(literal.into())));
        }
        assert!(decimal(&[1; 65], 0).is_err());
    }

    proptest! {
        #[test]
        fn decimals_are_exact(unscaled in any::<i128>()) {
            prop_assert_eq!(decimal(&unscaled.to_be_bytes(), 0), Ok(Value::N(unscaled.to_string())));
        }
    }
}
