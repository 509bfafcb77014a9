use std::collections::BTreeSet;

use prost::Message as _;
use store_core::wire::{Compare, RangeRequest, RequestOp, TxnRequest, request_op};

use super::*;

fn rpc(path: &str) -> Rpc {
    rpcs().remove(path).expect("a path")
}

/// A request's JSON as gRPC gets it.
fn read<M: prost::Message + Default>(path: &str, text: &str) -> Result<M, String> {
    let message = store_core::json::read(&rpc(path).request, text.as_bytes()).map_err(|fault| fault.to_string())?;
    Ok(M::decode(&*message.encode_to_vec()).expect("the same message"))
}

fn shown(path: &str, answer: &impl prost::Message) -> String {
    let kind = rpc(path).answer;
    let answer = DynamicMessage::decode(kind, &*answer.encode_to_vec()).expect("the same message");
    String::from_utf8(text(&Shown(&answer)).expect("written")).expect("text")
}

#[test]
fn every_rpc_has_a_path() {
    let known = rpcs();
    assert_eq!(known.len(), PATHS.len(), "each path is one RPC's");
    let reached: BTreeSet<&str> = known.values().map(|rpc| rpc.path.as_str()).collect();
    for method in descriptors().services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        // etcd 3.6 doesn't have this one.
        let is_new = path == "/etcdserverpb.KV/RangeStream";
        assert_ne!(reached.contains(path.as_str()), is_new, "{path}");
    }
}

#[test]
fn names_numbers_and_bytes_are_read_in_every_form() {
    let expected =
        RangeRequest { key: "foo".into(), range_end: "\u{3ff}".into(), limit: 5, sort_order: 2, ..Default::default() };
    for text in [
        r#"{"key":"Zm9v","range_end":"z78=","limit":"5","sort_order":"DESCEND"}"#,
        r#"{"key":"Zm9v","rangeEnd":"z78","limit":5,"sortOrder":2,"nonsense":{"a":[1]},"revision":null}"#,
        r#" {"key":"Zm9v","range_end":"z78","limit":5.0,"sort_order":"DESCEND"} and more"#,
    ] {
        assert_eq!(read("/v3/kv/range", text), Ok(expected.clone()), "{text}");
    }
    let refused = |text: &str| read::<RangeRequest>("/v3/kv/range", text).expect_err("refused");
    assert_eq!(refused(r#"{"key":"%%%"}"#), "invalid base64: Invalid symbol 37, offset 0. at line 1 column 12");
    for text in [r#"{"key":1}"#, r#"{"limit":"x"}"#, r#"{"limit":1.5}"#, "[]", "null", "{", "foo", r#"{"key":"Zm9v""#] {
        refused(text);
    }
}

/// A oneof's zero is not nothing.
#[test]
fn a_transaction_is_read_whole() {
    let text = r#"{"compare":[{"key":"Zm9v","target":"CREATE","create_revision":"0"}],
        "success":[{"request_txn":{"failure":[{"request_range":{}}]}}]}"#;
    let txn: TxnRequest = read("/v3/kv/txn", text).expect("read");
    let union = Some(store_core::wire::compare::TargetUnion::CreateRevision(0));
    assert_eq!(txn.compare, [Compare { key: "foo".into(), target: 1, target_union: union, ..Compare::default() }]);
    let range = RequestOp { request: Some(request_op::Request::RequestRange(RangeRequest::default())) };
    let inner = TxnRequest { failure: vec![range], ..TxnRequest::default() };
    assert_eq!(txn.success, [RequestOp { request: Some(request_op::Request::RequestTxn(inner)) }]);
}

/// Deeper than either library goes, and refused before the stack ends.
#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| {
        let open = r#"{"success":[{"request_txn":"#.repeat(depth);
        format!("{open}{{}}{}", "}]}".repeat(depth))
    };
    assert!(read::<TxnRequest>("/v3/kv/txn", &nested(20)).is_ok());
    assert!(read::<TxnRequest>("/v3/kv/txn", &nested(20_000)).is_err());
    let unknown = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read("/v3/kv/txn", &unknown), Ok(TxnRequest::default()));
}

#[test]
fn answers_have_the_protos_names_and_nothing_empty() {
    use store_core::wire::{AlarmMember, AlarmResponse, LeaseTimeToLiveResponse, ResponseHeader};
    let header = Some(ResponseHeader { cluster_id: u64::MAX, revision: 3, ..ResponseHeader::default() });
    let answer = LeaseTimeToLiveResponse { header, id: 7, ttl: -1, granted_ttl: 0, keys: vec!["a?>".into()] };
    assert_eq!(
        shown("/v3/lease/timetolive", &answer),
        r#"{"header":{"cluster_id":"18446744073709551615","revision":"3"},"ID":"7","TTL":"-1","keys":["YT8+"]}"#
    );
    let alarms = [1, 2, 9].map(|alarm| AlarmMember { member_id: 1, alarm }).to_vec();
    assert_eq!(
        shown("/v3/maintenance/alarm", &AlarmResponse { header: None, alarms }),
        concat!(
            r#"{"alarms":[{"memberID":"1","alarm":"NOSPACE"},{"memberID":"1","alarm":"CORRUPT"},"#,
            r#"{"memberID":"1","alarm":9}]}"#
        )
    );
}

#[tokio::test]
async fn messages_are_found_wherever_pieces_end() {
    let text = br#" {"create_request":{"key":"e30="}}
        {"cancel_request":{"watch_id":"1"},"x":"}\"{\\"}{"progress_request":{}}  "#;
    for size in [1, 2, 7, 1000] {
        let pieces = stream::iter(text.chunks(size).map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece))));
        let mut reader = Reader::new(Body::from_stream(pieces), rpc("/v3/watch").request, 80);
        let mut found = Vec::new();
        while let Some(message) = reader.next().await.expect("read") {
            found.push(String::from_utf8(super::text(&Shown(&message)).expect("written")).expect("text"));
        }
        let expected = [
            r#"{"create_request":{"key":"e30="}}"#,
            r#"{"cancel_request":{"watch_id":"1"}}"#,
            r#"{"progress_request":{}}"#,
        ];
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn what_does_not_end_is_given_up() {
    let endless = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(br#"{"x":[["#)));
    let mut reader = Reader::new(Body::from_stream(endless), rpc("/v3/watch").request, 10_000);
    let refused = reader.next().await.expect_err("too large");
    assert_eq!(refused.message(), "etcdserver: request is too large");
    let mut cut = Reader::new(Body::from(r#"{"create_request":"#), rpc("/v3/watch").request, 10_000);
    assert_eq!(cut.next().await.expect_err("cut off").code(), Code::InvalidArgument);
}

#[test]
fn what_comes_this_way_has_no_certificate() {
    let pairs = [("authorization", "t.1"), ("grpc-metadata-hasleader", "true"), ("cookie", "c"), ("accept", "*/*")];
    let headers = pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let kept = metadata(&headers.into_iter().collect()).into_headers();
    let get = |name: &str| kept.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!((get("authorization"), get("hasleader"), get("cookie")), (Some("t.1"), Some("true"), None));
    assert!(kept.contains_key("grpcgateway-accept"));
}
