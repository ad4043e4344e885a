//! Numbers as DynamoDB sees them: decimal, exact, up to 38 significant digits.

use std::fmt;

/// Significant digits that a number may have; leading and trailing zeros do not count.
/// Source: "Supported data types and naming rules", Number, Amazon DynamoDB Developer Guide.
const MAX_DIGITS: usize = 38;
/// The decimal exponents of the smallest and the largest magnitude, 1E-130 and 9.99…E+125. Same source.
const EXPONENTS: std::ops::RangeInclusive<i64> = -130..=125;

/// A number in canonical form: `digits` × 10^`exponent`, without leading or trailing zeros. Equal values are equal here: 1 = 1.0 = 1E0
/// = 01, and -0 = 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Number {
    negative: bool,
    /// Empty for zero.
    digits: String,
    exponent: i64,
}

impl Number {
    /// Reads a decimal literal: sign, digits with an optional point, optional exponent. `None` on anything else (NaN, Infinity, spaces).
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], parse_exponent(&unsigned[at + 1..])?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let all = [whole, fraction].concat();
        let significant = all.trim_end_matches('0');
        let digits = significant.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let dropped = (all.len() - significant.len()) as i64;
        let exponent = exponent.saturating_sub(fraction.len() as i64).saturating_add(dropped);
        Some(Self { negative, digits, exponent })
    }

    /// How many significant digits it has; 0 for zero.
    pub fn digits(&self) -> usize {
        self.digits.len()
    }

    /// Whether DynamoDB can hold it exactly.
    pub fn fits(&self) -> bool {
        let magnitude = self.exponent.saturating_add(self.digits.len() as i64 - 1);
        self.digits.is_empty() || (self.digits.len() <= MAX_DIGITS && EXPONENTS.contains(&magnitude))
    }
}

/// Exponents beyond the machine's range saturate: such numbers do not fit anyway.
fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.bytes().fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}

/// The canonical text: `0`, `15e-1`, `-7e0`.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digits.as_str() {
            "" => f.write_str("0"),
            digits => write!(f, "{}{digits}e{}", if self.negative { "-" } else { "" }, self.exponent),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Number::parse(text).map_or_else(|| "not a number".to_owned(), |number| number.to_string())
    }

    fn fits(text: &str) -> bool {
        Number::parse(text).is_some_and(|number| number.fits())
    }

    #[test]
    fn equal_numbers_have_one_form() {
        for one in ["1", "1.0", "1E0", "01", "+1", "0.1e1", "100e-2", "1.", "1.000000000000000000000000000000000000000000"] {
            assert_eq!(canonical(one), "1e0", "{one}");
        }
        for zero in ["0", "-0", "0.000", "0E99", "-0e-5", ".0"] {
            assert_eq!(canonical(zero), "0", "{zero}");
        }
        assert_eq!(canonical("-12.50"), "-125e-1");
        assert_ne!(canonical("1"), canonical("-1"));
        assert_ne!(canonical("1"), canonical("10"));
    }

    #[test]
    fn what_is_no_number() {
        for text in ["", "-", "+", ".", "e1", "1e", "1e+", "NaN", "Infinity", " 1", "1 ", "1,5", "0x1", "1.2.3", "--1", "١"] {
            assert_eq!(canonical(text), "not a number", "{text:?}");
        }
    }

    #[test]
    fn digits_and_magnitude_have_limits() {
        let nines = "9".repeat(38);
        assert!(fits(&nines) && fits(&format!("-{nines}")));
        assert!(fits(&format!("{nines}000")), "trailing zeros are free");
        assert!(!fits(&format!("{nines}1")));
        assert!(fits("1E-130") && !fits("1E-131") && !fits("9E-131"));
        assert!(fits("9.99E125") && !fits("1E126"));
        assert!(fits("0E999") && !fits("1E99999999999999999999") && !fits("1E-99999999999999999999"));
        assert!(fits("18446744073709551615") && fits("12345678901234567890.123"));
    }

    proptest! {
        /// Rewriting a number (leading zeros, trailing zeros, a moved point) changes nothing; another value changes the form.
        #[test]
        fn canonical_is_by_value(value in any::<i64>(), shift in 0_usize..30, zeros in 0_usize..5) {
            let digits = value.unsigned_abs().to_string();
            let padded = format!("{}{digits}", "0".repeat(shift + zeros));
            let (whole, fraction) = padded.split_at(padded.len() - shift);
            let sign = if value < 0 { "-" } else { "" };
            let moved = format!("{sign}{whole}.{fraction}{}E{shift}", "0".repeat(zeros));
            prop_assert_eq!(canonical(&moved), canonical(&value.to_string()));
            prop_assert_ne!(canonical(&moved), canonical(&value.wrapping_add(1).to_string()));
        }
    }
}
