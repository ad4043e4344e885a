//! A small shop: orders come in, are paid, packed and sent, and the old ones are deleted.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};

use crate::{
    Result,
    tables::{Item, ORIGINAL, Tables},
};

/// Open orders at one time, about.
const OPEN_ORDERS: usize = 60;
const STATES: [&str; 4] = ["new", "paid", "packed", "sent"];
const NAMES: [&str; 6] = ["Ada", "Grace", "Edsger", "Barbara", "Donald", "Zoë 🚲"];
const ARTICLES: [&str; 5] = ["bicycle bell", "tea, green", "notebook A5", "lamp \"Noor\"", "chain oil"];

#[derive(Default)]
pub struct Shop {
    /// Number and state of each open order; the oldest first.
    open: Vec<(usize, usize)>,
    next_order: usize,
    inserted: usize,
    modified: usize,
    deleted: usize,
    /// The last order that was written, and when. Epoch microseconds.
    pub last: Option<(String, i64)>,
}

pub fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

impl Shop {
    pub fn written(&self) -> usize {
        self.inserted + self.modified + self.deleted
    }

    /// Whether this order is in the table.
    pub fn has(&self, order: &str) -> bool {
        self.open.iter().any(|(number, _)| order_id(*number) == order)
    }

    pub fn items(&self) -> usize {
        self.next_order
    }

    pub fn counts(&self) -> String {
        format!("{} inserted, {} modified, {} deleted", self.inserted, self.modified, self.deleted)
    }

    /// One change: a new order, the next state of an open one, or the end of the oldest.
    pub async fn change(&mut self, tables: &Tables) -> Result<()> {
        let step = self.written();
        // A fixed mix is as good as a random one here, and each run can be compared with the next.
        if self.open.len() >= OPEN_ORDERS && step.is_multiple_of(3) {
            let (number, _) = self.open.remove(0);
            let key = AttributeValue::S(order_id(number));
            tables.client.delete_item().table_name(ORIGINAL).key("orderId", key).send().await?;
            self.deleted += 1;
            return Ok(());
        }
        let number_and_state = if self.open.is_empty() || step % 5 < 2 {
            self.next_order += 1;
            self.inserted += 1;
            self.open.push((self.next_order, 0));
            (self.next_order, 0)
        } else {
            let at = (step * 7) % self.open.len();
            self.open[at].1 += 1;
            self.modified += 1;
            self.open[at]
        };
        let written_at = now_micros();
        let item = order(number_and_state, written_at);
        tables.client.put_item().table_name(ORIGINAL).set_item(Some(item)).send().await?;
        self.last = Some((order_id(number_and_state.0), written_at));
        Ok(())
    }
}

fn order_id(number: usize) -> String {
    format!("order-{number:05}")
}

/// An order with one attribute of nearly every type that DynamoDB has.
fn order((number, state): (usize, usize), written_at: i64) -> Item {
    let text = |text: &str| AttributeValue::S(text.into());
    let whole = |number: usize| AttributeValue::N(number.to_string());
    let lines = (0..1 + number % 3).map(|line| {
        let line = Item::from([
            ("article".to_string(), text(ARTICLES[(number + line) % ARTICLES.len()])),
            ("count".to_string(), whole(1 + line)),
            ("price".to_string(), AttributeValue::N(format!("{}.{:02}", 3 + number % 40, (number * 37 + line) % 100))),
        ]);
        AttributeValue::M(line)
    });
    Item::from([
        ("orderId".to_string(), text(&order_id(number))),
        ("customer".to_string(), text(NAMES[number % NAMES.len()])),
        ("state".to_string(), text(STATES[state % STATES.len()])),
        ("version".to_string(), whole(state)),
        ("writtenAtMicros".to_string(), AttributeValue::N(written_at.to_string())),
        ("lines".to_string(), AttributeValue::L(lines.collect())),
        ("tags".to_string(), AttributeValue::Ss(vec!["shop".into(), format!("week-{}", number % 52)])),
        ("paid".to_string(), AttributeValue::Bool(state > 0)),
        ("coupon".to_string(), if number.is_multiple_of(4) { text("WELCOME") } else { AttributeValue::Null(true) }),
        ("signature".to_string(), AttributeValue::B(Blob::new(number.to_be_bytes()))),
    ])
}
