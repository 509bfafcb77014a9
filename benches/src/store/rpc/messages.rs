//! Of etcd's messages what a load says and looks at, under etcd's numbers (`rpc.proto`, `kv.proto`).

/// Writes a key.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Put {
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::store) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::store) value: Vec<u8>,
}

/// Reads a key, or those from it to the end.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Range {
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::store) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::store) end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(in crate::store) limit: i64,
    #[prost(int64, tag = "4")]
    pub(in crate::store) revision: i64,
    #[prost(bool, tag = "7")]
    pub(in crate::store) serializable: bool,
    #[prost(bool, tag = "8")]
    pub(in crate::store) keys_only: bool,
}

/// Takes keys away.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct DeleteRange {
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::store) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::store) end: Vec<u8>,
}

/// That a key's revision is what is known; 0 of one that isn't there.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Compare {
    /// 0: equal.
    #[prost(int32, tag = "1")]
    result: i32,
    /// 2: the revision of its last change.
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    /// Written even if it is 0, as one of several that could be compared.
    #[prost(int64, optional, tag = "6")]
    revision: Option<i64>,
}

impl Compare {
    pub(in crate::store) fn revision_is(key: Vec<u8>, revision: i64) -> Self {
        Self { result: 0, target: 2, key, revision: Some(revision) }
    }
}

/// One step of a transaction; one of them is set.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Step {
    #[prost(message, optional, tag = "1")]
    range: Option<Range>,
    #[prost(message, optional, tag = "2")]
    put: Option<Put>,
}

impl Step {
    pub(in crate::store) fn range(range: Range) -> Self {
        Self { range: Some(range), put: None }
    }

    pub(in crate::store) fn put(put: Put) -> Self {
        Self { range: None, put: Some(put) }
    }
}

/// If all compares hold, this; else that.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Txn {
    #[prost(message, repeated, tag = "1")]
    pub(in crate::store) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(in crate::store) success: Vec<Step>,
    #[prost(message, repeated, tag = "3")]
    pub(in crate::store) failure: Vec<Step>,
}

/// Watches a key, or those from it to the end.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Create {
    #[prost(bytes = "vec", tag = "1")]
    pub(in crate::store) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(in crate::store) end: Vec<u8>,
}

/// What is asked of a stream of watchers.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Watch {
    #[prost(message, optional, tag = "1")]
    pub(in crate::store) create: Option<Create>,
}

/// Where the store stood.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(in crate::store) struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

/// The answer to a write.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Written {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

impl Written {
    pub(in crate::store) fn revision(&self) -> i64 {
        self.header.map_or(0, |header| header.revision)
    }
}

/// The answer to a read, without what was read.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Counted {
    #[prost(int64, tag = "4")]
    pub(in crate::store) count: i64,
}

/// The answer to a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::store) struct Decided {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub(in crate::store) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    steps: Vec<Stepped>,
}

impl Decided {
    pub(in crate::store) fn revision(&self) -> i64 {
        self.header.map_or(0, |header| header.revision)
    }

    /// The revision of what the transaction read.
    pub(in crate::store) fn found(&self) -> Option<i64> {
        self.steps.iter().find_map(|step| Some(step.found.as_ref()?.kvs.first()?.mod_revision))
    }
}

/// What came of a step.
#[derive(Clone, PartialEq, prost::Message)]
struct Stepped {
    #[prost(message, optional, tag = "1")]
    found: Option<Found>,
}

/// What a step read.
#[derive(Clone, PartialEq, prost::Message)]
struct Found {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<Revision>,
}

/// A key's last change.
#[derive(Clone, PartialEq, prost::Message)]
struct Revision {
    #[prost(int64, tag = "3")]
    mod_revision: i64,
}
