//! `/api/v1/session`: logging in and out on the page.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SharedApp;
use super::auth::{check, too_many, unauthorized};
use super::client::Client;
use super::cookie::{cookie, id};
use super::problem::Problem;
use crate::access::sessions::LONGEST;
use crate::access::{Denied, Identity};

/// The most that a login can hold, in bytes.
pub(super) const LONGEST_LOGIN: usize = 4 << 10;

/// Who wants to log in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    user: String,
    password: String,
}

/// Who is there.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionReport {
    /// Null where nobody was asked.
    user: Option<String>,
    /// `viewer` or `operator`.
    role: &'static str,
    /// What requests that change something carry in `X-CSRF-Token`; null without a session.
    csrf: Option<String>,
    /// Whether there is anybody who could log in.
    login: bool,
}

/// Log in
///
/// The answer sets the session's cookie. Programs need no session: they send a token or Basic with every request.
#[utoipa::path(
    post,
    path = "/api/v1/session",
    operation_id = "log_in",
    tag = "session",
    request_body = Login,
    responses(
        (status = 200, description = "Logged in.", body = SessionReport),
        (status = 401, description = "No such user, or another password."),
        (status = 413, description = "The body is too long."),
        (status = 415, description = "The body is no JSON."),
        (status = 422, description = "The body is something else."),
        (status = 429, description = "Too many wrong passwords; Retry-After tells when to go on."),
    )
)]
pub(super) async fn login(
    State(app): State<SharedApp>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    login: Result<Json<Login>, JsonRejection>,
) -> Result<Response, Response> {
    let Json(Login { user, password }) = login.map_err(|error| {
        // Its words may repeat what was sent, and that is a password.
        let detail = "the body is to be JSON: {\"user\": \"…\", \"password\": \"…\"}";
        Problem::new(error.status(), detail.into()).into_response()
    })?;
    let from = client.address;
    let mut identity = check(&app.access, user, password, from).await.map_err(|denied| match denied {
        Denied::Wrong => unauthorized(&headers, "no such user, or another password"),
        Denied::Limited(wait) => too_many(wait),
    })?;
    let failed = |problem: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, problem).into_response();
    let name = identity.name.as_deref().unwrap_or_default();
    let begun = app.access.begin(name).map_err(failed)?;
    // Who logs in anew leaves the old session, whoever began it.
    if let Some(old) = id(&headers, client.secure) {
        app.access.end(old);
    }
    tracing::info!("{name} has logged in from {from} as {}", identity.role.name());
    let cookie = cookie(&begun.id, LONGEST.as_secs(), client.secure).map_err(IntoResponse::into_response)?;
    identity.csrf = Some(begun.csrf);
    Ok(([(header::SET_COOKIE, cookie)], Json(report(&app, &identity))).into_response())
}

/// Who is logged in
#[utoipa::path(
    get,
    path = "/api/v1/session",
    operation_id = "show_session",
    tag = "session",
    responses(
        (status = 200, description = "Whoever asks.", body = SessionReport),
        (status = 401, description = "Nobody is, and everybody has to be."),
    )
)]
pub(super) async fn show(
    State(app): State<SharedApp>,
    headers: HeaderMap,
    who: Option<Extension<Identity>>,
) -> Result<Json<SessionReport>, Response> {
    match who {
        Some(Extension(identity)) => Ok(Json(report(&app, &identity))),
        None => Err(unauthorized(&headers, "nobody is logged in")),
    }
}

/// Log out
#[utoipa::path(
    delete,
    path = "/api/v1/session",
    operation_id = "log_out",
    tag = "session",
    responses((status = 204, description = "Nobody is logged in any more."))
)]
pub(super) async fn logout(
    State(app): State<SharedApp>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(id) = id(&headers, client.secure) {
        app.access.end(id);
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
