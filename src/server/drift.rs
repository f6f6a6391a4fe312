//! `/api/v1/streams/{name}/drift`: whether the camera of a stream has changed.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::NamedStream;
use crate::drift::features::{Features, Score};
use crate::drift::reference::Distribution;

/// Whether the camera of a stream has changed.
#[derive(Serialize, ToSchema)]
#[schema(as = Drift)]
pub(super) struct DriftReport {
    /// Whether the picture has been another for a whole `drift.window`: it came suddenly into a state in which the camera has not been.
    changed: bool,
    /// When the change began (RFC 3339); null without a change.
    since: Option<String>,
    /// What has changed, the most first: `darker`, `brighter`, `less contrast`, `more contrast`, `blurred`, `sharper`, `less colour`,
    /// `more colour`, `upside down`, `mirrored`, `another view`, `other content`.
    #[schema(example = json!(["darker", "less contrast"]))]
    changes: Vec<&'static str>,
    /// Whether it is still being learnt what the camera looks like (`drift.settle`).
    settling: bool,
    /// How long the camera has been watched, in seconds. Only masks count that something else needs.
    watched_s: f64,
    /// Means of the newest window; null until there are masks for one.
    now: Option<FeaturesReport>,
    /// The state before the change; without one, the known state that is nearest.
    before: Option<FeaturesReport>,
    /// How much each feature differs from `before`; 1 is the limit of a change.
    #[schema(value_type = BTreeMap<String, f64>)]
    scores: BTreeMap<&'static str, f64>,
    /// The images that the model was trained on; null if its file does not say (`maskcast.reference`).
    training: Option<TrainingReport>,
}

/// What the masks of a window and the images below them look like, 0 to 1.
#[derive(Serialize, ToSchema)]
#[schema(as = Features)]
struct FeaturesReport {
    /// Mean luma.
    luma: f64,
    /// Standard deviation of luma.
    contrast: f64,
    /// Fine detail in relation to the contrast; may be above 1.
    sharpness: f64,
    /// Mean distance of the chroma from grey.
    saturation: f64,
    /// Share of each class.
    classes: BTreeMap<String, f64>,
}

/// The camera in relation to the training set of its model.
#[derive(Serialize, ToSchema)]
#[schema(as = Training)]
struct TrainingReport {
    /// Number of images.
    images: usize,
    /// How unusual each feature is; 1: only 1 % of the training images are further from their mean. `placement`: how far the classes
    /// are from their usual rows.
    #[schema(value_type = BTreeMap<String, f64>)]
    scores: BTreeMap<&'static str, f64>,
    /// The distributions of the features in the training set.
    #[schema(value_type = BTreeMap<String, DistributionReport>)]
    distributions: BTreeMap<&'static str, DistributionReport>,
}

/// The distribution of a feature over the images of the training set.
#[derive(Serialize, ToSchema)]
#[schema(as = Distribution)]
struct DistributionReport {
    /// Mean.
    mean: f64,
    /// The value below which 1 % of the images are.
    low: f64,
    /// The value above which 1 % of the images are.
    high: f64,
    /// Shares of the images in intervals of equal width from `low` to `high`; those beyond are in the first and the last.
    bars: Vec<f64>,
}

/// Show whether the camera has changed
///
/// The newest window in comparison with the states in which the camera has been, and with the images that its model was trained on.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/drift",
    operation_id = "show_drift",
    tag = "streams",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    responses(
        (status = 200, description = "The state of the camera.", body = DriftReport),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
    )
)]
pub(super) async fn show(named: NamedStream) -> Json<DriftReport> {
    Json(report(&named))
}

/// Accept a change of the camera
///
/// The state of now becomes a known one, which ends the change.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{name}/drift/accept",
    operation_id = "accept_drift",
    tag = "streams",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    responses(
        (status = 204, description = "The state of now is a known one."),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
    )
)]
pub(super) async fn accept(named: NamedStream) -> StatusCode {
    named.stream().drift.accept();
    StatusCode::NO_CONTENT
}

fn report(named: &NamedStream) -> DriftReport {
    let stream = named.stream();
    let drift = stream.drift.report();
    let model = named.app.view.model(&stream.config.model).and_then(|model| model.running());
    let reference = model.as_ref().and_then(|model| model.reference.as_deref());
    let training = reference.map(|reference| TrainingReport {
        images: reference.images,
        scores: drift.now.as_ref().map(|now| by_name(&reference.scores(now))).unwrap_or_default(),
        distributions: [
            ("luma", &reference.luma),
            ("contrast", &reference.contrast),
            ("sharpness", &reference.sharpness),
            ("saturation", &reference.saturation),
        ]
        .map(|(name, distribution)| (name, DistributionReport::of(distribution)))
        .into(),
    });
    DriftReport {
        changed: drift.change.is_some(),
        since: drift.change.as_ref().map(|change| format!("{:.3}", change.since)),
        changes: drift.words(),
        settling: drift.settling,
        watched_s: drift.watched.as_secs_f64().round(),
        scores: by_name(&drift.scores()),
        now: drift.now.as_ref().map(FeaturesReport::of),
        before: drift.before.as_ref().map(FeaturesReport::of),
        training,
    }
}

fn by_name(scores: &[Score]) -> BTreeMap<&'static str, f64> {
    scores.iter().map(|score| (score.feature, rounded(score.value))).collect()
}

fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e4).round() / 1e4
}

impl FeaturesReport {
    fn of(features: &Features) -> FeaturesReport {
        FeaturesReport {
            luma: rounded(features.luma),
            contrast: rounded(features.contrast),
            sharpness: rounded(features.sharpness),
            saturation: rounded(features.saturation),
            classes: features.classes.iter().map(|(name, share)| (name.clone(), rounded(*share))).collect(),
        }
    }
}

impl DistributionReport {
    fn of(distribution: &Distribution) -> DistributionReport {
        DistributionReport {
            mean: rounded(distribution.mean),
            low: rounded(distribution.low),
            high: rounded(distribution.high),
            bars: distribution.bars.iter().map(|bar| rounded(*bar)).collect(),
        }
    }
}
