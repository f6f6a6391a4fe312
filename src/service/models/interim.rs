//! What runs a model while TensorRT builds its engine.

use std::path::Path;

use crate::config::{ModelConfig, Provider, Require};
use crate::segment::engine::{EngineKey, RuntimePaths};
use crate::segment::file;

/// How the model runs while TensorRT builds an engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InterimModel {
    /// Empty: no other provider is allowed.
    pub(super) providers: Vec<Provider>,
}

/// `None` if no engine must be built: TensorRT is not the first provider, there is no GPU, or the engine is in the cache.
pub(super) fn interim(config: &ModelConfig, paths: &RuntimePaths) -> Option<InterimModel> {
    if config.providers.first() != Some(&Provider::TensorRt) {
        return None;
    }
    // Loading reports the error of a file that cannot be read.
    let file = file::read(&config.path).ok()?;
    let keys: Vec<EngineKey> =
        config.device.numbers().iter().map(|device| EngineKey::of(&file, *device, paths)).collect();
    let are_built = |cache: &Path| keys.iter().all(|key| key.is_built(cache));
    if !keys.iter().any(EngineKey::has_gpu) || config.cache_dir.as_deref().is_some_and(are_built) {
        return None;
    }
    let usable = |provider: &Provider| match provider {
        Provider::TensorRt => false,
        Provider::Cuda => true,
        Provider::Cpu => config.require == Require::Any,
    };
    Some(InterimModel { providers: config.providers.iter().copied().filter(usable).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with one GPU.
    fn machine(folder: &Path) -> RuntimePaths {
        let page = folder.join("driver/gpus/0000:01:00.0");
        std::fs::create_dir_all(&page).unwrap();
        std::fs::write(page.join("information"), "Model: NVIDIA L4\n").unwrap();
        RuntimePaths { driver: folder.join("driver"), libraries: Vec::new() }
    }

    #[test]
    fn another_provider_runs_while_an_engine_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let paths = machine(folder.path());
        let path = folder.path().join("model.onnx");
        // A graph with one node, the shortest model.
        std::fs::write(&path, b"\x3a\x04\x0a\x02\x22\x00").unwrap();
        let all = vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu];
        let cache = folder.path().join("cache");
        let config =
            ModelConfig { providers: all, cache_dir: Some(cache.clone()), ..ModelConfig::with_path(path.clone()) };
        let rest = |config: &ModelConfig| interim(config, &paths).map(|interim| interim.providers);
        assert_eq!(rest(&config), Some(vec![Provider::Cuda, Provider::Cpu]));
        // `require = "gpu"` excludes the CPU.
        assert_eq!(rest(&ModelConfig { require: Require::Gpu, ..config.clone() }), Some(vec![Provider::Cuda]));
        let alone = ModelConfig { providers: vec![Provider::TensorRt], ..config.clone() };
        assert_eq!(rest(&alone), Some(Vec::new()));
        assert_eq!(rest(&ModelConfig { providers: vec![Provider::Cuda], ..config.clone() }), None);
        let none = RuntimePaths { driver: "/nowhere".into(), libraries: Vec::new() };
        assert_eq!(interim(&config, &none), None, "without a GPU no engine is built");
        // The engine is in the cache.
        let engines = EngineKey::of(&file::read(&path).unwrap(), 0, &paths).folder(&cache);
        std::fs::create_dir_all(&engines).unwrap();
        std::fs::write(engines.join("a.engine"), "").unwrap();
        assert_eq!(rest(&config), None);
    }
}
