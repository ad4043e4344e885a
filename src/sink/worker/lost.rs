//! Topic partitions that become another consumer's while messages of them are in work (K1).

use std::sync::Arc;

use futures_util::FutureExt;

use super::Worker;
use crate::{
    error::Result,
    ports::{Inbound, Inbox, ItemTables, Schemas},
};

impl<I: Inbox, S: Schemas, T: ItemTables> Worker<I, S, T> {
    /// Takes notice of what is lost, and tells whose last write is answered.
    pub(super) fn look(&mut self) -> Result<()> {
        while let Some(received) = self.inbox.receive(false).now_or_never() {
            self.received(received?)?;
        }
        let (batches, inbox) = (&self.batches, &mut self.inbox);
        self.leaving.retain(|topic| {
            let leaving = batches.is_leaving(topic);
            if !leaving {
                inbox.released(topic);
            }
            leaving
        });
        Ok(())
    }

    pub(super) fn received(&mut self, received: Inbound) -> Result<()> {
        match received {
            Inbound::Message(message) => self.accept(message),
            Inbound::Lost(topic) => self.lost(topic),
        }
    }

    /// What has come from this topic partition is void.
    fn lost(&mut self, topic: Arc<str>) -> Result<()> {
        if self.held.as_ref().is_some_and(|held| held.is_of(&topic)) {
            self.held = None;
        }
        for ticket in self.batches.leave(&topic) {
            self.room.release(ticket);
        }
        let free = self.acks.leave(&topic);
        self.leaving.insert(topic);
        self.acknowledge(free)
    }
}
