//! Errors as Kubernetes tells them: `meta/v1` Status.
//!
//! Clients act on reason and code, people read the message: all three are
//! upstream's. Source: apimachinery `pkg/api/errors/errors.go`.

use std::fmt;

use serde_json::{Map, Value, json};

/// One fault of an invalid object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    reason: &'static str,
    field: String,
    message: String,
}

impl Cause {
    /// A fault: its reason (`FieldValueInvalid`), the field's path, what is wrong.
    pub fn new(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: field.into(), message: message.into() }
    }
}

/// A refusal or failure. Its text is the message. One pointer wide, as an error should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Status(Box<Content>);

#[derive(Debug, Clone, PartialEq)]
struct Content {
    code: u16,
    reason: &'static str,
    message: String,
    details: Map<String, Value>,
    continue_token: Option<String>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Status {}

/// `deployments.apps`, or `pods` in the core group.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Content { code, reason, message, details: Map::new(), continue_token: None }))
    }

    fn about(mut self, group: &str, resource: &str, name: &str) -> Self {
        for (field, value) in [("name", name), ("group", group), ("kind", resource)] {
            if !value.is_empty() {
                self.0.details.insert(field.to_owned(), value.into());
            }
        }
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.0.details.insert("retryAfterSeconds".to_owned(), seconds.into());
        self
    }

    /// 404: the object isn't there.
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Self::new(404, "NotFound", message).about(group, resource, name)
    }

    /// 404: nothing is served there.
    #[must_use]
    pub fn not_found_generic(message: impl Into<String>) -> Self {
        Self::new(404, "NotFound", message)
    }

    /// 409: an object of the name is there already.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        Self::new(409, "AlreadyExists", message).about(group, resource, name)
    }

    /// 409: the object isn't as the writer thought.
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, resource));
        Self::new(409, "Conflict", message).about(group, resource, name)
    }

    /// Tells one cause more.
    #[must_use]
    pub fn with_cause(mut self, cause: &Cause) -> Self {
        let cause = json!({"reason": cause.reason, "message": cause.message, "field": cause.field});
        let causes = self.0.details.entry("causes").or_insert_with(|| json!([]));
        if let Some(causes) = causes.as_array_mut() {
            causes.push(cause);
        }
        self
    }

    /// 422: the object's content is at fault. `kind` is the object's kind.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for cause in &causes {
            let text = format!("{}: {}", cause.field, cause.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} {name:?} is invalid: {list}", qualified(group, kind));
        let mut status = Self::new(422, "Invalid", message).about(group, kind, name);
        let causes: Vec<Value> =
            causes.iter().map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field})).collect();
        status.0.details.insert("causes".to_owned(), causes.into());
        status
    }

    /// 422: a request's options are at fault.
    #[must_use]
    pub fn invalid_options(kind: &str, why: &str) -> Self {
        let (field, message) = why.split_once(": ").unwrap_or(("", why));
        let cause = Cause::new("FieldValueInvalid", field, message);
        Self::invalid("meta.k8s.io", kind, "", vec![cause])
    }

    /// 400: the request can't be understood.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: nobody knows who is asking.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "Unauthorized", message)
    }

    /// 403: not allowed.
    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", qualified(group, resource));
        Self::new(403, "Forbidden", message).about(group, resource, name)
    }

    /// 410: the revision asked for is gone; list anew.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The same 410 with a token by which the list can go on, inconsistently.
    #[must_use]
    pub fn with_continue(mut self, token: String) -> Self {
        self.0.continue_token = Some(token);
        self
    }

    /// 504: not within the time; try again after some seconds.
    #[must_use]
    pub fn timeout(message: impl Into<String>, retry_seconds: u32) -> Self {
        Self::new(504, "Timeout", message).retry_after(retry_seconds)
    }

    /// 504: a revision that the store hasn't reached, so perhaps another store's.
    #[must_use]
    pub fn too_large_version(asked: i64, current: i64) -> Self {
        let mut status = Self::timeout(format!("Too large resource version: {asked}, current: {current}"), 1);
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        status.0.details.insert("causes".to_owned(), json!([cause]));
        status
    }

    /// 405 for a verb that a resource doesn't have.
    #[must_use]
    pub fn method_not_allowed(group: &str, resource: &str, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", qualified(group, resource));
        Self::new(405, "MethodNotAllowed", message).about(group, resource, "")
    }

    /// 405 for a method that a path doesn't have.
    #[must_use]
    pub fn method_not_allowed_generic() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 406: no answer of the kind that was asked for.
    #[must_use]
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    /// 415: a body of an unknown kind.
    #[must_use]
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 413: too large a body.
    #[must_use]
    pub fn request_entity_too_large(message: impl fmt::Display) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }

    /// 429: too much at once.
    #[must_use]
    pub fn too_many_requests(message: impl Into<String>, retry_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).retry_after(retry_seconds)
    }

    /// 500: our fault.
    #[must_use]
    pub fn internal(why: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {why}");
        let mut status = Self::new(500, "InternalError", message);
        status.0.details.insert("causes".to_owned(), json!([{"message": why.to_string()}]));
        status
    }

    /// 503: not now.
    #[must_use]
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message).retry_after(1)
    }

    /// The HTTP code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.0.code
    }

    /// The reason, which clients act on.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// Whether it says that an object of the name is there already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.0.reason == "AlreadyExists"
    }

    /// After how many seconds to try again, if that may help.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.0.details.get("retryAfterSeconds").and_then(Value::as_u64).and_then(|s| u32::try_from(s).ok())
    }

    /// The Status object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let metadata = match &self.0.continue_token {
            Some(token) => json!({"continue": token}),
            None => json!({}),
        };
        let mut out = json!({"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.0.message, "reason": self.0.reason});
        if !self.0.details.is_empty() {
            out["details"] = self.0.details.clone().into();
        }
        out["code"] = self.0.code.into();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(Status::not_found("apps", "deployments", "web").to_string(), r#"deployments.apps "web" not found"#);
        let causes = vec![
            Cause::new("FieldValueRequired", "spec.a", "Required value"),
            Cause::new("FieldValueRequired", "spec.b", "Required value"),
        ];
        let invalid = Status::invalid("", "Pod", "p", causes);
        assert_eq!(invalid.to_string(), r#"Pod "p" is invalid: [spec.a: Required value, spec.b: Required value]"#);
        assert_eq!(invalid.to_json()["details"]["causes"][1]["field"], "spec.b");
        assert_eq!(invalid.to_json()["code"], 422);
    }
}
