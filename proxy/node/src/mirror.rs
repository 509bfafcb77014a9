//! A copy of all objects of a kind, as its watch tells them.
//!
//! Invariants
//!   M1  Nothing is given out before the first list is complete.
//!   M2  While a watch starts over, the last complete copy, with later changes, stays in place.

use std::collections::BTreeMap;

use kube::Resource;
use kube::runtime::watcher::Event;

type Place = (String, String);

/// The objects of one kind, by namespace and name.
pub(crate) struct Mirror<K> {
    current: Option<BTreeMap<Place, K>>,
    arriving: BTreeMap<Place, K>,
}

impl<K: Resource> Mirror<K> {
    pub(crate) fn new() -> Self {
        Self { current: None, arriving: BTreeMap::new() }
    }

    /// Takes an event in; whether the copy may have changed.
    pub(crate) fn hear(&mut self, event: Event<K>) -> bool {
        match event {
            Event::Init => self.arriving.clear(),
            Event::InitApply(object) => {
                self.arriving.insert(place(&object), light(object));
            }
            Event::InitDone => {
                self.current = Some(std::mem::take(&mut self.arriving));
                return true;
            }
            Event::Apply(object) => {
                // A watch tells changes only after a list (M1).
                let Some(current) = &mut self.current else { return false };
                current.insert(place(&object), light(object));
                return true;
            }
            Event::Delete(object) => {
                return self.current.as_mut().is_some_and(|current| current.remove(&place(&object)).is_some());
            }
        }
        false
    }

    /// All objects; `None` until they are known.
    pub(crate) fn all(&self) -> Option<impl Iterator<Item = &K>> {
        self.current.as_ref().map(BTreeMap::values)
    }
}

fn place<K: Resource>(object: &K) -> Place {
    (object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
}

/// Without what is large and never looked at.
fn light<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object.meta_mut().annotations = None;
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;

    fn service(name: &str) -> Service {
        let mut service = Service::default();
        service.metadata.name = Some(name.to_owned());
        service
    }

    fn names(mirror: &Mirror<Service>) -> Option<Vec<String>> {
        mirror.all().map(|all| all.filter_map(|s| s.metadata.name.clone()).collect())
    }

    /// M1, M2.
    #[test]
    fn a_new_list_takes_the_place_of_the_old_at_once() {
        let mut mirror = Mirror::new();
        assert!(!mirror.hear(Event::Init));
        assert!(!mirror.hear(Event::InitApply(service("a"))));
        assert_eq!(names(&mirror), None);
        assert!(mirror.hear(Event::InitDone));
        assert!(mirror.hear(Event::Apply(service("b"))));
        assert!(!mirror.hear(Event::Init));
        assert!(!mirror.hear(Event::InitApply(service("c"))));
        assert_eq!(names(&mirror), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert!(mirror.hear(Event::InitDone));
        assert_eq!(names(&mirror), Some(vec!["c".to_owned()]));
        assert!(!mirror.hear(Event::Delete(service("a"))));
        assert!(mirror.hear(Event::Delete(service("c"))));
        assert_eq!(names(&mirror), Some(vec![]));
    }
}
