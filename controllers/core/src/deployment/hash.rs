//! The hash that names a template's ReplicaSet.

use k8s_openapi::api::apps::v1::Deployment;

use crate::write::json;

/// Letters that spell no words, as upstream's `SafeEncodeString` has them.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name for the Deployment's template: equal templates have equal names.
///
/// Upstream hashes Go's print of the struct, which nobody else can reproduce; the
/// value is opaque, only its stability counts. The collision count goes in, so
/// that a clash is resolved by raising it.
pub fn template_hash(deployment: &Deployment) -> String {
    let template = deployment.spec.as_ref().map(|s| json(&s.template)).unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let mut hash = 0x811c_9dc5_u32;
    for byte in template.to_string().bytes().chain(collisions.to_le_bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}
