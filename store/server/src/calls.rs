//! Calls of gRPC's services: one way in for all, and what is done before and behind each of them.
//!
//! Written as one function instead of a stack of layers: a layer costs each call two allocations, and copies of all
//! that stands behind it, which is a third of what a small call costs at all. What is asked most, the keys, is found
//! without a router.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::auth::guard;
use crate::closing::end_stream;
use crate::grpc::services::kv_server::KvServer;
use crate::grpc::{self, Service};
use crate::metrics::Watched;

/// Where the most frequent calls go.
const KV: &str = "/etcdserverpb.KV/";

/// All services.
#[derive(Clone)]
pub(crate) struct Calls(Arc<Inner>);

struct Inner {
    service: Service,
    kv: KvServer<Service>,
    /// The others, and what isn't known.
    rest: Router,
    closing: CancellationToken,
}

impl Calls {
    pub(crate) fn new(service: &Service, closing: CancellationToken) -> Self {
        let (kv, rest) = (grpc::kv(service), grpc::routes(service).into_axum_router());
        Self(Arc::new(Inner { service: service.clone(), kv, rest, closing }))
    }

    /// Whether a request is worth to be spared the router in front.
    pub(crate) fn are_asked_by(request: &Request) -> bool {
        request.uri().path().starts_with(KV)
    }

    /// Answers a call: counted, let in by the guard, ended once the doors close, refused in Go's words.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let Inner { service, closing, .. } = &*self.0;
        let (request, watched) = Watched::begin(&service.engine.metrics, request);
        let ending = end_stream(request.uri().path(), closing);
        let response = match guard::let_in(service, request).await {
            Ok(request) => self.go_on(request).await,
            Err(response) => response,
        };
        watched.answered(ending.of(response))
    }

    async fn go_on(&self, request: Request) -> Response {
        if let Some(refusal) = self.0.service.refuses_early(&request) {
            return refusal;
        }
        let answered: Result<Response, Infallible> = if Self::are_asked_by(&request) {
            self.0.kv.clone().call(request).await.map(|response| response.map(Body::new))
        } else {
            self.0.rest.clone().call(request).await
        };
        let Ok(response) = answered;
        grpc::in_gos_words(grpc::in_pieces(response))
    }
}

/// For routers, and for the gateway, whose bodies are others.
impl<B> tower::Service<http::Request<B>> for Calls
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move { Ok(calls.answer(request.map(Body::new)).await) })
    }
}
