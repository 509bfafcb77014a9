//! Calls of gRPC's services: one way in for all, and what is done before and behind each of them.
//!
//! Written as one function instead of a stack of layers: a layer costs each call two allocations, and copies of all
//! that stands behind it, which is a third of what a small call costs at all. What is asked most, the keys, is answered by
//! the connection itself over HTTP/2 ([`crate::http2`]), and here for the gateway.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::Service as _;

use crate::auth::guard;
use crate::closing::end_stream;
use crate::grpc::{self, Service};
use crate::metrics::Watched;

/// All services.
#[derive(Clone)]
pub(crate) struct Calls(Arc<Inner>);

struct Inner {
    service: Service,
    services: Router,
    closing: CancellationToken,
}

impl Calls {
    pub(crate) fn new(service: &Service, closing: CancellationToken) -> Self {
        let services = grpc::routes(service).into_axum_router();
        Self(Arc::new(Inner { service: service.clone(), services, closing }))
    }

    /// Answers a call: counted, let in by the guard, ended once the doors close, refused in Go's words.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let Inner { service, closing, .. } = &*self.0;
        let watched = Watched::begin(&service.engine.metrics, request.uri().path());
        let ending = end_stream(request.uri().path(), closing);
        let response = self.go_on(watched.counted(request)).await.unwrap_or_else(Status::into_http);
        watched.answered(ending.of(response))
    }

    async fn go_on(&self, mut request: Request) -> Result<Response, Status> {
        let Inner { service, services, .. } = &*self.0;
        guard::let_in(service, &mut request).await?;
        service.refuse_early(request.uri().path(), request.headers())?;
        let answered: Result<Response, Infallible> = services.clone().call(request).await;
        let Ok(response) = answered;
        Ok(grpc::in_gos_words(grpc::as_made(response)))
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
