//! Dates and times as attribute values: the text that a table's other writers use, or numbers.
//!
//! | format | date | time | timestamp | without a zone |
//! |---|---|---|---|---|
//! | `iso` | `2020-01-31` | `10:15:00` | `2020-01-31T10:15:00Z` | `2020-01-31T10:15:00` |
//! | `flink` | `2020-01-31` | `10:15` | `2020-01-31T10:15:00Z` | `2020-01-31T10:15` |
//! | `risingwave` | `2020-01-31` | `10:15:00` | `2020-01-31 10:15:00+00:00` | `2020-01-31 10:15:00` |
//! | `epoch-seconds`, `epoch-millis` | N of its midnight in UTC | N of the day | N | N, as if in UTC |
//!
//! Fractions of a second have 3, 6 or 9 digits, as few as do, and none at all where there are none: so do Java and RisingWave. As numbers they
//! stay exact: 1580465700.5 seconds.

use std::fmt::Write as _;

use crate::{
    dynamodb::attribute::Value,
    sink::poison::{Poison, Reason},
};

/// How dates and times are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TemporalFormat {
    #[default]
    Iso,
    /// As Flink's sink, which takes what Java's `toString` says.
    Flink,
    /// As RisingWave's sink, which writes as PostgreSQL does.
    Risingwave,
    EpochSeconds,
    EpochMillis,
}

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

impl TemporalFormat {
    /// `days` since 1970-01-01.
    pub fn date(self, days: i64) -> Value {
        match self {
            Self::EpochSeconds | Self::EpochMillis => self.epoch(i128::from(days) * i128::from(DAY) * i128::from(NANOS)),
            Self::Iso | Self::Flink | Self::Risingwave => Value::S(date(days)),
        }
    }

    /// `nanos` since midnight.
    pub fn time(self, nanos: i64) -> Result<Value, Poison> {
        if !(0..DAY * NANOS).contains(&nanos) {
            return Err(Poison::new(Reason::NotParseable, format!("{nanos} ns since midnight are no time of a day")));
        }
        Ok(match self {
            Self::EpochSeconds | Self::EpochMillis => self.epoch(i128::from(nanos)),
            Self::Flink => Value::S(time(nanos, false)),
            Self::Iso | Self::Risingwave => Value::S(time(nanos, true)),
        })
    }

    /// A point in time: `nanos` since 1970-01-01T00:00:00Z.
    pub fn timestamp(self, nanos: i128) -> Result<Value, Poison> {
        let (days, of_day) = split(nanos)?;
        Ok(match self {
            Self::EpochSeconds | Self::EpochMillis => self.epoch(nanos),
            Self::Iso | Self::Flink => Value::S(format!("{}T{}Z", date(days), time(of_day, true))),
            Self::Risingwave => Value::S(format!("{} {}+00:00", date(days), time(of_day, true))),
        })
    }

    /// A date and time of no zone: `nanos` since 1970-01-01T00:00:00 by its own clock.
    pub fn local_timestamp(self, nanos: i128) -> Result<Value, Poison> {
        let (days, of_day) = split(nanos)?;
        Ok(match self {
            Self::EpochSeconds | Self::EpochMillis => self.epoch(nanos),
            Self::Iso => Value::S(format!("{}T{}", date(days), time(of_day, true))),
            Self::Flink => Value::S(format!("{}T{}", date(days), time(of_day, false))),
            Self::Risingwave => Value::S(format!("{} {}", date(days), time(of_day, true))),
        })
    }

    /// A length of time. Months and days have no fixed length, so they stay what they are.
    ///
    /// Flink knows either months (`P1Y2M`) or the rest, which it writes as a number of seconds.
    pub fn duration(self, months: u32, days: u32, nanos: i128) -> Value {
        match self {
            Self::Risingwave => Value::S(interval(months, days, nanos)),
            Self::Flink | Self::EpochSeconds if months == 0 => Value::N(scaled(i128::from(days) * i128::from(DAY * NANOS) + nanos, 9)),
            Self::EpochMillis if months == 0 => Value::N(scaled(i128::from(days) * i128::from(DAY * NANOS) + nanos, 6)),
            _ => Value::S(iso_duration(months, days, nanos)),
        }
    }

    fn epoch(self, nanos: i128) -> Value {
        Value::N(scaled(nanos, if self == Self::EpochMillis { 6 } else { 9 }))
    }
}

/// The day, and the nanoseconds in it.
fn split(nanos: i128) -> Result<(i64, i64), Poison> {
    let day = i128::from(DAY * NANOS);
    let fits = |number: i128| i64::try_from(number).ok();
    let parts = fits(nanos.div_euclid(day)).zip(fits(nanos.rem_euclid(day)));
    parts.ok_or_else(|| Poison::new(Reason::NotParseable, format!("{nanos} ns since 1970 are no date")))
}

/// Source of the algorithm: "chrono-Compatible Low-Level Date Algorithms", Howard Hinnant, `civil_from_days`.
fn date(days: i64) -> String {
    let shifted = i128::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        10_000.. => format!("+{year}-{month:02}-{day:02}"),
        _ => format!("-{:04}-{month:02}-{day:02}", -year),
    }
}

fn time(nanos: i64, with_seconds: bool) -> String {
    let (seconds, fraction) = (nanos / NANOS, nanos % NANOS);
    let mut text = format!("{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if with_seconds || seconds % 60 != 0 || fraction != 0 {
        let _ = write!(text, ":{:02}", seconds % 60);
    }
    let _ = match fraction {
        0 => Ok(()),
        _ if fraction % 1_000_000 == 0 => write!(text, ".{:03}", fraction / 1_000_000),
        _ if fraction % 1000 == 0 => write!(text, ".{:06}", fraction / 1000),
        _ => write!(text, ".{fraction:09}"),
    };
    text
}

/// `number` × 10^-`digits` in plain notation, without zeros at its end.
fn scaled(number: i128, digits: usize) -> String {
    let (sign, magnitude) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let unit = 10_u128.pow(u32::try_from(digits).unwrap_or(0));
    let fraction = format!("{:0digits$}", magnitude % unit);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{fraction}", magnitude / unit)
}

/// ISO 8601, as Java's `Period` and `Duration` write it.
fn iso_duration(months: u32, days: u32, nanos: i128) -> String {
    let mut text = String::from("P");
    for (amount, unit) in [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')] {
        if amount != 0 {
            let _ = write!(text, "{amount}{unit}");
        }
    }
    if nanos != 0 || text.len() == 1 {
        let (minute, hour) = (i128::from(60 * NANOS), i128::from(3600 * NANOS));
        text.push('T');
        for (amount, unit) in [(nanos / hour, 'H'), (nanos % hour / minute, 'M')] {
            if amount != 0 {
                let _ = write!(text, "{amount}{unit}");
            }
        }
        if nanos % minute != 0 || nanos == 0 {
            let _ = write!(text, "{}S", scaled(nanos % minute, 9));
        }
    }
    text
}

/// As PostgreSQL writes an interval: `1 year 2 mons 3 days 04:05:06.007`.
fn interval(months: u32, days: u32, nanos: i128) -> String {
    let counted = |amount: u32, unit: &str| (amount != 0).then(|| format!("{amount} {unit}{}", if amount == 1 { "" } else { "s" }));
    let mut parts: Vec<String> =
        [counted(months / 12, "year"), counted(months % 12, "mon"), counted(days, "day")].into_iter().flatten().collect();
    if nanos != 0 || parts.is_empty() {
        let (sign, seconds) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs() / 1_000_000_000);
        let fraction = scaled(i128::try_from(nanos.unsigned_abs() % 1_000_000_000).unwrap_or(0), 9);
        let fraction = fraction.strip_prefix('0').unwrap_or_default();
        parts.push(format!("{sign}{:02}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn text(value: Value) -> String {
        match value {
            Value::S(text) => text,
            Value::N(number) => format!("N {number}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn durations_have_each_systems_text() {
        use TemporalFormat as T;
        let (long, hours) = ((14, 3, 14_706_007_000_000), (0, 0, 14_706_007_000_000));
        for (format, (months, days, nanos), expected) in [
            (T::Iso, long, "P1Y2M3DT4H5M6.007S"),
            (T::Iso, (0, 0, 0), "PT0S"),
            (T::Iso, hours, "PT4H5M6.007S"),
            (T::Flink, (14, 0, 0), "P1Y2M"),
            (T::Flink, (0, 1, 7_000_000), "N 86400.007"),
            (T::Risingwave, long, "1 year 2 mons 3 days 04:05:06.007"),
            (T::Risingwave, (25, 1, 0), "2 years 1 mon 1 day"),
            (T::Risingwave, (0, 0, 0), "00:00:00"),
            (T::EpochMillis, hours, "N 14706007"),
        ] {
            assert_eq!(text(format.duration(months, days, nanos)), expected, "{format:?}");
        }
    }

    #[test]
    fn what_is_no_time_of_a_day_is_poison() {
        for nanos in [-1, DAY * NANOS, i64::MAX] {
            assert!(TemporalFormat::Iso.time(nanos).is_err());
        }
        assert!(TemporalFormat::Iso.timestamp(i128::MAX).is_err());
        assert_eq!(text(TemporalFormat::Iso.date(i64::from(i32::MIN))), "-5877641-06-23", "Avro's first day");
    }

    proptest! {
        /// Against another calendar.
        #[test]
        fn dates_and_times_are_the_calendars(seconds in -62_000_000_000_i64..250_000_000_000, nanos in 0_u32..1_000_000_000) {
            let known = DateTime::from_timestamp(seconds, nanos).expect("in range").naive_utc();
            let all = i128::from(seconds) * i128::from(NANOS) + i128::from(nanos);
            let fraction = if nanos == 0 { String::new() } else { known.format("%.f").to_string() };
            let expected = format!("{}{fraction}", known.format("%Y-%m-%d %H:%M:%S"));
            prop_assert_eq!(text(TemporalFormat::Risingwave.local_timestamp(all).expect("a date")), expected.clone());
            prop_assert_eq!(text(TemporalFormat::Iso.timestamp(all).expect("a date")), format!("{}Z", expected.replace(' ', "T")));
            let days = known.date().signed_duration_since(NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date")).num_days();
            prop_assert_eq!(text(TemporalFormat::Flink.date(days)), known.format("%Y-%m-%d").to_string());
        }
    }
}
