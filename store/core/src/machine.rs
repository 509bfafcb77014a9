//! The replicated state as a whole: what committed entries change.
//!
//! Invariant
//!   Z1  Nothing is applied that its asker may not do, by [`Auth::permit`] under the very
//!       state that it is applied to: all members decide alike.
//!   Z2  Nothing is applied that an alarm forbids, by [`Alarms::admit`] under the same state.

use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{ConfChange, Entry, EntryType};

use crate::alarms::Alarms;
use crate::auth::{Asker, Auth};
use crate::divergence::{Chain, Votes};
use crate::errors::RequestError;
use crate::membership::Members;
use crate::mvcc::{Answer, Mvcc, Values, Writes};
use crate::wire::command::Request;
use crate::wire::{AlarmRequest, AuthChange, Command, HashVote, MemberChange};

/// Keys, leases, members, users and alarms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// Keys and leases.
    pub mvcc: Mvcc,
    /// The cluster's members.
    pub members: Members,
    /// Users and roles, shared with readers, who keep what they have while it changes.
    pub auth: Arc<Auth>,
    /// What is wrong.
    pub alarms: Alarms,
    /// The hash of all that was done.
    pub chain: Chain,
    /// What members say that theirs is.
    pub votes: Votes,
}

/// An entry that can't be read: the log is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a command can't be read")]
pub struct Unreadable;

/// The command in an entry, and what it is to raft's configuration. `None`: an empty entry of a new leader.
///
/// # Errors
/// [`Unreadable`].
pub fn command(entry: &Entry) -> Result<Option<(Command, Option<ConfChange>)>, Unreadable> {
    use prost::Message as _;
    use protobuf::Message as _;
    if entry.data.is_empty() {
        return Ok(None);
    }
    // Values share the entry's memory.
    let decode = |bytes: &Bytes| Command::decode(bytes.clone()).map_err(|_| Unreadable);
    match entry.get_entry_type() {
        EntryType::EntryNormal => Ok(Some((decode(&entry.data)?, None))),
        EntryType::EntryConfChange => {
            let change = ConfChange::parse_from_bytes(&entry.data).map_err(|_| Unreadable)?;
            Ok(Some((decode(&change.context)?, Some(change))))
        }
        // Never proposed: members change one at a time.
        EntryType::EntryConfChangeV2 => Err(Unreadable),
    }
}

impl Machine {
    /// Applies a command at its place of the log: what to write, and the answer (Z1, Z2).
    ///
    /// # Errors
    /// [`RequestError`] if it is refused; then nothing changed.
    pub fn apply(
        &mut self,
        index: u64,
        command: &Command,
        values: &impl Values,
    ) -> (Writes, Result<Answer, RequestError>) {
        let (writes, answer) = self.run(index, command, values);
        self.chain.step(index, &writes, answer.as_ref().err().copied());
        (writes, answer)
    }

    fn run(&mut self, index: u64, command: &Command, values: &impl Values) -> (Writes, Result<Answer, RequestError>) {
        let asker = Asker::of(command);
        let allowed = match (&command.member, &command.request) {
            (Some(_), _) => self.auth.admin(&asker),
            // An alarm is told before a want of permission, as in etcd.
            (None, Some(request)) => {
                self.alarms.admit(request).and_then(|()| self.auth.permit(&self.mvcc, &asker, request))
            }
            (None, None) => Ok(()),
        };
        if let Err(error) = allowed {
            return (Writes::default(), Err(error));
        }
        match (&command.member, &command.request) {
            (Some(change), _) => self.change_members(change),
            (None, Some(Request::Auth(change))) => self.change_auth(index, change),
            (None, Some(Request::Alarm(request))) => self.change_alarms(request),
            (None, Some(Request::Vote(vote))) => self.count(vote),
            (None, _) => self.mvcc.apply(command, values),
        }
    }

    fn change_auth(&mut self, index: u64, change: &AuthChange) -> (Writes, Result<Answer, RequestError>) {
        match Arc::make_mut(&mut self.auth).apply(change, index) {
            Err(error) => (Writes::default(), Err(error)),
            Ok((answer, changed)) => {
                let writes = Writes { auth: changed.entries, tokens: changed.tokens, ..Writes::default() };
                (writes, Ok(answer))
            }
        }
    }

    fn change_alarms(&mut self, request: &AlarmRequest) -> (Writes, Result<Answer, RequestError>) {
        match self.alarms.apply(request) {
            Err(error) => (Writes::default(), Err(error)),
            Ok((about, changed)) => {
                let alarms = changed.then(|| self.alarms.to_wire());
                (Writes { alarms, ..Writes::default() }, Ok(Answer::Alarms(about)))
            }
        }
    }

    fn count(&mut self, vote: &HashVote) -> (Writes, Result<Answer, RequestError>) {
        let wrong = self.votes.apply(vote, &self.members);
        let raised = wrong.iter().filter(|member| self.alarms.corrupt(**member)).count();
        let alarms = (raised > 0).then(|| self.alarms.to_wire());
        (Writes { alarms, votes: Some(self.votes.to_wire()), ..Writes::default() }, Ok(Answer::Voted(wrong)))
    }

    fn change_members(&mut self, change: &MemberChange) -> (Writes, Result<Answer, RequestError>) {
        // What a member of another version put into the log and this one can't read is nothing.
        let Some(change) = &change.change else { return (Writes::default(), Err(RequestError::MemberNotFound)) };
        match self.members.apply(change) {
            Err(error) => (Writes::default(), Err(error)),
            Ok(()) => {
                let writes = Writes { members: Some(self.members.to_wire()), ..Writes::default() };
                (writes, Ok(Answer::Members(self.members.iter().cloned().collect())))
            }
        }
    }
}
