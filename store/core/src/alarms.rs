//! Alarms: what a member found wrong, and what is refused until an operator has looked.
//!
//! They are part of the replicated state, so all members refuse the same requests from the same
//! place of the history on, whatever each of them measures by itself. How many bytes are too many
//! is a member's own setting and is never asked here: it decides only who raises the alarm.
//!
//! Invariants
//!   K1  While NOSPACE is raised nothing is applied that may add a version or a lease; what frees
//!       space is.
//!   K2  While CORRUPT is raised no request changes a key or a lease.
//!   K3  There are at most [`ALARMS_MAX`] alarms.
//! Source: etcd `server/etcdserver/api/v3alarm`, `server/etcdserver/apply/{capped,corrupt}.go`.

use std::collections::BTreeSet;

use crate::errors::RequestError;
use crate::mvcc::{LEASE_BYTES, version_bytes};
use crate::wire::alarm_request::AlarmAction;
use crate::wire::command::Request;
use crate::wire::request_op::Request as Op;
use crate::wire::{AlarmList, AlarmMember, AlarmRequest, AlarmType, RequestOp, TxnRequest};

/// More than any cluster has members; a request may name members that don't exist.
const ALARMS_MAX: usize = 1024;

/// The alarms that are raised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<(i32, u64)>);

impl Alarms {
    /// Rebuilding from disk.
    #[must_use]
    pub fn from_wire(list: &AlarmList) -> Self {
        Self(list.alarms.iter().map(|member| (member.alarm, member.member_id)).collect())
    }

    /// As it is stored.
    #[must_use]
    pub fn to_wire(&self) -> AlarmList {
        AlarmList { alarms: self.list(AlarmType::None) }
    }

    /// The alarms of a kind; of all kinds for `None`.
    #[must_use]
    pub fn list(&self, kind: AlarmType) -> Vec<AlarmMember> {
        let wanted = |alarm: &&(i32, u64)| kind == AlarmType::None || alarm.0 == kind as i32;
        self.0.iter().filter(wanted).map(|&(alarm, member_id)| AlarmMember { member_id, alarm }).collect()
    }

    /// Whether a kind of alarm is raised by anybody.
    #[must_use]
    pub fn is_raised(&self, kind: AlarmType) -> bool {
        self.0.range((kind as i32, 0)..=(kind as i32, u64::MAX)).next().is_some()
    }

    /// Whether a kind of alarm is raised for a member.
    #[must_use]
    pub fn is_raised_for(&self, member: u64, kind: AlarmType) -> bool {
        self.0.contains(&(kind as i32, member))
    }

    /// Applies a request: the alarms it is about, and whether any changed.
    ///
    /// An action or a kind that doesn't exist, and raising none, is nothing, as in etcd.
    ///
    /// # Errors
    /// [`RequestError::Busy`] beyond [`ALARMS_MAX`] (K3).
    pub fn apply(&mut self, request: &AlarmRequest) -> Result<(Vec<AlarmMember>, bool), RequestError> {
        let (Ok(action), Ok(kind)) = (AlarmAction::try_from(request.action), AlarmType::try_from(request.alarm)) else {
            return Ok((Vec::new(), false));
        };
        let alarm = (request.alarm, request.member_id);
        let about = vec![AlarmMember { member_id: request.member_id, alarm: request.alarm }];
        match action {
            AlarmAction::Get => Ok((self.list(kind), false)),
            AlarmAction::Activate if kind == AlarmType::None => Ok((Vec::new(), false)),
            AlarmAction::Activate if self.0.len() >= ALARMS_MAX && !self.0.contains(&alarm) => Err(RequestError::Busy),
            AlarmAction::Activate => Ok((about, self.0.insert(alarm))),
            AlarmAction::Deactivate if self.0.remove(&alarm) => Ok((about, true)),
            AlarmAction::Deactivate => Ok((Vec::new(), false)),
        }
    }

    /// A member was found to be wrong; returns whether that is new.
    pub fn corrupt(&mut self, member_id: u64) -> bool {
        let (action, alarm) = (AlarmAction::Activate as i32, AlarmType::Corrupt as i32);
        // With more alarms than members there can be, one more says nothing new.
        self.apply(&AlarmRequest { action, member_id, alarm }).is_ok_and(|(_, changed)| changed)
    }

    /// Whether a request may be made while these alarms are raised (K1, K2). What is read without the log
    /// isn't asked about.
    ///
    /// # Errors
    /// [`RequestError::Corrupt`], [`RequestError::NoSpace`].
    pub fn admit(&self, request: &Request) -> Result<(), RequestError> {
        match () {
            () if self.is_raised(AlarmType::Corrupt) && changes(request) => Err(RequestError::Corrupt),
            () if self.is_raised(AlarmType::Nospace) && cost(request) > 0 => Err(RequestError::NoSpace),
            () => Ok(()),
        }
    }
}

/// Whether a request may change keys or leases. A transaction without anything but reads doesn't.
fn changes(request: &Request) -> bool {
    let is_read = |op: &RequestOp| matches!(op.request, Some(Op::RequestRange(_)));
    match request {
        Request::Txn(txn) => !txn.success.iter().chain(&txn.failure).all(is_read),
        Request::Put(_) | Request::DeleteRange(_) | Request::Compact(_) => true,
        Request::LeaseGrant(_) | Request::LeaseRevoke(_) => true,
        Request::LeaseCheckpoint(_) | Request::Auth(_) | Request::Alarm(_) | Request::Vote(_) => false,
    }
}

/// Bytes that a request may add at most, by what it says itself; 0 for what adds nothing.
///
/// As etcd's `BackendQuota.Cost`, whichever branch of a transaction will run. But transactions inside
/// count too: etcd forgets them, which leaves a way around the quota.
#[must_use]
pub fn cost(request: &Request) -> u64 {
    match request {
        Request::Put(put) => version_bytes(put.key.len(), put.value.len()),
        Request::Txn(txn) => txn_cost(txn),
        Request::LeaseGrant(_) => LEASE_BYTES,
        Request::DeleteRange(_) | Request::Compact(_) | Request::LeaseRevoke(_) | Request::LeaseCheckpoint(_) => 0,
        Request::Auth(_) | Request::Alarm(_) | Request::Vote(_) => 0,
    }
}

fn txn_cost(txn: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| -> u64 {
        let costs = ops.iter().map(|op| match &op.request {
            Some(Op::RequestPut(put)) => version_bytes(put.key.len(), put.value.len()),
            Some(Op::RequestTxn(inner)) => txn_cost(inner),
            _ => 0,
        });
        costs.sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

#[cfg(test)]
mod tests;
