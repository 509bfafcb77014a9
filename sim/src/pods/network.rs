//! The way between apiservers and those who use them: it may be cut, or hold all back and deliver it later.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::tasks::{Mailbox, Sim};
use crate::network::Fate;
use crate::queue::{SECOND, Time};

/// A machine that uses apiservers.
pub(crate) type Host = usize;

type Held = Vec<Box<dyn FnOnce()>>;
type Ways = BTreeMap<(Host, usize), (Fate, Held)>;

/// All ways, each in both directions.
#[derive(Clone)]
pub(crate) struct Net {
    sim: Sim,
    ways: Rc<RefCell<Ways>>,
}

impl Net {
    pub(crate) fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), ways: Rc::default() }
    }

    fn fate(&self, way: (Host, usize)) -> Fate {
        self.ways.borrow().get(&way).map_or(Fate::Open, |(fate, _)| *fate)
    }

    pub(crate) fn set(&self, way: (Host, usize), fate: Fate) {
        self.ways.borrow_mut().entry(way).or_insert((Fate::Open, Held::new())).0 = fate;
    }

    /// All ways are open again; what was held back arrives.
    pub(crate) fn mend(&self) {
        for (_, (_, held)) in self.ways.take() {
            held.into_iter().for_each(|arrive| arrive());
        }
    }

    /// What was held back is lost.
    pub(crate) fn end(&self) {
        drop(self.ways.take());
    }

    /// Has something arrive at the other end of a way, late perhaps, or never.
    pub(crate) fn send(&self, way: (Host, usize), arrive: impl FnOnce() + 'static) {
        let net = self.clone();
        self.sim.later(self.sim.hop(), move || net.arrive(way, Box::new(arrive), || {}));
    }

    fn arrive(&self, way: (Host, usize), arrive: Box<dyn FnOnce()>, lost: impl FnOnce()) {
        match self.fate(way) {
            Fate::Open => arrive(),
            Fate::Cut => lost(),
            Fate::Held => {
                if let Some((_, held)) = self.ways.borrow_mut().get_mut(&way) {
                    held.push(arrive);
                }
            }
        }
    }
}

/// What a stream brings.
#[derive(Debug)]
pub(crate) enum Frame<T> {
    Item(T),
    /// The connection is lost.
    Broken,
}

/// From an apiserver to somebody who watches: in order, and nothing behind a gap.
pub(crate) struct Stream<T> {
    net: Net,
    way: (Host, usize),
    /// How slow the reader is.
    slow: Time,
    last: Cell<Time>,
    broken: Cell<bool>,
    closed: Cell<bool>,
    /// Frames on their way.
    pub(crate) waiting: Cell<usize>,
    mailbox: Mailbox<Frame<T>>,
}

impl<T: 'static> Stream<T> {
    pub(crate) fn new(net: &Net, way: (Host, usize), slow: Time) -> Rc<Self> {
        Rc::new(Self {
            net: net.clone(),
            way,
            slow,
            last: Cell::new(0),
            broken: Cell::new(false),
            closed: Cell::new(false),
            waiting: Cell::new(0),
            mailbox: Mailbox::default(),
        })
    }

    pub(crate) async fn next(&self) -> Frame<T> {
        self.mailbox.receive().await
    }

    /// The reader goes.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    /// Whether nothing that is sent would be read any more.
    pub(crate) fn is_over(&self) -> bool {
        self.closed.get() || self.broken.get()
    }

    pub(crate) fn send(self: &Rc<Self>, item: T) {
        let sim = &self.net.sim;
        let slow = if sim.calm.get() { 0 } else { sim.below(self.slow + 1) };
        self.last.set(self.last.get().max(sim.now() + sim.hop() + slow));
        self.waiting.set(self.waiting.get() + 1);
        let stream = self.clone();
        sim.later(self.last.get() - sim.now(), move || {
            let (net, way, lost) = (stream.net.clone(), stream.way, stream.clone());
            net.arrive(way, Box::new(move || stream.deliver(item)), move || lost.break_off());
        });
    }

    fn deliver(&self, item: T) {
        self.waiting.set(self.waiting.get().saturating_sub(1));
        if !self.is_over() {
            self.mailbox.send(Frame::Item(item));
        }
    }

    /// The connection is lost; the reader notices sooner or later.
    pub(crate) fn break_off(self: &Rc<Self>) {
        if self.broken.replace(true) {
            return;
        }
        let (stream, sim) = (self.clone(), &self.net.sim);
        sim.later(sim.between(1, 3 * SECOND), move || stream.mailbox.send(Frame::Broken));
    }
}
