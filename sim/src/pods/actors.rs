//! Processes that use apiservers: started, killed anywhere, and started again.

use std::cell::RefCell;
use std::rc::Rc;

use apiserver_core::options::DeleteOptions;

use super::agent;
use super::apiserver::Place;
use super::client::{Client, Servers};
use super::controllers;
use super::machine::Machine;
use super::network::{Host, Net};
use super::objects::Kind;
use super::scheduler;
use super::tasks::{Process, Sim};
use super::truth::Truth;
use crate::queue::{MS, SECOND};

/// What a process does.
enum Role {
    Scheduler,
    Controllers,
    Agent(Rc<RefCell<Machine>>, u64),
}

/// A process, running or not.
struct Actor {
    role: Role,
    host: Host,
    process: Option<Process>,
    /// It isn't started again.
    gone: bool,
}

/// All of them.
#[derive(Clone)]
pub(crate) struct Actors {
    sim: Sim,
    net: Net,
    servers: Servers,
    truth: Rc<RefCell<Truth>>,
    all: Rc<RefCell<Vec<Actor>>>,
}

impl Actors {
    pub(crate) fn new(sim: &Sim, net: &Net, servers: &Servers, truth: &Rc<RefCell<Truth>>) -> Self {
        let (sim, net, servers, truth) = (sim.clone(), net.clone(), servers.clone(), truth.clone());
        Self { sim, net, servers, truth, all: Rc::default() }
    }

    /// A client on a machine of its own.
    pub(crate) fn client(&self, host: Host) -> Client {
        Client::new(&self.sim, &self.net, &self.servers, host)
    }

    fn add(&self, role: Role) {
        let place = self.all.borrow().len();
        self.all.borrow_mut().push(Actor { role, host: place, process: None, gone: false });
        let (actors, wait) = (self.clone(), self.sim.below(500 * MS));
        self.sim.later(wait, move || actors.start(place));
    }

    pub(crate) fn add_scheduler(&self) {
        self.add(Role::Scheduler);
    }

    pub(crate) fn add_controllers(&self) {
        self.add(Role::Controllers);
    }

    pub(crate) fn add_node(&self) {
        let name = format!("n{}", self.all.borrow().len());
        let machine = Machine::new(&self.sim, &name, &self.truth);
        self.add(Role::Agent(Rc::new(RefCell::new(machine)), self.sim.between(2, 6)));
    }

    pub(crate) fn count(&self) -> usize {
        self.all.borrow().len()
    }

    fn start(&self, place: usize) {
        let mut all = self.all.borrow_mut();
        let actor = &mut all[place];
        if actor.gone || actor.process.is_some() {
            return;
        }
        let client = self.client(actor.host);
        actor.process = Some(match &actor.role {
            Role::Scheduler => scheduler::start(&client),
            Role::Controllers => controllers::start(&client),
            Role::Agent(machine, cpus) => agent::start(&client, machine, *cpus),
        });
    }

    /// Kills one; what it asked for goes on. It is started again.
    pub(crate) fn crash(&self, place: usize) {
        let process = self.all.borrow_mut()[place].process.take();
        let Some(process) = process else { return };
        self.sim.kill(process);
        let (actors, wait) = (self.clone(), self.sim.around(2 * SECOND).min(15 * SECOND));
        self.sim.later(wait, move || actors.start(place));
    }

    /// All run.
    pub(crate) fn start_all(&self) {
        (0..self.count()).for_each(|place| self.start(place));
    }

    fn living(&self) -> Vec<(usize, Rc<RefCell<Machine>>)> {
        let machine = |(place, actor): (usize, &Actor)| match &actor.role {
            Role::Agent(machine, _) if !actor.gone => Some((place, machine.clone())),
            _ => None,
        };
        self.all.borrow().iter().enumerate().filter_map(machine).collect()
    }

    /// Machines that are there.
    pub(crate) fn machines(&self) -> Vec<Rc<RefCell<Machine>>> {
        self.living().into_iter().map(|(_, machine)| machine).collect()
    }

    /// Containers that were started, on machines that are gone too.
    pub(crate) fn started(&self) -> u64 {
        let of = |actor: &Actor| match &actor.role {
            Role::Agent(machine, _) => machine.borrow().started,
            _ => 0,
        };
        self.all.borrow().iter().map(of).sum()
    }

    /// A machine is taken away with all that runs on it, and its node is deleted.
    pub(crate) fn remove_node(&self) {
        let living = self.living();
        if living.len() < 2 {
            return;
        }
        let (place, machine) = self.sim.one_of(&living).clone();
        machine.borrow_mut().gone = true;
        let (process, host) = {
            let mut all = self.all.borrow_mut();
            all[place].gone = true;
            (all[place].process.take(), all[place].host)
        };
        if let Some(process) = process {
            self.sim.kill(process);
        }
        let (client, name) = (self.client(host), machine.borrow().name.clone());
        self.sim.spawn(self.sim.process(), async move {
            loop {
                // What the agent asked for last may still arrive, and make the node anew: while the network holds things
                // back, however much later.
                let was_calm = client.sim.calm.get();
                client.sim.sleep(5 * SECOND).await;
                let place = Place::new(Kind::Node, "", &name);
                let deleted = client.delete(place, DeleteOptions::default()).await;
                if was_calm && deleted.is_err_and(|failure| failure.is(404)) {
                    return;
                }
            }
        });
    }
}
