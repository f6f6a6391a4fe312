//! `/api/v1/session`: logins and logouts of the page.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SharedApp;
use super::auth::{check_password, too_many, unauthorized};
use super::client::Client;
use super::cookie::{cookie, id};
use super::problem::Problem;
use crate::access::sessions::MAX_AGE;
use crate::access::{Denied, Identity, RandomError};

/// Maximum size of a login's body in bytes.
pub(super) const MAX_LOGIN: usize = 4 << 10;

/// User and password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// Name of the user.
    user: String,
    /// Password of the user.
    password: String,
}

/// The user that a request is authenticated as.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionReport {
    /// Name of the user or token; null for a request that is accepted without credentials.
    user: Option<String>,
    /// `viewer` or `operator`.
    role: &'static str,
    /// The CSRF token of the session, for the header `X-CSRF-Token` of requests that change something; null without a session.
    csrf: Option<String>,
    /// Whether any users are configured, so that a login is possible.
    login: bool,
}

/// Log in
///
/// Starts a session; the response sets its cookie. Programs do not need a session: they send a token, or a user and a
/// password, with every request.
#[utoipa::path(
    post,
    path = "/api/v1/session",
    operation_id = "log_in",
    tag = "session",
    request_body(content = Login, example = json!({"user": "anna", "password": "PASSWORD"})),
    responses(
        (status = 200, description = "The session has started.", body = SessionReport),
        (status = 401, description = "User or password is wrong."),
        (status = 413, description = "The body is larger than 4 KiB."),
        (status = 415, description = "The content type is not `application/json`."),
        (status = 422, description = "The body is not an object with `user` and `password`."),
        (status = 429, description = "Too many wrong passwords. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn login(
    State(app): State<SharedApp>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    login: Result<Json<Login>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(Login { user, password }) = login.map_err(|error| {
        // The library's message may contain the password.
        let detail = "the body must be JSON: {\"user\": \"…\", \"password\": \"…\"}";
        Problem::new(error.status(), detail.into()).into_response()
    })?;
    let from = client.address;
    let mut identity = check_password(&app.access, user, password, from).await.map_err(|denied| match denied {
        Denied::WrongCredentials => unauthorized(&headers, "wrong user or password"),
        Denied::RateLimited(wait) => too_many(wait),
    })?;
    let failed =
        |error: RandomError| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    let name = identity.name.as_deref().unwrap_or_default();
    let session = app.access.begin_session(name).map_err(failed)?;
    // A new login ends the browser's previous session, also one of another user.
    if let Some(previous) = id(&headers, client.secure) {
        app.access.end_session(previous);
    }
    tracing::info!("login: {name} from {from} as {}", identity.role.name());
    let cookie = cookie(&session.id, MAX_AGE.as_secs(), client.secure).map_err(IntoResponse::into_response)?;
    identity.csrf = Some(session.csrf);
    Ok(([(header::SET_COOKIE, cookie)], Json(report(&app, &identity))).into_response())
}

/// Show the session
///
/// The user that the request is authenticated as, the role, and the session's CSRF token.
#[utoipa::path(
    get,
    path = "/api/v1/session",
    operation_id = "show_session",
    tag = "session",
    responses(
        (status = 200, description = "The request is authenticated, or accepted without credentials.", body = SessionReport),
        (status = 401, description = "The request has no valid credentials, and the service requires them."),
    )
)]
pub(super) async fn show(
    State(app): State<SharedApp>,
    headers: HeaderMap,
    identity: Option<Extension<Identity>>,
) -> Result<Json<SessionReport>, Response> {
    match identity {
        Some(Extension(identity)) => Ok(Json(report(&app, &identity))),
        None => Err(unauthorized(&headers, "not logged in")),
    }
}

/// Log out
///
/// Ends the session of the request and deletes its cookie. Without a session, nothing changes.
#[utoipa::path(
    delete,
    path = "/api/v1/session",
    operation_id = "log_out",
    tag = "session",
    responses((status = 204, description = "The session has ended."))
)]
pub(super) async fn logout(
    State(app): State<SharedApp>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(id) = id(&headers, client.secure) {
        app.access.end_session(id);
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie("", 0, client.secure)?)]).into_response())
}

fn report(app: &SharedApp, identity: &Identity) -> SessionReport {
    SessionReport {
        user: identity.name.as_deref().map(str::to_owned),
        role: identity.role.name(),
        csrf: identity.csrf.as_deref().map(str::to_owned),
        login: !app.access.users().users.is_empty(),
    }
}
