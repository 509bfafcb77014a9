//! A node as the scheduler sees it.

use k8s_openapi::api::core::v1::Node as Wire;

use crate::labels::Labels;
use crate::resources::{Allocatable, ResourceError};
use crate::taints::Taint;

/// What scheduling needs of a node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// What keeps pods away.
    pub taints: Vec<Taint>,
    /// Whether it is closed to new pods.
    pub unschedulable: bool,
    /// What it offers.
    pub allocatable: Allocatable,
    /// Images it has: each name and the image's bytes.
    pub images: Vec<(String, i64)>,
}

/// Why a node can't be taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It has no name.
    #[error("a node without a name")]
    Nameless,
    /// What it offers can't be read.
    #[error("allocatable {0}")]
    Allocatable(#[from] ResourceError),
}

impl Node {
    /// Reads a node object.
    ///
    /// # Errors
    /// [`NodeError`] if it has no name or an unreadable quantity.
    pub fn read(wire: &Wire) -> Result<Self, NodeError> {
        let name = wire.metadata.name.clone().filter(|name| !name.is_empty()).ok_or(NodeError::Nameless)?;
        let spec = wire.spec.as_ref();
        let status = wire.status.as_ref();
        let images = status.and_then(|s| s.images.as_deref()).unwrap_or_default();
        let named = |image: &k8s_openapi::api::core::v1::ContainerImage| {
            let bytes = image.size_bytes.unwrap_or(0);
            image.names.iter().flatten().map(|name| (name.clone(), bytes)).collect::<Vec<_>>()
        };
        Ok(Self {
            name,
            labels: wire.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|s| s.taints.as_deref()).unwrap_or_default().iter().map(Taint::from).collect(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: Allocatable::read(status.and_then(|s| s.allocatable.as_ref()))?,
            images: images.iter().flat_map(named).collect(),
        })
    }
}
