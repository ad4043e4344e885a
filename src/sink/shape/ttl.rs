//! The attribute that DynamoDB's time to live goes by: a number of seconds since 1970.

use super::expression::{Context, Expression};
use crate::{
    dynamodb::attribute::{Item, Number, Value},
    sink::poison::{Poison, Reason},
};

/// From when the seconds count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// When the message is worked on.
    Now,
    PublishTime,
    /// Messages without an event time: when they were published.
    EventTime,
    /// A field of the value, in seconds since 1970.
    Field(Expression),
}

/// When items expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ttl {
    pub attribute: String,
    pub since: Since,
    pub seconds: u64,
}

/// The year 5138 in seconds, and 1973 in milliseconds.
const NO_SECONDS: i64 = 100_000_000_000;

impl Ttl {
    /// `now` is in epoch milliseconds. An item without the field has no time to live.
    pub fn add(&self, item: &mut Item, context: &Context, now: u64) -> Result<(), Poison> {
        let since = match &self.since {
            Since::Now => now / 1000,
            Since::PublishTime => context.message.publish_time / 1000,
            Since::EventTime => context.message.event_time.filter(|time| *time > 0).unwrap_or(context.message.publish_time) / 1000,
            Since::Field(expression) => match expression.find(context) {
                Some(found) => seconds(&found).map_err(|poison| poison.at(&expression.to_string()))?,
                None => return Ok(()),
            },
        };
        item.insert(self.attribute.clone(), Value::N(since.saturating_add(self.seconds).to_string()));
        Ok(())
    }
}

fn seconds(value: &Value) -> Result<u64, Poison> {
    let wrong = |why: String| Poison::new(Reason::TtlInvalid, why);
    let (Value::N(text) | Value::S(text)) = value else {
        return Err(wrong(format!("type {} is no number of seconds since 1970", value.type_tag())));
    };
    let plain = Number::parse(text).map(|number| number.plain()).unwrap_or_default();
    // Time to live goes by whole seconds.
    let whole = plain.split('.').next().and_then(|whole| whole.parse::<i64>().ok());
    match whole {
        Some(seconds) if seconds >= NO_SECONDS => {
            Err(wrong(format!("{text} looks like milliseconds; time to live takes seconds since 1970")))
        }
        Some(seconds) => u64::try_from(seconds).map_err(|_| wrong(format!("{text} lies before 1970"))),
        None => Err(wrong(format!("{text:?} is no number of seconds since 1970"))),
    }
}
