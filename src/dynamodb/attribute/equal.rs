//! When two values are one to DynamoDB.

use super::{Item, Number, Value};

/// Whether DynamoDB would call these items equal: numbers by value, sets whatever their order.
pub fn same_item(a: &Item, b: &Item) -> bool {
    a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same_value(value, other)))
}

/// Whether DynamoDB would call these values equal.
pub fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::N(a), Value::N(b)) => same_number(a, b),
        (Value::Ss(a), Value::Ss(b)) => same_set(a, b, |a, b| a == b),
        (Value::Ns(a), Value::Ns(b)) => same_set(a, b, |a, b| same_number(a, b)),
        (Value::Bs(a), Value::Bs(b)) => same_set(a, b, |a, b| a == b),
        (Value::L(a), Value::L(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b)),
        (Value::M(a), Value::M(b)) => same_item(a, b),
        _ => a == b,
    }
}

fn same_number(a: &str, b: &str) -> bool {
    a == b || Number::parse(a).is_some_and(|a| Number::parse(b) == Some(a))
}

/// Members of a set are different from each other.
fn same_set<T>(a: &[T], b: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    a.len() == b.len() && a.iter().all(|member| b.iter().any(|other| same(member, other)))
}

#[cfg(test)]
mod tests {
    use super::{super::item_from_json, *};

    #[test]
    fn numbers_are_equal_by_value_and_sets_in_any_order() {
        let item = |json| item_from_json(json).expect("test data");
        let one = item(r#"{"n":{"N":"1.50"},"s":{"NS":["1","2.0"]},"l":{"L":[{"M":{"x":{"SS":["a","b"]}}}]}}"#);
        let other = item(r#"{"n":{"N":"15e-1"},"s":{"NS":["2","1.0"]},"l":{"L":[{"M":{"x":{"SS":["b","a"]}}}]}}"#);
        assert!(same_item(&one, &other));
        for different in [
            r#"{"n":{"N":"1.5"},"s":{"NS":["1","3"]},"l":{"L":[{"M":{"x":{"SS":["a","b"]}}}]}}"#,
            r#"{"n":{"S":"1.50"},"s":{"NS":["1","2"]},"l":{"L":[{"M":{"x":{"SS":["a","b"]}}}]}}"#,
            r#"{"n":{"N":"1.5"},"s":{"NS":["1","2"]},"l":{"L":[]}}"#,
            r#"{"n":{"N":"1.5"},"s":{"NS":["1","2"]}}"#,
        ] {
            assert!(!same_item(&one, &item(different)) && !same_item(&item(different), &one), "{different}");
        }
    }
}
