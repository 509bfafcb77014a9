//! Traces of a small cluster of production replicas are behaviours; the same with a lie in them aren't.

use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, ConfState, EntryType, Message};
use store_core::replica::{Log, Replica, Step, Timing};
use store_core::trace::{Cause, Change, Effects, Event, Mark};

use super::*;

const MEMBERS: u64 = 3;

struct Member {
    replica: Replica,
    disk: Log,
    applied: u64,
    pending: VecDeque<Step>,
}

/// Members on disks that keep what was synced, messages in order, everything traced.
struct Cluster {
    members: Vec<Member>,
    wire: VecDeque<Message>,
    traces: Vec<Trace>,
    boots: u64,
}

fn start(id: u64, boot: u64, disk: &Log) -> Replica {
    let mut replica = Replica::new(id, boot, Timing::fixed(10, 1, 10 + 2 * id as usize), 0, disk.clone());
    replica.record();
    replica
}

impl Cluster {
    fn new() -> Self {
        let disk = Log::new(0, 0, ConfState::from((vec![1, 2, 3], vec![])));
        let member =
            |id| Member { replica: start(id, 1, &disk), disk: disk.clone(), applied: 0, pending: VecDeque::new() };
        let trace = |member| Trace { name: format!("m{member}"), member, events: Vec::new() };
        Self {
            members: (1..=MEMBERS).map(member).collect(),
            wire: VecDeque::new(),
            traces: (1..=MEMBERS).map(trace).collect(),
            boots: 1,
        }
    }

    fn replica(&mut self, id: u64) -> &mut Replica {
        &mut self.members[id as usize - 1].replica
    }

    fn trace(&mut self, id: u64, events: Vec<Event>) {
        let trace = &mut self.traces[id as usize - 1];
        for event in events {
            trace.events.push((trace.events.len() + 1, event));
        }
    }

    /// Lets a member act; without `sync` its disk stalls.
    fn act(&mut self, id: u64, sync: bool) {
        loop {
            while let Some(mut step) = self.replica(id).poll() {
                let events = self.replica(id).recorded();
                self.trace(id, events);
                self.wire.extend(std::mem::take(&mut step.now));
                let member = &mut self.members[id as usize - 1];
                for entry in std::mem::take(&mut step.apply) {
                    if entry.get_entry_type() == EntryType::EntryConfChange {
                        let change = ConfChange::parse_from_bytes(&entry.data).expect("a change");
                        member.replica.members_changed(entry.index, &change);
                    }
                    member.replica.applied(entry.index);
                    member.applied = entry.index;
                }
                member.pending.push_back(step);
            }
            let events = self.replica(id).recorded();
            self.trace(id, events);
            let member = &mut self.members[id as usize - 1];
            let Some(step) = sync.then(|| member.pending.pop_front()).flatten() else { return };
            member.disk.append(&step.persist.entries);
            if let Some(hard_state) = &step.persist.hard_state {
                member.disk.set_hard_state(hard_state);
            }
            self.trace(id, vec![Event::Durable { step: step.number }]);
            self.wire.extend(step.after);
            self.replica(id).persisted(step.number);
        }
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            (1..=MEMBERS).for_each(|id| self.act(id, true));
            let Some(message) = self.wire.pop_front() else { return };
            self.replica(message.to).receive(message);
        }
        panic!("no rest after 1000 messages");
    }

    fn crash(&mut self, id: u64) {
        self.boots += 1;
        let boot = self.boots;
        let member = &mut self.members[id as usize - 1];
        member.pending.clear();
        // Its state is volatile: it begins anew, and so do the changes of members.
        (member.replica, member.applied) = (start(id, boot, &member.disk), 0);
    }

    fn propose(&mut self, id: u64, text: &str) {
        self.replica(id).propose(text.as_bytes().to_vec()).expect("a leader");
        self.settle();
    }
}

/// Two leaders, a power cut with something unsynced, reads, a learner that comes.
fn history() -> Vec<Trace> {
    let mut cluster = Cluster::new();
    cluster.replica(1).campaign();
    cluster.settle();
    cluster.propose(1, "a");
    cluster.propose(1, "b");
    cluster.replica(1).read_index();
    cluster.replica(2).read_index();
    cluster.settle();
    // The leader takes something that nobody else hears of, and loses it.
    cluster.replica(1).propose(b"lost".to_vec()).expect("a leader");
    cluster.act(1, false);
    cluster.wire.clear();
    cluster.crash(1);
    (0..40).for_each(|_| cluster.replica(2).tick());
    (0..40).for_each(|_| cluster.replica(3).tick());
    cluster.settle();
    (0..14).for_each(|_| cluster.replica(2).tick());
    cluster.settle();
    let leader = (1..=MEMBERS).find(|id| cluster.replica(*id).is_leader()).expect("a leader");
    cluster.propose(leader, "c");
    let mut change = ConfChange { node_id: 4, ..ConfChange::default() };
    change.set_change_type(ConfChangeType::AddLearnerNode);
    cluster.replica(leader).propose_members(&change).expect("a leader");
    (1..=MEMBERS).for_each(|id| cluster.act(id, true));
    while let Some(message) = cluster.wire.pop_front() {
        if message.to <= MEMBERS {
            cluster.replica(message.to).receive(message);
            (1..=MEMBERS).for_each(|id| cluster.act(id, true));
        }
    }
    cluster.traces
}

fn words(verdict: &Verdict) -> String {
    let mut words = Vec::new();
    verdict.print(&mut words).expect("memory takes it");
    String::from_utf8(words).expect("words")
}

#[test]
fn what_replicas_do_is_a_behaviour() {
    let verdict = validate(&history()).expect("a trace of each");
    assert!(verdict.holds(), "{}", words(&verdict));
    let Seen { restarts, leaders, messages, committed, changes, reads, .. } = verdict.seen;
    assert_eq!((restarts, leaders, changes, reads), (1, 2, 1, 2), "{:?}", verdict.seen);
    assert!(messages > 50 && committed > 5, "{:?}", verdict.seen);
}

#[test]
fn traces_are_read_as_they_are_written() {
    let traces = history();
    for trace in &traces {
        let mut text = Vec::new();
        trace.write(&mut text).expect("memory takes it");
        assert_eq!(Trace::read(&trace.name, &mut text.as_slice()).expect("a trace"), *trace);
        // A line that is missing is noticed, one that was cut off at the end isn't counted.
        let lines: Vec<&str> = std::str::from_utf8(&text).expect("text").lines().collect();
        let without: Vec<&str> = [&lines[..3], &lines[4..]].concat();
        let error = Trace::read("t", &mut without.join("\n").as_bytes()).expect_err("a line is missing");
        assert_eq!(error.to_string(), "t, line 4: event 4 of this life, where 3 is the next: a line is missing");
        let torn = [&text[..], b"{\"member\":1,"].concat();
        assert_eq!(Trace::read(&trace.name, &mut torn.as_slice()).expect("a trace"), *trace);
        let mixed = [&torn[..], b"\n", &text[..]].concat();
        assert!(Trace::read("t", &mut mixed.as_slice()).is_ok(), "the next life begins behind it");
        let broken = text.replacen_first(b"\"event\"", b"\"eevnt\"");
        assert!(Trace::read("t", &mut broken.as_slice()).is_err());
    }
    for nothing in ["", "\n", "{\"member\":1}x"] {
        let error = Trace::read("t", &mut nothing.as_bytes()).expect_err("nothing to judge");
        assert_eq!(error.to_string(), "t holds no event of a trace");
    }
    let error = validate(&[traces[0].clone(), traces[0].clone()]).expect_err("twice");
    assert!(error.to_string().starts_with("m1 and m1 are both of member 1"), "{error}");
}

trait ReplaceFirst {
    fn replacen_first(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
}

impl ReplaceFirst for Vec<u8> {
    fn replacen_first(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
        String::from_utf8_lossy(self).replacen(&*String::from_utf8_lossy(from), &String::from_utf8_lossy(to), 1).into()
    }
}

/// Changes the first event that a lie fits, of whichever member.
fn lie(traces: &mut [Trace], mut change: impl FnMut(&mut Event) -> bool) {
    let mut events = traces.iter_mut().flat_map(|trace| &mut trace.events);
    assert!(events.any(|(_, event)| change(event)), "nothing to lie about");
}

fn step(mut change: impl FnMut(&mut Effects) -> bool) -> impl FnMut(&mut Event) -> bool {
    move |event| match event {
        Event::Step(effects) => change(effects),
        _ => false,
    }
}

fn rule(change: impl FnOnce(&mut Vec<Trace>)) -> String {
    let mut traces = history();
    change(&mut traces);
    let verdict = validate(&traces).expect("a trace of each");
    let stuck = verdict.stuck.as_ref().unwrap_or_else(|| panic!("a lie that isn't found"));
    stuck.impossible.rule.split([':', ';']).next().unwrap_or_default().to_owned()
}

/// Each kind of lie, and the rule that it breaks.
#[test]
fn lies_are_found() {
    let of_step = |change: fn(&mut Effects) -> bool| rule(|traces| lie(traces, step(change)));
    assert_eq!(
        of_step(|effects| {
            let entries = &mut effects.entries;
            entries.last_mut().map(|mark| mark.1 ^= 1).is_some()
        }),
        "all entries that are new are written"
    );
    assert_eq!(of_step(|effects| std::mem::take(&mut effects.sync)), "what others are told of is synced");
    assert_eq!(
        of_step(|effects| effects.hard_state.as_mut().map(|state| state.1 ^= 3).is_some()),
        "term, vote and commit are written as they are"
    );
    assert_eq!(
        of_step(|effects| effects.apply > 0 && {
            effects.apply += 1;
            true
        }),
        "what is applied is committed and durable"
    );
    assert_eq!(
        of_step(|effects| effects.after.iter_mut().any(|letter| {
            let fits = letter.kind == "AppendResponse" && !letter.reject && letter.index > 1;
            letter.index += u64::from(fits);
            fits
        })),
        "a member says what its part allows"
    );
    assert_eq!(
        of_step(|effects| effects.after.iter_mut().any(|letter| {
            let fits = letter.kind == "RequestVoteResponse" && !letter.reject;
            letter.to = if fits { 6 - letter.from - letter.to } else { letter.to };
            fits
        })),
        "a member says what its part allows"
    );
    assert_eq!(
        of_step(|effects| effects.now.iter_mut().flat_map(|letter| &mut letter.entries).any(|mark| {
            mark.1 ^= 1;
            true
        })),
        "a leader sends what is in its log"
    );
    assert_eq!(
        of_step(|effects| effects.reads.first_mut().map(|read| read.1 -= 1).is_some()),
        "a read sees all that was committed before it"
    );
    assert_eq!(
        of_step(|effects| {
            // What leaves at once can't be an answer.
            let fits = effects.after.iter().any(|letter| letter.kind == "AppendResponse" && letter.index > 0);
            if fits {
                effects.now = std::mem::take(&mut effects.after);
            }
            fits
        }),
        "entries are durable before they are acknowledged"
    );
    assert_eq!(
        of_step(|effects| {
            let fits = effects.after.iter().any(|letter| letter.kind == "RequestVote");
            if fits {
                effects.now = std::mem::take(&mut effects.after);
            }
            fits
        }),
        "a term is durable before it is told"
    );
}

/// What inputs make of members, and what members start from.
#[test]
fn lies_about_members_are_found() {
    let of_view = |fits: fn(&Cause) -> bool, change: fn(&mut store_core::trace::View)| {
        rule(|traces| {
            lie(traces, |event| match event {
                Event::Input { cause, view } if fits(cause) => {
                    change(view);
                    true
                }
                _ => false,
            });
        })
    };
    let any = "an input makes of a member what Raft makes of it";
    assert_eq!(of_view(|cause| matches!(cause, Cause::Time), |view| view.term += 1), any);
    assert_eq!(of_view(|cause| matches!(cause, Cause::Message(_)), |view| view.commit += 1), any);
    // As if it hadn't voted; but it wrote down that it did.
    assert_eq!(
        of_view(|cause| matches!(cause, Cause::Message(letter) if letter.kind == "RequestVote"), |view| view.vote = 0),
        "term, vote and commit are written as they are"
    );
    assert_eq!(of_view(|cause| matches!(cause, Cause::Propose(_)), |view| view.last.1 += 1), any);
    let of_restart = |change: fn(&mut store_core::trace::View, &mut Vec<Mark>)| {
        rule(|traces| {
            let starts = |event: &mut Event| match event {
                Event::Start { view, entries, .. } if !entries.is_empty() => {
                    change(view, entries);
                    true
                }
                _ => false,
            };
            lie(traces, starts);
        })
    };
    let found = "a member starts with what its disk may have kept";
    assert_eq!(of_restart(|view, _| view.vote = 0), found);
    assert_eq!(of_restart(|view, _| view.term -= 1), found);
    assert_eq!(of_restart(|_, entries| entries.truncate(2)), found);
    assert_eq!(of_restart(|_, entries| entries[1].1 ^= 1), found);
    assert_eq!(of_restart(|view, _| view.commit += 1), "a member that starts doesn't know more than before");
}

#[test]
fn lies_about_the_order_are_found() {
    // Heard twice, said once.
    let twice = rule(|traces| {
        let events = &mut traces[1].events;
        let at = events.iter().position(|(_, event)| name(event) == "message").expect("a message");
        events.insert(at, events[at].clone());
    });
    assert_eq!(twice, "a message that is received was sent");
    // Never durable, never said.
    let early = rule(|traces| traces[0].events.retain(|(_, event)| name(event) != "durable"));
    assert_eq!(early, "a message that is received was sent");
    let other = rule(|traces| {
        lie(traces, |event| match event {
            Event::Input { cause: Cause::Changed(change, _), .. } => {
                *change = Change::Voter(4);
                true
            }
            _ => false,
        });
    });
    assert_eq!(other, "a change of members is in the log and handed out before it is applied");
    let others = rule(|traces| {
        lie(traces, |event| match event {
            Event::Input { cause: Cause::Changed(_, members), .. } => {
                members.voters.push(4);
                true
            }
            _ => false,
        });
    });
    assert!(others.starts_with("a change of members makes of"), "{others}");
}

/// The first impossible step is shown with both states side by side.
#[test]
fn a_verdict_says_where_specification_and_trace_part() {
    let mut traces = history();
    lie(&mut traces, |event| match event {
        Event::Input { cause: Cause::Message(letter), view } if letter.kind == "Append" && view.commit > 1 => {
            view.commit += 1;
            true
        }
        _ => false,
    });
    let told = words(&validate(&traces).expect("a trace of each"));
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("no behaviour of Raft: m"), "{told}");
    assert!(lines.iter().any(|line| line.starts_with("| before           | specification    | trace")), "{told}");
    assert!(lines.iter().any(|line| line.starts_with("commit") && line.ends_with("<-")), "{told}");
}
