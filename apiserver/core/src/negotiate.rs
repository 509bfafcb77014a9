//! Content negotiation: which encoding and which shape an answer takes.
//!
//! Kubernetes clients ask for a shape with media-type parameters
//! (`application/json;as=Table;v=v1;g=meta.k8s.io`); the first clause that
//! can be met wins. Source: apiserver `pkg/endpoints/handlers/negotiation`.

/// How bytes on the wire are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Encoding {
    /// The media type, as answered in `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What the object is turned into before it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The object or list itself.
    Object,
    /// `meta.k8s.io` Table of this version (`v1` or `v1beta1`).
    Table(&'static str),
    /// `meta.k8s.io` PartialObjectMetadata(List) of this version.
    PartialMetadata(&'static str),
}

/// An answer's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// Encoding of the bytes.
    pub encoding: Encoding,
    /// Shape of the content.
    pub shape: Shape,
}

/// One clause of an Accept header: a media type with its parameters.
pub(crate) struct Clause<'a> {
    pub(crate) media: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    pub(crate) fn param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }
}

/// Splits an Accept header into its clauses, best quality first (stable).
pub(crate) fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept
        .split(',')
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().filter(|m| !m.is_empty())?;
            let params = parts.filter_map(|p| p.split_once('=')).collect();
            Some(Clause { media, params })
        })
        .collect();
    let quality = |c: &Clause<'_>| {
        let q = c.param("q").and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        (q.clamp(0.0, 1.0) * 1000.0) as i32
    };
    clauses.retain(|c| quality(c) > 0);
    clauses.sort_by_key(|c| -quality(c));
    clauses
}

/// Picks the form of an answer.
///
/// `accept` is the header, empty if absent. Returns `None` if nothing it asks
/// for can be given (406).
pub fn form(accept: &str) -> Option<Form> {
    if accept.trim().is_empty() {
        return Some(Form { encoding: Encoding::Json, shape: Shape::Object });
    }
    clauses(accept).iter().find_map(clause_form)
}

fn clause_form(clause: &Clause<'_>) -> Option<Form> {
    let encoding = match clause.media {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        "application/vnd.kubernetes.protobuf" => Encoding::Protobuf,
        _ => return None,
    };
    let version = match clause.param("v") {
        Some("v1") => Some("v1"),
        Some("v1beta1") => Some("v1beta1"),
        _ => None,
    };
    let shape = match clause.param("as") {
        None | Some("") => Shape::Object,
        Some(_) if clause.param("g") != Some("meta.k8s.io") => return None,
        // Tables are JSON only: kubectl never asks for another encoding.
        Some("Table") if encoding != Encoding::Protobuf => Shape::Table(version?),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Shape::PartialMetadata(version?),
        Some(_) => return None,
    };
    Some(Form { encoding, shape })
}

/// The encoding that a request body claims; an absent type counts as JSON.
pub fn body_encoding(content_type: &str) -> Option<Encoding> {
    match content_type.split(';').next().unwrap_or("").trim() {
        "" | "application/json" => Some(Encoding::Json),
        "application/yaml" => Some(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Some(Encoding::Protobuf),
        _ => None,
    }
}

/// How a discovery answer is shaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// `APIGroupDiscoveryList` of this version (`v2` or `v2beta1`).
    Aggregated(&'static str),
    /// `APIVersions` and `APIGroupList`.
    Plain,
}

/// Picks the discovery format. Aggregated answers are never given unasked.
pub fn discovery(accept: &str) -> Discovery {
    for clause in clauses(accept) {
        let aggregated =
            clause.param("g") == Some("apidiscovery.k8s.io") && clause.param("as") == Some("APIGroupDiscoveryList");
        match (clause.media, aggregated, clause.param("v")) {
            ("application/json", true, Some("v2")) => return Discovery::Aggregated("v2"),
            ("application/json", true, Some("v2beta1")) => return Discovery::Aggregated("v2beta1"),
            ("application/json", false, _) if clause.param("as").is_none() => return Discovery::Plain,
            _ => {}
        }
    }
    Discovery::Plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_get_takes_a_table() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(accept), Some(Form { encoding: Encoding::Json, shape: Shape::Table("v1") }));
    }

    #[test]
    fn what_cannot_be_met_is_refused() {
        assert_eq!(form("application/cbor"), None);
        assert_eq!(form("application/json;as=Other;v=v1;g=meta.k8s.io"), None);
        assert_eq!(form("application/json;q=0"), None);
    }

    #[test]
    fn quality_orders_clauses() {
        let accept = "application/json;q=0.5, application/vnd.kubernetes.protobuf";
        assert_eq!(form(accept).map(|f| f.encoding), Some(Encoding::Protobuf));
    }

    #[test]
    fn aggregated_discovery_is_only_given_when_asked() {
        let new = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(new), Discovery::Aggregated("v2"));
        assert_eq!(discovery(old), Discovery::Aggregated("v2beta1"));
        assert_eq!(discovery("application/json"), Discovery::Plain);
        assert_eq!(discovery("*/*"), Discovery::Plain);
    }
}
