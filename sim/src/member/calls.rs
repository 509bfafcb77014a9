//! What clients ask of a member, until they are answered, as `store/server/src/engine/requests.rs` and `leader.rs`.

use prost::Message as _;
use store_core::errors::RequestError;
use store_core::lease::{Promise, Renewal};
use store_core::mvcc::Answer;
use store_core::wire::command::Request;
use store_core::wire::{Command, LeaseCheckpoint, LeaseCheckpointMany, RangeRequest, RangeResponse};

use super::{Input, Running};
use crate::disk::Fault;
use crate::event::Event;
use crate::mutant::Mutant;
use crate::network::Frame;
use crate::queue::{MS, SECOND, Time};
use crate::world::Shared;

/// How long a request may take.
const PATIENCE: Time = 7 * SECOND;
/// Pause before a dropped proposal is made again.
const PROPOSE_PAUSE: Time = 20 * MS;
/// Pause before a leader is asked again, and how long his answer may take.
const ASK_PAUSE: Time = 50 * MS;
const ASK_MAX: Time = SECOND;

/// What a client wants.
#[derive(Debug, Clone)]
pub(crate) enum Want {
    Write(Request),
    Read(RangeRequest),
    Renew(i64),
}

/// What it is told.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A write's answer and its revision.
    Done(Answer, i64),
    /// What was read, and at which revision.
    Read(RangeResponse, i64),
    /// Seconds that a lease lives from now on.
    Seconds(i64),
    /// It wasn't done and won't be.
    Refused(String),
    /// Nobody knows.
    Unknown(&'static str),
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// A client, and his call's number.
    Client(usize, u64),
    /// A member for its client.
    Peer(u64, u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// Waits for a leader.
    Leader,
    /// Waits to be tried again.
    Pause,
    /// In the log, or on its way to it.
    Proposed,
    /// Waits until it may read.
    Reading,
    /// Another member was asked.
    Asked,
    /// Nobody knew the lease: asked again once all is applied.
    Unknown,
    /// The lease is renewed, if its leader still leads.
    Promised(Promise),
}

/// A call.
pub(crate) struct Call {
    origin: Origin,
    want: Want,
    stage: Stage,
    /// The changes of leaders before it was proposed.
    leaders: u64,
    deadline: Time,
}

impl Running {
    /// Takes a call.
    pub(crate) fn call(&mut self, origin: Origin, want: Want, shared: &mut Shared) {
        if let Want::Read(request) = &want
            && request.serializable
        {
            let reply = self.read(request);
            answer(origin, self.id, reply, shared);
            return;
        }
        self.next_call += 1;
        let deadline = shared.queue.now() + PATIENCE;
        self.calls.insert(self.next_call, Call { origin, want, stage: Stage::Leader, leaders: 0, deadline });
        self.tell(Input::Call(self.next_call), shared);
    }

    fn read(&mut self, request: &RangeRequest) -> Reply {
        let mvcc = &self.state.machine.mvcc;
        match mvcc.range(request, &*self.state.content) {
            Ok(response) => Reply::Read(response, mvcc.revision()),
            Err(error) => {
                if error == RequestError::Disk {
                    self.failed = Some(Fault::Unreadable);
                }
                Reply::Refused(error.to_string())
            }
        }
    }

    /// Those who wait for a leader go on.
    pub(super) fn wake_waiting(&mut self, shared: &mut Shared) {
        let waiting: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.stage == Stage::Leader).map(|(token, _)| *token).collect();
        for token in waiting {
            self.tell(Input::Call(token), shared);
        }
    }

    /// A pause is over.
    pub(crate) fn retry(&mut self, token: u64, shared: &mut Shared) {
        if let Some(call) = self.calls.get_mut(&token)
            && matches!(call.stage, Stage::Pause | Stage::Asked)
        {
            call.stage = Stage::Leader;
            self.tell(Input::Call(token), shared);
        }
    }

    fn pause(&mut self, token: u64, wait: Time, shared: &mut Shared) {
        if let Some(call) = self.calls.get_mut(&token) {
            call.stage = Stage::Pause;
            shared.queue.after(wait, Event::Retry(self.id, self.boot, token));
        }
    }

    /// A call does its next step, if there is a leader.
    pub(super) fn go_on(&mut self, token: u64, shared: &mut Shared) {
        let leader = self.replica.leader();
        let Some(call) = self.calls.get_mut(&token).filter(|call| call.stage == Stage::Leader && leader != 0) else {
            return;
        };
        match call.want.clone() {
            Want::Write(request) => {
                call.leaders = self.leaders;
                call.stage = Stage::Proposed;
                let command = Command { request_id: token, request: Some(request), ..Command::default() };
                self.proposals.add(command.encode_to_vec().into(), token);
                self.propose_if_full(shared);
            }
            Want::Read(_) if shared.mutant == Some(Mutant::ReadAlone) && leader == self.id => {
                self.may_read(token, shared);
            }
            Want::Read(_) => {
                call.stage = Stage::Reading;
                self.reads.wait(token);
            }
            Want::Renew(lease) if leader == self.id => self.renew(token, lease, false, shared),
            Want::Renew(lease) => match call.origin {
                // Whoever asked finds out who leads by himself.
                Origin::Peer(..) => self.renewed(token, None, shared),
                Origin::Client(..) => {
                    call.stage = Stage::Asked;
                    shared.send(self.id, leader, Frame::Question { nonce: token, lease });
                    shared.queue.after(ASK_MAX, Event::Retry(self.id, self.boot, token));
                }
            },
        }
    }

    /// What a call proposed was dropped: a write tries again, a promise isn't given.
    pub(super) fn proposal_dropped(&mut self, token: u64, shared: &mut Shared) {
        match self.calls.get(&token).map(|call| call.stage) {
            Some(Stage::Proposed) => self.pause(token, PROPOSE_PAUSE, shared),
            Some(Stage::Promised(_)) => self.renewed(token, None, shared),
            // It gave up meanwhile.
            _ => {}
        }
    }

    /// Asks this member's own lessor.
    fn renew(&mut self, token: u64, lease: i64, again: bool, shared: &mut Shared) {
        let renewal = self.lessor.ask(self.now_ms(shared), lease, true);
        let Some(call) = self.calls.get_mut(&token) else { return };
        match renewal {
            Renewal::NotLeading => self.renewed(token, None, shared),
            Renewal::Unknown if again => self.renewed(token, Some(-1), shared),
            Renewal::Unknown => {
                call.stage = Stage::Unknown;
                self.reads.wait(token);
            }
            Renewal::Remaining(seconds) => self.renewed(token, Some(seconds), shared),
            Renewal::Renewed(promise) if shared.mutant == Some(Mutant::RenewAtOnce) => {
                self.renewed(token, Some(promise.seconds), shared);
            }
            Renewal::Renewed(promise) => {
                call.stage = Stage::Promised(promise);
                call.leaders = self.leaders;
                if !promise.take_back {
                    self.reads.wait(token);
                    return;
                }
                let checkpoints = vec![LeaseCheckpoint { id: lease, remaining: 0 }];
                let request = Some(Request::LeaseCheckpoint(LeaseCheckpointMany { checkpoints }));
                let command = Command { request_id: token, request, by_member: true, ..Command::default() };
                self.proposals.add(command.encode_to_vec().into(), token);
                self.propose_if_full(shared);
            }
        }
    }

    /// What was promised holds, or doesn't.
    fn stand_by(&mut self, token: u64, promise: Promise, shared: &mut Shared) {
        let reigns = self.lessor.reigns(promise.reign) || shared.mutant == Some(Mutant::ForgetReign);
        if promise.take_back && !shared.calm && shared.chance.once_in(6) {
            // Others have what takes the checkpoint back, and don't know yet that it is committed.
            let wait = shared.chance.below(2 * MS);
            shared.queue.after(wait, Event::Crash(self.id));
        }
        self.renewed(token, reigns.then_some(promise.seconds), shared);
    }

    /// The leader's answer, `None` if there is none, for a client or for a member that asked.
    fn renewed(&mut self, token: u64, seconds: Option<i64>, shared: &mut Shared) {
        let Some(origin) = self.calls.get(&token).map(|call| call.origin) else { return };
        match (origin, seconds) {
            (Origin::Client(..), None) => self.pause(token, ASK_PAUSE, shared),
            (Origin::Client(..), Some(seconds)) => self.finish(token, Reply::Seconds(seconds), shared),
            (Origin::Peer(peer, nonce), seconds) => {
                self.calls.remove(&token);
                shared.send(self.id, peer, Frame::Answer { nonce, seconds });
            }
        }
    }

    /// A peer's answer.
    pub(crate) fn answered(&mut self, token: u64, seconds: Option<i64>, shared: &mut Shared) {
        if self.calls.get(&token).is_some_and(|call| call.stage == Stage::Asked) {
            self.renewed(token, seconds, shared);
        }
    }

    pub(super) fn answer_reads(&mut self, shared: &mut Shared) {
        // As production's counter of what is applied, which the state thread sets before it tells the owner.
        let (applied, _) = self.state.content.applied;
        for token in self.reads.ready(applied) {
            self.may_read(token, shared);
        }
    }

    fn may_read(&mut self, token: u64, shared: &mut Shared) {
        let Some(call) = self.calls.get(&token) else { return };
        match (call.stage, &call.want) {
            (Stage::Promised(promise), _) => self.stand_by(token, promise, shared),
            (Stage::Unknown, Want::Renew(lease)) => {
                let lease = *lease;
                self.renew(token, lease, true, shared);
            }
            _ => {
                let wait = shared.chance.below(100);
                shared.queue.after(wait, Event::Read(self.id, self.boot, token));
            }
        }
    }

    /// Who may read does.
    pub(crate) fn read_now(&mut self, token: u64, shared: &mut Shared) {
        if let Some(Call { want: Want::Read(request), .. }) = self.calls.get(&token) {
            let reply = self.read(&request.clone());
            self.finish(token, reply, shared);
        }
    }

    /// A command was applied that somebody may wait for.
    pub(super) fn call_applied(
        &mut self,
        token: u64,
        answer: Result<Answer, RequestError>,
        revision: i64,
        shared: &mut Shared,
    ) {
        match (self.calls.get(&token).map(|call| call.stage), answer) {
            (Some(Stage::Proposed | Stage::Pause | Stage::Leader), Ok(answer)) => {
                self.finish(token, Reply::Done(answer, revision), shared);
            }
            (Some(Stage::Proposed | Stage::Pause | Stage::Leader), Err(error)) => {
                self.finish(token, Reply::Refused(error.to_string()), shared);
            }
            (Some(Stage::Promised(promise)), Ok(_)) => self.stand_by(token, promise, shared),
            (Some(Stage::Promised(_)), Err(_)) => self.renewed(token, None, shared),
            _ => {}
        }
    }

    fn finish(&mut self, token: u64, reply: Reply, shared: &mut Shared) {
        if let Some(call) = self.calls.remove(&token) {
            answer(call.origin, self.id, reply, shared);
        }
    }

    /// Whoever waits for what was proposed to an earlier leader won't learn his outcome.
    pub(super) fn fail_older(&mut self, shared: &mut Shared) {
        let is_older = |call: &Call| {
            let proposed =
                call.stage == Stage::Proposed || matches!(call.stage, Stage::Promised(promise) if promise.take_back);
            proposed && call.leaders < self.leaders
        };
        let older: Vec<u64> = self.calls.iter().filter(|(_, c)| is_older(c)).map(|(token, _)| *token).collect();
        for token in older {
            match self.calls.get(&token).map(|call| &call.want) {
                Some(Want::Renew(_)) => self.renewed(token, None, shared),
                _ => self.finish(token, Reply::Unknown("the leader changed"), shared),
            }
        }
    }

    /// Whoever has waited for too long is told so.
    pub(super) fn give_up_late(&mut self, shared: &mut Shared) {
        let now = shared.queue.now();
        let late: Vec<u64> = self.calls.iter().filter(|(_, c)| c.deadline <= now).map(|(token, _)| *token).collect();
        for token in late {
            self.finish(token, Reply::Unknown("it took too long"), shared);
        }
    }

    /// The member ends: connections break.
    pub(super) fn drop_calls(&mut self, shared: &mut Shared) {
        for (_, call) in std::mem::take(&mut self.calls) {
            answer(call.origin, self.id, Reply::Unknown("the connection was lost"), shared);
        }
    }
}

fn answer(origin: Origin, _member: u64, reply: Reply, shared: &mut Shared) {
    if let Origin::Client(client, number) = origin {
        let wait = shared.hop();
        shared.queue.after(wait, Event::Reply { client, number, reply });
    }
}
