//! A schema registry in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use pulsar_io_dynamodb::{
    error::Result,
    ports::{Schema, SchemaId, Schemas},
};

/// Shared by all its clones. Answers after a while.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    schemas: HashMap<u8, Schema>,
    asked: Vec<Vec<u8>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn register(&self, version: u8, schema: Schema) {
        self.lock().schemas.insert(version, schema);
    }

    /// The versions that were asked for, in their order.
    pub fn asked(&self) -> Vec<Vec<u8>> {
        self.lock().asked.clone()
    }
}

impl Schemas for Registry {
    async fn schema(&self, id: &SchemaId) -> Result<Option<Schema>> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut state = self.lock();
        state.asked.push(id.version.clone());
        Ok(state.schemas.get(&id.version[0]).cloned())
    }
}
