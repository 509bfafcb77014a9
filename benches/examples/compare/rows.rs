//! What is measured, and what must come out: one table.

use super::perform::Readings;

/// Seconds of a load, unless it ends with its operations.
pub(crate) const SECONDS: u64 = 10;

/// What is done to the members.
#[derive(Clone)]
pub(crate) enum Work {
    /// The load of `keelson bench store`, by its words.
    Load(String),
    /// The load of etcd's own Go client, and how many requests at a time.
    Go { what: &'static str, clients: u32 },
    /// So many keys are written, all members are killed and started again.
    Restart { keys: u32 },
    /// The leader is killed.
    KillLeader,
    /// So many puts with a compaction every few seconds.
    Churn { puts: u64 },
}

/// One figure of a scenario: a row of the report.
#[derive(Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) more_is_better: bool,
    /// How many times as good as etcd's it must be.
    pub(crate) must: f64,
    pub(crate) of: fn(&Readings) -> f64,
}

/// What is done to fresh members, and what is looked at.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) members: usize,
    pub(crate) work: Work,
    /// Takes tens of minutes: only if asked for.
    pub(crate) long: bool,
    pub(crate) figures: &'static [Figure],
}

const fn more(what: &'static str, unit: &'static str, of: fn(&Readings) -> f64) -> Figure {
    Figure { what, unit, more_is_better: true, must: 1.0, of }
}

const fn less(what: &'static str, unit: &'static str, of: fn(&Readings) -> f64) -> Figure {
    Figure { what, unit, more_is_better: false, must: 1.0, of }
}

const RATE: Figure = more("throughput", "/s", |r| r.per_second);
const P50: Figure = less("p50", "ms", |r| r.p50);
const P99: Figure = less("p99", "ms", |r| r.p99);
const RSS: Figure = less("RSS of the largest member", "MiB", |r| r.resident);
const ANON: Figure = less("anonymous memory of the largest member", "MiB", |r| r.anonymous);
const DELIVERED: Figure = more("events delivered", "/s", |r| r.per_second);
const WRITES: Figure = more("writes", "/s", |r| r.writes_per_second);
const DISK: Figure = less("data folder of a member", "MiB", |r| r.disk);

/// So many times as good as etcd's.
const fn must(figure: Figure, must: f64) -> Figure {
    Figure { must, ..figure }
}

const LOAD: &[Figure] = &[RATE, P99];
const ONE_CLIENT: &[Figure] = &[RATE, must(P50, 1.0 / 0.6), P99];
const SOME_CLIENTS: &[Figure] = &[must(RATE, 3.0), P99];
const MANY_CLIENTS: &[Figure] = &[must(RATE, 3.0), must(P99, 1.0 / 0.35)];
const READS: &[Figure] = &[must(RATE, 2.5), P99];
const SERIALIZABLE: &[Figure] = &[must(RATE, 2.0), P99];
const LIST: &[Figure] = &[P50, must(RATE, 3.0)];
const MIXED: &[Figure] = &[must(RATE, 4.0), must(P99, 1.0 / 0.3)];
const LATENCY: &[Figure] = &[must(P50, 2.0), P99];
const EVENTS: &[Figure] = &[DELIVERED, WRITES, P99];
const MANY_EVENTS: &[Figure] = &[must(DELIVERED, 5.0), WRITES, P99];
const MEMORY: &[Figure] = &[must(RSS, 2.5), ANON, DISK];
const GROWTH: &[Figure] = &[RATE, P99, RSS];
const RESTART: &[Figure] = &[must(less("kill -9 to serving", "ms", |r| r.took), 1.0 / 0.3), RSS, ANON, DISK];
const KILL: &[Figure] = &[must(less("kill -9 to the first acknowledged write", "ms", |r| r.took), 2.0)];
const CHURN: &[Figure] = &[
    RATE,
    less("p99.9 of the median minute", "ms", |r| r.p999),
    less("p99.9 of the worst minute", "ms", |r| r.worst_p999),
    less("disk over live bytes", "×", |r| r.disk / r.live.max(1e-9)),
    RSS,
];

fn load(name: impl Into<String>, members: usize, words: impl Into<String>, figures: &'static [Figure]) -> Scenario {
    Scenario { name: name.into(), members, work: Work::Load(words.into()), long: false, figures }
}

/// For so many seconds, as many operations as there is time for.
fn timed(words: &str) -> String {
    format!("{words} --seconds {SECONDS} --total 1000000000")
}

fn fan_out(watchers: u32) -> String {
    let connections = watchers.div_ceil(500).max(4);
    timed(&format!(
        "fan-out --watchers {watchers} --rate 1000 --clients 32 --value-size 64 --connections {connections}"
    ))
}

/// All of them, in the order of the report.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let put = |clients: u32| timed(&format!("put --clients {clients}"));
    let mut all = vec![
        load("put/1", 3, put(1), ONE_CLIENT),
        load("put/64", 3, put(64), SOME_CLIENTS),
        load("put/256", 3, put(256), MANY_CLIENTS),
        load("put/1000", 3, put(1000), MANY_CLIENTS),
        load("put-one-member/256", 1, put(256), LOAD),
        load("create/64", 3, format!("create --clients 64 --seconds {SECONDS} --total 1000000"), SOME_CLIENTS),
        load("update/64", 3, timed("update --clients 64"), SOME_CLIENTS),
        load("update/256", 3, timed("update --clients 256"), SOME_CLIENTS),
        load("range/256", 3, timed("range --clients 256"), READS),
        load("range-serializable/256", 3, timed("range --serializable --clients 256"), SERIALIZABLE),
        load("list", 3, timed("list"), LIST),
        load("list-paged", 3, timed("list --page 500"), LIST),
        load("mixed-watchers/1000", 3, timed("mixed --clients 64 --watchers 1000"), MIXED),
        load("event-latency", 3, timed("watch"), LATENCY),
        load("fan-out/10000", 3, fan_out(10_000), MANY_EVENTS),
        load("memory-after-puts/400000", 3, "put --clients 256 --total 400000 --seconds 300", MEMORY),
        load("memory-of-keys/1000000", 3, "put --prepare --key-space 1000000 --clients 64 --total 1000", MEMORY),
        Scenario {
            name: "restart/1000000".into(),
            members: 1,
            work: Work::Restart { keys: 1_000_000 },
            long: false,
            figures: RESTART,
        },
        Scenario { name: "kill-leader".into(), members: 3, work: Work::KillLeader, long: false, figures: KILL },
        Scenario {
            name: "churn/20000000".into(),
            members: 3,
            work: Work::Churn { puts: 20_000_000 },
            long: true,
            figures: CHURN,
        },
    ];
    let go = |what: &'static str, clients: u32, figures: &'static [Figure]| Scenario {
        name: format!("go-{what}/{clients}"),
        members: 3,
        work: Work::Go { what, clients },
        long: false,
        figures,
    };
    all.extend([go("put", 1, ONE_CLIENT), go("put", 64, SOME_CLIENTS)]);
    all.extend([256, 1000].map(|clients| go("put", clients, MANY_CLIENTS)));
    all.extend([go("range", 256, READS), go("range-serializable", 256, SERIALIZABLE)]);
    all.extend([1_000, 10_000, 100_000, 1_000_000, 10_000_000].map(|keys| {
        let words = format!("put --prepare --key-space {keys} --value-size 128 --clients 256");
        Scenario { long: keys > 1_000_000, ..load(format!("keys/{keys}"), 3, timed(&words), GROWTH) }
    }));
    all.extend([1, 10, 100, 1000].map(|n| load(format!("watchers/{n}"), 3, fan_out(n), EVENTS)));
    all.extend([1, 3, 5].map(|n| load(format!("members/{n}"), n, put(256), LOAD)));
    all
}

/// The number at the end of a name such as `put/64`, if it begins so.
pub(crate) fn place(name: &str, curve: &str) -> Option<f64> {
    name.strip_prefix(curve)?.strip_prefix('/')?.parse().ok()
}
