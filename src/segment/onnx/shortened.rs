//! Loads a model for the CPU with its first and last steps computed without ONNX Runtime.

use std::sync::Arc;

use super::own_steps::OwnSteps;
use super::{CheckError, Model};
use crate::config::{ModelConfig, Provider};
use crate::segment::SegmentError;
use crate::segment::contract::Contract;
use crate::segment::file::ModelFile;
use crate::segment::head::{Head, HeadProblem};
use crate::segment::manifest::ModelManifest;
use crate::segment::segmenter::OnnxSegmenter;
use crate::segment::session::{SessionError, open_session};
use crate::segment::stem::{self, Stem};

/// Largest share of pixels (0 to 1) in which the masks of a head and of the graph may differ. Where two classes are equal, the last bit
/// of a sum decides, and some processors compute it in another way.
const TIES: f64 = 5e-4;

/// Why the last steps of a model are not computed by [`Head`].
#[derive(Debug, thiserror::Error)]
enum HeadRefusal {
    #[error(transparent)]
    Problem(#[from] HeadProblem),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Run(#[from] SegmentError),
    #[error("its description gives other masks than the graph, in {:.2} % of the golden frame", .0 * 100.0)]
    Different(f64),
}

impl Model {
    /// The model on the CPU with its last steps computed by [`Head`], and the windows of its first convolution by [`Stem`]; `None` if
    /// the file does not describe the last steps, or if the masks are not those of the whole graph.
    pub(super) fn load_with_own_steps(config: &ModelConfig, file: &Arc<ModelFile>, threads: usize) -> Option<Model> {
        let loaded = match Head::of(config, file) {
            Ok(Some((head, pruned))) => {
                let (stem, shortened) = Self::stem_of(config, pruned);
                let own_steps = OwnSteps { stem, head: Some(Arc::new(head)) };
                Self::try_own_steps(config, file, own_steps, shortened, threads)
            }
            Ok(None) => return None,
            Err(problem) => Err(problem.into()),
        };
        match loaded {
            Ok(model) => Some(model),
            Err(refusal) => {
                tracing::warn!(
                    model = %config.path.display(),
                    "the first and last steps of the model run in ONNX Runtime, which takes longer: {refusal}"
                );
                None
            }
        }
    }

    /// The first convolution of a file and the file without it, or the file as it is.
    fn stem_of(config: &ModelConfig, file: ModelFile) -> (Option<Arc<Stem>>, ModelFile) {
        // A manifest may have another order of colours.
        let manifest = ModelManifest::beside(&config.path).ok().flatten();
        if manifest.is_some_and(|manifest| manifest.input.is_some()) {
            return (None, file);
        }
        match stem::shorten(&file) {
            Ok(Some((stem, rewritten))) => (Some(Arc::new(stem)), rewritten),
            Ok(None) => (None, file),
            Err(problem) => {
                tracing::debug!(model = %config.path.display(), "the first convolution runs as it is: {problem}");
                (None, file)
            }
        }
    }

    /// The model of `shortened`, the file without these steps.
    fn try_own_steps(
        config: &ModelConfig,
        file: &ModelFile,
        own_steps: OwnSteps,
        shortened: ModelFile,
        threads: usize,
    ) -> Result<Model, HeadRefusal> {
        let session = open_session(config, &shortened, Provider::Cpu, config.device.first(), threads)?;
        let model = Self::check(config, &Arc::new(shortened), Provider::Cpu, session, threads, own_steps)?;
        if let (Some(golden), Some(difference)) = (&model.contract.golden, model.golden_difference)
            && difference > 0.0
        {
            // The processor of the trainer rounds in another way, or the head is wrong: the graph shows which.
            let session = open_session(config, file, Provider::Cpu, config.device.first(), threads)?;
            let contract = Contract::read(&session, &config.path).map_err(CheckError::from)?;
            let (expected, _) = OnnxSegmenter::new(session, Arc::new(contract), 1).run_rgb(&golden.rgb, 1)?;
            let mut segmenter = model.take_session(threads)?;
            let (mask, _) = segmenter.run_rgb(&golden.rgb, 1)?;
            model.return_session(threads, segmenter);
            let different = mask.iter().zip(&expected).filter(|(a, b)| a != b).count();
            let share = different as f64 / expected.len().max(1) as f64;
            if share > TIES || mask.len() != expected.len() {
                return Err(HeadRefusal::Different(share));
            }
        }
        Ok(model)
    }
}
