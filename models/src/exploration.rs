//! Exploring a model: its progress while it runs, and what it found.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// A path through a model: states, each with the action that left it; the last without.
pub(crate) type Path<M> = [(<M as Model>::State, Option<<M as Model>::Action>)];

/// Properties of a model at most.
const PROPERTIES_MAX: usize = 24;

/// What was found already, by the number of the property. stateright would replace each finding by later ones, with
/// longer ways to them.
#[derive(Debug, Default)]
pub(crate) struct Found([AtomicBool; PROPERTIES_MAX]);

impl Found {
    /// What must always hold: `true` unless it is broken for the first time.
    pub(crate) fn always(&self, property: usize, holds: bool) -> bool {
        holds || !self.first(property)
    }

    /// What must come about: `true` when it is seen for the first time. It isn't looked for any more afterwards.
    pub(crate) fn sometimes(&self, property: usize, seen: impl FnOnce() -> bool) -> bool {
        !self.0[property].load(Ordering::Relaxed) && seen() && self.first(property)
    }

    fn first(&self, property: usize) -> bool {
        !self.0[property].swap(true, Ordering::Relaxed)
    }
}

/// What a check found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Distinct states, up to who is who.
    pub(crate) states: usize,
    /// Steps of the longest path.
    pub(crate) depth: usize,
    /// Property that doesn't hold, and how it came about.
    pub(crate) violations: Vec<(&'static str, Vec<String>)>,
    /// Properties of which there is an example.
    pub(crate) seen: Vec<&'static str>,
    /// Properties of which there is none within the bounds.
    pub(crate) unseen: Vec<&'static str>,
    /// Runs compared by the audit, and those that differed.
    pub(crate) audit: (usize, usize),
    /// What else is worth knowing; empty for nothing.
    pub(crate) besides: String,
    pub(crate) took: Duration,
}

/// Explores everything, until a property is violated; tells of its progress each second. `lines` tells a path step by
/// step. Also returns the model.
pub(crate) fn explore<M>(
    model: M,
    threads: usize,
    progress: &mut dyn Write,
    lines: impl Fn(&M, &Path<M>) -> Vec<String>,
) -> (Report, impl std::ops::Deref<Target = M>)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + PartialEq + std::hash::Hash + Send + Sync + 'static,
    M::Action: Clone + PartialEq + Send + Sync + 'static,
{
    let begun = Instant::now();
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs();
    let mut told = Instant::now();
    while !checker.is_done() {
        std::thread::sleep(Duration::from_millis(20));
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            // A closed pipe is no reason to stop checking.
            let _ = writeln!(
                progress,
                "{:5.0} s  {:>11} states  depth {}",
                begun.elapsed().as_secs_f64(),
                checker.unique_state_count(),
                checker.max_depth()
            );
        }
    }
    let checker = checker.join();
    let took = begun.elapsed();
    let mut discoveries = checker.discoveries();
    let (mut violations, mut seen, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    for property in checker.model().properties() {
        let found = discoveries.remove(property.name);
        match (property.expectation, found) {
            (Expectation::Sometimes, Some(_)) => seen.push(property.name),
            (Expectation::Sometimes, None) => unseen.push(property.name),
            (_, Some(path)) => violations.push((property.name, lines(checker.model(), &path.into_vec()))),
            (_, None) => {}
        }
    }
    let report = Report {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        violations,
        seen,
        unseen,
        audit: (0, 0),
        besides: String::new(),
        took,
    };
    (report, Explored(checker, std::marker::PhantomData))
}

/// A model after it was explored.
struct Explored<C, M>(C, std::marker::PhantomData<M>);

impl<M: Model, C: Checker<M>> std::ops::Deref for Explored<C, M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.0.model()
    }
}

/// Whether a line of a path begins a step: `   7.  …`.
#[cfg(test)]
fn begins_step(line: &str) -> bool {
    line.as_bytes().get(4) == Some(&b'.')
}

/// The line that ends a path's steps, before its last state.
pub(crate) const END: &str = "in the end";

impl Report {
    /// Whether everything holds.
    pub(crate) fn holds(&self) -> bool {
        self.violations.is_empty() && self.audit.1 == 0
    }

    /// For tests: everything holds, in so many states. A changed number means that production code or the model behaves
    /// otherwise than before.
    #[cfg(test)]
    pub(crate) fn holds_in(self, states: usize) -> Self {
        assert!(self.holds(), "{:#?}", self.violations);
        assert_eq!(self.states, states);
        self
    }

    /// For tests: the first violation in short: the property, the number of steps, and the last step. `None` if all holds.
    #[cfg(test)]
    pub(crate) fn short(&self) -> Option<String> {
        let (property, path) = self.violations.first()?;
        let steps = path.iter().filter(|line| begins_step(line)).count();
        let last = path.iter().rposition(|line| begins_step(line)).unwrap_or(0);
        let end = path.iter().position(|line| line == END).unwrap_or(path.len());
        Some(format!("{property}, {steps} steps\n{}\n", path[last..end].join("\n")))
    }

    /// Tells what was found.
    pub(crate) fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for (property, path) in &self.violations {
            writeln!(out, "VIOLATED: {property}")?;
            for line in path {
                writeln!(out, "{line}")?;
            }
        }
        let Self { states, depth, besides, .. } = self;
        let seconds = self.took.as_secs_f64();
        writeln!(out, "{states} states in {seconds:.1} s, at most {depth} steps deep{besides}")?;
        if self.audit.0 > 0 {
            writeln!(out, "audit: {} runs compared, {} differ", self.audit.0, self.audit.1)?;
        }
        for property in &self.seen {
            writeln!(out, "seen:  {property}")?;
        }
        if self.violations.is_empty() {
            for property in &self.unseen {
                writeln!(out, "never: {property} (the bounds are too narrow for it)")?;
            }
            writeln!(out, "every property holds within the bounds")?;
        }
        Ok(())
    }
}
