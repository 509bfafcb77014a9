//! Flags and variables of etcd that the store doesn't have: some change nothing here and are passed over with a
//! word, the others are refused by name.
//!
//! Source: etcd 3.6 `server/etcdmain/help.go`, `server/embed/config.go`.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

/// Tune what isn't there; whoever gives them loses nothing.
const IDLE: &[(&str, &str)] = &[
    ("snapshot-count", "the log is cut by its size"),
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
    ("metrics", "all metrics are always there"),
    ("client-cert-file", "the store is nobody's client but its peers'"),
    ("client-key-file", "the store is nobody's client but its peers'"),
    ("self-signed-cert-validity", "no certificate is made here"),
    ("log-rotation-config-json", "logs aren't rotated by the store"),
    ("v2-deprecation", "there is no v2 API"),
    ("enable-pprof", "there is no profiler in it"),
    ("discovery-fallback", "there is no discovery"),
    ("proxy-failure-wait", "there is no v2 proxy"),
    ("proxy-refresh-interval", "there is no v2 proxy"),
    ("proxy-dial-timeout", "there is no v2 proxy"),
    ("proxy-write-timeout", "there is no v2 proxy"),
    ("proxy-read-timeout", "there is no v2 proxy"),
];

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
    ("feature-gates", &["", "InitialCorruptCheck=true"], "there are no gates; records are checked as they are read"),
];

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
    if let Some((_, same, why)) = FIXED.iter().find(|(known, ..)| *known == name) {
        return if same.contains(&value) { Fate::Passed(why) } else { Fate::Refused(why) };
    }
    find(MISSING).map_or(Fate::Kept, Fate::Refused)
}

/// Those of the flags that are etcd's switches: `--flag` alone means true.
fn is_switch(name: &str) -> bool {
    let fixed = FIXED.iter().find(|(known, ..)| *known == name);
    fixed.is_some_and(|(_, same, _)| same.iter().any(|value| matches!(*value, "true" | "false")))
        || matches!(name, "enable-pprof" | "experimental-initial-corrupt-check" | "initial-election-tick-advance")
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
}
