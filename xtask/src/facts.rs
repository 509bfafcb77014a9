//! Derives the compact schema table of the `api` crate from the facts about Kubernetes.
//!
//! Input: three JSON files (types, protobuf messages, resources with table columns).
//! Output: one line-based text file that `api::schema` embeds and parses once.
//!
//! Line forms, blank-separated (`-` stands for "none"):
//! - `P <package>` declares the next package, counted from 0;
//! - `T <package index> <type>` opens a type; its fields follow, one a line;
//! - `G <group> <version> <kind>` names a kind the open type is the body of;
//! - ` <field> <shape> <tag> [attributes]` is a field of the open type;
//! - `R ...` is a resource, `C <kind>` opens a kind's columns, `c ...` is a column.
//!
//! Always holds: the output depends on the input alone, so a second run changes nothing.

mod resources;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

const OBJECT_META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.ListMeta";
const META_V1: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// Types with a form of their own in JSON, and the letter that stands for them.
const LEAVES: &[(&str, &str)] = &[
    ("k8s.io.apimachinery.pkg.api.resource.Quantity", "q"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Time", "t"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime", "m"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Duration", "u"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1", "f"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Verbs", "w"),
    ("k8s.io.apimachinery.pkg.runtime.RawExtension", "r"),
    ("k8s.io.apimachinery.pkg.util.intstr.IntOrString", "o"),
];

/// The same for types whose package differs between versions.
const LEAF_NAMES: &[(&str, &str)] = &[
    (".ExtraValue", "w"),
    (".JSON", "j"),
    (".JSONSchemaPropsOrArray", "A"),
    (".JSONSchemaPropsOrBool", "B"),
    (".JSONSchemaPropsOrStringArray", "C"),
];

/// API groups of packages that only the protobuf facts know.
const PROTO_ONLY_GROUPS: &[(&str, &str)] = &[
    ("admission", "admission.k8s.io"),
    ("apidiscovery", "apidiscovery.k8s.io"),
    ("extensions", "extensions"),
    ("imagepolicy", "imagepolicy.k8s.io"),
];

/// Kinds without metadata, which cannot be told from plain messages.
const BARE_KINDS: &[&str] = &[
    "AdmissionReview",
    "DeploymentRollback",
    "SerializedReference",
    "PodAttachOptions",
    "PodExecOptions",
    "PodLogOptions",
    "PodPortForwardOptions",
    "PodProxyOptions",
    "NodeProxyOptions",
    "ServiceProxyOptions",
];

/// Kinds of the meta package, decoded in every group.
const META_KINDS: &[&str] = &[
    "CreateOptions",
    "GetOptions",
    "ListOptions",
    "UpdateOptions",
    "PatchOptions",
    "ApplyOptions",
    "TableOptions",
    "APIVersions",
    "List",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
];

type Messages = BTreeMap<String, Vec<(String, u32, String)>>;

struct Facts {
    types: BTreeMap<String, Value>,
    messages: Messages,
    /// Group of a package segment such as `rbac`, as OpenAPI tells it.
    groups: BTreeMap<String, String>,
    /// Attributes of an embedded message's fields, told by the type around it.
    outer: BTreeMap<String, String>,
}

/// Writes the table derived from the facts in `data_dir` to `out`.
pub(crate) fn run(data_dir: &Path, out: &Path) -> anyhow::Result<()> {
    let read = |name: &str| -> anyhow::Result<Value> {
        let path = data_dir.join(format!("kubernetes-1.36-{name}.json"));
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parsing {}", path.display()))
    };
    let facts = Facts::load(&read("types")?, &read("protobuf")?)?;
    let mut text = facts.render()?;
    resources::render(&read("resources")?, &mut text)?;
    resources::render_columns(&read("table-columns")?, &mut text)?;
    std::fs::write(out, text).with_context(|| format!("writing {}", out.display()))
}

/// OpenAPI spells a package `io.k8s.a-b.`, protobuf `k8s.io.a_b.`.
fn proto_name(openapi: &str) -> String {
    openapi.replacen("io.k8s.", "k8s.io.", 1).replace('-', "_")
}

fn openapi_name(proto: &str) -> String {
    proto.replacen("k8s.io.", "io.k8s.", 1).replace('_', "-")
}

fn leaf(name: &str) -> Option<&'static str> {
    LEAVES
        .iter()
        .find(|(leaf, _)| *leaf == name)
        .or_else(|| LEAF_NAMES.iter().find(|(suffix, _)| name.ends_with(suffix)))
        .map(|(_, letter)| *letter)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn object(value: &Value) -> anyhow::Result<&serde_json::Map<String, Value>> {
    value.as_object().context("the facts hold no object here")
}

impl Facts {
    fn load(types: &Value, protobuf: &Value) -> anyhow::Result<Self> {
        let types: BTreeMap<String, Value> =
            object(types)?.iter().map(|(name, body)| (proto_name(name), body.clone())).collect();
        let mut messages = Messages::new();
        for (name, fields) in object(protobuf)? {
            let mut list = Vec::new();
            for field in fields.as_array().context("a message is a list of fields")? {
                let (Some(field_name), Some(tag), Some(kind)) =
                    (field[0].as_str(), field[1].as_u64(), field[2].as_str())
                else {
                    bail!("{name}: a field is not [name, tag, type]")
                };
                list.push((field_name.to_owned(), u32::try_from(tag)?, kind.to_owned()));
            }
            list.sort_by_key(|field| field.1);
            messages.insert(name.clone(), list);
        }
        let mut groups: BTreeMap<String, String> =
            PROTO_ONLY_GROUPS.iter().map(|(package, group)| ((*package).to_owned(), (*group).to_owned())).collect();
        for (name, body) in &types {
            if let (Some(segment), Some(gvk)) = (api_segment(name), body["gvk"][0].as_array()) {
                groups.insert(segment.to_owned(), gvk[0].as_str().unwrap_or("").to_owned());
            }
        }
        let mut facts = Self { types, messages, groups, outer: BTreeMap::new() };
        for name in facts.types.keys().cloned().collect::<Vec<_>>() {
            facts.note_embedded(&name, &name);
        }
        Ok(facts)
    }

    /// Remembers under every message embedded in `owner` that `outer` describes its fields.
    fn note_embedded(&mut self, owner: &str, outer: &str) {
        for (name, _, kind) in self.messages.get(owner).cloned().unwrap_or_default() {
            if self.embedded(outer, &name, &kind) {
                let inner = self.resolve(owner, &kind);
                if inner != owner && !self.outer.contains_key(&inner) {
                    self.outer.insert(inner.clone(), outer.to_owned());
                    self.note_embedded(&inner, outer);
                }
            }
        }
    }

    /// A Go struct embedded in another: a message field whose members stand beside it in JSON.
    fn embedded(&self, outer: &str, name: &str, kind: &str) -> bool {
        let simple = kind.rsplit('.').next().unwrap_or(kind);
        if kind.starts_with("repeated") || kind.starts_with("map<") || !simple.starts_with(char::is_uppercase) {
            return false;
        }
        match self.types.get(outer) {
            Some(body) => self.json_field(body, name).is_none(),
            None => {
                matches!(name, "handler" | "localObjectReference" | "volumeSource" | "persistentVolumeSource")
                    || matches!(name, "ingressRuleValue" | "ephemeralContainerCommon" | "deviceConfiguration")
                    || matches!(name, "ruleWithOperations" | "rule")
            }
        }
    }

    /// The JSON field a protobuf field is; a few protobuf names differ in case or in punctuation
    /// (`xKubernetesMapType` is `x-kubernetes-map-type`, `ref` is `$ref`).
    fn json_field<'v>(&self, body: &'v Value, name: &str) -> Option<(String, &'v Value)> {
        let fields = body.get("fields")?.as_object()?;
        let exact = fields.get_key_value(name);
        exact.or_else(|| fields.iter().find(|(key, _)| letters(key) == letters(name))).map(|(k, v)| (k.clone(), v))
    }

    /// The full name of the message that `kind` means inside `owner`.
    fn resolve(&self, owner: &str, kind: &str) -> String {
        let kind = kind.trim_start_matches('.');
        if kind.contains('.') {
            return kind.to_owned();
        }
        let package = owner.rsplit_once('.').map_or("", |(package, _)| package);
        format!("{package}.{kind}")
    }

    fn gvks(&self, name: &str) -> Vec<[String; 3]> {
        let (package, simple) = name.rsplit_once('.').unwrap_or(("", name));
        if let Some(gvk) = self.types.get(name).and_then(|body| body.get("gvk")) {
            if gvk.is_string() {
                return vec![["*".into(), "*".into(), simple.into()]];
            }
            let list = gvk.as_array().map_or(&[][..], Vec::as_slice);
            return list.iter().map(|entry| [0, 1, 2].map(|i| entry[i].as_str().unwrap_or("").to_owned())).collect();
        }
        if package == META_V1 && META_KINDS.contains(&simple) {
            return vec![["*".into(), "*".into(), simple.into()]];
        }
        let Some(segment) = api_segment(name) else { return Vec::new() };
        let fields = self.messages.get(name).map_or(&[][..], Vec::as_slice);
        let has_meta = fields.iter().any(|(field, tag, kind)| {
            field == "metadata" && *tag == 1 && [OBJECT_META, LIST_META].contains(&kind.as_str())
        });
        // Of the messages with metadata, templates are parts of other objects.
        if !(has_meta && !simple.ends_with("TemplateSpec") && !simple.ends_with("ClaimTemplate")
            || has_meta && simple == "ResourceClaimTemplate"
            || BARE_KINDS.contains(&simple))
        {
            return Vec::new();
        }
        let version = package.rsplit('.').next().unwrap_or("");
        let Some(group) = self.groups.get(segment) else { return Vec::new() };
        vec![[group.clone(), version.to_owned(), simple.to_owned()]]
    }

    /// The names in the table: OpenAPI's types, the kinds besides, and all they refer to.
    fn reachable(&self) -> BTreeSet<String> {
        let kinds = self.messages.keys().filter(|name| !self.gvks(name).is_empty());
        let mut queue: VecDeque<String> = self.types.keys().chain(kinds).cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = queue.pop_front() {
            if leaf(&name).is_some() || !seen.insert(name.clone()) {
                continue;
            }
            for (_, _, kind) in self.messages.get(&name).map_or(&[][..], Vec::as_slice) {
                let inner = element(kind);
                if inner.rsplit('.').next().unwrap_or("").starts_with(char::is_uppercase) {
                    queue.push_back(self.resolve(&name, inner));
                }
            }
        }
        seen
    }

    fn render(&self) -> anyhow::Result<String> {
        let names = self.reachable();
        let mut packages: Vec<String> = Vec::new();
        for name in &names {
            let package = name.rsplit_once('.').map_or("", |(package, _)| package).to_owned();
            if !packages.contains(&package) {
                packages.push(package);
            }
        }
        let mut out = String::new();
        for package in &packages {
            writeln!(out, "P {}", openapi_name(package))?;
        }
        for name in &names {
            let (package, simple) = name.rsplit_once('.').context("a type has a package")?;
            let index = packages.iter().position(|known| known == package).context("listed above")?;
            writeln!(out, "T {index} {simple}")?;
            let gvks = self.gvks(name);
            for [group, version, kind] in &gvks {
                writeln!(out, "G {} {version} {kind}", dash(group))?;
            }
            self.render_fields(name, &packages, !gvks.is_empty(), &mut out)?;
        }
        Ok(out)
    }

    fn render_fields(&self, name: &str, packages: &[String], kind: bool, out: &mut String) -> anyhow::Result<()> {
        let outer =
            if self.types.contains_key(name) { name } else { self.outer.get(name).map_or(name, String::as_str) };
        let body = self.types.get(outer);
        let mut done = BTreeSet::new();
        for (field, tag, proto) in self.messages.get(name).map_or(&[][..], Vec::as_slice) {
            if self.embedded(outer, field, proto) {
                let shape = self.proto_shape(name, proto, packages)?;
                writeln!(out, " {field} {shape} {tag} ^")?;
                continue;
            }
            let described = body.and_then(|body| self.json_field(body, field));
            let json_name = match &described {
                Some((key, _)) => key.clone(),
                None => lower_first(field),
            };
            let shape = self.proto_shape(name, proto, packages)?;
            let shape = described.as_ref().map_or(shape.clone(), |(_, facts)| refine(&shape, facts));
            let required = body.is_some_and(|body| is_required(body, &json_name));
            let attributes = described.as_ref().map_or(String::new(), |(_, facts)| attributes(facts));
            writeln!(out, " {json_name} {shape} {tag}{}{attributes}", if required { " !" } else { "" })?;
            done.insert(json_name);
        }
        if outer == name {
            for (field, facts) in body.and_then(|b| b.get("fields")).and_then(Value::as_object).into_iter().flatten() {
                if done.contains(field) || self.inside_embedded(name, field) {
                    continue;
                }
                let shape = self.openapi_shape(facts, packages)?;
                let required = body.is_some_and(|body| is_required(body, field));
                writeln!(out, " {field} {shape} 0{}{}", if required { " !" } else { "" }, attributes(facts))?;
                done.insert(field.clone());
            }
        }
        for implied in ["apiVersion", "kind"] {
            if kind && !done.contains(implied) {
                writeln!(out, " {implied} s 0")?;
            }
        }
        Ok(())
    }

    /// Whether an embedded message of `owner` holds `field`.
    fn inside_embedded(&self, owner: &str, field: &str) -> bool {
        self.messages.get(owner).into_iter().flatten().any(|(name, _, kind)| {
            let inner = self.resolve(owner, kind);
            let outer = if self.types.contains_key(owner) {
                owner
            } else {
                self.outer.get(owner).map_or(owner, String::as_str)
            };
            self.embedded(outer, name, kind)
                && (self.messages.get(&inner).into_iter().flatten().any(|(key, _, _)| key.eq_ignore_ascii_case(field))
                    || self.inside_embedded(&inner, field))
        })
    }

    fn reference(&self, name: &str, packages: &[String]) -> anyhow::Result<String> {
        if let Some(letter) = leaf(name) {
            return Ok(letter.to_owned());
        }
        let (package, simple) = name.rsplit_once('.').context("a type has a package")?;
        let index = packages.iter().position(|known| known == package);
        let index = index.with_context(|| format!("no package of {name} in the table"))?;
        Ok(format!("{index}:{simple}"))
    }

    fn proto_shape(&self, owner: &str, kind: &str, packages: &[String]) -> anyhow::Result<String> {
        let inner = element(kind);
        let base = match inner {
            "string" => "s".to_owned(),
            "bool" => "b".to_owned(),
            "int32" => "i".to_owned(),
            "int64" => "l".to_owned(),
            "double" => "d".to_owned(),
            "bytes" => "y".to_owned(),
            other => self.reference(&self.resolve(owner, other), packages)?,
        };
        Ok(if kind.starts_with("repeated") {
            format!("[{base}")
        } else if kind.starts_with("map<") {
            format!("{{{base}")
        } else {
            base
        })
    }

    fn openapi_shape(&self, facts: &Value, packages: &[String]) -> anyhow::Result<String> {
        if let Some(name) = facts.get("ref").and_then(Value::as_str) {
            return self.reference(&proto_name(name), packages);
        }
        if let Some(items) = facts.get("items") {
            return Ok(format!("[{}", self.openapi_shape(items, packages)?));
        }
        if let Some(values) = facts.get("values") {
            return Ok(format!("{{{}", self.openapi_shape(values, packages)?));
        }
        Ok(match (text(facts, "type"), text(facts, "format")) {
            ("string", "byte") => "y",
            ("string", _) => "s",
            ("boolean", _) => "b",
            ("integer", "int32") => "i",
            ("integer", _) => "l",
            ("number", _) => "d",
            (other, _) => bail!("no shape for an OpenAPI field of type {other:?}"),
        }
        .to_owned())
    }
}

/// The segment after `k8s.io.api.`, such as `core`; nothing for other packages.
fn api_segment(name: &str) -> Option<&str> {
    name.strip_prefix("k8s.io.api.")?.split('.').next()
}

/// What a list or map holds, or the type itself.
fn element(kind: &str) -> &str {
    if let Some(inner) = kind.strip_prefix("repeated ") {
        return inner;
    }
    match kind.strip_prefix("map<") {
        Some(rest) => rest.trim_end_matches('>').split(", ").nth(1).unwrap_or(rest),
        None => kind,
    }
}

/// A name without case and punctuation.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn lower_first(name: &str) -> String {
    match name {
        "uID" => return "uid".to_owned(),
        "aPIGroup" => return "apiGroup".to_owned(),
        _ => {}
    }
    let mut chars = name.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

/// The width of an integer is OpenAPI's where the two differ: it is what JSON is checked by.
fn refine(shape: &str, facts: &Value) -> String {
    match (shape, text(facts, "format")) {
        ("l", "int32") => "i".to_owned(),
        ("i", "int64") => "l".to_owned(),
        _ => shape.to_owned(),
    }
}

fn is_required(body: &Value, field: &str) -> bool {
    body.get("required").and_then(Value::as_array).into_iter().flatten().any(|name| name == field)
}

/// `=<list type>[:keys]`, `@atomic` for a map, `~<patch strategy>[:key]`.
fn attributes(facts: &Value) -> String {
    let mut out = String::new();
    let list_type = text(facts, "listType");
    if !list_type.is_empty() {
        out.push_str(" =");
        out.push_str(list_type);
        let keys: Vec<&str> = facts
            .get("listMapKeys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !keys.is_empty() {
            out.push(':');
            out.push_str(&keys.join(","));
        }
    }
    if text(facts, "mapType") == "atomic" {
        out.push_str(" @atomic");
    }
    let strategy = text(facts, "patchStrategy");
    let key = text(facts, "patchMergeKey");
    if !strategy.is_empty() || !key.is_empty() {
        out.push_str(" ~");
        out.push_str(strategy);
        if !key.is_empty() {
            out.push(':');
            out.push_str(key);
        }
    }
    out
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
