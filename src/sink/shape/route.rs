//! Which table a message is for: a template with what the message says, within a list of what is allowed.

use std::sync::Arc;

use super::expression::{Context, Expression};
use crate::{
    dynamodb::attribute::Value,
    sink::poison::{Poison, Reason},
};

/// A table name with places for expressions, `orders-${property.region}`, and the tables that it may come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    parts: Vec<Part>,
    allowed: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Expression),
}

/// Lengths of a table's name. Source: "Supported data types and naming rules", Naming rules, Amazon DynamoDB Developer Guide.
const LENGTHS: std::ops::RangeInclusive<usize> = 3..=255;

impl Route {
    /// Whether a table name is a template.
    pub fn is_template(text: &str) -> bool {
        text.contains("${")
    }

    /// `allowed`: names of tables, in which `*` stands for anything. Errors say what is wrong with the template.
    pub fn parse(text: &str, allowed: Vec<String>) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, place)) = rest.split_once("${") {
            let (place, after) = place.split_once('}').ok_or("has a ${ without its }")?;
            let expression = Expression::parse(place).ok_or_else(|| format!("${{{place}}} is unknown; there is {}", super::EXPRESSIONS))?;
            parts.extend([Part::Text(before.to_owned()), Part::Place(expression)]);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { parts, allowed })
    }

    /// The message's table. What a table's name cannot have becomes `_`.
    pub fn table(&self, context: &Context) -> Result<Arc<str>, Poison> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Place(expression) => match expression.find(context) {
                    Some(Value::S(text) | Value::N(text)) if !text.is_empty() => name.push_str(&text),
                    Some(Value::Bool(truth)) => name.push_str(if truth { "true" } else { "false" }),
                    Some(other) => {
                        let why = format!("{expression} has type {}, which is no part of a table's name", other.type_tag());
                        return Err(Poison::new(Reason::Table, why));
                    }
                    None => return Err(Poison::new(Reason::Table, format!("the message has no {expression} to choose its table by"))),
                },
            }
        }
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || "_-.".contains(c) { c } else { '_' }).collect();
        if !LENGTHS.contains(&name.len()) {
            return Err(Poison::new(Reason::Table, format!("{name:?} is no table name: 3 to 255 characters")));
        }
        if !self.allowed.iter().any(|pattern| matches(pattern, &name)) {
            return Err(Poison::new(Reason::Table, format!("table {name} is none of allowedTables")));
        }
        Ok(name.into())
    }
}

/// Whether a name fits a pattern, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    // Without a `*`, all has to be said.
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, fits) in [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("orders-*", "orders-eu", true),
            ("orders-*", "orders-", true),
            ("*-eu", "orders-us", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "x", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_template_is_said() {
        assert!(Route::parse("a-${topic", vec![]).expect_err("open").contains("without its }"));
        assert!(Route::parse("a-${topc}", vec![]).expect_err("unknown").contains("${topc} is unknown; there is value.FIELD"));
    }
}
