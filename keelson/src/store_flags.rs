//! Flags and variables of etcd that the store doesn't have: some change nothing here and are passed over with a
//! word, the others are refused by name.
//!
//! Source: etcd 3.6 `server/etcdmain/help.go`, `server/embed/config.go`.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

/// Tune what isn't there; whoever gives them loses nothing.
const IDLE: &[(&str, &str)] = &[
    ("snapshot-count", "the log is cut by its size"),
    ("snapshot-catchup-entries", "the log is cut by its size"),
    ("experimental-snapshot-catchup-entries", "the log is cut by its size"),
    ("max-snapshots", "old snapshots are removed by themselves"),
    ("max-wals", "old log files are removed by themselves"),
    ("backend-bbolt-freelist-type", "there is no bbolt"),
    ("backend-batch-interval", "writes are gathered by themselves"),
    ("backend-batch-limit", "writes are gathered by themselves"),
    ("experimental-backend-bbolt-freelist-type", "there is no bbolt"),
    ("compaction-batch-limit", "compaction takes slices by itself"),
    ("experimental-compaction-batch-limit", "compaction takes slices by itself"),
    ("compaction-sleep-interval", "compaction takes slices by itself"),
    ("experimental-compaction-sleep-interval", "compaction takes slices by itself"),
    ("bootstrap-defrag-threshold-megabytes", "there is nothing to defragment"),
    ("experimental-bootstrap-defrag-threshold-megabytes", "there is nothing to defragment"),
    ("initial-election-tick-advance", "a member that starts waits for a leader first"),
    ("experimental-initial-corrupt-check", "every record read is checked, at the start too"),
    ("downgrade-check-time", "there is no version to go back to"),
    ("experimental-downgrade-check-time", "there is no version to go back to"),
    ("raft-read-timeout", "peers are given up by heartbeats"),
    ("raft-write-timeout", "peers are given up by heartbeats"),
    ("compact-hash-check-time", "members compare their states all the time"),
    ("experimental-compact-hash-check-enabled", "members compare their states all the time"),
    ("experimental-compact-hash-check-time", "members compare their states all the time"),
    ("experimental-enable-lease-checkpoint", "what is left of leases is always noted"),
    ("experimental-enable-lease-checkpoint-persist", "what is left of leases is always noted"),
    ("experimental-stop-grpc-service-on-defrag", "there is nothing to defragment"),
    ("experimental-txn-mode-write-with-shared-buffer", "there is no buffer to share"),
    ("experimental-wait-cluster-ready-timeout", "a member serves once it can"),
    ("warning-unary-request-duration", "--warning-apply-duration counts all that a request waits for"),
    ("experimental-warning-unary-request-duration", "--warning-apply-duration counts all that a request waits for"),
    ("peer-skip-client-san-verification", "a peer's certificate isn't compared with its address"),
    ("experimental-peer-skip-client-san-verification", "a peer's certificate isn't compared with its address"),
    ("metrics", "all metrics are always there"),
    ("distributed-tracing-address", "there is no tracing"),
    ("distributed-tracing-service-name", "there is no tracing"),
    ("distributed-tracing-instance-id", "there is no tracing"),
    ("distributed-tracing-sampling-rate", "there is no tracing"),
    ("experimental-distributed-tracing-address", "there is no tracing"),
    ("experimental-distributed-tracing-service-name", "there is no tracing"),
    ("experimental-distributed-tracing-instance-id", "there is no tracing"),
    ("experimental-distributed-tracing-sampling-rate", "there is no tracing"),
    ("disable-log-sampling", "the log isn't sampled as zap's is"),
    ("client-cert-file", "the store is nobody's client but its peers'"),
    ("client-key-file", "the store is nobody's client but its peers'"),
    ("self-signed-cert-validity", "no certificate is made here"),
    ("log-rotation-config-json", "logs aren't rotated by the store"),
    ("v2-deprecation", "there is no v2 API"),
    ("enable-pprof", "there is no profiler in it"),
    ("discovery-fallback", "there is no discovery"),
    ("discovery-dial-timeout", "there is no discovery"),
    ("discovery-request-timeout", "there is no discovery"),
    ("discovery-keepalive-time", "there is no discovery"),
    ("discovery-keepalive-timeout", "there is no discovery"),
    ("discovery-insecure-transport", "there is no discovery"),
    ("discovery-insecure-skip-tls-verify", "there is no discovery"),
    ("discovery-cert", "there is no discovery"),
    ("discovery-key", "there is no discovery"),
    ("discovery-cacert", "there is no discovery"),
    ("discovery-user", "there is no discovery"),
    ("discovery-password", "there is no discovery"),
    ("proxy-failure-wait", "there is no v2 proxy"),
    ("proxy-refresh-interval", "there is no v2 proxy"),
    ("proxy-dial-timeout", "there is no v2 proxy"),
    ("proxy-write-timeout", "there is no v2 proxy"),
    ("proxy-read-timeout", "there is no v2 proxy"),
    ("cluster-active-size", FORGOTTEN),
    ("cluster-remove-delay", FORGOTTEN),
    ("cluster-sync-interval", FORGOTTEN),
    ("config", FORGOTTEN),
    ("force", FORGOTTEN),
    ("max-result-buffer", FORGOTTEN),
    ("max-retry-attempts", FORGOTTEN),
    ("peer-heartbeat-interval", FORGOTTEN),
    ("peer-election-timeout", FORGOTTEN),
    ("retry-interval", FORGOTTEN),
    ("snapshot", FORGOTTEN),
    ("v", FORGOTTEN),
    ("vv", FORGOTTEN),
];

/// Flags of the first etcd, which later ones take without a word.
const FORGOTTEN: &str = "etcd itself has forgotten what it was";

/// Passed over if they say what holds anyway, else refused.
const FIXED: &[(&str, &[&str], &str)] = &[
    ("pre-vote", &["true"], "elections always ask before they begin"),
    ("enable-v2", &["false"], "there is no v2 API"),
    ("logger", &["zap"], "lines are written as zap does"),
    ("enable-log-rotation", &["false"], "let logrotate do it, with copytruncate"),
    ("auto-tls", &["false"], "certificates must be given"),
    ("peer-auto-tls", &["false"], "certificates must be given"),
    ("cors", &["*", ""], "the JSON gateway isn't for browsers"),
    ("host-whitelist", &["*", ""], "requests aren't told apart by their Host"),
    ("socket-reuse-port", &["false"], "a port is one member's"),
    ("socket-reuse-address", &["true", "false"], "addresses are always taken over"),
    ("unsafe-no-fsync", &["false"], "what is acknowledged is on disk"),
    ("force-new-cluster", &["false"], "restore a backup instead: keelson store snapshot restore"),
    ("proxy", &["off"], "there is no v2 proxy"),
    ("experimental-enable-distributed-tracing", &["false"], "there is no tracing"),
    ("enable-distributed-tracing", &["false"], "there is no tracing"),
    ("memory-mlock", &["false"], "memory isn't locked"),
    ("experimental-memory-mlock", &["false"], "memory isn't locked"),
    ("max-learners", &["1"], "one learns at a time: promote it before the next is added"),
    ("experimental-max-learners", &["1"], "one learns at a time: promote it before the next is added"),
    ("experimental-enable-v2v3", &[""], "there is no v2 API"),
    ("experimental-set-member-localaddr", &["false"], "the system chooses the address that peers are dialled from"),
    ("debug", &["false"], "say --log-level=debug"),
    ("log-output", &["default"], "say it with --log-outputs"),
    ("log-package-levels", &[""], "say it with --log-level, or KEELSON_LOG"),
];

const FEATURE_GATES: &str = "feature-gates";
const GATES_WHY: &str = "nothing here has a gate";

/// etcd's gates, and what holds here of each.
const GATES: [(&str, &[&str]); 9] = [
    ("AllAlpha", &["false"]),
    ("AllBeta", &["false"]),
    // Every record that is read is checked.
    ("InitialCorruptCheck", &["true"]),
    ("CompactHashCheck", &["true", "false"]),
    ("LeaseCheckpoint", &["true"]),
    ("LeaseCheckpointPersist", &["true"]),
    ("SetMemberLocalAddr", &["false"]),
    ("StopGRPCServiceOnDefrag", &["true", "false"]),
    ("TxnModeWriteWithSharedBuffer", &["true", "false"]),
];

/// Whether all of some gates say what holds anyway.
fn gates_hold(gates: &str) -> bool {
    gates.split(',').filter(|gate| !gate.is_empty()).all(|gate| {
        let (name, value) = gate.split_once('=').unwrap_or((gate, ""));
        GATES.iter().any(|(known, same)| *known == name.trim() && same.contains(&value.trim()))
    })
}

/// What is asked for isn't there.
const MISSING: &[(&str, &str)] = &[
    ("wal-dir", "the log lies in --data-dir: mount a disk of its own at DATA-DIR/log"),
    ("discovery", "name the members with --initial-cluster"),
    ("discovery-endpoints", "name the members with --initial-cluster"),
    ("discovery-token", "name the members with --initial-cluster"),
    ("discovery-srv", "name the members with --initial-cluster"),
    ("discovery-srv-name", "name the members with --initial-cluster"),
    ("discovery-proxy", "name the members with --initial-cluster"),
    ("listen-client-http-urls", "HTTP is served beside gRPC; --listen-metrics-urls serves it alone"),
    ("corrupt-check-time", "compare `etcdctl endpoint hashkv --cluster`"),
    ("experimental-corrupt-check-time", "compare `etcdctl endpoint hashkv --cluster`"),
];

/// What becomes of a flag with a value.
enum Fate {
    /// It is the store's own, or nobody's.
    Kept,
    Passed(&'static str),
    Refused(&'static str),
}

/// Whether etcd has this flag and the store hasn't.
pub(crate) fn is_etcds(name: &str) -> bool {
    !matches!(fate(name, ""), Fate::Kept)
}

fn fate(name: &str, value: &str) -> Fate {
    let find = |table: &[(&str, &'static str)]| table.iter().find(|(known, _)| *known == name).map(|(_, why)| *why);
    if let Some(why) = find(IDLE) {
        return Fate::Passed(why);
    }
    if name == FEATURE_GATES {
        return if gates_hold(value) { Fate::Passed(GATES_WHY) } else { Fate::Refused(GATES_WHY) };
    }
    if let Some((_, same, why)) = FIXED.iter().find(|(known, ..)| *known == name) {
        return if same.contains(&value) { Fate::Passed(why) } else { Fate::Refused(why) };
    }
    find(MISSING).map_or(Fate::Kept, Fate::Refused)
}

/// Flags that change nothing and are etcd's switches.
const IDLE_SWITCHES: &[&str] = &[
    "enable-pprof",
    "initial-election-tick-advance",
    "disable-log-sampling",
    "discovery-insecure-transport",
    "discovery-insecure-skip-tls-verify",
    "peer-skip-client-san-verification",
    "experimental-initial-corrupt-check",
    "experimental-compact-hash-check-enabled",
    "experimental-enable-lease-checkpoint",
    "experimental-enable-lease-checkpoint-persist",
    "experimental-peer-skip-client-san-verification",
    "experimental-stop-grpc-service-on-defrag",
    "experimental-txn-mode-write-with-shared-buffer",
];

/// Those of the flags that are etcd's switches: `--flag` alone means true.
fn is_switch(name: &str) -> bool {
    let fixed = FIXED.iter().find(|(known, ..)| *known == name);
    fixed.is_some_and(|(_, same, _)| same.iter().any(|value| matches!(*value, "true" | "false")))
        || IDLE_SWITCHES.contains(&name)
        || IDLE.contains(&(name, FORGOTTEN))
}

/// Takes flags out that change nothing here; returns the others, and what to say of those.
///
/// # Errors
/// A flag that asks for what isn't there.
pub(crate) fn sort_out(arguments: Vec<String>) -> Result<(Vec<String>, Vec<String>)> {
    let (mut kept, mut words) = (Vec::new(), Vec::new());
    let mut rest = arguments.into_iter().peekable();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix("--") else {
            kept.push(argument);
            continue;
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let is_next = given.is_none() && !is_switch(name);
        let value = match (given, is_next) {
            (Some(value), _) => value,
            (None, true) => rest.peek().cloned().unwrap_or_default(),
            (None, false) => "true".to_owned(),
        };
        match fate(name, &value) {
            Fate::Kept => kept.push(argument),
            Fate::Refused(why) => bail!("--{name}={value}: the store doesn't have this: {why}"),
            Fate::Passed(why) => {
                if is_next {
                    rest.next();
                }
                words.push(format!("--{name} changes nothing here: {why}"));
            }
        }
    }
    Ok((kept, words))
}

/// Looks at the environment as etcd does: what to say of variables that nobody reads.
///
/// # Errors
/// A variable that asks for what isn't there.
pub(crate) fn look_at(
    variables: impl Iterator<Item = (String, String)>,
    known: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for (variable, value) in variables {
        let Some(rest) = variable.strip_prefix("ETCD_").filter(|_| !known.contains(&variable)) else { continue };
        match fate(&rest.to_lowercase().replace('_', "-"), &value) {
            Fate::Kept => words.push(format!("unrecognized environment variable {variable}={value}")),
            Fate::Refused(why) => bail!("{variable}={value}: the store doesn't have this: {why}"),
            Fate::Passed(why) => words.push(format!("{variable} changes nothing here: {why}")),
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_changes_nothing_is_passed_over() {
        let given = ["keelson", "store", "--snapshot-count", "10000", "--pre-vote", "--name", "a", "--pre-vote=true"];
        let (kept, words) = sort_out(owned(&given)).expect("nothing is missing");
        assert_eq!(kept, ["keelson", "store", "--name", "a"]);
        assert_eq!(words.len(), 3);
        assert!(words[0].starts_with("--snapshot-count changes nothing here"), "{words:?}");
    }

    #[test]
    fn what_is_missing_is_refused_by_name() {
        for flag in ["--wal-dir=/w", "--pre-vote=false", "--enable-v2", "--unsafe-no-fsync", "--discovery=x"] {
            let refused = sort_out(owned(&["keelson", "store", flag])).expect_err("refused");
            let name = flag.split('=').next().unwrap_or_default();
            assert!(refused.to_string().starts_with(name), "{refused}");
        }
        // Nobody's flag is left to be refused with the store's own.
        assert_eq!(sort_out(owned(&["keelson", "store", "--nonsense"])).expect("left").0.len(), 3);
    }

    #[test]
    fn variables_are_looked_at_as_well() {
        let known = BTreeSet::from(["ETCD_NAME".to_owned()]);
        let look = |name: &str, value: &str| look_at([(name.to_owned(), value.to_owned())].into_iter(), &known);
        assert_eq!(look("ETCD_NAME", "a").expect("known"), Vec::<String>::new());
        assert_eq!(look("PATH", "/bin").expect("nobody's"), Vec::<String>::new());
        assert_eq!(look("ETCD_NONSENSE", "1").expect("said"), ["unrecognized environment variable ETCD_NONSENSE=1"]);
        assert!(look("ETCD_SNAPSHOT_COUNT", "1").expect("said")[0].contains("changes nothing here"));
        assert!(look("ETCD_UNSAFE_NO_FSYNC", "true").is_err());
    }

    /// A flag stands in one table.
    #[test]
    fn tables_do_not_overlap() {
        let names = IDLE.iter().chain(MISSING).map(|(name, _)| *name).chain(FIXED.iter().map(|(name, ..)| *name));
        let all: Vec<&str> = names.collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn the_last_of_a_flag_given_twice_counts() {
        use clap::CommandFactory as _;
        let (cert, urls) = ("--client-cert-auth", "--listen-client-urls");
        let given = ["keelson", "store", "--name", "a", cert, "--name", "b", cert, urls, "http://a", urls, "http://b"];
        let matches = crate::Cli::command().try_get_matches_from(given).expect("as Go reads flags");
        let store = matches.subcommand_matches("store").expect("the store's");
        assert_eq!(store.get_one::<String>("name").map(String::as_str), Some("b"));
        let urls: Vec<_> = store.get_many::<String>("listen_client_urls").expect("some").collect();
        assert_eq!(urls, ["http://b"]);
    }

    /// Source: etcd 3.4.23 `etcdmain/config.go`.
    const OF_3_4: &str = "
        advertise-client-urls auth-token auth-token-ttl auto-compaction-mode auto-compaction-retention auto-tls
        backend-batch-interval backend-batch-limit bcrypt-cost cert-file cipher-suites client-cert-allowed-hostname
        client-cert-auth client-crl-file config-file cors data-dir debug discovery discovery-fallback
        discovery-proxy discovery-srv discovery-srv-name election-timeout enable-grpc-gateway enable-pprof
        enable-v2 experimental-backend-bbolt-freelist-type experimental-compaction-batch-limit
        experimental-corrupt-check-time experimental-enable-lease-checkpoint
        experimental-enable-lease-checkpoint-persist experimental-enable-v2v3 experimental-initial-corrupt-check
        experimental-peer-skip-client-san-verification experimental-warning-apply-duration
        experimental-watch-progress-notify-interval force-new-cluster grpc-keepalive-interval
        grpc-keepalive-min-time grpc-keepalive-timeout heartbeat-interval host-whitelist
        initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token
        initial-election-tick-advance key-file listen-client-urls listen-metrics-urls listen-peer-urls log-level
        log-output log-outputs log-package-levels logger max-concurrent-streams max-request-bytes max-snapshots
        max-txn-ops max-wals metrics name peer-auto-tls peer-cert-allowed-cn peer-cert-allowed-hostname
        peer-cert-file peer-client-cert-auth peer-crl-file peer-key-file peer-trusted-ca-file pre-vote proxy
        proxy-dial-timeout proxy-failure-wait proxy-read-timeout proxy-refresh-interval proxy-write-timeout
        quota-backend-bytes snapshot-count strict-reconfig-check trusted-ca-file unsafe-no-fsync version wal-dir
    ";

    /// Source: etcd 3.5.30 `server/etcdmain/config.go`.
    const OF_3_5: &str = "
        advertise-client-urls auth-token auth-token-ttl auto-compaction-mode auto-compaction-retention auto-tls
        backend-batch-interval backend-batch-limit backend-bbolt-freelist-type bcrypt-cost cert-file cipher-suites
        client-cert-allowed-hostname client-cert-auth client-cert-file client-crl-file client-key-file config-file
        cors data-dir discovery discovery-fallback discovery-proxy discovery-srv discovery-srv-name
        election-timeout enable-grpc-gateway enable-log-rotation enable-pprof enable-v2
        experimental-bootstrap-defrag-threshold-megabytes experimental-compact-hash-check-enabled
        experimental-compact-hash-check-time experimental-compaction-batch-limit
        experimental-compaction-sleep-interval experimental-corrupt-check-time
        experimental-distributed-tracing-address experimental-distributed-tracing-instance-id
        experimental-distributed-tracing-sampling-rate experimental-distributed-tracing-service-name
        experimental-downgrade-check-time experimental-enable-distributed-tracing
        experimental-enable-lease-checkpoint experimental-enable-lease-checkpoint-persist experimental-enable-v2v3
        experimental-initial-corrupt-check experimental-memory-mlock experimental-peer-skip-client-san-verification
        experimental-snapshot-catchup-entries experimental-stop-grpc-service-on-defrag
        experimental-txn-mode-write-with-shared-buffer experimental-warning-apply-duration
        experimental-watch-progress-notify-interval force-new-cluster grpc-keepalive-interval
        grpc-keepalive-min-time grpc-keepalive-timeout heartbeat-interval host-whitelist
        initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token
        initial-election-tick-advance key-file listen-client-http-urls listen-client-urls listen-metrics-urls
        listen-peer-urls log-level log-outputs log-rotation-config-json logger max-concurrent-streams
        max-request-bytes max-snapshots max-txn-ops max-wals metrics name peer-auto-tls peer-cert-allowed-cn
        peer-cert-allowed-hostname peer-cert-file peer-client-cert-auth peer-client-cert-file peer-client-key-file
        peer-crl-file peer-key-file peer-trusted-ca-file pre-vote proxy proxy-dial-timeout proxy-failure-wait
        proxy-read-timeout proxy-refresh-interval proxy-write-timeout quota-backend-bytes raft-read-timeout
        raft-write-timeout self-signed-cert-validity snapshot-count socket-reuse-address socket-reuse-port
        strict-reconfig-check tls-max-version tls-min-version trusted-ca-file unsafe-no-fsync v2-deprecation
        version wal-dir
    ";

    /// Source: etcd 3.6 `server/embed/config.go`, `server/etcdmain/config.go`.
    const OF_3_6: &str = "
        advertise-client-urls auth-token auth-token-ttl auto-compaction-mode auto-compaction-retention auto-tls
        backend-batch-interval backend-batch-limit backend-bbolt-freelist-type bcrypt-cost
        bootstrap-defrag-threshold-megabytes cert-file cipher-suites client-cert-allowed-hostname client-cert-auth
        client-cert-file client-crl-file client-key-file compact-hash-check-time compaction-batch-limit
        compaction-sleep-interval config-file corrupt-check-time cors data-dir disable-log-sampling
        discovery-cacert discovery-cert discovery-dial-timeout discovery-endpoints
        discovery-insecure-skip-tls-verify discovery-insecure-transport discovery-keepalive-time
        discovery-keepalive-timeout discovery-key discovery-password discovery-request-timeout discovery-srv
        discovery-srv-name discovery-token discovery-user distributed-tracing-address
        distributed-tracing-instance-id distributed-tracing-sampling-rate distributed-tracing-service-name
        downgrade-check-time election-timeout enable-distributed-tracing enable-grpc-gateway enable-log-rotation
        enable-pprof experimental-bootstrap-defrag-threshold-megabytes experimental-compact-hash-check-enabled
        experimental-compact-hash-check-time experimental-compaction-batch-limit
        experimental-compaction-sleep-interval experimental-corrupt-check-time
        experimental-distributed-tracing-address experimental-distributed-tracing-instance-id
        experimental-distributed-tracing-sampling-rate experimental-distributed-tracing-service-name
        experimental-downgrade-check-time experimental-enable-distributed-tracing
        experimental-enable-lease-checkpoint experimental-enable-lease-checkpoint-persist
        experimental-initial-corrupt-check experimental-max-learners experimental-memory-mlock
        experimental-peer-skip-client-san-verification experimental-set-member-localaddr
        experimental-snapshot-catchup-entries experimental-stop-grpc-service-on-defrag
        experimental-txn-mode-write-with-shared-buffer experimental-wait-cluster-ready-timeout
        experimental-warning-apply-duration experimental-warning-unary-request-duration
        experimental-watch-progress-notify-interval feature-gates force-new-cluster grpc-keepalive-interval
        grpc-keepalive-min-time grpc-keepalive-timeout heartbeat-interval host-whitelist
        initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token
        initial-election-tick-advance key-file listen-client-http-urls listen-client-urls listen-metrics-urls
        listen-peer-urls log-format log-level log-outputs log-rotation-config-json logger max-concurrent-streams
        max-learners max-request-bytes max-snapshots max-txn-ops max-wals memory-mlock metrics name peer-auto-tls
        peer-cert-allowed-cn peer-cert-allowed-hostname peer-cert-file peer-client-cert-auth peer-client-cert-file
        peer-client-key-file peer-crl-file peer-key-file peer-skip-client-san-verification peer-trusted-ca-file
        pre-vote quota-backend-bytes raft-read-timeout raft-write-timeout self-signed-cert-validity
        snapshot-catchup-entries snapshot-count socket-reuse-address socket-reuse-port strict-reconfig-check
        tls-max-version tls-min-version trusted-ca-file unsafe-no-fsync v2-deprecation version wal-dir
        warning-apply-duration warning-unary-request-duration watch-progress-notify-interval
    ";

    /// Flags that every version up to 3.6 takes and has no use for.
    const OF_ALL: &str = "cluster-active-size cluster-remove-delay cluster-sync-interval config force max-result-buffer
        max-retry-attempts peer-heartbeat-interval peer-election-timeout retry-interval snapshot v vv";

    /// Nobody who comes from etcd is told that his flag is unexpected: it works, or is passed over with a word, or is
    /// refused with what to do.
    #[test]
    fn no_flag_of_etcd_is_unexpected() {
        use clap::CommandFactory as _;
        let mut command = crate::Cli::command();
        command.build();
        let works = |name: &str| crate::store_flags(&command).any(|flag| crate::is_named(flag, name));
        let elsewhere = ["config-file"];
        let all: BTreeSet<&str> =
            [OF_3_4, OF_3_5, OF_3_6, OF_ALL].into_iter().flat_map(str::split_whitespace).collect();
        assert!(all.len() > 140, "{}", all.len());
        for name in &all {
            let places = [works(name), is_etcds(name), elsewhere.contains(name)];
            assert_eq!(places.into_iter().filter(|is_there| *is_there).count(), 1, "--{name}: {places:?}");
        }
        let tables = IDLE.iter().chain(MISSING).map(|(name, _)| *name).chain(FIXED.iter().map(|(name, ..)| *name));
        let not_etcds: Vec<&str> = tables.filter(|name| !all.contains(name)).collect();
        assert_eq!(not_etcds, OF_OTHERS, "no version of etcd has these");
    }

    /// Flags of versions before 3.6.0 and after it.
    const OF_OTHERS: [&str; 0] = [];

    #[test]
    fn switches_take_no_value_behind_them() {
        let given = ["keelson", "store", "--experimental-compact-hash-check-enabled", "--force", "--name", "a"];
        let (kept, words) = sort_out(owned(&given)).expect("nothing is missing");
        assert_eq!((kept.as_slice(), words.len()), (owned(&["keelson", "store", "--name", "a"]).as_slice(), 2));
        assert!(IDLE_SWITCHES.iter().all(|name| IDLE.iter().any(|(known, _)| known == name)));
    }

    #[test]
    fn gates_are_passed_over_that_say_what_holds() {
        for (gates, holds) in [
            ("", true),
            ("InitialCorruptCheck=true", true),
            ("InitialCorruptCheck=true,CompactHashCheck=true,TxnModeWriteWithSharedBuffer=false", true),
            ("LeaseCheckpoint=true, LeaseCheckpointPersist=true", true),
            ("InitialCorruptCheck=true,SetMemberLocalAddr=true", false),
            ("LeaseCheckpoint=false", false),
            ("Nonsense=true", false),
            ("AllAlpha", false),
        ] {
            assert_eq!(gates_hold(gates), holds, "{gates}");
        }
    }
}
