//! Alarms and what they refuse.

use super::*;
use crate::wire::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeMany, PutRequest, RangeRequest,
};

const NOSPACE: i32 = AlarmType::Nospace as i32;
const CORRUPT: i32 = AlarmType::Corrupt as i32;

fn request(action: AlarmAction, member_id: u64, alarm: i32) -> AlarmRequest {
    AlarmRequest { action: action as i32, member_id, alarm }
}

fn raised(alarm: i32) -> Alarms {
    let mut alarms = Alarms::default();
    alarms.apply(&request(AlarmAction::Activate, 7, alarm)).expect("raised");
    alarms
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { compare: Vec::new(), success, failure }
}

/// Every kind of request, with what NOSPACE and CORRUPT say to it.
fn table() -> Vec<(&'static str, Request, bool, bool)> {
    let put = || op(Op::RequestPut(PutRequest::default()));
    let read = || op(Op::RequestRange(RangeRequest::default()));
    let delete = || op(Op::RequestDeleteRange(DeleteRangeRequest::default()));
    vec![
        ("put", Request::Put(PutRequest::default()), true, true),
        ("delete", Request::DeleteRange(DeleteRangeRequest::default()), false, true),
        ("compact", Request::Compact(CompactionRequest::default()), false, true),
        ("grant", Request::LeaseGrant(LeaseGrantRequest::default()), true, true),
        ("revoke", Request::LeaseRevoke(LeaseRevokeMany::default()), false, true),
        ("alarm", Request::Alarm(AlarmRequest::default()), false, false),
        ("users", Request::Auth(crate::wire::AuthChange::default()), false, false),
        ("reads", Request::Txn(txn(vec![read()], vec![read()])), false, false),
        ("deletes", Request::Txn(txn(vec![delete()], vec![read()])), false, true),
        ("a put", Request::Txn(txn(vec![put()], vec![])), true, true),
        ("a put, perhaps", Request::Txn(txn(vec![read()], vec![put()])), true, true),
        ("a put inside", Request::Txn(txn(vec![op(Op::RequestTxn(txn(vec![], vec![put()])))], vec![])), true, true),
    ]
}

/// K1, K2.
#[test]
fn alarms_refuse_what_etcd_refuses() {
    for (name, request, by_space, by_corruption) in table() {
        assert_eq!(Alarms::default().admit(&request), Ok(()), "{name}");
        assert_eq!(raised(NOSPACE).admit(&request) == Err(RequestError::NoSpace), by_space, "{name}");
        assert_eq!(raised(CORRUPT).admit(&request) == Err(RequestError::Corrupt), by_corruption, "{name}");
    }
}

#[test]
fn alarms_are_raised_and_ended_one_by_one() {
    let member = |member_id, alarm| AlarmMember { member_id, alarm };
    let mut alarms = Alarms::default();
    let mut apply = |action, id, kind| alarms.apply(&request(action, id, kind)).expect("applied");
    assert_eq!(apply(AlarmAction::Activate, 2, NOSPACE), (vec![member(2, NOSPACE)], true));
    assert_eq!(apply(AlarmAction::Activate, 2, NOSPACE), (vec![member(2, NOSPACE)], false));
    assert_eq!(apply(AlarmAction::Activate, 1, CORRUPT), (vec![member(1, CORRUPT)], true));
    assert_eq!(apply(AlarmAction::Activate, 1, 0), (vec![], false));
    assert_eq!(apply(AlarmAction::Activate, 1, 9), (vec![], false));
    assert_eq!(apply(AlarmAction::Get, 0, 0).0, [member(2, NOSPACE), member(1, CORRUPT)]);
    assert_eq!(apply(AlarmAction::Get, 0, CORRUPT).0, [member(1, CORRUPT)]);
    assert_eq!(apply(AlarmAction::Deactivate, 1, NOSPACE), (vec![], false));
    assert_eq!(apply(AlarmAction::Deactivate, 2, NOSPACE), (vec![member(2, NOSPACE)], true));
    assert_eq!(Alarms::from_wire(&alarms.to_wire()), alarms);
    assert!(alarms.is_raised(AlarmType::Corrupt) && !alarms.is_raised(AlarmType::Nospace));
    assert!(alarms.is_raised_for(1, AlarmType::Corrupt) && !alarms.is_raised_for(2, AlarmType::Corrupt));
}

/// K3.
#[test]
fn alarms_are_bounded() {
    let mut alarms = Alarms::default();
    for id in 0..ALARMS_MAX as u64 {
        alarms.apply(&request(AlarmAction::Activate, id, NOSPACE)).expect("raised");
    }
    let one_more = alarms.apply(&request(AlarmAction::Activate, u64::MAX, NOSPACE));
    assert_eq!(one_more, Err(RequestError::Busy));
    assert!(alarms.apply(&request(AlarmAction::Activate, 3, NOSPACE)).is_ok(), "it is raised already");
}
