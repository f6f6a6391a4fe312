//! Metrics of the models, each with the name of the model in the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::families::Families;
use crate::segment::pool::PoolStats;
use crate::view::{ModelView, NamedModel, ServiceView};

pub(super) fn models(view: &ServiceView, out: &mut Families) {
    let models = view.models();
    let running: Vec<(&str, Arc<ModelView>)> =
        models.iter().filter_map(|model| Some((&*model.name, model.running()?))).collect();
    out.gauges(
        "maskcast_provider_info",
        "The provider that runs the model (actual) and the one that was expected (requested).",
        running.iter().map(|(name, model)| {
            (vec![("model", *name), ("requested", model.requested), ("actual", model.actual)], 1.0)
        }),
    );
    let inputs: Vec<String> = running.iter().map(|(_, model)| format!("{}x{}", model.input.0, model.input.1)).collect();
    out.gauges(
        "maskcast_model_info",
        "The model, the name of its file and its input size in pixels.",
        running.iter().zip(&inputs).map(|((name, model), input)| {
            (vec![("model", *name), ("file", model.name.as_str()), ("input", input.as_str())], 1.0)
        }),
    );
    out.counters(
        "maskcast_model_unlabelled_pixels_total",
        "Pixels of masks whose class index has no label, since the model was loaded.",
        running.iter().map(|(name, model)| (vec![("model", *name)], model.unlabelled.pixels() as f64)),
    );
    out.gauges(
        "maskcast_model_memory_bytes",
        "Growth of the resident memory while the model was loaded and its sessions were made.",
        running.iter().filter_map(|(name, model)| Some((vec![("model", *name)], model.memory? as f64))),
    );
    out.gauges(
        "maskcast_provider_time_ratio",
        "Share of the model's time that an execution provider took in a profiled run.",
        running.iter().flat_map(|(name, model)| {
            let parts = model.placement.0.iter();
            parts.map(move |part| (vec![("model", *name), ("provider", part.provider.as_str())], part.time))
        }),
    );
    workers(&models, out);
}

/// Returns a counter of a pool.
type PoolCounter = fn(&PoolStats) -> &AtomicU64;

/// What the workers of the models have done.
fn workers(models: &[Arc<NamedModel>], out: &mut Families) {
    let counters: [(&str, &str, PoolCounter); 3] = [
        ("maskcast_segment_runs_total", "Runs of the model, each on a batch of frames.", |pool| &pool.runs),
        (
            "maskcast_segment_frames_total",
            "Frames that the model ran for; not those whose last mask was confirmed.",
            |pool| &pool.frames,
        ),
        ("maskcast_segment_failures_total", "Runs of the model that failed.", |pool| &pool.failures),
    ];
    for (name, help, count) in counters {
        let samples = models
            .iter()
            .map(|model| (vec![("model", &*model.name)], count(&model.pool).load(Ordering::Relaxed) as f64));
        out.counters(name, help, samples);
    }
}
