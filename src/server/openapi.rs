//! The OpenAPI 3.1 document of the API, made from the handlers, and the page that shows it. A route without a
//! `#[utoipa::path]` cannot be added here, so every operation is documented.

use std::sync::LazyLock;

use axum::extract::DefaultBodyLimit;
use axum::response::Response;
use axum::routing::get;
use axum::{Router, middleware};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::problem::{Fault, ProblemDocument};
use super::{
    SharedApp, api, candidates, change, collection, drift, events, history, live, mjpeg, model, overlay, page,
    recordings, session, typed, whep,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Maskcast"),
    tags(
        (name = "streams", description = "Streams: their state and their settings."),
        (name = "overlay", description = "How the masks of a stream are drawn. Changes do not restart the stream."),
        (name = "images", description = "The current frame and the current mask of a stream as image files."),
        (name = "live", description = "Masks and events as they occur, by WebSocket or as server-sent events."),
        (name = "webrtc", description = "Watching a stream by WebRTC (WHEP)."),
        (name = "recordings", description = "The recordings of a stream."),
        (name = "collection", description = "Frames that a stream has collected for training, and their labels. For operators."),
        (name = "events", description = "The events of rules, and the shares of the classes minute by minute."),
        (name = "model", description = "The segmentation models. Each stream uses one."),
        (name = "session", description = "Login sessions of browsers."),
        (name = "service", description = "The service itself."),
    ),
    components(schemas(ProblemDocument, Fault))
)]
struct Api;

/// The routes under `/api/v1` and `/whep`, with their documentation. A new handler needs `#[utoipa::path]` and an entry here.
pub(super) fn routes() -> OpenApiRouter<SharedApp> {
    // A login has two short strings: its body has a lower limit than others.
    let sessions =
        routes!(session::login, session::show, session::logout).layer(DefaultBodyLimit::max(session::MAX_LOGIN));
    let pictures = OpenApiRouter::new()
        .routes(routes!(collection::image))
        .routes(routes!(collection::proposal))
        .routes(routes!(collection::label, collection::save_label))
        .route_layer(middleware::from_fn(page::not_modified));
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(api::streams, change::add))
        .routes(routes!(api::stream, change::change, change::remove))
        .routes(routes!(overlay::show, overlay::change))
        .routes(routes!(drift::show))
        .routes(routes!(drift::accept))
        .routes(routes!(mjpeg::snapshot))
        .routes(routes!(overlay::mask))
        .routes(routes!(live::masks))
        .routes(routes!(live::events))
        .routes(routes!(whep::offer))
        .routes(routes!(whep::candidates, whep::leave))
        .routes(routes!(recordings::list))
        .routes(routes!(recordings::download, recordings::remove))
        .routes(routes!(collection::list))
        .routes(routes!(collection::show, collection::decide))
        .merge(pictures)
        .routes(routes!(events::list))
        .routes(routes!(events::show))
        .routes(routes!(events::start_snapshot))
        .routes(routes!(events::peak_snapshot))
        .routes(routes!(history::shares))
        .routes(routes!(model::show, model::change))
        .routes(routes!(model::list))
        .routes(routes!(model::show_named, model::change_named))
        .routes(routes!(model::roll_back))
        .routes(routes!(model::roll_back_named))
        .routes(routes!(candidates::list))
        .routes(routes!(candidates::html))
        .routes(routes!(candidates::json))
        .routes(sessions)
        .routes(routes!(api::version))
        .routes(routes!(document))
}

/// Get the OpenAPI document
///
/// The description of this API for programs, in OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "openapi",
    tag = "service",
    responses((status = 200, description = "The OpenAPI document.", body = Object))
)]
pub(super) async fn document() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        // Serialization fails only for maps whose keys are not strings. There are none; a test reads the document.
        described().to_json().unwrap_or_default()
    });
    typed("application/json", TEXT.as_str())
}

/// The OpenAPI document, with the parts that all operations have in common: security schemes and error responses.
pub(super) fn described() -> utoipa::openapi::OpenApi {
    let mut api = routes().into_openapi();
    api.info.description = Some(include_str!("docs/introduction.md").trim().into());
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete, &mut item.put];
        operations.into_iter().flatten().for_each(complete);
    }
    let components = api.components.get_or_insert_default();
    let about = "A session of a browser. Without TLS the cookie's name is `maskcast`. Requests that change something need the header X-CSRF-Token.";
    let cookie = ApiKeyValue::with_description("__Host-maskcast", about);
    let schemes = [
        ("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie))),
        ("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer))),
        ("basic", SecurityScheme::Http(Http::new(HttpAuthScheme::Basic))),
    ];
    let mut security = Vec::new();
    for (name, scheme) in schemes {
        components.add_security_scheme(name, scheme);
        security.push(SecurityRequirement::new(name, [""; 0]));
    }
    // A service without users, or with allow_anonymous, accepts requests without credentials.
    security.push(SecurityRequirement::default());
    api.security = Some(security);
    api
}

/// Every error response is a problem document. Content that is not JSON has no schema.
fn complete(operation: &mut Operation) {
    let problem = || ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemDocument::name()))).build();
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        let RefOr::T(response) = response else { continue };
        if status.starts_with(['4', '5']) && response.content.is_empty() {
            response.content.insert("application/problem+json".into(), RefOr::T(problem()));
        }
        for (kind, content) in &mut response.content {
            if let RefOr::T(content) = content
                && !kind.ends_with("json")
            {
                content.schema = None;
            }
        }
    }
    let other =
        ResponseBuilder::new().description("Any other error.").content("application/problem+json", problem()).build();
    responses.insert("default".into(), other.into());
}

/// `/api/docs` and the files that it loads, for viewers.
pub(super) fn docs() -> Router<SharedApp> {
    Router::new()
        .route("/api/docs", get(async || page::asset(page::HTML, include_str!("docs/index.html"))))
        .route("/api/docs.js", get(async || page::asset(page::JAVASCRIPT, include_str!("docs/docs.js"))))
        .route("/api/docs.css", get(async || page::asset(page::CSS, include_str!("docs/docs.css"))))
        .route_layer(middleware::from_fn(page::not_modified))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_is_documented_and_every_reference_has_a_target() {
        let api = serde_json::to_value(described()).unwrap();
        assert!(api["openapi"].as_str().unwrap().starts_with("3.1"), "{}", api["openapi"]);
        let mut ids = BTreeSet::new();
        for (path, item) in api["paths"].as_object().unwrap() {
            assert!(path.starts_with("/api/v1/") || path.starts_with("/whep/"), "{path}");
            for (method, operation) in item.as_object().unwrap() {
                let place = format!("{method} {path}");
                assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{place} has no summary");
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.keys().any(|status| status.starts_with('2')), "{place}");
                for (status, response) in responses {
                    let is_problem = response["content"].get("application/problem+json").is_some();
                    assert_eq!(is_problem, !status.starts_with(['1', '2']), "{place} {status}");
                }
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let named: BTreeSet<&str> = parameters
                    .iter()
                    .filter(|known| known["in"] == "path")
                    .filter_map(|known| known["name"].as_str())
                    .collect();
                let in_path = path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
                assert_eq!(named, in_path, "{place}");
            }
        }
        let text = api.to_string();
        for reference in text.split("\"$ref\":\"").skip(1) {
            let (reference, _) = reference.split_once('"').unwrap();
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(api.pointer(pointer).is_some(), "{reference} has no target");
        }
        assert_eq!(api["components"]["schemas"]["NewStream"]["required"], serde_json::json!(["name", "source"]));
    }
}
