//! Every command of Debian's etcdctl 3.4 with its options, against ours and against Debian's etcd.
//!
//! Not here: what is about users (`auth`), what tells a server's own sizes and hashes, and what runs for a minute.

use crate::auth::same_as_etcd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_put_read_and_deleted_as_in_etcd() {
    same_as_etcd(
        r#"
        get a
        put a 1
        put a 2 --prev-kv
        put b 1 --prev-kv
        put a --ignore-value
        put none --ignore-value
        put a --ignore-lease 3
        put a 4 --lease=123
        put "" x
        put c <<from stdin
        put c2 5 -w json
        put c3 5 -w fields
        get a
        get a -w json
        get a -w fields
        get a -w simple
        get a -w table
        get a --hex
        get a --print-value-only
        get a --print-value-only -w fields
        get a --keys-only
        get a c
        get a z --limit=2
        get a z --limit=2 -w json
        get --prefix c
        get --prefix "" --keys-only
        get --from-key b
        get --from-key "" --limit=1
        get --prefix "" --order=DESCEND --keys-only
        get --prefix "" --order=ASCEND --sort-by=VALUE --keys-only
        get --prefix "" --order=DESCEND --sort-by=CREATE --keys-only
        get --prefix "" --order=DESCEND --sort-by=MODIFY --keys-only
        get --prefix "" --order=ASCEND --sort-by=VERSION --keys-only
        get --prefix "" --sort-by=WRONG
        get a --rev=2
        get a --rev=3 -w json
        get a --rev=1
        get a --rev=99
        get a --rev=-1
        get a --consistency=s
        get a --consistency=l
        get a --consistency=x
        get a --prefix --from-key
        del nothing
        del c2 --prev-kv
        del c3 -w json
        del a b --prev-kv
        del --prefix c
        put x 1
        put y 1
        del --from-key x
        del a --prefix --from-key
        "#,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_and_compactions_are_as_in_etcd() {
    same_as_etcd(
        r#"
        put k 1
        txn <<value("k") = "1"||put k 2|get k||get k||
        txn <<value("k") = "1"||put k 3||get k|get none||
        txn -w json <<version("k") > "1"|create("k") < "100"|mod("k") != "1"||put l 1|del none|get k l||||
        txn <<|put a 1|put a 2||||
        txn <<|put a 1|put b 2|del c||||
        txn <<create("none") = "0"||put none 1|||||
        txn -i <<value("k") = "2"||put k 9||||
        get k -w fields
        compaction 4
        compaction 4
        compaction 99
        compaction x
        compaction --physical 5
        get k --rev=3
        get k --rev=5
        watch k --rev=2
        watch k --rev=5
        "#,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_as_in_etcd() {
    same_as_etcd(
        r#"
        put w1 1
        put w1 2
        put w2 1
        del w1
        put x 1
        watch w1 --rev=1
        watch w1 --rev=1 --prev-kv
        watch --prefix w --rev=1
        watch w1 w3 --rev=2 -w json
        watch w1 --rev=1 -w fields
        watch w1 --rev=1 --hex
        watch -i <<watch --rev=1|nonsense|
        watch x --rev=1 -- echo changed
        "#,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_as_in_etcd() {
    same_as_etcd(
        r#"
        lease list
        lease grant x
        lease grant 99999999999
        lease grant 1000
        lease list
        put --lease=$LEASE leased 1
        put --lease=$LEASE also 1
        get leased -w json
        lease timetolive $LEASE
        lease timetolive $LEASE --keys
        lease timetolive 1234
        lease timetolive xyz
        lease keep-alive --once $LEASE
        lease keep-alive --once 1234
        put also --ignore-lease 2
        put leased 2
        lease timetolive $LEASE --keys
        lease revoke $LEASE
        lease revoke $LEASE
        lease list
        get --prefix "" --keys-only
        "#,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_elections_and_the_rest_are_as_in_etcd() {
    same_as_etcd(
        r#"
        lock door echo in
        lock door --ttl=5 echo in
        lock door false
        get --prefix door
        elect boss me
        elect -l boss
        alarm list
        alarm disarm
        move-leader 1234
        move-leader
        member remove 1234
        member promote 1234
        member update 1234 --peer-urls=http://127.0.0.1:1
        member add one
        endpoint health
        defrag
        snapshot save
        nonsense
        version
        "#,
    )
    .await;
}
