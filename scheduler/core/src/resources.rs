//! Resources: what a pod asks for and what a node has.
//!
//! Always holds: sums never wrap; quantities are added exactly and rounded up once, at the end.
//! Source: component-helpers `resource.PodRequests`, scheduler framework `Resource.Add`, `PodInfo.CalculateResource`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::quantity::{Format, Quantity, QuantityError};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

/// What a container without a CPU request counts as in scores.
const DEFAULT_CPU_MILLI: i64 = 100;
/// What a container without a memory request counts as in scores.
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// A resource's quantity can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("resource {resource}: {source}")]
pub struct ResourceError {
    resource: String,
    source: QuantityError,
}

/// Amounts of each resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths.
    pub cpu_milli: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage in bytes.
    pub ephemeral_storage: i64,
    /// Extended resources, huge pages and attachable volumes, by name.
    pub scalars: BTreeMap<String, i64>,
}

impl Resources {
    /// Adds another's amounts; a sum too large stays at the largest number.
    pub fn add(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            let sum = self.scalars.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// The amount of an extended resource, 0 if there is none.
    #[must_use]
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.get(name).copied().unwrap_or(0)
    }

    /// Takes over what the scheduler counts of a list; `pods` is not among it.
    fn of(list: &List) -> Self {
        let mut all = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => all.cpu_milli = quantity.milli_value(),
                "memory" => all.memory = quantity.value(),
                "ephemeral-storage" => all.ephemeral_storage = quantity.value(),
                _ if is_scalar(name) => {
                    all.scalars.insert(name.clone(), quantity.value());
                }
                _ => {}
            }
        }
        all
    }
}

/// CPU and memory as scores see them: containers that ask for nothing count as asking for something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NonZero {
    /// CPU in thousandths.
    pub cpu_milli: i64,
    /// Memory in bytes.
    pub memory: i64,
}

impl NonZero {
    /// Adds another's amounts; a sum too large stays at the largest number.
    pub fn add(&mut self, other: Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory = self.memory.saturating_add(other.memory);
    }

    fn of(list: &List) -> Self {
        Self { cpu_milli: amount(list, "cpu").milli_value(), memory: amount(list, "memory").value() }
    }
}

/// What a node offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// Amounts of resources.
    pub resources: Resources,
    /// How many pods may be there.
    pub pods: i64,
}

impl Allocatable {
    /// Reads a node's list.
    ///
    /// # Errors
    /// [`ResourceError`] if a quantity can't be read.
    pub fn read(wire: Option<&BTreeMap<String, WireQuantity>>) -> Result<Self, ResourceError> {
        let list = read_list(wire)?;
        Ok(Self { resources: Resources::of(&list), pods: amount(&list, "pods").value() })
    }
}

/// What a pod asks for, in the three ways that upstream counts it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// What must fit, and what a node's load is the sum of.
    pub exact: Resources,
    /// What it adds to the non-zero load of its node.
    pub non_zero: NonZero,
    /// What it counts as in the score of fitting while it is being scheduled; unlike
    /// [`Requests::non_zero`] it leaves out pod-level resources, as upstream does.
    pub scored: NonZero,
}

impl Requests {
    /// Counts a pod's requests.
    ///
    /// # Errors
    /// [`ResourceError`] if a quantity can't be read.
    pub fn read(spec: &PodSpec) -> Result<Self, ResourceError> {
        let pod_level = read_list(spec.resources.as_ref().and_then(|r| r.requests.as_ref()))?;
        let pod_level: List = pod_level.into_iter().filter(|(name, _)| is_pod_level(name)).collect();
        let overhead = read_list(spec.overhead.as_ref())?;
        let total = |defaults: &List, pod_level: &List| -> Result<List, ResourceError> {
            let mut sum = containers(spec, defaults)?;
            sum.extend(pod_level.iter().map(|(name, quantity)| (name.clone(), *quantity)));
            add(&mut sum, &overhead);
            Ok(sum)
        };
        let exact = total(&List::new(), &pod_level)?;
        let defaults = defaults();
        // Where the pod says what it asks for as a whole, only what it leaves open is made up for.
        let open: List = defaults
            .iter()
            .filter(|(name, _)| pod_level.is_empty() || !exact.contains_key(*name))
            .map(|(name, quantity)| (name.clone(), *quantity))
            .collect();
        Ok(Self {
            non_zero: NonZero::of(&total(&open, &pod_level)?),
            scored: NonZero::of(&total(&defaults, &List::new())?),
            exact: Resources::of(&exact),
        })
    }
}

type List = BTreeMap<String, Quantity>;

fn defaults() -> List {
    List::from([
        ("cpu".to_owned(), Quantity::from_milli(DEFAULT_CPU_MILLI, Format::DecimalSi)),
        ("memory".to_owned(), Quantity::new(DEFAULT_MEMORY_BYTES, Format::BinarySi)),
    ])
}

fn amount(list: &List, name: &str) -> Quantity {
    list.get(name).copied().unwrap_or(Quantity::ZERO)
}

fn read_list(wire: Option<&BTreeMap<String, WireQuantity>>) -> Result<List, ResourceError> {
    let read = |(name, quantity): (&String, &WireQuantity)| match quantity.0.parse() {
        Ok(quantity) => Ok((name.clone(), quantity)),
        Err(source) => Err(ResourceError { resource: name.clone(), source }),
    };
    wire.into_iter().flatten().map(read).collect()
}

fn add(sum: &mut List, more: &List) {
    for (name, quantity) in more {
        let old = amount(sum, name);
        sum.insert(name.clone(), old.add(*quantity));
    }
}

fn raise(least: &mut List, other: &List) {
    for (name, quantity) in other {
        if least.get(name).is_none_or(|old| quantity > old) {
            least.insert(name.clone(), *quantity);
        }
    }
}

fn container(container: &Container, defaults: &List) -> Result<List, ResourceError> {
    let mut list = read_list(container.resources.as_ref().and_then(|r| r.requests.as_ref()))?;
    for (name, quantity) in defaults {
        list.entry(name.clone()).or_insert(*quantity);
    }
    Ok(list)
}

/// What all containers need: those that run together summed up, and at least what each init
/// container needs beside the sidecars that were started before it.
fn containers(spec: &PodSpec, defaults: &List) -> Result<List, ResourceError> {
    let (mut sum, mut sidecars, mut starting) = (List::new(), List::new(), List::new());
    for one in &spec.containers {
        add(&mut sum, &container(one, defaults)?);
    }
    for one in spec.init_containers.iter().flatten() {
        let mut list = container(one, defaults)?;
        if is_sidecar(one) {
            add(&mut sum, &list);
            add(&mut sidecars, &list);
            raise(&mut starting, &sidecars);
        } else {
            add(&mut list, &sidecars);
            raise(&mut starting, &list);
        }
    }
    raise(&mut sum, &starting);
    Ok(sum)
}

/// Whether an init container keeps running beside the others.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Whether the scheduler counts a resource beside CPU, memory and ephemeral storage.
///
/// Source: `pkg/scheduler/util.IsScalarResourceName`.
fn is_scalar(name: &str) -> bool {
    if name.starts_with("hugepages-") || name.starts_with("attachable-volumes-") {
        return true;
    }
    let prefixed_native = name.contains("kubernetes.io/");
    name.contains('/') && (prefixed_native || !name.starts_with("requests."))
}
