//! The API's description of itself (OpenAPI 3.1), made from the handlers that answer: a route that is not described there
//! cannot be added here. And a page that shows it.

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
use super::{SharedApp, api, change, mjpeg, model, overlay, page, recordings, session, typed, whep};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Maskcast",
        description = "Live semantic segmentation for cameras: the streams, how they are drawn, their pictures, the model.\n\
                       Settings have the keys of the configuration file, and changes are written back to it. What is refused \
                       is refused with a problem document (RFC 9457)."
    ),
    tags(
        (name = "streams", description = "The streams and their settings."),
        (name = "overlay", description = "How masks are drawn, changed while the stream runs."),
        (name = "pictures", description = "Single pictures and masks."),
        (name = "webrtc", description = "Watching in a browser."),
        (name = "recordings", description = "What was recorded."),
        (name = "model", description = "The model that all streams share."),
        (name = "session", description = "Who is there."),
        (name = "service", description = "The service itself."),
    ),
    components(schemas(ProblemDocument, Fault))
)]
struct Api;

/// All that is under `/api/v1` and `/whep`, with its description. New handlers carry `#[utoipa::path]` and are listed here.
pub(super) fn routes() -> OpenApiRouter<SharedApp> {
    // A login is two words.
    let sessions =
        routes!(session::login, session::show, session::logout).layer(DefaultBodyLimit::max(session::LONGEST_LOGIN));
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(api::streams, change::add))
        .routes(routes!(api::stream, change::change, change::remove))
        .routes(routes!(overlay::show, overlay::change))
        .routes(routes!(mjpeg::snapshot))
        .routes(routes!(overlay::mask))
        .routes(routes!(whep::offer))
        .routes(routes!(whep::candidates, whep::leave))
        .routes(routes!(recordings::list))
        .routes(routes!(recordings::download, recordings::remove))
        .routes(routes!(model::show, model::change))
        .routes(sessions)
        .routes(routes!(api::version))
        .routes(routes!(document))
}

/// This description of the API
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "openapi",
    tag = "service",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object))
)]
pub(super) async fn document() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let description = describe(routes().into_openapi());
        // Fails for maps whose keys are no strings; there are none, and a test reads the document.
        description.to_json().unwrap_or_default()
    });
    typed("application/json", TEXT.as_str())
}

/// Adds what all operations have in common.
fn describe(mut api: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete, &mut item.put];
        operations.into_iter().flatten().for_each(complete);
    }
    let components = api.components.get_or_insert_default();
    let about = "A session of the page; without TLS its name is `maskcast`. Changes carry X-CSRF-Token as well.";
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
    // Where the service is open to everybody.
    security.push(SecurityRequirement::default());
    api.security = Some(security);
    api
}

/// Every refusal is a problem document, and pictures have no schema.
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
    let other = ResponseBuilder::new().description("Why not.").content("application/problem+json", problem()).build();
    responses.insert("default".into(), other.into());
}

/// `/api/docs` and what it loads, for viewers.
pub(super) fn docs() -> Router<SharedApp> {
    Router::new()
        .route("/api/docs", get(async || page::asset(page::HTML, include_str!("docs/index.html"))))
        .route("/api/docs.js", get(async || page::asset(page::JAVASCRIPT, include_str!("docs/docs.js"))))
        .route("/api/docs.css", get(async || page::asset(page::CSS, include_str!("docs/docs.css"))))
        .route_layer(middleware::from_fn(page::unless_known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_is_described_and_every_reference_leads_somewhere() {
        let api = serde_json::to_value(describe(routes().into_openapi())).unwrap();
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
                    assert_eq!(is_problem, !status.starts_with('2'), "{place} {status}");
                }
                assert_eq!(path.contains("{name}"), operation["parameters"].is_array(), "{place}");
            }
        }
        let text = api.to_string();
        for reference in text.split("\"$ref\":\"").skip(1) {
            let (reference, _) = reference.split_once('"').unwrap();
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(api.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        assert_eq!(api["components"]["schemas"]["NewStream"]["required"], serde_json::json!(["name", "source"]));
    }
}
