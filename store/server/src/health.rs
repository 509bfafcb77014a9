//! `/livez` and `/readyz`: whether to restart a member, and whether to send it requests.
//!
//! Each is a list of checks; each check has a path of its own below.
//! Source: etcd 3.6 `server/etcdserver/api/etcdhttp/health.go`, whose names and texts these are.

use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use store_core::errors::RequestError;
use store_core::wire::{AlarmType, RangeRequest};

use crate::grpc::Service;

/// How long a check may take. A state that is stuck answers nothing.
const CHECK_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// No alarm says that a member's data differs. A member whose own data is damaged ends.
    DataCorruption,
    /// This member's state can be read.
    SerializableRead,
    /// A majority agrees to a read.
    LinearizableRead,
    /// This member votes.
    NonLearner,
}

const LIVE: [Check; 1] = [Check::SerializableRead];
const READY: [Check; 4] = [Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, service: &Service) -> Result<(), RequestError> {
        match self {
            Self::DataCorruption if service.engine.state.alarms().is_raised(AlarmType::Corrupt) => {
                Err(RequestError::Corrupt)
            }
            Self::DataCorruption => Ok(()),
            Self::SerializableRead => read(service).await,
            Self::LinearizableRead => {
                service.engine.linearize().await?;
                read(service).await
            }
            Self::NonLearner if service.is_learner() => Err(RequestError::NotForLearner),
            Self::NonLearner => Ok(()),
        }
    }
}

/// Reads the first key, as anybody's request would.
async fn read(service: &Service) -> Result<(), RequestError> {
    let service = service.clone();
    let read = tokio::task::spawn_blocking(move || {
        let request = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            limit: 1,
            keys_only: true,
            ..RangeRequest::default()
        };
        service.engine.state.range(&request, |_| Ok(()), |_| Ok(())).map(drop)
    });
    match tokio::time::timeout(CHECK_MAX, read).await {
        Ok(Ok(read)) => read,
        Ok(Err(_)) => Err(RequestError::Stopped),
        Err(_) => Err(RequestError::Timeout),
    }
}

/// What a query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    verbose: bool,
    excluded: Vec<String>,
}

fn asked(query: &str) -> Asked {
    let mut asked = Asked::default();
    for pair in query.split('&') {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("verbose", _) => asked.verbose = true,
            ("exclude", name) => asked.excluded.push(name.to_owned()),
            _ => {}
        }
    }
    asked
}

type Answer = (StatusCode, [(HeaderName, &'static str); 2], String);

/// What is said of checks that were made: all of it if one failed or somebody asked.
fn answer(results: &[(&str, Result<(), RequestError>)], verbose: bool) -> (StatusCode, String) {
    let line = |(name, result): &(&str, Result<(), RequestError>)| match result {
        Ok(()) => format!("[+]{name} ok\n"),
        Err(error) => format!("[-]{name} failed: {error}\n"),
    };
    let said: String = results.iter().map(line).collect();
    match (results.iter().all(|(_, result)| result.is_ok()), verbose) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{said}\n")),
        (true, true) => (StatusCode::OK, format!("{said}ok\n")),
        (true, false) => (StatusCode::OK, "ok\n".to_owned()),
    }
}

async fn run(kind: &'static str, checks: &[Check], query: Option<String>, service: &Service) -> Answer {
    let asked = asked(query.as_deref().unwrap_or(""));
    let is_known = |name: &String| checks.iter().any(|check| check.name() == name);
    if let Some(unknown) = asked.excluded.iter().find(|name| !is_known(name)) {
        tracing::warn!(check = unknown, "there is no such health check to be excluded");
    }
    let mut results = Vec::new();
    for check in checks.iter().filter(|check| !asked.excluded.iter().any(|name| name == check.name())) {
        let result = check.run(service).await;
        service.engine.metrics.health.checked(kind, check.name(), result.is_ok());
        results.push((check.name(), result));
    }
    let (status, said) = answer(&results, asked.verbose);
    if status != StatusCode::OK {
        tracing::warn!(checks = said.trim_end(), "health checks failed");
    }
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, said)
}

/// The paths.
pub(crate) fn routes() -> Router<Service> {
    let mut router = Router::new();
    for (kind, checks) in [("livez", &LIVE[..]), ("readyz", &READY[..])] {
        let path = format!("/{kind}");
        let all = move |State(service): State<Service>, RawQuery(query): RawQuery| async move {
            run(kind, checks, query, &service).await
        };
        router = router.route(&path, get(all));
        for check in checks {
            let one = move |State(service): State<Service>, RawQuery(query): RawQuery| async move {
                run(kind, std::slice::from_ref(check), query, &service).await
            };
            router = router.route(&format!("{path}/{}", check.name()), get(one));
        }
    }
    router
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        assert_eq!(asked(""), Asked::default());
        let excluded = vec!["serializable_read".to_owned(), "non_learner".to_owned()];
        assert_eq!(asked("verbose&exclude=serializable_read&exclude=non_learner"), Asked { verbose: true, excluded });
        assert!(asked("verbose=1").verbose);
    }

    #[test]
    fn failures_are_always_told_in_full() {
        let bad = [("data_corruption", Ok(())), ("linearizable_read", Err(RequestError::NoLeader))];
        let told = "[+]data_corruption ok\n[-]linearizable_read failed: etcdserver: no leader\n\n".to_owned();
        assert_eq!(answer(&bad, false), (StatusCode::SERVICE_UNAVAILABLE, told));
        let good = [("serializable_read", Ok(()))];
        assert_eq!(answer(&good, false), (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(answer(&good, true), (StatusCode::OK, "[+]serializable_read ok\nok\n".to_owned()));
    }
}
