//! What lies between a worker and the services: time, failures, and requests that arrive although nobody waits for them any more.

use std::time::Duration;

use pulsar_io_dynamodb::{
    error::{Error, Kind, Result},
    ports::ShardId,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    State, World,
    log::{Actor, What},
};

/// Every call that can be counted and made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    ListShards,
    Children,
    ShardIterator,
    GetRecords,
    ListLeases,
    Create,
    Take,
    Renew,
    Checkpoint,
    Release,
    Delete,
    Ask,
    Withdraw,
    HandOver,
    DescribeTable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Streams,
    Leases,
    Topic,
}

impl Call {
    /// Every call that can be made to fail.
    pub const ALL: [Self; 15] = [
        Self::ListShards,
        Self::Children,
        Self::ShardIterator,
        Self::GetRecords,
        Self::ListLeases,
        Self::Create,
        Self::Take,
        Self::Renew,
        Self::Checkpoint,
        Self::Release,
        Self::Delete,
        Self::Ask,
        Self::Withdraw,
        Self::HandOver,
        Self::DescribeTable,
    ];

    pub fn service(self) -> Service {
        match self {
            Self::ListShards | Self::Children | Self::ShardIterator | Self::GetRecords => Service::Streams,
            Self::ListLeases
            | Self::Create
            | Self::Take
            | Self::Renew
            | Self::Checkpoint
            | Self::Release
            | Self::Delete
            | Self::Ask
            | Self::Withdraw
            | Self::HandOver
            | Self::DescribeTable => Service::Leases,
        }
    }
}

/// How the next calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None, after those that were scripted before.
    None,
    Throttle,
    Down,
    Denied,
    /// The credentials' session is over.
    Token,
    /// The iterator is too old.
    Expired,
    /// It is done, but its reply does not come.
    LostReply,
    /// No answer, for longer than anybody waits.
    Hang,
    /// A defect: whoever calls dies.
    Panic,
    /// It is done, and never answered.
    Mute,
    /// It is done at once, and answered after that time.
    SlowReply(Duration),
    /// It is done, but only after that time: whoever sent it may have given it up long before.
    Late(Duration),
}

impl World {
    /// One call: the request's way, what the service does with it, the answer's way. A request that was sent arrives whether or not
    /// anybody waits for its answer any more.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        run: Actor,
        call: Call,
        shard: &ShardId,
        serve: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (there, back) = {
            let mut state = self.lock();
            state.calls.push((call, shard.clone(), Instant::now()));
            let panics = state.faults.iter_mut().find(|(scripted, fault, times)| *scripted == call && *fault == Fault::Panic && *times > 0);
            if let Some((_, _, times)) = panics {
                *times -= 1;
                drop(state);
                panic!("scripted panic");
            }
            (Duration::from_millis(state.random.u64(1..20)), Duration::from_millis(state.random.u64(1..20)))
        };
        let (answer, answered) = oneshot::channel();
        let (world, on) = (self.clone(), shard.clone());
        tokio::spawn(async move {
            tokio::time::sleep(there).await;
            let fault = world.lock().fault(run, call, &on);
            if let Some(Fault::Late(time)) = fault {
                tokio::time::sleep(time).await;
            }
            let result = {
                let mut state = world.lock();
                let failed = |kind, why: &str| Err(Error::new(kind, format!("{call:?} {on}"), why));
                match fault {
                    None | Some(Fault::None | Fault::Late(_) | Fault::SlowReply(_)) => serve(&mut state),
                    Some(Fault::LostReply) => serve(&mut state).and_then(|_| failed(Kind::Unavailable, "scripted: the reply is lost")),
                    Some(Fault::Throttle) => failed(Kind::Throttled, "scripted throttling"),
                    Some(Fault::Down) => failed(Kind::Unavailable, "scripted outage"),
                    Some(Fault::Token) => failed(Kind::Credentials, "scripted: the token has expired"),
                    Some(Fault::Expired) => failed(Kind::ExpiredIterator, "scripted: the iterator has expired"),
                    Some(Fault::Denied) => failed(Kind::AccessDenied, "scripted denial"),
                    Some(Fault::Mute) => {
                        // Done, whatever the answer would be.
                        let _ = serve(&mut state);
                        return;
                    }
                    Some(Fault::Hang | Fault::Panic) => return,
                }
            };
            if let Err(error) = &result {
                let text = format!("{call:?} {} fails: {:?}", super::log::short(&on), error.kind());
                world.lock().note(run, text);
            }
            let slow = if let Some(Fault::SlowReply(time)) = fault { time } else { Duration::ZERO };
            tokio::time::sleep(back + slow).await;
            // Whoever waited may be gone.
            let _ = answer.send(result);
        });
        match answered.await {
            Ok(result) => result,
            Err(_) => std::future::pending().await,
        }
    }
}

impl State {
    /// What happens to a request that arrives now.
    fn fault(&mut self, run: Actor, call: Call, shard: &ShardId) -> Option<Fault> {
        self.tell(run, What::Called(call, shard.clone()));
        if self.cut.contains(&(run, call.service())) {
            return Some(Fault::Hang);
        }
        let scripted = self.faults.iter_mut().find(|(scripted, _, times)| *scripted == call && *times > 0);
        if let Some((_, fault, times)) = scripted {
            *times -= 1;
            return Some(*fault);
        }
        let throttled = self.throttled.get(&call.service()).copied().unwrap_or(0);
        (throttled > 0 && self.random.u32(0..1000) < throttled).then_some(Fault::Throttle)
    }
}
