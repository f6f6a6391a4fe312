//! The overlay of a stream, changed while it runs, and its newest mask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::change::{KeyValueBody, request_change};
use super::problem::Problem;
use super::settings::OverlaySettings;
use super::{App, NamedStream, typed};
use crate::base::status::StreamState;
use crate::config::{Legend, Smooth, StreamConfig, Style, hex};
use crate::frame::{Mask, Weight};
use crate::sink::mask_png;
use crate::view::StreamView;
use crate::view::request::{Change, ChangeOutcome};

/// How long a request waits for the first mask of a stream that made none, because nothing used them.
const FIRST_MASK: Duration = Duration::from_secs(5);

/// The overlay settings in effect.
#[derive(Serialize, ToSchema)]
pub(super) struct OverlayReport {
    /// `tint`: class colours are blended over the frame. `contour`: lines along the borders of classes. `mask-only`: class
    /// colours without the frame.
    style: Style,
    /// Opacity of the class colours: 0 is invisible, 1 is opaque.
    #[schema(minimum = 0, maximum = 1)]
    alpha: f64,
    /// How strongly masks are smoothed over time before they are drawn: `off`, `light`, `normal`, `strong`.
    smooth: Smooth,
    /// Names of the classes that are not drawn.
    hide: Vec<String>,
    /// The classes that the legend in the frame lists. `visible`: the drawn classes that are in the frame. `all`: all drawn
    /// classes. `off`: there is no legend.
    legend: Legend,
    /// Colours that replace those of the model: class name to `#rrggbb`.
    colors: BTreeMap<String, String>,
    /// Weights that replace those of the model: class name to a factor of `alpha`, 0 (not drawn) to 1.
    #[schema(value_type = BTreeMap<String, f64>)]
    weights: BTreeMap<String, Weight>,
    /// Only in the response to a change: whether the change is in the configuration file, or will be within a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    remembered: Option<bool>,
    /// Only in the response to a change that could not be written to the configuration file: the error. The change is lost
    /// at the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Show the overlay settings
///
/// The overlay settings of a stream, with defaults.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/overlay",
    operation_id = "show_overlay",
    tag = "overlay",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    responses(
        (status = 200, description = "The settings in effect.", body = OverlayReport),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
    )
)]
pub(super) async fn show(named: NamedStream) -> Json<OverlayReport> {
    Json(report(&named.app, &named.stream().config, None))
}

/// Change the overlay settings
///
/// The body is a JSON merge patch (RFC 7396). The change applies from the next frame on, without a restart. It is also written
/// to the configuration file; if that fails, `reason` in the response has the error. Settings that name classes (`hide`,
/// `colors`, `weights`) cannot be changed before the model is loaded.
#[utoipa::path(
    patch,
    path = "/api/v1/streams/{name}/overlay",
    operation_id = "change_overlay",
    tag = "overlay",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    request_body(
        content(
            (OverlaySettings = "application/merge-patch+json", example = json!({"style": "contour", "hide": ["sky"]})),
            (OverlaySettings = "application/json", example = json!({"style": "contour", "hide": ["sky"]})),
        )
    ),
    responses(
        (status = 200, description = "The settings in effect.", body = OverlayReport),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
        (status = 422, description = "The settings are not valid; `errors` lists all errors. For an unknown class it lists the classes of the model."),
        (status = 503, description = "The settings name classes, but the model is still being loaded. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn change(named: NamedStream, keys: KeyValueBody) -> Result<Json<OverlayReport>, Problem> {
    let KeyValueBody(patch) = keys;
    let name = named.stream().status.name.to_string();
    let outcome = request_change(&named.app, Change::Overlay { stream: name.clone(), patch }).await?;
    let streams = named.app.view.streams();
    let Some(stream) = named.app.view.stream(&name) else { return Err(Problem::unknown_stream(&name, &streams)) };
    Ok(Json(report(&named.app, &stream.config, Some(outcome))))
}

fn report(app: &App, stream: &StreamConfig, outcome: Option<ChangeOutcome>) -> OverlayReport {
    let overlay = &stream.overlay;
    let labels = app.view.labels_of(&stream.model);
    // Without a setting, the hidden classes depend on the model.
    let by_default = || labels.iter().flat_map(|labels| labels.iter()).map(|label| &label.name);
    let hide = match &overlay.hide {
        Some(hide) => hide.clone(),
        None => by_default().filter(|name| overlay.hides(name)).cloned().collect(),
    };
    OverlayReport {
        style: overlay.style,
        alpha: overlay.alpha_exact(),
        smooth: overlay.smooth,
        hide,
        legend: overlay.legend,
        colors: overlay.colors.iter().map(|(name, color)| (name.clone(), hex(*color))).collect(),
        weights: overlay.weights.iter().cloned().collect(),
        remembered: outcome.as_ref().map(|outcome| outcome.not_saved.is_none()),
        reason: outcome.and_then(|outcome| outcome.not_saved).map(|error| error.to_string()),
    }
}

/// Get the newest mask
///
/// A PNG with one byte per pixel, in the size of the mask: the output size of the model, or more with `crop` or `tiles`. If the model does not run for the stream because nothing uses its
/// masks, this request starts it and waits for the first mask. The byte is the class index: the position of the class in
/// `labels` of the stream's model (`/api/v1/models/{name}`), or 255 outside of the crop of the stream.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/mask.png",
    operation_id = "mask",
    tag = "images",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    responses(
        (status = 200, description = "8-bit greyscale PNG.", body = Vec<u8>, content_type = "image/png", headers(
            ("X-Maskcast-Seq" = u64, description = "Sequence number of the frame that the mask belongs to."),
            ("X-Maskcast-Pts" = f64, description = "Presentation time of that frame in seconds."),
            ("X-Maskcast-Captured" = String, description = "When that frame was captured (RFC 3339)."),
        )),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
        (status = 503, description = "There is no mask: the source is offline, or the model is still being loaded."),
    )
)]
pub(super) async fn mask(named: NamedStream) -> Result<Response, Problem> {
    let stream = named.stream();
    let mask = newest_mask(stream).await.ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("there is no mask of stream {} at present", stream.status.name),
        )
    })?;
    let failed = |error: &dyn std::fmt::Display| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the mask cannot be written: {error}"))
    };
    let mut response = typed("image/png", mask_png(&mask).map_err(|error| failed(&error))?);
    let headers = [
        ("x-maskcast-seq", mask.seq.to_string()),
        ("x-maskcast-pts", format!("{:.3}", mask.pts.as_secs_f64())),
        ("x-maskcast-captured", captured(mask.captured_at.elapsed())),
    ];
    for (name, value) in headers {
        let value = HeaderValue::try_from(value).map_err(|error| failed(&error))?;
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    Ok(response)
}

/// The newest mask of a stream. A stream that makes no masks, because nothing uses them, starts with the request.
async fn newest_mask(stream: &StreamView) -> Option<Arc<Mask>> {
    stream.masks.ask();
    let mut masks = stream.masks.subscribe();
    let state = stream.status.state();
    if let Some(mask) = stream.overlay_state.mask().filter(|_| !state.shows_slate()) {
        return Some(mask);
    }
    if state != StreamState::Live {
        return None;
    }
    let first = tokio::time::timeout(FIRST_MASK, masks.recv()).await;
    first.ok()?.ok().map(|mask| mask.mask)
}

/// The wall-clock time `ago` before now.
fn captured(ago: Duration) -> String {
    let now = Timestamp::now();
    format!("{:.3}", now.checked_sub(ago).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::tests::{agent, get, model, server, view};
    use super::*;
    use crate::frame::Mask;

    #[test]
    fn the_newest_mask_is_a_grey_png_of_class_indices() {
        let view = view(&["gate"]);
        let server = server(&view);
        let path = "/api/v1/streams/gate/mask.png";
        let none = get(&server, path);
        assert_eq!((none.status, none.header("content-type")), (503, "application/problem+json"));
        let (pts, captured_at) = (Duration::from_millis(1500), Instant::now());
        let classes = vec![0, 1, 1, 0, 1, 255];
        let mask = Mask {
            seq: 7,
            pts,
            captured_at,
            width: 3,
            height: 2,
            classes,
            labels: model().labels,
            model: "".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        };
        let stream = view.stream("gate").unwrap();
        stream.overlay_state.set_mask(Some(Arc::new(mask)));
        let mut response = agent().get(format!("http://{}{path}", server.address())).call().unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "image/png");
        assert_eq!((header("x-maskcast-seq"), header("x-maskcast-pts")), ("7".to_owned(), "1.500".to_owned()));
        let age = Timestamp::now().duration_since(header("x-maskcast-captured").parse::<Timestamp>().unwrap());
        assert!((0.0..10.0).contains(&age.as_secs_f64()), "{age:?}");
        let bytes = response.body_mut().read_to_vec().unwrap();
        let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (3, 2, png::ColorType::Grayscale));
        assert_eq!(pixels, [0, 1, 1, 0, 1, 255]);
        stream.status.set_offline("connection refused".into());
        assert_eq!(get(&server, path).status, 503, "the source is offline: the mask is old");
    }

    #[test]
    fn the_current_overlay_is_returned() {
        let view = view(&["gate"]);
        let server = server(&view);
        let shown = get(&server, "/api/v1/streams/gate/overlay").json();
        let wanted = serde_json::json!({"style": "tint", "alpha": 0.45, "smooth": "normal", "hide": ["sky"], "legend": "visible",
                                        "colors": {}, "weights": {}});
        assert_eq!(shown, wanted);
    }

    #[test]
    fn every_overlay_key_of_the_configuration_is_returned_and_is_on_the_page() {
        let view = view(&["gate"]);
        let shown = get(&server(&view), "/api/v1/streams/gate/overlay").json();
        let schema = crate::config::api_schema("stream.overlay");
        for key in schema["properties"].as_object().unwrap().keys() {
            assert!(shown.get(key).is_some(), "OverlayReport has no field {key}");
            // Colours are set in the file and by the API only.
            let is_on_page = include_str!("page/overlay.js").contains(key.as_str());
            assert!(is_on_page || key == "colors", "page/overlay.js has no control for {key}");
        }
    }
}
