//! What is to be done for one item: its operations in message order, and which of them the next write stands for.

use std::{collections::VecDeque, sync::Arc};

use super::{Place, Ticket};
use crate::{
    ports::{Action, Moment, Write},
    sink::{coalesce::merged, mode::Version, poison::Poison},
};

#[derive(Debug)]
pub struct Lane {
    pub ops: VecDeque<Op>,
    pub state: State,
    /// Failures since the last success.
    pub attempts: u32,
    pub failing_since: Option<Moment>,
    /// So many of the first operations are written one by one: the one write for all of them was refused, and only one of them is to blame.
    pub one_by_one: usize,
}

#[derive(Debug)]
pub struct Op {
    pub ticket: Ticket,
    pub place: Place,
    pub write: Arc<Write>,
    pub bytes: usize,
    /// A newer operation was there before it came: it is never written for itself, unless that one is refused.
    pub late: bool,
    /// Where there is one, the greatest wins, whatever the order.
    pub version: Option<Version>,
    /// Set once DynamoDB has refused it.
    pub refused: Option<Poison>,
    /// It is another consumer's by now (see `leave`), and in an unanswered request.
    pub void: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// May be sent.
    Ready,
    /// The write that stands for the first `covers` operations is unanswered.
    InFlight { covers: usize },
    /// The first operation is refused and on its way to the dead-letter topic.
    Burying,
}

impl Lane {
    /// How many operations the next write settles.
    pub fn covers(&self, coalesce: bool) -> usize {
        let sendable = self.ops.iter().take_while(|op| op.refused.is_none()).count();
        let in_turn = self.ops.iter().take(sendable).position(|op| !op.late).map(|first| first + 1);
        in_turn.filter(|_| !coalesce || self.one_by_one > 0).unwrap_or(sendable)
    }

    /// Which of the first `covers` operations is written for all of them: the one with the greatest version, else the last.
    pub fn chosen(&self, covers: usize) -> usize {
        let versions = self.ops.iter().take(covers).enumerate().map(|(at, op)| (op.version.as_ref(), at));
        versions.max().map_or(0, |(_, at)| at)
    }

    /// The one write for the first `covers` operations.
    pub fn write(&self, covers: usize) -> Arc<Write> {
        match &self.ops[self.chosen(covers)] {
            Op { version: Some(_), write, .. } => write.clone(),
            last => {
                let covered = self.ops.iter().take(covers);
                // A late one is a copy of what was written before, or of another of these: to be refused for it once more would blame the wrong one.
                merged(covered.filter(|op| last.late || !op.late).map(|op| &op.write))
            }
        }
    }

    /// Puts an operation behind all others, or, where newer messages of its partition are in work, before the first of them. Those of
    /// one partition are always in the order of their positions. Versions need no such order.
    pub fn insert(&mut self, op: Op) {
        if op.version.is_some() {
            return self.ops.push_back(op);
        }
        let comparable = |other: &(usize, &Op)| other.1.refused.is_none() && !other.1.void && other.1.place.0.topic == op.place.0.topic;
        let youngest_first = self.ops.iter().enumerate().rev().filter(comparable);
        let newer = youngest_first.take_while(|(_, other)| other.place >= op.place).last().map(|(at, _)| at);
        match newer {
            None => self.ops.push_back(op),
            Some(at) => {
                self.ops.insert(at, Op { late: true, ..op });
                if let State::InFlight { covers } = &mut self.state
                    && at < *covers
                {
                    *covers += 1;
                }
            }
        }
    }

    /// Bytes of the next write, never too low.
    pub fn next_bytes(&self, coalesce: bool) -> usize {
        let covers = self.covers(coalesce).max(1);
        match &self.ops[self.chosen(covers)] {
            Op { write, version: None, .. } if matches!(write.action, Action::Update { .. }) => {
                self.ops.iter().take(covers).map(|op| op.bytes).sum()
            }
            chosen => chosen.bytes,
        }
    }
}
