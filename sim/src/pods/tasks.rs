//! Tasks under virtual time: what processes do, one step after another, as the shells of production do it.
//!
//! A task is a future that waits for answers, messages and times; it belongs to a process and goes with it. Nothing runs beside
//! anything else, and what happens next is decided by the cluster's one queue of events.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use apiserver_core::lifecycle::Moment;
use jiff::Timestamp;

use super::informer::Kept;
use super::objects::Memo;
use crate::chance::Chance;
use crate::event::Event;
use crate::member::Reply;
use crate::mutant::Mutant;
use crate::queue::{SECOND, Time};
use crate::stream::Answer;

/// The second of the epoch at which a run begins.
const BEGINNING: i64 = 1_767_225_600;

type Ready = Arc<Mutex<VecDeque<u64>>>;

/// Which process a task belongs to: another one after each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process(u64);

struct Task {
    process: Process,
    waker: Waker,
    /// `None` while it is being polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

struct Woken {
    task: u64,
    ready: Ready,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

/// What all processes share: the clock, chance, and what they wait for.
pub(crate) struct Inner {
    now: Cell<Time>,
    pub(crate) chance: RefCell<Chance>,
    pub(crate) mutant: Option<Mutant>,
    /// Nothing breaks any more.
    pub(crate) calm: Cell<bool>,
    /// Of the store.
    pub(crate) members: RefCell<Vec<u64>>,
    pub(crate) memo: Memo,
    /// What processes know of objects.
    pub(crate) caches: RefCell<Vec<Kept>>,
    /// UIDs of what somebody asked to be gone at once, whatever runs.
    pub(crate) forced: RefCell<BTreeSet<String>>,
    pub(crate) violations: RefCell<Vec<String>>,
    /// What is to happen, until the cluster's queue takes it.
    due: RefCell<Vec<(Time, Event)>>,
    ready: Ready,
    tasks: RefCell<BTreeMap<u64, Task>>,
    number: Cell<u64>,
    /// Calls to the store, by number.
    replies: RefCell<BTreeMap<u64, Slot<Reply>>>,
    /// Watches on the store, by number.
    streams: RefCell<BTreeMap<u64, Mailbox<Answer>>>,
}

/// A handle to all of it.
#[derive(Clone)]
pub(crate) struct Sim(Rc<Inner>);

impl std::ops::Deref for Sim {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Sim {
    pub(crate) fn new(chance: Chance, mutant: Option<Mutant>) -> Self {
        Self(Rc::new(Inner {
            now: Cell::new(0),
            chance: RefCell::new(chance),
            mutant,
            calm: Cell::new(false),
            members: RefCell::new(Vec::new()),
            memo: Memo::default(),
            caches: RefCell::default(),
            forced: RefCell::default(),
            violations: RefCell::new(Vec::new()),
            due: RefCell::new(Vec::new()),
            ready: Ready::default(),
            tasks: RefCell::new(BTreeMap::new()),
            number: Cell::new(0),
            replies: RefCell::new(BTreeMap::new()),
            streams: RefCell::new(BTreeMap::new()),
        }))
    }

    pub(crate) fn now(&self) -> Time {
        self.now.get()
    }

    pub(crate) fn set_now(&self, now: Time) {
        self.now.set(now);
    }

    /// What a clock on the wall shows.
    pub(crate) fn wall(&self) -> Timestamp {
        // Runs are minutes long: this is no time that can't be.
        Timestamp::from_microsecond(BEGINNING * 1_000_000 + self.now().cast_signed()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The same in whole seconds, as objects have it.
    pub(crate) fn seconds(&self) -> String {
        self.wall().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    pub(crate) fn moment(&self) -> Moment {
        let mut random = [0; 5];
        random.iter_mut().for_each(|byte| *byte = self.below(256) as u8);
        let uid = format!("{:016x}", self.below(u64::MAX));
        Moment { now: self.seconds(), unix: self.wall().as_second(), uid, random }
    }

    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.chance.borrow_mut().below(bound)
    }

    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        self.chance.borrow_mut().between(from, to)
    }

    pub(crate) fn once_in(&self, times: u64) -> bool {
        self.chance.borrow_mut().once_in(times)
    }

    /// Once in so many times while things break, and never afterwards.
    pub(crate) fn breaks_once_in(&self, times: u64) -> bool {
        !self.calm.get() && self.once_in(times)
    }

    pub(crate) fn around(&self, mean: u64) -> u64 {
        self.chance.borrow_mut().around(mean)
    }

    /// One of a list that isn't empty.
    pub(crate) fn one_of<'a, T>(&self, list: &'a [T]) -> &'a T {
        let place = self.chance.borrow_mut().place(list.len());
        &list[place]
    }

    /// How long a message between two processes takes.
    pub(crate) fn hop(&self) -> Time {
        let slow = if self.breaks_once_in(200) { self.below(SECOND) } else { 0 };
        50 + self.below(400) + slow
    }

    pub(crate) fn violate(&self, what: impl std::fmt::Display) {
        let now = self.now() as f64 / SECOND as f64;
        self.violations.borrow_mut().push(format!("at {now:.6} s: {what}"));
    }

    /// A number that wasn't given before.
    pub(crate) fn fresh(&self) -> u64 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    pub(crate) fn process(&self) -> Process {
        Process(self.fresh())
    }

    /// Has something happen elsewhere after a while, whoever has asked for it lives or not.
    pub(crate) fn later(&self, wait: Time, what: impl FnOnce() + 'static) {
        self.plan(wait, Event::Later(Box::new(what)));
    }

    /// The same of what the store's cluster knows.
    pub(crate) fn plan(&self, wait: Time, event: Event) {
        self.due.borrow_mut().push((self.now() + wait, event));
    }

    pub(crate) fn take_due(&self) -> Vec<(Time, Event)> {
        self.due.take()
    }

    pub(crate) fn spawn(&self, process: Process, future: impl Future<Output = ()> + 'static) {
        let task = self.fresh();
        let waker = Waker::from(Arc::new(Woken { task, ready: self.ready.clone() }));
        waker.wake_by_ref();
        self.tasks.borrow_mut().insert(task, Task { process, waker, future: Some(Box::pin(future)) });
    }

    /// Ends a process, wherever its tasks are.
    pub(crate) fn kill(&self, process: Process) {
        let mut tasks = self.tasks.borrow_mut();
        let ended: BTreeSet<u64> =
            tasks.iter().filter(|(_, task)| task.process == process).map(|(number, _)| *number).collect();
        let ended: Vec<Option<Task>> = ended.iter().map(|number| tasks.remove(number)).collect();
        // What is dropped may still say so.
        drop(tasks);
        drop(ended);
    }

    /// Ends all, whoever waits for what: tasks know this and are known to it, so that neither would go by itself.
    pub(crate) fn end(&self) {
        // What is dropped may still say so.
        let next = || self.tasks.borrow_mut().pop_first();
        while let Some((_, task)) = next() {
            drop(task);
        }
        let (replies, streams, due) = (self.replies.take(), self.streams.take(), self.due.take());
        drop((replies, streams, due));
    }

    /// Goes on with all who have something to do.
    pub(crate) fn run(&self) {
        loop {
            let Some(task) = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return };
            let found = self.tasks.borrow_mut().get_mut(&task).and_then(|t| Some((t.future.take()?, t.waker.clone())));
            let Some((mut future, waker)) = found else { continue };
            let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            let mut tasks = self.tasks.borrow_mut();
            if ended {
                tasks.remove(&task);
            } else if let Some(task) = tasks.get_mut(&task) {
                task.future = Some(future);
                continue;
            }
            drop(tasks);
            drop(future);
        }
    }

    pub(crate) async fn sleep(&self, wait: Time) {
        let slot = Slot::default();
        let filled = slot.clone();
        self.later(wait, move || filled.fill(()));
        slot.wait().await;
    }

    /// What comes of a future, unless a time comes first.
    pub(crate) async fn within<T>(&self, wait: Time, future: impl Future<Output = T>) -> Option<T> {
        let (mut future, mut late) = (pin!(future), pin!(self.sleep(wait)));
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => late.as_mut().poll(context).map(|()| None),
        })
        .await
    }

    /// A call to the store; its number.
    pub(crate) fn asked(&self) -> (u64, Slot<Reply>) {
        let (number, slot) = (self.fresh(), Slot::default());
        self.replies.borrow_mut().insert(number, slot.clone());
        (number, slot)
    }

    /// The store has answered.
    pub(crate) fn answered(&self, number: u64, reply: Reply) {
        let slot = self.replies.borrow_mut().remove(&number);
        if let Some(slot) = slot {
            slot.fill(reply);
        }
    }

    /// A watch on the store; its number.
    pub(crate) fn watched(&self) -> (u64, Mailbox<Answer>) {
        let (number, mailbox) = (self.fresh(), Mailbox::default());
        self.streams.borrow_mut().insert(number, mailbox.clone());
        (number, mailbox)
    }

    pub(crate) fn unwatched(&self, number: u64) {
        self.streams.borrow_mut().remove(&number);
    }

    /// The store tells a watcher something.
    pub(crate) fn told(&self, number: u64, answer: Answer) {
        let mailbox = self.streams.borrow().get(&number).cloned();
        if let Some(mailbox) = mailbox {
            mailbox.send(answer);
        }
    }
}

/// One value that is waited for.
pub(crate) struct Slot<T>(Rc<RefCell<(Option<T>, Option<Waker>)>>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new((None, None))))
    }
}

impl<T> Slot<T> {
    /// Only the first value counts.
    pub(crate) fn fill(&self, value: T) {
        let mut slot = self.0.borrow_mut();
        slot.0.get_or_insert(value);
        if let Some(waker) = slot.1.take() {
            waker.wake();
        }
    }

    pub(crate) async fn wait(&self) -> T {
        poll_fn(|context| {
            let mut slot = self.0.borrow_mut();
            match slot.0.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    slot.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Messages to one task, in order.
pub(crate) struct Mailbox<T>(Rc<RefCell<(VecDeque<T>, Option<Waker>)>>);

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new((VecDeque::new(), None))))
    }
}

impl<T> Mailbox<T> {
    pub(crate) fn send(&self, value: T) {
        let mut mailbox = self.0.borrow_mut();
        mailbox.0.push_back(value);
        if let Some(waker) = mailbox.1.take() {
            waker.wake();
        }
    }

    pub(crate) async fn receive(&self) -> T {
        poll_fn(|context| {
            let mut mailbox = self.0.borrow_mut();
            match mailbox.0.pop_front() {
                Some(value) => Poll::Ready(value),
                None => {
                    mailbox.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.borrow_mut().0.pop_front()
    }
}
