//! Options that requests carry in their query: lists, watches, writes, deletions.
//!
//! Source: `meta/v1` ListOptions, DeleteOptions, CreateOptions.

use api::selector::{fields, labels};
use api::status::Status;
use serde_json::Value;

/// A request's query, decoded.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a raw query string.
    pub fn parse(raw: &str) -> Self {
        Self(form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    /// The first value of a parameter; `None` if absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value of a parameter, unless it is empty.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|v| !v.is_empty())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A boolean parameter, read as Go's conversion does: absent, `0` and `false` are false.
    pub fn flag(&self, name: &str) -> bool {
        !matches!(self.get(name), None | Some("0" | "false" | "False" | "FALSE"))
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.filled(name) else { return Ok(None) };
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }
}

/// How a list's resourceVersion is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// At exactly this revision.
    Exact,
    /// At this revision or any later.
    NotOlderThan,
}

/// Options of a list or watch.
#[derive(Debug, Clone)]
pub struct ListOptions {
    /// Labels that objects must match.
    pub labels: labels::Selector,
    /// Fields that objects must match.
    pub fields: fields::Selector,
    /// Page size; 0 for all.
    pub limit: i64,
    /// Where the last page ended.
    pub continue_token: Option<String>,
    /// The revision asked for; `None` if unset, 0 for "any".
    pub resource_version: Option<i64>,
    /// How the revision is meant.
    pub version_match: Option<VersionMatch>,
    /// Whether bookmarks may be sent.
    pub bookmarks: bool,
    /// Seconds after which a watch ends.
    pub timeout_seconds: Option<u64>,
    /// Whether a watch begins with the state as ADDED events and a marked bookmark.
    pub initial_events: bool,
}

impl ListOptions {
    /// Reads the options of a list or watch.
    ///
    /// # Errors
    /// 400 for a selector, number or combination that can't be understood.
    pub fn parse(query: &Query, watch: bool) -> Result<Self, Status> {
        let bad = |what: &dyn std::fmt::Display| Status::bad_request(what.to_string());
        let selector = query.get("labelSelector").unwrap_or("");
        let labels = labels::parse(selector).map_err(|e| bad(&format!("unable to parse requirement: {e}")))?;
        let fields = fields::parse(query.get("fieldSelector").unwrap_or("")).map_err(|e| bad(&e))?;
        let version = query.filled("resourceVersion");
        let resource_version = version.map(parse_version).transpose()?;
        let version_match = match query.filled("resourceVersionMatch") {
            None => None,
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some(other) => {
                return Err(invalid_match(&format!(
                    "Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
                )));
            }
        };
        let initial_events = watch && query.flag("sendInitialEvents");
        let options = Self {
            labels,
            fields,
            limit: query.number("limit")?.unwrap_or(0).max(0),
            continue_token: query.filled("continue").map(str::to_owned),
            resource_version,
            version_match,
            bookmarks: query.flag("allowWatchBookmarks"),
            timeout_seconds: query.number("timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
            initial_events,
        };
        options.check(watch)?;
        Ok(options)
    }

    /// Combinations that Kubernetes refuses. Source: apimachinery `ValidateListOptions`.
    fn check(&self, watch: bool) -> Result<(), Status> {
        if watch {
            if self.initial_events && self.version_match != Some(VersionMatch::NotOlderThan) {
                return Err(invalid_match(
                    "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if !self.initial_events && self.version_match.is_some() {
                return Err(invalid_match(
                    "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            return Ok(());
        }
        let Some(version_match) = self.version_match else { return Ok(()) };
        if self.continue_token.is_some() {
            return Err(invalid_match("Forbidden: resourceVersionMatch is forbidden when continue is provided"));
        }
        match (version_match, self.resource_version) {
            (_, None) => {
                Err(invalid_match("Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"))
            }
            (VersionMatch::Exact, Some(0)) => {
                Err(invalid_match("Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""))
            }
            _ => Ok(()),
        }
    }
}

fn invalid_match(why: &str) -> Status {
    Status::invalid_options("ListOptions", &format!("resourceVersionMatch: {why}"))
}

/// Reads a resourceVersion.
///
/// # Errors
/// 400 if it isn't a decimal number.
pub fn parse_version(text: &str) -> Result<i64, Status> {
    match text.parse::<i64>() {
        Ok(version) if version >= 0 => Ok(version),
        _ => Err(Status::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))),
    }
}

/// Whether a write is only tried. Kubernetes knows one value, `All`.
///
/// # Errors
/// 422 for any other value.
pub fn dry_run(query: &Query) -> Result<bool, Status> {
    let mut dry = false;
    for value in query.all("dryRun") {
        match value {
            "All" => dry = true,
            "" => {}
            other => {
                let why = format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"");
                return Err(Status::invalid_options("CreateOptions", &why));
            }
        }
    }
    Ok(dry)
}

/// What happens to dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents go first, the object waits for them.
    Foreground,
    /// The object goes at once, dependents after it.
    Background,
    /// Dependents stay and lose their owner.
    Orphan,
}

/// Options of a deletion, from the query or the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that a pod may take to end; `None` for its own default.
    pub grace_period_seconds: Option<i64>,
    /// What happens to dependents; `None` for the kind's default.
    pub propagation: Option<Propagation>,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must be at this resourceVersion.
    pub resource_version: Option<String>,
    /// Only try.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads the options; a body outweighs the query, as in Kubernetes.
    ///
    /// # Errors
    /// 400 or 422 for values that can't be understood.
    pub fn parse(query: &Query, body: Option<&Value>) -> Result<Self, Status> {
        let body_text = |pointer: &str| body.and_then(|b| b.pointer(pointer)).and_then(Value::as_str);
        let policy = body_text("/propagationPolicy").or_else(|| query.filled("propagationPolicy"));
        let orphan = body.and_then(|b| b.get("orphanDependents")).and_then(Value::as_bool);
        let propagation = match (policy, orphan) {
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (None, None) => None,
            (Some(other), _) => {
                let why = format!(
                    "propagationPolicy: Invalid value: {other:?}: must be one of: \"Foreground\", \"Background\", \"Orphan\", or nil"
                );
                return Err(Status::invalid_options("DeleteOptions", &why));
            }
        };
        let body_dry =
            body.and_then(|b| b.get("dryRun")).and_then(Value::as_array).is_some_and(|d| d.iter().any(|v| v == "All"));
        let grace = match body.and_then(|b| b.get("gracePeriodSeconds")).and_then(Value::as_i64) {
            Some(grace) => Some(grace),
            None => query.number("gracePeriodSeconds")?,
        };
        if grace.is_some_and(|g| g < 0) {
            return Err(Status::invalid_options(
                "DeleteOptions",
                "gracePeriodSeconds: Invalid value: must be greater than or equal to 0",
            ));
        }
        Ok(Self {
            grace_period_seconds: grace,
            propagation,
            uid: body_text("/preconditions/uid").map(str::to_owned),
            resource_version: body_text("/preconditions/resourceVersion").map(str::to_owned),
            dry_run: body_dry || dry_run(query)?,
        })
    }
}
