//! `/api/v1/models` and `/api/v1/model`: the models that run, and requests to load other files.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{self, FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::tenths;
use super::problem::Problem;
use super::{App, SharedApp};
use crate::base::bounded::field;
use crate::config::hex;
use crate::frame::{Label, Weight};
use crate::segment::placement::ProviderShare;
use crate::view::{ModelBusy, ModelChange, ModelChangeRequest, ModelChangeState, NamedModel, Saving, StreamView};

/// Maximum length of a path in bytes (Linux).
const MAX_PATH: usize = 4095;

/// A model that runs.
#[derive(Serialize, ToSchema)]
#[schema(as = Model)]
pub(super) struct ModelReport {
    /// Name of the model in the configuration; `default` if it gives none.
    #[schema(example = "default")]
    model: String,
    /// Names of its streams.
    streams: Vec<String>,
    /// Name of its file, without the extension.
    #[schema(example = "everyday")]
    name: String,
    /// Path of the ONNX file on the machine of the service.
    #[schema(value_type = String)]
    path: PathBuf,
    /// The execution provider that was expected: the first of `model.providers` if that key is set, or if the machine has an
    /// NVIDIA GPU and the CPU runs the model; otherwise the one that runs the model.
    requested: &'static str,
    /// The execution provider that runs the model.
    actual: &'static str,
    /// Path of the file that ran before, to which a rollback returns; null if no other has.
    #[schema(value_type = Option<String>)]
    previous: Option<PathBuf>,
    /// Whether `path` is that of the configuration file, which the next start of the service loads.
    saved: bool,
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
    /// Numbers of the GPUs over which the sessions are distributed; empty on the CPU.
    devices: Vec<i32>,
    /// Number of sessions that run the model in parallel.
    workers: usize,
    /// CPU threads of each session.
    threads: usize,
    /// Maximum number of frames in one run of the model.
    max_batch: usize,
    /// Time that the model takes for a frame in milliseconds, median of a measurement when the model was loaded.
    frame_ms: f64,
    /// Growth of the resident memory of the service in bytes while the model was loaded and its sessions were made, at the last load;
    /// other streams that started then are in it, the memory of GPUs is not. Null where it cannot be measured.
    memory_bytes: Option<u64>,
    /// The newest request for another file; null if there was none since the service started.
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
    /// Whether the path is in the configuration file: null if the request did not ask for that, or until the model runs.
    saved: Option<bool>,
    /// Why the path could not be written to the configuration file; null otherwise.
    not_saved: Option<String>,
    /// When the request entered this state (RFC 3339).
    at: String,
}

/// A request to load another file for a model.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelRequest {
    /// Absolute path of an ONNX file on the machine of the service, at most 4095 bytes.
    #[schema(value_type = String, example = "/srv/models/street.onnx")]
    path: PathBuf,
    /// Use the model even if it runs on the CPU and the current model runs on a GPU. Default: `false`.
    #[serde(default)]
    force: bool,
    /// When the model runs, write its path to the configuration file, so that the next start of the service loads it. Default:
    /// `false`.
    #[serde(default)]
    save: bool,
}

/// List the models
///
/// All models, in the order of the configuration file.
#[utoipa::path(
    get,
    path = "/api/v1/models",
    operation_id = "list_models",
    tag = "model",
    responses(
        (status = 200, description = "The models.", body = Vec<ModelReport>),
        (status = 503, description = "A model is still being loaded. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn list(State(app): State<SharedApp>) -> Result<Json<Vec<ModelReport>>, Problem> {
    let models = app.view.models();
    models.iter().map(|model| report(model, &app)).collect::<Result<_, _>>().map(Json)
}

/// Show a model
///
/// The model of this name, its classes, its execution provider and its streams, and the state of the newest request for another file.
#[utoipa::path(
    get,
    path = "/api/v1/models/{name}",
    operation_id = "show_named_model",
    tag = "model",
    params(("name" = String, Path, description = "Name of the model.", example = "default")),
    responses(
        (status = 200, description = "The model.", body = ModelReport),
        (status = 404, description = "No model has this name; `models` lists the names."),
        (status = 503, description = "The model is still being loaded. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn show_named(named: RequestedModel) -> Result<Json<ModelReport>, Problem> {
    report(&named.model, &named.app).map(Json)
}

/// Use another file for a model
///
/// The new file is loaded and checked while the current one continues to run. The result is in `change` of
/// `GET /api/v1/models/{name}`. Other models are not affected.
#[utoipa::path(
    post,
    path = "/api/v1/models/{name}",
    operation_id = "use_named_model",
    tag = "model",
    params(("name" = String, Path, description = "Name of the model.", example = "default")),
    request_body(content = ModelRequest, example = json!({"path": "/srv/models/street.onnx"})),
    responses(
        (status = 202, description = "The file is being loaded.", body = ChangeReport),
        (status = 403, description = "A stream of the model has `[stream.redact]`: only the configuration file can change the model."),
        (status = 404, description = "No model has this name; `models` lists the names."),
        (status = 409, description = "Another file of the model is being loaded already."),
        (status = 422, description = "The body is not an object with an absolute `path`."),
        (status = 503, description = "The model is still being loaded for the first time. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn change_named(
    named: RequestedModel,
    request: Result<Json<ModelRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<ChangeReport>), Problem> {
    request_change(&named.app, &named.model, request)
}

/// Show the first model
///
/// The model of the streams that name none, its classes and its execution provider, and the state of the newest request for another
/// file. With one model, this is the model of all streams; `/api/v1/models` lists all.
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
    let model = first(&app)?;
    report(&model, &app).map(Json)
}

/// Use another file for the first model
///
/// The same as `POST /api/v1/models/{name}` with the name of the first model. The result is in `change` of `GET /api/v1/model`.
#[utoipa::path(
    post,
    path = "/api/v1/model",
    operation_id = "use_model",
    tag = "model",
    request_body(content = ModelRequest, example = json!({"path": "/srv/models/street.onnx"})),
    responses(
        (status = 202, description = "The model is being loaded.", body = ChangeReport),
        (status = 403, description = "A stream of the model has `[stream.redact]`: only the configuration file can change the model."),
        (status = 409, description = "Another file of the model is being loaded already."),
        (status = 422, description = "The body is not an object with an absolute `path`."),
        (status = 503, description = "The first model is still being loaded. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn change(
    State(app): State<SharedApp>,
    request: Result<Json<ModelRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<ChangeReport>), Problem> {
    let model = first(&app)?;
    request_change(&app, &model, request)
}

/// Return to the file before
///
/// Loads the file in `previous` of the model. It is checked like another file. If the file that runs now is in the configuration file,
/// the other one is written there when it runs. The result is in `change` of `GET /api/v1/models/{name}`.
#[utoipa::path(
    post,
    path = "/api/v1/models/{name}/rollback",
    operation_id = "roll_back_named_model",
    tag = "model",
    params(("name" = String, Path, description = "Name of the model.", example = "default")),
    responses(
        (status = 202, description = "The file is being loaded.", body = ChangeReport),
        (status = 403, description = "A stream of the model has `[stream.redact]`: only the configuration file can change the model."),
        (status = 404, description = "No model has this name; `models` lists the names."),
        (status = 409, description = "No file ran before, or another file of the model is being loaded already."),
        (status = 503, description = "The model is still being loaded for the first time. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn roll_back_named(named: RequestedModel) -> Result<(StatusCode, Json<ChangeReport>), Problem> {
    request_rollback(&named.app, &named.model)
}

/// Return to the file before, for the first model
///
/// The same as `POST /api/v1/models/{name}/rollback` with the name of the first model. The result is in `change` of
/// `GET /api/v1/model`.
#[utoipa::path(
    post,
    path = "/api/v1/model/rollback",
    operation_id = "roll_back_model",
    tag = "model",
    responses(
        (status = 202, description = "The file is being loaded.", body = ChangeReport),
        (status = 403, description = "A stream of the model has `[stream.redact]`: only the configuration file can change the model."),
        (status = 409, description = "No file ran before, or another file of the model is being loaded already."),
        (status = 503, description = "The first model is still being loaded. Try again after the seconds in `Retry-After`."),
    )
)]
pub(super) async fn roll_back(State(app): State<SharedApp>) -> Result<(StatusCode, Json<ChangeReport>), Problem> {
    let model = first(&app)?;
    request_rollback(&app, &model)
}

/// The model of the path's `{name}`.
pub(super) struct RequestedModel {
    app: SharedApp,
    model: Arc<NamedModel>,
}

impl RequestedModel {
    pub(super) fn into_model(self) -> Arc<NamedModel> {
        self.model
    }
}

/// The parameters of a path with the name of a model, and perhaps others.
#[derive(Deserialize)]
struct NamePart {
    name: String,
}

impl FromRequestParts<SharedApp> for RequestedModel {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, Problem> {
        let name = match extract::Path::<NamePart>::from_request_parts(parts, app).await {
            Ok(extract::Path(NamePart { name })) => name,
            Err(_) => return Err(Problem::unknown_model(parts.uri.path(), &app.view.models())),
        };
        match app.view.model(&name) {
            Some(model) => Ok(RequestedModel { app: Arc::clone(app), model }),
            None => Err(Problem::unknown_model(&name, &app.view.models())),
        }
    }
}

/// The model of the streams that name none.
fn first(app: &App) -> Result<Arc<NamedModel>, Problem> {
    app.view.models().first().cloned().ok_or_else(|| Problem::loading("try again"))
}

/// Requests another file for a model.
fn request_change(
    app: &App,
    model: &NamedModel,
    request: Result<Json<ModelRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<ChangeReport>), Problem> {
    let Json(ModelRequest { path, force, save }) = request.map_err(Problem::from)?;
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
    send_request(app, model, ModelChangeRequest { path, force, save })
}

/// Requests the file that ran before the one that runs now.
fn request_rollback(app: &App, model: &NamedModel) -> Result<(StatusCode, Json<ChangeReport>), Problem> {
    let files = model.files();
    let Some(path) = files.previous else {
        let detail = "no other file of this model ran before, so there is none to return to";
        return Err(Problem::new(StatusCode::CONFLICT, detail.into()));
    };
    let save = model.running().is_some_and(|running| running.path == files.configured);
    // It is known to run with this provider.
    send_request(app, model, ModelChangeRequest { path, force: true, save })
}

fn send_request(
    app: &App,
    model: &NamedModel,
    request: ModelChangeRequest,
) -> Result<(StatusCode, Json<ChangeReport>), Problem> {
    // Its masks decide what is hidden.
    let redacts = |stream: &StreamView| *stream.config.model == *model.name && stream.config.redact.is_some();
    if let Some(stream) = app.view.streams().iter().find(|stream| redacts(stream)) {
        let detail = format!(
            "the stream {:?} has [stream.redact]: change the path of its model in the configuration file and reload it",
            stream.status.name
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    if model.running().is_none() {
        return Err(Problem::loading("another one can be used when it is loaded"));
    }
    let requested = model.request(request);
    let busy =
        |ModelBusy| Problem::new(StatusCode::CONFLICT, "another file of this model is already being loaded".into());
    Ok((StatusCode::ACCEPTED, Json(change_report(requested.map_err(busy)?))))
}

fn class(label: &Label) -> ClassReport {
    ClassReport { name: label.name.clone(), color: hex(label.color), weight: label.weight }
}

fn report(named: &NamedModel, app: &App) -> Result<ModelReport, Problem> {
    let model = named.running().ok_or_else(|| Problem::loading("try again"))?;
    let files = named.files();
    let (width, height) = model.input;
    let streams = app.view.streams();
    let own = streams.iter().filter(|stream| *stream.config.model == *named.name);
    let refused = |(provider, reason): &(&'static str, String)| RefusedProvider { provider, reason: reason.clone() };
    Ok(ModelReport {
        model: named.name.to_string(),
        streams: own.map(|stream| stream.status.name.to_string()).collect(),
        name: model.name.clone(),
        path: model.path.clone(),
        saved: model.path == files.configured,
        previous: files.previous,
        requested: model.requested,
        actual: model.actual,
        placement: model.placement.0.clone(),
        refused: model.refused.iter().map(refused).collect(),
        golden_difference: model.golden_difference,
        input: InputSize { width, height },
        output: model.output.clone(),
        unlabelled_pixels: model.unlabelled.pixels(),
        labels: model.labels.iter().map(class).collect(),
        devices: model.devices.clone(),
        workers: model.workers,
        threads: model.threads,
        max_batch: model.max_batch,
        frame_ms: tenths(model.time.as_secs_f64() * 1e3),
        memory_bytes: model.memory,
        change: named.change().map(change_report),
    })
}

fn change_report(change: ModelChange) -> ChangeReport {
    let (state, reason) = match change.outcome {
        ModelChangeState::Loading => ("loading", None),
        ModelChangeState::Done => ("done", None),
        ModelChangeState::Refused(reason) => ("refused", Some(reason)),
    };
    let (saved, not_saved) = match change.saving {
        Saving::NotRequested | Saving::Requested => (None, None),
        Saving::Saved => (Some(true), None),
        Saving::Failed(reason) => (Some(false), Some(reason)),
    };
    ChangeReport { path: change.path, state, reason, saved, not_saved, at: format!("{:.3}", change.at) }
}
