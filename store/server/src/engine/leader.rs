//! What only the leader can do: renew leases, change members, hand over. Others ask it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message as _;
use store_core::auth::Asker;
use store_core::errors::RequestError;
use store_core::lease::{Promise, Renewal};
use store_core::membership::{self, Members};
use store_core::mvcc::Answer;
use store_core::wire::member_change::Change;
use store_core::wire::peer_answer::Answer as Reply;
use store_core::wire::peer_question::Question;
use store_core::wire::{Command, LeaseCheckpoint, LeaseCheckpointMany, LeaseQuestion, MemberChange, command::Request};
use tokio::sync::oneshot;

use super::requests::WAITING_MAX;
use super::{Engine, Input};
use crate::peers::Peers;

/// Pause before a question is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(50);
/// How long an answer from memory may take; the question or the answer may be lost.
const QUICK_MAX: Duration = Duration::from_secs(1);
/// How long all voters must have been connected before one is added, as in etcd.
const HEALTHY_FOR: Duration = Duration::from_secs(5);

impl Engine {
    /// Renews a lease, or asks for its remaining seconds; -1 if there is no such lease,
    /// `None` if no leader answers.
    pub(crate) async fn keep_alive(&self, peers: &Peers, lease: i64, renew: bool) -> Option<i64> {
        let question = Question::Lease(LeaseQuestion { id: lease, renew });
        match self.ask(peers, question, QUICK_MAX).await {
            Ok(Reply::Remaining(seconds)) => Some(seconds),
            _ => None,
        }
    }

    /// Adds, removes or promotes a member; returns the members after it.
    pub(crate) async fn change_members(&self, peers: &Peers, change: Change) -> Result<Members, RequestError> {
        let question = Question::Member(MemberChange { change: Some(change.clone()) });
        let after = members(self.ask(peers, question, self.patience).await?)?;
        // Whoever asks this member next for its members finds the change in them, as in etcd. One that is removed
        // itself may never hear of it; the change is made all the same.
        let mut own = self.members();
        let _ = tokio::time::timeout(self.patience, own.wait_for(|members| members.show(&change))).await;
        Ok(after)
    }

    /// Lets the leader hand over to a member.
    pub(crate) async fn move_leader(&self, peers: &Peers, to: u64) -> Result<(), RequestError> {
        members(self.ask(peers, Question::MoveLeader(to), self.patience).await?).map(|_| ())
    }

    /// Asks the leader, who may be this member, until there is an answer.
    async fn ask(&self, peers: &Peers, question: Question, patience: Duration) -> Result<Reply, RequestError> {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            self.wait_for_leader(deadline).await?;
            let leader = self.position.borrow().leader;
            let reply = if leader == self.id {
                self.answer_as_leader(peers, question.clone()).await
            } else {
                self.ask_peer(peers, leader, question.clone(), patience).await
            };
            if let Some(reply) = reply {
                return Ok(reply);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(RequestError::Timeout);
            }
            tokio::time::sleep(ASK_PAUSE).await;
        }
    }

    /// One question and its answer; `None` if either was lost, or the peer doesn't lead.
    async fn ask_peer(&self, peers: &Peers, leader: u64, question: Question, patience: Duration) -> Option<Reply> {
        let nonce = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        {
            let mut questions = self.questions.lock();
            if questions.len() >= WAITING_MAX {
                return None;
            }
            questions.insert(nonce, reply);
        }
        peers.ask(leader, nonce, question);
        let answer = tokio::time::timeout(patience, answer).await;
        self.questions.lock().remove(&nonce);
        answer.ok()?.ok()?
    }

    /// A peer's answer to [`Engine::ask_peer`].
    pub(crate) fn peer_answered(&self, nonce: u64, reply: Option<Reply>) {
        if let Some(waiter) = self.questions.lock().remove(&nonce) {
            let _ = waiter.send(reply);
        }
    }

    /// Answers as the leader; `None` if this member isn't.
    pub(crate) async fn answer_as_leader(&self, peers: &Peers, question: Question) -> Option<Reply> {
        let result = match question {
            Question::Lease(question) => return self.answer_for_lease(question).await.map(Reply::Remaining),
            Question::Member(MemberChange { change }) => self.change_members_here(peers, change?).await,
            Question::MoveLeader(to) => self.hand_over(to).await,
        };
        match result {
            Ok(()) => Some(Reply::Members(self.state.members().to_wire())),
            Err(RequestError::NotLeader) => None,
            Err(error) => Some(Reply::Refused(error.to_string())),
        }
    }

    /// What is left of a lease, -1 if there is no such lease; `None` if this member doesn't lead.
    async fn answer_for_lease(&self, LeaseQuestion { id, renew }: LeaseQuestion) -> Option<i64> {
        let mut renewal = self.ask_lessor(id, renew).await?;
        if renewal == Renewal::Unknown {
            // Another member may have applied the grant, and told its client, before this one has.
            self.linearize().await.ok()?;
            renewal = self.ask_lessor(id, renew).await?;
        }
        match renewal {
            Renewal::NotLeading => None,
            Renewal::Unknown => Some(-1),
            Renewal::Remaining(seconds) => Some(seconds),
            Renewal::Renewed(promise) => self.stand_by(id, promise).await,
        }
    }

    /// What was promised to who renews a lease, once it holds even if another leads next; `None` if another may have
    /// led before.
    async fn stand_by(&self, id: i64, Promise { seconds, reign, take_back }: Promise) -> Option<i64> {
        if take_back {
            self.take_back(id).await?;
        } else {
            self.linearize().await.ok()?;
        }
        let (reply, answer) = oneshot::channel();
        self.send(Input::Reigns { reign, reply });
        let reigns = tokio::time::timeout(QUICK_MAX, answer).await.ok()?.ok()?;
        reigns.then_some(seconds)
    }

    async fn ask_lessor(&self, lease: i64, renew: bool) -> Option<Renewal> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::KeepAlive { lease, renew, reply });
        tokio::time::timeout(QUICK_MAX, answer).await.ok()?.ok()
    }

    /// Makes the log say that a lease has its whole time; `None` if that isn't sure.
    async fn take_back(&self, id: i64) -> Option<()> {
        let checkpoints = vec![LeaseCheckpoint { id, remaining: 0 }];
        let request = Some(Request::LeaseCheckpoint(LeaseCheckpointMany { checkpoints }));
        let command = Command { request, by_member: true, ..Command::default() };
        self.commit(&Asker::Member, command).await.ok().map(drop)
    }

    async fn change_members_here(&self, peers: &Peers, change: Change) -> Result<(), RequestError> {
        self.check_change(peers, &change).await?;
        if change == Change::Remove(self.id) {
            // Whoever leads next makes the change: nothing waits for a leader that goes.
            self.hand_over(0).await?;
            return Err(RequestError::NotLeader);
        }
        let Some(mut conf_change) = membership::conf_change(&change) else { return Err(RequestError::MemberNotFound) };
        let request_id = self.next_request.fetch_add(1, Ordering::Relaxed);
        // Whether the asker may was decided at the door of the member that he asked, as in etcd.
        let member = Some(MemberChange { change: Some(change) });
        conf_change.context =
            Command { request_id, member, by_member: true, ..Command::default() }.encode_to_vec().into();
        let input = |dropped| Input::ProposeMembers { change: Box::new(conf_change.clone()), dropped };
        match self.until_applied(request_id, input).await.0? {
            (Answer::Members(_), _) => Ok(()),
            _ => Err(RequestError::Stopped),
        }
    }

    /// What must hold before a change is proposed: the cluster must bear it. Source: etcd `mayAddMember`,
    /// `mayRemoveMember`, `mayPromote`.
    async fn check_change(&self, peers: &Peers, change: &Change) -> Result<(), RequestError> {
        let members = self.state.members();
        if let Change::Promote(id) = change {
            members.check(change)?;
            self.check_learner(*id).await?;
        }
        if !self.strict {
            return members.check(change);
        }
        match change {
            Change::Add(member) => {
                if !member.is_learner {
                    members.check_quorum_with_one_more()?;
                }
                if !self.all_connected(peers, &members) {
                    return Err(RequestError::Unhealthy);
                }
            }
            Change::Remove(id) => {
                members.check_quorum_without(*id)?;
                self.check_removal(peers, &members, *id)?;
            }
            Change::Promote(_) => members.check_quorum_with_promoted()?,
            Change::Update(_) | Change::Describe(_) => {}
        }
        members.check(change)
    }

    fn all_connected(&self, peers: &Peers, members: &Members) -> bool {
        members.voters().all(|m| m.id == self.id || peers.connected_for(m.id).is_some_and(|time| time >= HEALTHY_FOR))
    }

    /// A voter that answers may only go if those who stay and answer are a quorum.
    fn check_removal(&self, peers: &Peers, members: &Members, id: u64) -> Result<(), RequestError> {
        let Some(leaving) = members.get(id).filter(|member| !member.is_learner) else { return Ok(()) };
        let answers = |id: u64| id == self.id || peers.connected_for(id).is_some();
        let staying = members.voters().filter(|m| m.id != id).count();
        let answering = members.voters().filter(|m| m.id != id && answers(m.id)).count();
        if answers(leaving.id) && answering <= staying / 2 { Err(RequestError::Unhealthy) } else { Ok(()) }
    }

    /// A learner may vote once it has nine tenths of the leader's log.
    async fn check_learner(&self, id: u64) -> Result<(), RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Progress { peer: id, reply });
        let known = tokio::time::timeout(QUICK_MAX, answer).await;
        let Ok(Ok(Some((matched, own)))) = known else { return Err(RequestError::NotLeader) };
        if matched.saturating_mul(10) < own.saturating_mul(9) { Err(RequestError::LearnerNotReady) } else { Ok(()) }
    }

    /// Hands over to a member, 0 for the one that is furthest, and waits until it leads.
    async fn hand_over(&self, to: u64) -> Result<(), RequestError> {
        let members = self.state.members();
        let is_voter = |id: u64| members.get(id).is_some_and(|member| !member.is_learner);
        if to != 0 && !is_voter(to) {
            return Err(RequestError::BadTransferee);
        }
        if to == self.id {
            return Ok(());
        }
        let mut position = self.position.subscribe();
        self.send(Input::Transfer { to: (to != 0).then_some(to) });
        let leads = |leader: u64| leader != 0 && if to == 0 { leader != self.id } else { leader == to };
        match tokio::time::timeout(self.patience, position.wait_for(|p| leads(p.leader))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(RequestError::Stopped),
            Err(_) => Err(RequestError::TransferTimeout),
        }
    }

    /// Has another member lead, if this one does: the others needn't find out by waiting that it has gone.
    pub(crate) async fn step_aside(&self) {
        let mut position = self.position.subscribe();
        let has_others = self.state.members().voters().any(|member| member.id != self.id);
        if !has_others || position.borrow().leader != self.id {
            return;
        }
        self.send(Input::Transfer { to: None });
        let stepped_down = position.wait_for(|position| position.leader != self.id);
        if tokio::time::timeout(self.patience, stepped_down).await.is_err() {
            tracing::warn!("no other member takes over; the others will elect one when this one has gone");
        }
    }
}

/// The members in an answer, or the error.
fn members(reply: Reply) -> Result<Members, RequestError> {
    match reply {
        Reply::Members(members) => Ok(Members::from_wire(members)),
        Reply::Refused(text) => Err(RequestError::of_text(&text)),
        Reply::Remaining(_) => Err(RequestError::Stopped),
    }
}
