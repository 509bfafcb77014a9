//! The schema table: the types of Kubernetes 1.36, their fields and how each is merged and encoded.
//!
//! Parsed once from an embedded text (`cargo xtask facts` writes it; the line forms are described
//! there), names borrowed from it.
//!
//! Always holds: a [`TypeId`] indexes a type of the table; the flat field list of a type holds the
//! members of the structs embedded in it, as JSON does; its wire list keeps them nested, in tag
//! order, as protobuf does.

mod parse;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::OnceLock;

pub(crate) static TEXT: &str = include_str!("table/kubernetes-1.36.txt");

/// A type of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u16);

/// What one place in an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// A string.
    String,
    /// `true` or `false`.
    Bool,
    /// An integer of 32 bits.
    Int32,
    /// An integer of 64 bits.
    Int64,
    /// A floating point number.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// A resource quantity such as `100m`.
    Quantity,
    /// An RFC 3339 time of whole seconds.
    Time,
    /// An RFC 3339 time of microseconds.
    MicroTime,
    /// A Go duration such as `1m30s`.
    Duration,
    /// An integer or a string such as `25%`.
    IntOrString,
    /// A free-form object.
    Raw,
    /// The set of fields a manager owns.
    FieldsV1,
    /// Any JSON value.
    Json,
    /// A JSON schema (of the named type) or a list of them.
    SchemaOrArray(TypeId),
    /// A JSON schema (of the named type) or a boolean.
    SchemaOrBool(TypeId),
    /// A JSON schema (of the named type) or a list of strings.
    SchemaOrStrings(TypeId),
    /// A list of strings that is a message of its own in protobuf.
    StringList,
    /// An object of a type of the table.
    Ref(TypeId),
}

/// How many elements a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Exactly one.
    One(Element),
    /// A list.
    List(Element),
    /// A map with string keys.
    Map(Element),
}

impl Shape {
    /// The element, whatever holds it.
    #[must_use]
    pub fn element(self) -> Element {
        match self {
            Self::One(element) | Self::List(element) | Self::Map(element) => element,
        }
    }
}

/// How server-side apply owns a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// Objects told apart by key fields.
    Map,
}

/// How a strategic merge patch treats a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// Elements are merged rather than the list replaced.
    pub merge: bool,
    /// The value is replaced as a whole.
    pub replace: bool,
    /// `$retainKeys` may name the keys that stay.
    pub retain_keys: bool,
}

/// A field of a type.
#[derive(Debug, Clone)]
pub struct Field {
    /// The JSON name.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// Its protobuf tag; 0 if it isn't in the message.
    pub tag: u32,
    /// Go always writes it.
    pub required: bool,
    /// List type, if the API declares one.
    pub list_type: Option<ListType>,
    /// Key fields of a list of [`ListType::Map`].
    pub list_map_keys: Box<[&'static str]>,
    /// Server-side apply replaces the map as a whole.
    pub map_atomic: bool,
    /// Strategic merge.
    pub patch_strategy: PatchStrategy,
    /// The key field by which strategic merge tells elements apart.
    pub patch_merge_key: Option<&'static str>,
}

/// A field as protobuf writes it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wire {
    /// The field of this index in the flat list.
    Field(u16),
    /// A struct embedded under a tag.
    Embedded(u32, TypeId),
}

#[derive(Debug)]
pub(crate) struct Type {
    package: &'static str,
    name: &'static str,
    fields: Vec<Field>,
    /// Indices of `fields`, sorted by name.
    by_name: Vec<u16>,
    wire: Vec<Wire>,
    gvks: Vec<[&'static str; 3]>,
}

#[derive(Debug)]
pub(crate) struct Table {
    types: Vec<Type>,
    by_name: HashMap<(&'static str, &'static str), TypeId>,
    by_gvk: HashMap<[&'static str; 3], TypeId>,
}

pub(crate) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| parse::table(TEXT))
}

/// The type of a full name, such as `io.k8s.api.core.v1.PodSpec`.
#[must_use]
pub fn type_named(name: &str) -> Option<TypeId> {
    table().by_name.get(&name.rsplit_once('.')?).copied()
}

/// The type that is the body of a kind; the core group is the empty string.
#[must_use]
pub fn kind_type(group: &str, version: &str, kind: &str) -> Option<TypeId> {
    let by_gvk = &table().by_gvk;
    by_gvk.get(&[group, version, kind]).or_else(|| by_gvk.get(&["*", "*", kind])).copied()
}

/// How many types the table holds.
#[must_use]
pub fn type_count() -> usize {
    table().types.len()
}

impl TypeId {
    fn get(self) -> &'static Type {
        &table().types[usize::from(self.0)]
    }

    /// Every type, in the table's order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..table().types.len()).filter_map(|index| u16::try_from(index).ok().map(Self))
    }

    /// The name without its package: `PodSpec`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.get().name
    }

    /// The package: `io.k8s.api.core.v1`.
    #[must_use]
    pub fn package(self) -> &'static str {
        self.get().package
    }

    /// The name by which OpenAPI knows the type: `io.k8s.api.core.v1.PodSpec`.
    #[must_use]
    pub fn full_name(self) -> String {
        format!("{}.{}", self.package(), self.name())
    }

    /// The name Go's errors print: `v1.PodSpec`.
    #[must_use]
    pub fn go_name(self) -> String {
        let package = self.package().rsplit('.').next().unwrap_or("");
        format!("{package}.{}", self.name())
    }

    /// Its fields as JSON has them, embedded structs included.
    #[must_use]
    pub fn fields(self) -> &'static [Field] {
        &self.get().fields
    }

    /// The field of a JSON name, case-sensitively.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'static Field> {
        let Type { fields, by_name, .. } = self.get();
        let found = by_name.binary_search_by(|index| fields[usize::from(*index)].name.cmp(name));
        found.ok().map(|at| &fields[usize::from(by_name[at])])
    }

    /// The fields that Go always writes.
    pub fn required(self) -> impl Iterator<Item = &'static Field> {
        self.fields().iter().filter(|field| field.required)
    }

    /// The kinds it is the body of, as group, version, kind; `*` stands for any.
    #[must_use]
    pub fn gvks(self) -> &'static [[&'static str; 3]] {
        &self.get().gvks
    }

    pub(crate) fn wire(self) -> &'static [Wire] {
        &self.get().wire
    }
}
