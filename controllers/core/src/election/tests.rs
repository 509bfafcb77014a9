//! One candidate by itself, each decision at the millisecond where it changes.

use super::*;

/// A candidate at a clock that stands until it is moved.
struct One {
    election: Election,
    ms: u64,
}

impl One {
    fn new(identity: &str) -> Self {
        Self { election: Election::new(Timing::default(), identity.to_owned()), ms: 0 }
    }

    fn tell(&mut self, input: Input) -> Vec<Action> {
        self.election.step(Now { ms: self.ms, unix_us: 7 }, 0, input)
    }

    fn at(&mut self, ms: u64, input: Input) -> Vec<Action> {
        self.ms = ms;
        self.tell(input)
    }

    /// Leads by a lease it made, written at 0 as version 1.
    fn leading() -> Self {
        let mut one = Self::new("a");
        assert_eq!(one.tell(Input::Wake), [Action::Read]);
        let actions = one.tell(Input::Read(None));
        let [Action::Create(record)] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(one.tell(written(record, "1")), [Action::Lead]);
        one
    }
}

fn written(record: &Record, version: &str) -> Input {
    Input::Written(stored(record, version))
}

fn stored(record: &Record, version: &str) -> Stored {
    Stored { record: record.clone(), version: version.to_owned() }
}

fn held(holder: &str) -> Record {
    Record { holder: holder.to_owned(), duration_seconds: 15, acquired_us: 1, renewed_us: 1, transitions: 4 }
}

fn read(record: &Record, version: &str) -> Input {
    Input::Read(Some(stored(record, version)))
}

fn update(actions: &[Action]) -> (&Record, &str) {
    match actions {
        [.., Action::Update { record, version }] => (record, version),
        other => panic!("no update in {other:?}"),
    }
}

#[test]
fn a_lease_that_is_not_there_is_made_at_once() {
    let mut one = One::new("a");
    assert_eq!(one.election.wake_at(), Some(0));
    assert_eq!(one.tell(Input::Wake), [Action::Read]);
    let first = Record { holder: "a".into(), duration_seconds: 15, acquired_us: 7, renewed_us: 7, transitions: 0 };
    assert_eq!(one.tell(Input::Read(None)), [Action::Create(first)]);
    assert!(!one.election.may_act(0), "it isn't written yet");
}

/// Somebody else made it first.
#[test]
fn who_is_refused_does_not_lead() {
    let mut one = One::new("a");
    one.tell(Input::Wake);
    one.tell(Input::Read(None));
    assert_eq!(one.tell(Input::Refused), []);
    assert_eq!(one.election.wake_at(), Some(2000));
    assert!(!one.election.may_act(0));
}

/// E2: by its own clock, from when it saw the version first, whatever the record's times say.
#[test]
fn a_lease_is_taken_over_when_it_has_not_changed_for_as_long_as_its_holder_asked() {
    let mut one = One::new("a");
    for (ms, version) in [(100, "1"), (2_100, "2"), (17_099, "2")] {
        assert_eq!(one.at(ms, Input::Wake), [Action::Read]);
        assert_eq!(one.tell(read(&held("b"), version)), [], "at {ms}");
    }
    assert_eq!(one.at(19_099, Input::Wake), [Action::Read]);
    // It doesn't matter when it asked, but when it decides; and in that millisecond.
    one.ms = 17_100;
    let actions = one.tell(read(&held("b"), "2"));
    let (record, version) = update(&actions);
    assert_eq!((record.holder.as_str(), record.transitions, version), ("a", 5, "2"), "E3, E4");
}

/// E2: it is the holder who says how long; and who says nothing is given what everybody is.
#[test]
fn a_lease_lasts_as_its_holder_asked() {
    for (seconds, free_at) in [(30, 30_000), (3, 3_000), (0, 15_000), (-1, 15_000)] {
        let mut one = One::new("a");
        let record = Record { duration_seconds: seconds, ..held("b") };
        one.tell(Input::Wake);
        assert_eq!(one.tell(read(&record, "1")), []);
        assert_eq!(one.at(free_at - 1, Input::Wake), [Action::Read]);
        assert_eq!(one.tell(read(&record, "1")), [], "{seconds} s");
        assert_eq!(one.at(free_at + 2000, Input::Wake), [Action::Read]);
        update(&one.tell(read(&record, "1")));
    }
}

#[test]
fn a_lease_that_was_released_is_taken_at_once() {
    let mut one = One::new("a");
    one.tell(Input::Wake);
    let actions = one.tell(read(&held(""), "9"));
    let (record, version) = update(&actions);
    assert_eq!((record.holder.as_str(), record.transitions, version), ("a", 5, "9"));
}

/// E4: it is the same holder.
#[test]
fn who_finds_itself_in_the_lease_goes_on() {
    let mut one = One::new("a");
    one.tell(Input::Wake);
    let actions = one.tell(read(&held("a"), "9"));
    let (record, _) = update(&actions);
    assert_eq!((record.transitions, record.acquired_us, record.renewed_us), (4, 1, 7));
    assert!(!one.election.may_act(0), "only once it has renewed it");
}

#[test]
fn a_holder_renews_every_period_without_reading() {
    let mut one = One::leading();
    assert_eq!(one.election.wake_at(), Some(2000));
    assert_eq!(one.at(1999, Input::Wake), []);
    let actions = one.at(2000, Input::Wake);
    let (record, version) = update(&actions);
    assert_eq!((record.transitions, record.acquired_us, version), (0, 7, "1"));
    assert_eq!(record.renewed_us, 8, "a change, though the wall clock stands still");
    assert_eq!(one.tell(written(record, "2")), []);
    assert_eq!(one.election.acts_until(), Some(12_000));
}

/// E1: it counts from when the renewal was sent.
#[test]
fn a_holder_stops_by_its_clock_whatever_it_waits_for() {
    let mut one = One::leading();
    let actions = one.at(2000, Input::Wake);
    assert_eq!(one.election.wake_at(), Some(10_000), "though a request is on its way");
    assert!(one.election.may_act(9_999) && !one.election.may_act(10_000), "before it is woken");
    let (record, _) = update(&actions);
    assert_eq!(one.at(9_000, written(record, "2")), []);
    assert_eq!(one.election.acts_until(), Some(12_000));
    update(&one.at(11_000, Input::Wake));
    assert_eq!(one.at(12_000, Input::Wake), [Action::StopLeading]);
    assert!(!one.election.may_act(12_000));
    assert_eq!(one.election.wake_at(), None, "it waits for the answer");
}

/// E1: an answer that took too long is worth nothing, but that the lease is its own.
#[test]
fn an_answer_after_the_deadline_does_not_make_a_leader() {
    let mut one = One::new("a");
    one.tell(Input::Wake);
    let Action::Create(record) = &one.tell(Input::Read(None))[0] else { panic!("no creation") };
    assert_eq!(one.at(10_000, written(record, "1")), []);
    assert!(!one.election.may_act(10_000));
    assert_eq!(one.at(12_000, Input::Wake), [Action::Read]);
    let record = record.clone();
    update(&one.tell(read(&record, "1")));
    assert_eq!(one.tell(written(&record, "2")), [Action::Lead]);
}

/// What went wrong may be that the answer was lost.
#[test]
fn a_renewal_that_fails_is_followed_by_a_look() {
    for failure in [Input::Failed, Input::Refused] {
        let mut one = One::leading();
        one.at(2000, Input::Wake);
        assert_eq!(one.tell(failure.clone()), [Action::Read]);
        let actions = one.tell(read(&held("a"), "2"));
        assert_eq!(update(&actions).1, "2");
        assert_eq!(one.tell(failure), [], "the next time after a pause");
        assert_eq!(one.election.wake_at(), Some(4000));
        assert!(one.election.may_act(4000));
    }
}

#[test]
fn who_reads_another_holder_stops_at_once() {
    let mut one = One::leading();
    one.at(2000, Input::Wake);
    one.tell(Input::Refused);
    assert_eq!(one.tell(read(&held("b"), "5")), [Action::StopLeading]);
    assert!(!one.election.may_act(2000));
    assert_eq!(one.election.holder(), "b");
}

/// Somebody deleted it: the next may come at once.
#[test]
fn who_finds_no_lease_stops_and_makes_one() {
    let mut one = One::leading();
    one.at(2000, Input::Wake);
    one.tell(Input::Refused);
    assert!(matches!(&one.tell(Input::Read(None))[..], [Action::StopLeading, Action::Create(_)]));
}

#[test]
fn a_release_ends_acting_first_and_leaves_no_holder() {
    let mut one = One::leading();
    let actions = one.at(1000, Input::Release);
    assert_eq!(actions[0], Action::StopLeading);
    let (record, version) = update(&actions);
    assert_eq!((record.holder.as_str(), record.duration_seconds, version), ("", 1, "1"));
    assert!(!one.election.may_act(1000) && !one.election.is_done());
    let record = record.clone();
    assert_eq!(one.tell(written(&record, "2")), []);
    assert!(one.election.is_done() && one.election.wake_at().is_none());
}

/// What is on its way changes the version.
#[test]
fn a_release_waits_for_the_renewal_before_it() {
    let mut one = One::leading();
    let actions = one.at(2000, Input::Wake);
    assert_eq!(one.tell(Input::Release), [Action::StopLeading]);
    let (record, _) = update(&actions);
    let actions = one.tell(written(record, "2"));
    assert_eq!(update(&actions).1, "2");
    assert_eq!(one.tell(Input::Failed), []);
    assert!(one.election.is_done());
}

#[test]
fn who_holds_nothing_releases_nothing() {
    let mut one = One::new("a");
    one.tell(Input::Wake);
    assert_eq!(one.tell(Input::Release), []);
    assert!(!one.election.is_done());
    assert_eq!(one.tell(read(&held("b"), "1")), []);
    assert!(one.election.is_done());
}

/// Nobody asked.
#[test]
fn an_answer_to_nothing_changes_nothing() {
    let mut one = One::new("a");
    let before = one.election.clone();
    for input in [Input::Refused, Input::Failed, written(&held("a"), "1")] {
        let mut one = One { election: before.clone(), ms: 0 };
        one.election.next = 1;
        assert_eq!(one.tell(input), []);
        assert!(!one.election.may_act(0));
    }
    assert_eq!(one.tell(Input::Wake), [Action::Read]);
}

#[test]
fn candidates_pause_by_chance_and_holders_do_not() {
    let pause = |permille: u16| {
        let mut one = One::new("a");
        one.tell(Input::Wake);
        one.election.step(Now { ms: 0, unix_us: 0 }, permille, read(&held("b"), "1"));
        one.election.wake_at()
    };
    assert_eq!((pause(0), pause(500), pause(999), pause(5000)), (Some(2000), Some(3200), Some(4396), Some(4396)));
}

/// E1: nothing is asked for before it has stopped.
#[test]
fn who_stops_does_so_first() {
    let mut one = One::leading();
    one.at(9_000, Input::Wake);
    one.tell(Input::Failed);
    let actions = one.at(10_000, read(&held("a"), "1"));
    assert!(matches!(&actions[..], [Action::StopLeading, Action::Update { .. }]), "{actions:?}");
}

#[test]
fn who_ends_renews_nothing_more() {
    let mut one = One::leading();
    one.at(2000, Input::Wake);
    assert_eq!(one.tell(Input::Failed), [Action::Read]);
    assert_eq!(one.tell(Input::Release), [Action::StopLeading]);
    let actions = one.tell(read(&held("a"), "2"));
    assert_eq!(update(&actions).0.holder, "");
}
