//! Refusals: every answer that is no success has an [`ErrorBody`], those of the HTTP layer too.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use vswitch_api::response::{ErrorBody, ErrorCode};

/// A refusal on its way to the client.
pub struct Failure(pub ErrorBody);

impl From<ErrorBody> for Failure {
    fn from(body: ErrorBody) -> Self {
        Self(body)
    }
}

/// The query, refused with an [`ErrorBody`].
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(t)| Self(t)).map_err(|e| invalid(e.body_text()))
    }
}

/// The body in JSON, refused with an [`ErrorBody`].
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let json = Json::from_request(request, state).await;
        json.map(|Json(t)| Self(t)).map_err(|e| invalid(e.body_text()))
    }
}

fn invalid(message: String) -> Failure {
    Failure(ErrorBody::new(ErrorCode::Invalid, message, ""))
}

pub async fn no_such_path(uri: Uri) -> Failure {
    Failure(ErrorBody::new(
        ErrorCode::NotFound,
        format!("there is no {}", uri.path()),
        "docs/openapi.json lists all paths",
    ))
}

pub async fn no_such_method(uri: Uri) -> Failure {
    let message = format!("{} does not take this method", uri.path());
    Failure(ErrorBody::new(ErrorCode::Invalid, message, "docs/openapi.json lists all methods"))
}
