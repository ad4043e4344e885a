//! Starting, stopping and killing workers.

use std::{sync::Arc, time::Duration};

use pulsar_io_dynamodb::{
    error::Result,
    metrics::health::Health,
    source::{self, Settings, clock::Clock},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{FakeMachine, FakeStreams, FakeTable, FakeTopic, World, log::Actor};

/// One start of a worker.
pub struct Run {
    pub id: Actor,
    /// Its settings' worker id.
    pub worker: String,
    pub health: Health,
    pub machine: &'static FakeMachine,
    pub stop: CancellationToken,
    pub task: JoinHandle<Result<()>>,
}

impl Run {
    /// A clean stop; returns what the worker said.
    pub async fn stopped(self) -> Result<()> {
        self.stop.cancel();
        self.ended().await
    }

    pub async fn ended(self) -> Result<()> {
        tokio::time::timeout(Duration::from_secs(120), self.task).await.expect("the worker ends within 120 s").expect("no panic")
    }
}

impl World {
    /// Starts a worker with its own health and machine, as a new process would have them.
    pub fn start(&mut self, settings: Settings) -> Run {
        self.start_beside(settings, 0)
    }

    /// As [`Self::start`], on a machine whose wall clock is wrong by so much.
    pub fn start_beside(&mut self, settings: Settings, wrong_millis: i64) -> Run {
        let (id, machine) = {
            let mut state = self.lock();
            state.runs += 1;
            let id = state.runs;
            // Clocks are copied wherever time is read, so a machine stays for the life of the test.
            let machine: &'static FakeMachine = Box::leak(Box::new(FakeMachine::new(state.began)));
            machine.step(wrong_millis);
            state.machines.insert(id, machine);
            state.windows.insert(id, settings.max_in_flight);
            state.workers.insert(id, settings.worker_id.clone());
            state.note(id, format!("starts as {}", settings.worker_id));
            (id, machine)
        };
        let stop = CancellationToken::new();
        let worker = settings.worker_id.clone();
        let follows = self.lock().follows;
        let named = (!follows).then(|| self.stream());
        let streams = FakeStreams { world: self.clone(), run: id, named };
        let table = Arc::new(FakeTable { world: self.clone(), run: id });
        let topic = FakeTopic { world: self.clone(), run: id };
        let clock = Clock::start_on(machine);
        let health = Health::new(clock);
        self.health = health.clone();
        let task = tokio::spawn(clock.run(source::run(settings, clock, streams, table, topic, health.clone(), stop.clone())));
        Run { id, worker, health, machine, stop, task }
    }

    /// kill -9: nothing of the worker runs any more. What the topic had accepted may or may not be stored, and requests that were
    /// sent arrive.
    pub async fn kill(&self, run: Run) {
        self.lock().note(run.id, "is killed");
        run.task.abort();
        let _ = run.task.await;
        // The tasks of an aborted worker go when the runtime next looks at them.
        tokio::task::yield_now().await;
        self.lock().lose(run.id);
        self.changed.notify_waiters();
    }
}
