//! Whole numbers that arrive as doubles: Pulsar's worker reads a function's configuration with a JSON library that has no integers.

use serde_json::{Number, Value};

/// From here on not every whole number is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The number, if it is a whole one.
pub fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let double = number.as_f64()?;
        // Exact by the two conditions.
        (double.fract() == 0.0 && double.abs() < EXACT).then_some(double as i64)
    })
}

/// Makes whole numbers of what are whole numbers, at any depth: `5.0` → `5`.
pub fn restore(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *number = whole.into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(restore),
        Value::Object(map) => map.values_mut().for_each(restore),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn doubles_become_the_whole_numbers_that_they_were_at_any_depth() {
        let mut value =
            json!({"n": 5.0, "f": 1.5, "o": {"x": [1.0, -2.0, 1e300]}, "big": u64::MAX, "t": "5.0", "b": true, "nothing": null});
        restore(&mut value);
        let expected = json!({"n": 5, "f": 1.5, "o": {"x": [1, -2, 1e300]}, "big": u64::MAX, "t": "5.0", "b": true, "nothing": null});
        assert_eq!(value.to_string(), expected.to_string());
    }
}
