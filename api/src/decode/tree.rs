//! JSON or YAML to a tree, noting keys that stand twice in an object.
//!
//! The last of two equal keys wins, as in Go. Both parsers bound the depth at 128.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses `bytes`; the second result holds the paths of duplicate keys.
pub(super) fn parse(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let notes = Notes { duplicates: RefCell::new(Vec::new()), path: RefCell::new(Vec::new()) };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed(&notes).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, notes.duplicates.into_inner()))
}

/// The same for one YAML document.
pub(super) fn parse_yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_norway::Error> {
    let notes = Notes { duplicates: RefCell::new(Vec::new()), path: RefCell::new(Vec::new()) };
    let value = Seed(&notes).deserialize(serde_norway::Deserializer::from_slice(bytes))?;
    Ok((value, notes.duplicates.into_inner()))
}

struct Notes {
    duplicates: RefCell<Vec<String>>,
    /// Steps to the value being read: `.name` or `[index]`.
    path: RefCell<Vec<String>>,
}

impl Notes {
    fn within<T>(&self, step: String, read: impl FnOnce() -> T) -> T {
        self.path.borrow_mut().push(step);
        let result = read();
        self.path.borrow_mut().pop();
        result
    }

    fn duplicate(&self, key: &str) {
        let mut path = self.path.borrow().concat();
        path.push('.');
        path.push_str(key);
        self.duplicates.borrow_mut().push(path.trim_start_matches('.').to_owned());
    }
}

#[derive(Clone, Copy)]
struct Seed<'a>(&'a Notes);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let step = format!("[{}]", list.len());
            match self.0.within(step, || access.next_element_seed(self))? {
                Some(value) => list.push(value),
                None => return Ok(list.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                self.0.duplicate(&key);
            }
            let value = self.0.within(format!(".{key}"), || access.next_value_seed(self))?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}
