//! Metrics of cameras that have changed.

use std::sync::Arc;

use super::families::Families;
use crate::drift::DriftReport;
use crate::view::{ServiceView, StreamView};

pub(super) fn drift(view: &ServiceView, streams: &[Arc<StreamView>], out: &mut Families) {
    let reports: Vec<(&StreamView, DriftReport)> =
        streams.iter().map(|stream| (&**stream, stream.drift.report())).collect();
    out.gauges(
        "maskcast_drift_changed",
        "1 while the picture of the camera is suddenly another than it has been.",
        reports.iter().map(|(stream, report)| {
            (vec![("stream", &*stream.status.name)], f64::from(u8::from(report.change.is_some())))
        }),
    );
    out.gauges(
        "maskcast_drift_score",
        "Difference of a feature of the picture from the states in which the camera has been; 1 is the limit.",
        reports.iter().flat_map(|(stream, report)| {
            let labels = move |feature| vec![("stream", &*stream.status.name), ("feature", feature)];
            report.scores().into_iter().map(move |score| (labels(score.feature), f64::from(score.value)))
        }),
    );
    let unlike_training = reports.iter().flat_map(|(stream, report)| {
        let model = view.model(&stream.config.model).and_then(|model| model.running());
        let reference = model.and_then(|model| model.reference.clone());
        let scores = reference.zip(report.now.as_ref()).map(|(reference, now)| reference.scores(now));
        let labels = move |feature| vec![("stream", &*stream.status.name), ("feature", feature)];
        scores.into_iter().flatten().map(move |score| (labels(score.feature), f64::from(score.value)))
    });
    out.gauges(
        "maskcast_drift_training_score",
        "How unusual a feature of the picture is for the model; beyond 1 are 1 % of its training images.",
        unlike_training,
    );
}
