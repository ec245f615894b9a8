//! Routes by method and path, as `axum::routing` has them, for a crate with hundreds of handlers.
//!
//! axum makes some hundred functions of its own for the type of each handler it is given. Here a handler is put behind
//! one type before axum sees it, so that they are made once: half of the time that this crate took to compile.

use axum::{extract::Request, handler::Handler, response::Response, routing as axum_routing};
use futures::future::BoxFuture;
use std::sync::Arc;

/// What a state of routes must be.
pub trait State: Clone + Send + Sync + 'static {}

impl<S: Clone + Send + Sync + 'static> State for S {}

/// A handler whose type is forgotten.
struct Erased<S>(Arc<dyn Fn(Request, S) -> BoxFuture<'static, Response> + Send + Sync>);

impl<S> Clone for Erased<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: State> Erased<S> {
    fn new<T: 'static>(handler: impl Handler<T, S>) -> Self {
        Self(Arc::new(move |request, state| Box::pin(handler.clone().call(request, state))))
    }
}

impl<S: State> Handler<(), S> for Erased<S> {
    type Future = BoxFuture<'static, Response>;

    fn call(self, request: Request, state: S) -> Self::Future {
        (self.0)(request, state)
    }
}

/// What answers at one path, by method.
pub struct MethodRouter<S>(axum_routing::MethodRouter<S>);

macro_rules! more {
    ($($method:ident)*) => {
        impl<S: State> MethodRouter<S> {
            $(
                #[doc = concat!("This handler answers ", stringify!($method), " too.")]
                pub fn $method<T: 'static>(self, handler: impl Handler<T, S>) -> Self {
                    Self(self.0.$method(Erased::new(handler)))
                }
            )*
        }
    };
}

macro_rules! first {
    ($($method:ident)*) => {
        $(
            #[doc = concat!("This handler answers ", stringify!($method), ".")]
            pub fn $method<T: 'static, S: State>(handler: impl Handler<T, S>) -> MethodRouter<S> {
                MethodRouter(axum_routing::$method(Erased::new(handler)))
            }
        )*
    };
}

more!(delete get head patch post put);
first!(any delete get post put);

/// This handler answers the methods of a filter.
pub fn on<T: 'static, S: State>(
    filter: axum_routing::MethodFilter,
    handler: impl Handler<T, S>,
) -> MethodRouter<S> {
    MethodRouter(axum_routing::on(filter, Erased::new(handler)))
}

/// Routes of one state; [`Router::axum`] has the rest that a router can.
pub struct Router<S>(axum::Router<S>);

impl<S: State> Default for Router<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: State> Router<S> {
    /// No routes.
    pub fn new() -> Self {
        Self(axum::Router::new())
    }

    /// These routes and one more.
    pub fn route(self, path: &str, methods: MethodRouter<S>) -> Self {
        Self(self.0.route(path, methods.0))
    }

    /// These routes and those.
    pub fn merge(self, other: Self) -> Self {
        Self(self.0.merge(other.0))
    }

    /// As axum's own, to be given a state, layers and fallbacks.
    pub fn axum(self) -> axum::Router<S> {
        self.0
    }
}
