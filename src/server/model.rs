//! `/api/v1/model`: the model that runs, and the request for another one.

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
use crate::frame::Label;
use crate::segment::placement::ProviderShare;
use crate::view::{ModelChange, ModelChangeRequest, ModelChangeState, ModelView};

/// Bytes of a path, as Linux limits them.
const LONGEST_PATH: usize = 4095;

/// The model that runs.
#[derive(Serialize, ToSchema)]
#[schema(as = Model)]
pub(super) struct ModelReport {
    name: String,
    #[schema(value_type = String)]
    path: PathBuf,
    /// The provider asked for first.
    requested: &'static str,
    /// The provider that really runs it.
    actual: &'static str,
    /// Which provider ran how many nodes and took which share of the time, 0 to 1, in a profiled run.
    placement: Vec<ProviderShare>,
    refused: Vec<RefusedProvider>,
    /// Share of the golden frame's pixels that differ from what the trainer got; null without a golden frame.
    golden_difference: Option<f64>,
    input: InputSize,
    /// How the mask is read from what the model gives.
    #[schema(example = "float32 scores of 4 classes, nchw: the largest wins")]
    output: String,
    /// Pixels of its masks, since it was loaded, whose class index has no label.
    unlabelled_pixels: u64,
    /// The classes, by the index that a mask has for them.
    labels: Vec<ClassReport>,
    workers: usize,
    threads: usize,
    max_batch: usize,
    /// Median time of a frame when it was loaded.
    frame_ms: f64,
    change: Option<ChangeReport>,
}

/// A provider that was asked for and does not run the model.
#[derive(Serialize, ToSchema)]
struct RefusedProvider {
    provider: &'static str,
    reason: String,
}

/// A class of the model.
#[derive(Serialize, ToSchema)]
#[schema(as = Class)]
struct ClassReport {
    #[schema(example = "sky")]
    name: String,
    #[schema(example = "#4682b4")]
    color: String,
}

/// In pixels.
#[derive(Serialize, ToSchema)]
struct InputSize {
    width: usize,
    height: usize,
}

/// What became of the newest request for another model.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelChange)]
pub(super) struct ChangeReport {
    #[schema(value_type = String)]
    path: PathBuf,
    /// `loading`, `done` or `refused`.
    state: &'static str,
    /// Why it was refused.
    reason: Option<String>,
    at: String,
}

/// A request for another model.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelChangeBody {
    /// An ONNX file on the service's machine, from the root on.
    #[schema(value_type = String, example = "/srv/models/street.onnx")]
    path: PathBuf,
    /// Take it although it runs on the CPU where the one before runs on a GPU.
    #[serde(default)]
    force: bool,
}

/// Show the model
///
/// The one that runs and where it runs, and what became of the newest request for another one.
#[utoipa::path(
    get,
    path = "/api/v1/model",
    operation_id = "show_model",
    tag = "model",
    responses(
        (status = 200, description = "The model.", body = ModelReport),
        (status = 503, description = "It is still being loaded."),
    )
)]
pub(super) async fn show(State(app): State<SharedApp>) -> Result<Json<ModelReport>, Problem> {
    let Some(model) = app.view.model() else {
        return Err(Problem::loading("try again"));
    };
    Ok(Json(report(&model, app.view.change())))
}

/// Use another model
///
/// It is loaded and checked beside the one that runs; what comes of it is in `change` of the model.
#[utoipa::path(
    post,
    path = "/api/v1/model",
    operation_id = "use_model",
    tag = "model",
    request_body = ModelChangeBody,
    responses(
        (status = 202, description = "It is being loaded.", body = ChangeReport),
        (status = 409, description = "Another one is being loaded."),
        (status = 422, description = "The body is no request for a model."),
        (status = 503, description = "The first model is still being loaded."),
    )
)]
pub(super) async fn change(
    State(app): State<SharedApp>,
    request: Result<Json<ModelChangeBody>, JsonRejection>,
) -> Result<(StatusCode, Json<ChangeReport>), Problem> {
    let Json(ModelChangeBody { path, force }) = request.map_err(Problem::from)?;
    let shown = path.to_string_lossy();
    let wrong = if !path.is_absolute() {
        Some("does not begin at the root")
    } else if shown.len() > LONGEST_PATH {
        Some("is longer than a path can be")
    } else {
        shown.contains(char::is_control).then_some("has control characters in it")
    };
    if let Some(wrong) = wrong {
        let detail = format!("path: {} {wrong}", field(&shown));
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    if app.view.model().is_none() {
        return Err(Problem::loading("another one can be used when it is there"));
    }
    app.view
        .request(ModelChangeRequest { path, force })
        .map_err(|_| Problem::new(StatusCode::CONFLICT, "another model is being loaded already".into()))?;
    let change = app.view.change().map(change_report);
    let change =
        change.ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request was lost".into()))?;
    Ok((StatusCode::ACCEPTED, Json(change)))
}

fn class(label: &Label) -> ClassReport {
    ClassReport { name: label.name.clone(), color: hex(label.color) }
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
