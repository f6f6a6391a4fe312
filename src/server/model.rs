//! `/api/v1/model`: the model that runs, and requests to load another one.

use std::path::PathBuf;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SharedApp;
use super::api::tenths;
use super::problem::Problem;
use crate::base::bounded::field;
use crate::config::hex;
use crate::frame::{Label, Weight};
use crate::segment::placement::ProviderShare;
use crate::view::{ModelChange, ModelChangeRequest, ModelChangeState, ModelView};

/// Maximum length of a path in bytes (Linux).
const MAX_PATH: usize = 4095;

/// The model that runs.
#[derive(Serialize, ToSchema)]
#[schema(as = Model)]
pub(super) struct ModelReport {
    /// Name of the model.
    name: String,
    /// Path of the ONNX file on the machine of the service.
    #[schema(value_type = String)]
    path: PathBuf,
    /// The execution provider that was expected: the first of `model.providers` if that key is set, or if the machine has an
    /// NVIDIA GPU and the CPU runs the model; otherwise the one that runs the model.
    requested: &'static str,
    /// The execution provider that runs the model.
    actual: &'static str,
    /// Which execution provider ran which part of the model, measured when the model was loaded.
    placement: Vec<ProviderShare>,
    /// Execution providers in the settings that cannot run the model.
    refused: Vec<RefusedProvider>,
    /// Share of the pixels of the model's golden frame (a test image in the file) whose class differs from the one that the
    /// trainer recorded, 0 to 1; null if the file has no golden frame.
    golden_difference: Option<f64>,
    /// Size of the model's input.
    input: InputSize,
    /// How the mask is computed from the output of the model.
    #[schema(example = "float32 scores of 4 classes, nchw: the class with the largest score is used")]
    output: String,
    /// Mask pixels, since the model was loaded, whose class index has no label.
    unlabelled_pixels: u64,
    /// The classes, in the order of the class index in masks.
    labels: Vec<ClassReport>,
    /// Number of sessions that run the model in parallel.
    workers: usize,
    /// CPU threads of each session.
    threads: usize,
    /// Maximum number of frames in one run of the model.
    max_batch: usize,
    /// Time that the model takes for a frame in milliseconds, median of a measurement when the model was loaded.
    frame_ms: f64,
    /// The newest request for another model; null if there was none since the service started.
    change: Option<ChangeReport>,
}

/// An execution provider that cannot run the model.
#[derive(Serialize, ToSchema)]
struct RefusedProvider {
    /// Name of the provider.
    provider: &'static str,
    /// Why the provider cannot run the model.
    reason: String,
}

/// A class of the model.
#[derive(Serialize, ToSchema)]
#[schema(as = Class)]
struct ClassReport {
    /// Name of the class.
    #[schema(example = "sky")]
    name: String,
    /// Colour of the class in the model, `#rrggbb`.
    #[schema(example = "#4682b4")]
    color: String,
    /// How strongly the class is drawn, unless a stream has another weight: a factor of the opacity, 0 (not drawn) to 1.
    #[schema(value_type = f64, minimum = 0, maximum = 1, example = 0.4)]
    weight: Weight,
}

/// A size in pixels.
#[derive(Serialize, ToSchema)]
struct InputSize {
    /// Width in pixels.
    width: usize,
    /// Height in pixels.
    height: usize,
}

/// State of the newest request for another model.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelChange)]
pub(super) struct ChangeReport {
    /// Path of the ONNX file.
    #[schema(value_type = String)]
    path: PathBuf,
    /// `loading`; `done`: the model runs; `refused`: the model before it continues to run.
    state: &'static str,
    /// Why the model was refused; null in the other states.
    reason: Option<String>,
    /// When the request entered this state (RFC 3339).
    at: String,
}

/// A request for another model.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelRequest {
    /// Absolute path of an ONNX file on the machine of the service, at most 4095 bytes.
    #[schema(value_type = String, example = "/srv/models/street.onnx")]
    path: PathBuf,
    /// Use the model even if it runs on the CPU and the current model runs on a GPU. Default: `false`.
    #[serde(default)]
    force: bool,
}

/// Show the model
///
/// The model that runs, its classes and its execution provider, and the state of the newest request for another model.
#[utoipa::path(
    get,
    path = "/api/v1/model",
    operation_id = "show_model",
    tag = "model",
    responses(
        (status = 200, description = "The model.", body = ModelReport),
        (status = 503, description = "The model is still being loaded. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn show(State(app): State<SharedApp>) -> Result<Json<ModelReport>, Problem> {
    let Some(model) = app.view.model() else {
        return Err(Problem::loading("try again"));
    };
    Ok(Json(report(&model, app.view.model_change())))
}

/// Use another model
///
/// The new model is loaded and checked while the current model continues to run. The result is in `change` of
/// `GET /api/v1/model`.
#[utoipa::path(
    post,
    path = "/api/v1/model",
    operation_id = "use_model",
    tag = "model",
    request_body(content = ModelRequest, example = json!({"path": "/srv/models/street.onnx"})),
    responses(
        (status = 202, description = "The model is being loaded.", body = ChangeReport),
        (status = 403, description = "A stream has `[stream.redact]`: only the configuration file can change the model."),
        (status = 409, description = "Another model is being loaded already."),
        (status = 422, description = "The body is not an object with an absolute `path`."),
        (status = 503, description = "The first model is still being loaded. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn change(
    State(app): State<SharedApp>,
    request: Result<Json<ModelRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<ChangeReport>), Problem> {
    let Json(ModelRequest { path, force }) = request.map_err(Problem::from)?;
    let shown = path.to_string_lossy();
    let problem = if !path.is_absolute() {
        Some("is not an absolute path")
    } else if shown.len() > MAX_PATH {
        Some("is longer than a path can be")
    } else {
        shown.contains(char::is_control).then_some("contains control characters")
    };
    if let Some(problem) = problem {
        let detail = format!("path: {} {problem}", field(&shown));
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    // Its masks decide what is hidden.
    if let Some(stream) = app.view.streams().iter().find(|stream| stream.config.redact.is_some()) {
        let detail = format!(
            "the stream {:?} has [stream.redact]: change model.path in the configuration file and reload it",
            stream.status.name
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    if app.view.model().is_none() {
        return Err(Problem::loading("another one can be used when it is loaded"));
    }
    app.view
        .request_model(ModelChangeRequest { path, force })
        .map_err(|_| Problem::new(StatusCode::CONFLICT, "another model is already being loaded".into()))?;
    let change = app.view.model_change().map(change_report);
    let change = change.ok_or_else(|| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request for the model was lost; try again".into())
    })?;
    Ok((StatusCode::ACCEPTED, Json(change)))
}

fn class(label: &Label) -> ClassReport {
    ClassReport { name: label.name.clone(), color: hex(label.color), weight: label.weight }
}

fn report(model: &ModelView, change: Option<ModelChange>) -> ModelReport {
    let (width, height) = model.input;
    let refused = |(provider, reason): &(&'static str, String)| RefusedProvider { provider, reason: reason.clone() };
    ModelReport {
        name: model.name.clone(),
        path: model.path.clone(),
        requested: model.requested,
        actual: model.actual,
        placement: model.placement.0.clone(),
        refused: model.refused.iter().map(refused).collect(),
        golden_difference: model.golden_difference,
        input: InputSize { width, height },
        output: model.output.clone(),
        unlabelled_pixels: model.unlabelled.pixels(),
        labels: model.labels.iter().map(class).collect(),
        workers: model.workers,
        threads: model.threads,
        max_batch: model.max_batch,
        frame_ms: tenths(model.time.as_secs_f64() * 1e3),
        change: change.map(change_report),
    }
}

fn change_report(change: ModelChange) -> ChangeReport {
    let (state, reason) = match change.outcome {
        ModelChangeState::Loading => ("loading", None),
        ModelChangeState::Done => ("done", None),
        ModelChangeState::Refused(reason) => ("refused", Some(reason)),
    };
    ChangeReport { path: change.path, state, reason, at: format!("{:.3}", change.at) }
}
