//! Numbers as DynamoDB sees them: decimal, exact, up to 38 significant digits.

use std::{cmp::Ordering, fmt};

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

    /// In plain notation: no exponent, no leading zeros, none after the last digit of a fraction: `1500`, `-0.25`. A number far beyond what
    /// DynamoDB can hold keeps its exponent.
    pub fn plain(&self) -> String {
        const LONGEST: i64 = 400;
        let (length, sign) = (self.digits.len() as i64, if self.negative { "-" } else { "" });
        let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
        let point = length.saturating_add(self.exponent);
        match self.exponent {
            _ if self.digits.is_empty() => "0".into(),
            exponent if !(-LONGEST..=LONGEST).contains(&exponent) => self.to_string(),
            exponent @ 0.. => format!("{sign}{}{}", self.digits, zeros(exponent)),
            _ if point <= 0 => format!("{sign}0.{}{}", zeros(-point), self.digits),
            _ => {
                let (whole, fraction) = self.digits.split_at(usize::try_from(point).unwrap_or(0));
                format!("{sign}{whole}.{fraction}")
            }
        }
    }

    /// Whether DynamoDB can hold it exactly.
    pub fn fits(&self) -> bool {
        let magnitude = self.exponent.saturating_add(self.digits.len() as i64 - 1);
        self.digits.is_empty() || (self.digits.len() <= MAX_DIGITS && EXPONENTS.contains(&magnitude))
    }
}

/// By value.
impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        // Without leading zeros the longer magnitude is the larger; of equal ones, digits compare as those of a fraction.
        let magnitude = |number: &Self| number.exponent.saturating_add(number.digits.len() as i64);
        let sizes = magnitude(self).cmp(&magnitude(other)).then_with(|| self.digits.cmp(&other.digits));
        sign(self).cmp(&sign(other)).then(if self.negative { sizes.reverse() } else { sizes })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
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
    fn plain_notation_has_no_exponent() {
        for (text, plain) in [
            ("1E+3", "1000"),
            ("-1.50", "-1.5"),
            ("0.250e-2", "0.0025"),
            ("-0", "0"),
            ("123.456", "123.456"),
            ("1E-5", "0.00001"),
            ("1E99999999999", "1e99999999999"),
        ] {
            assert_eq!(Number::parse(text).map(|number| number.plain()).as_deref(), Some(plain), "{text}");
        }
    }

    #[test]
    fn numbers_are_ordered_by_value() {
        let ordered = ["-1E+3", "-2.5", "-2.45", "-0.1", "0", "1E-130", "0.09", "0.1", "0.11", "2", "10", "10.5", "1.2E+2"];
        let numbers: Vec<_> = ordered.iter().map(|text| Number::parse(text).expect(text)).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
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
