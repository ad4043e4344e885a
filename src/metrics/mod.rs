//! What the worker tells about itself: the stages record through the `metrics` facade, under the names of [`names`]; [`fork`] hands it to
//! [`prometheus`] and, as [`kcl`] translates it, to CloudWatch; [`shards`] and [`health`] know what has to be worked out when somebody asks; [`http`] answers.

pub mod calls;
#[cfg(feature = "cloudwatch")]
pub mod cloudwatch;
pub mod fork;
pub mod health;
pub mod http;
pub mod kcl;
pub mod names;
pub mod page;
pub mod process;
pub mod prometheus;
pub mod shards;

use std::sync::Arc;

use self::{
    fork::{Fork, Other},
    health::Health,
    prometheus::Exporter,
};
use crate::error::{Error, Kind, Result};

/// Starts to collect; once for the whole process. `others`: further exporters of the same recordings.
pub fn install(health: &Health, others: Vec<Arc<dyn Other>>) -> Result<Exporter> {
    let recorder = prometheus::recorder()?;
    let exporter = Exporter::new(recorder.handle(), health.clone());
    metrics::set_global_recorder(Fork::new(recorder, others)).map_err(|error| Error::new(Kind::Fatal, "set up the metrics", error))?;
    names::describe();
    Ok(exporter)
}
