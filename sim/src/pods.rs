//! The second workload: a cluster that runs pods, on the simulated store.
//!
//! Apiservers, schedulers, controllers and node agents decide by the cores of production; runtimes are made up. In reading order:
//! `tasks` (processes), `objects`, `store`, `network`, `apiserver` with its `hub`, `client`, `informer`; `scheduler`,
//! `controllers`, `machine` and its `agent`; `user`, `actors` (who runs); `truth` is what is judged as it comes, `settled` what must
//! be once all is calm.

mod actors;
mod agent;
mod apiserver;
mod client;
mod controllers;
mod hub;
mod informer;
mod machine;
mod network;
mod objects;
mod scheduler;
mod settled;
mod store;
mod tasks;
mod truth;
mod user;

use std::cell::RefCell;
use std::rc::Rc;

use crate::canon::Canon;
use crate::chance::Chance;
use crate::event::Event;
use crate::member::Reply;
use crate::mutant::Mutant;
use crate::network::Fate;
use crate::queue::{MS, SECOND, Time};
use crate::stream::Answer;
use actors::Actors;
use apiserver::Apiserver;
use client::Servers;
use network::{Host, Net};
use tasks::Sim;
use truth::Truth;

/// As whom the store knows all of them.
pub(crate) const STORE: usize = usize::MAX - 1;
/// Machines of users.
const USERS: Host = 1000;
const SNIPER: Host = 2000;

/// The cluster above the store.
pub(crate) struct Pods {
    sim: Sim,
    net: Net,
    servers: Servers,
    actors: Actors,
    truth: Rc<RefCell<Truth>>,
    /// Revisions that were judged.
    judged: usize,
    /// Between faults, about.
    fault_every: Time,
    /// Crashes of processes that aren't the store's.
    pub(crate) crashes: u64,
}

impl Pods {
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        // Another source than the store's, so that neither disturbs the other.
        let sim = Sim::new(Chance::new(seed.rotate_left(32) ^ 0x0070_6f64_7300), mutant);
        let (net, servers) = (Net::new(&sim), sim.between(1, 2) as usize);
        let truth = Rc::new(RefCell::new(Truth::new(&sim)));
        let servers = Rc::new(RefCell::new(vec![None; servers]));
        let actors = Actors::new(&sim, &net, &servers, &truth);
        let fault_every = sim.between(300 * MS, 4 * SECOND);
        Self { sim, net, servers, actors, truth, judged: 0, fault_every, crashes: 0 }
    }

    /// Starts all.
    fn begin(&mut self) {
        let servers = self.servers.borrow().len();
        for place in 0..servers {
            start_server(&self.sim, &self.servers, place);
        }
        (0..self.sim.between(1, 2)).for_each(|_| self.actors.add_scheduler());
        self.actors.add_controllers();
        (0..self.sim.between(2, 4)).for_each(|_| self.actors.add_node());
        for user in 0..self.sim.between(1, 2) as Host {
            let client = self.actors.client(USERS + user);
            self.sim.spawn(self.sim.process(), user::use_cluster(client));
        }
        if self.sim.once_in(3) {
            let (client, process) = (self.actors.client(SNIPER), self.sim.process());
            self.sim.spawn(process, user::snipe(client, process));
        }
        self.plan_fault();
    }

    /// Takes what happened, and what time it is; returns what is to happen.
    pub(crate) fn turn(&mut self, now: Time, canon: &mut Canon, happened: Happened) -> Vec<(Time, Event)> {
        self.sim.set_now(now);
        *self.sim.members.borrow_mut() = canon.members.iter().map(|member| member.id).collect();
        self.judge(canon);
        match happened {
            Happened::Begin => self.begin(),
            Happened::Later(what) => what(),
            Happened::Reply(number, reply) => self.sim.answered(number, reply),
            Happened::Told(number, answer) => self.sim.told(number, answer),
            Happened::Break => self.break_something(),
        }
        self.sim.run();
        canon.violations.append(&mut self.sim.violations.borrow_mut());
        self.sim.take_due()
    }

    /// Judges what the store committed since.
    fn judge(&mut self, canon: &Canon) {
        let mut truth = self.truth.borrow_mut();
        canon.written[self.judged..].iter().flat_map(|written| &written.events).for_each(|told| truth.see(told));
        self.judged = canon.written.len();
    }

    fn plan_fault(&self) {
        if !self.sim.calm.get() {
            self.sim.plan(50 * MS + self.sim.around(self.fault_every), Event::BreakPods);
        }
    }

    fn break_something(&mut self) {
        if self.sim.calm.get() {
            return;
        }
        self.plan_fault();
        let (servers, sim) = (self.servers.borrow().len() as u64, self.sim.clone());
        let machines = self.actors.machines();
        match sim.below(16) {
            0..2 => {
                self.crashes += 1;
                crash_server(&sim, &self.servers, sim.below(servers) as usize);
            }
            2..6 => {
                self.crashes += 1;
                self.actors.crash(sim.below(self.actors.count() as u64) as usize);
            }
            6..8 => self.net.mend(),
            8..10 => {
                let way = (sim.below(self.actors.count() as u64) as Host, sim.below(servers) as usize);
                self.net.set(way, if sim.once_in(2) { Fate::Cut } else { Fate::Held });
            }
            10..13 => sim.one_of(&machines).borrow_mut().exit_any(),
            13 => sim.one_of(&machines).borrow_mut().reboot(),
            14 => self.actors.add_node(),
            _ => self.actors.remove_node(),
        }
    }

    /// All is mended, and nothing breaks any more.
    pub(crate) fn calm_down(&mut self) {
        self.sim.calm.set(true);
        self.net.mend();
        self.actors.start_all();
    }

    /// What isn't as it must be once all has come to rest.
    pub(crate) fn unsettled(&mut self, canon: &Canon) -> Vec<String> {
        self.judge(canon);
        let machines = self.actors.machines();
        let machines: Vec<_> = machines.iter().map(|machine| machine.borrow()).collect();
        let machines: Vec<_> = machines.iter().map(|machine| &**machine).collect();
        settled::wrong(&self.sim, &self.truth.borrow(), &machines)
    }

    /// Containers that were started.
    pub(crate) fn started(&self) -> u64 {
        self.actors.started()
    }

    /// Changes of objects.
    pub(crate) fn changes(&self) -> u64 {
        self.truth.borrow().changes
    }
}

/// A run's memory goes with it: there are thousands in a process.
impl Drop for Pods {
    fn drop(&mut self) {
        self.sim.end();
        self.net.end();
        drop(self.servers.take());
    }
}

/// What concerns pods.
pub(crate) enum Happened {
    Begin,
    Later(Box<dyn FnOnce()>),
    Reply(u64, Reply),
    Told(u64, Answer),
    Break,
}

fn start_server(sim: &Sim, servers: &Servers, place: usize) {
    let server = Apiserver::start(sim);
    servers.borrow_mut()[place] = Some(server);
}

/// An apiserver crashes, and is started again.
fn crash_server(sim: &Sim, servers: &Servers, place: usize) {
    let server = servers.borrow_mut()[place].take();
    let Some(server) = server else { return };
    server.crash();
    let (sim, servers, wait) = (sim.clone(), servers.clone(), sim.around(2 * SECOND).min(8 * SECOND));
    sim.clone().later(wait, move || start_server(&sim, &servers, place));
}
