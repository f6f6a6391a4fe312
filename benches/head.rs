//! Time of a run of a model on one core: all steps in ONNX Runtime, and the first convolution's windows and the last steps by the
//! service. Runs alternate, so that other programs slow both down.
//!
//! `cargo bench --bench head [-- MODEL…]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use maskcast::config::{ModelConfig, Provider};
use maskcast::segment::onnx::Model;

const RUNS: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut paths: Vec<PathBuf> =
        std::env::args_os().skip(1).filter(|word| word != "--bench").map(PathBuf::from).collect();
    if paths.is_empty() {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/models"));
        paths = ["everyday.onnx", "street.onnx"].map(|name| folder.join(name)).into();
    }
    println!("{:<16} {:>10} {:>10} {:>10} {:>10} {:>7}", "ms", "graph min", "median", "own min", "median", "ratio");
    for path in paths {
        let mut config = ModelConfig::with_path(&path);
        config.providers = vec![Provider::Cpu];
        let (own, graph) = (Model::load(&config, 1)?, Model::load_whole(&config, 1)?);
        let Some(golden) = &graph.contract.golden else { return Err("the model has no golden frame".into()) };
        let mut segmenters = [graph.segmenter(1)?, own.segmenter(1)?];
        let mut times = [Vec::new(), Vec::new()];
        for run in 0..RUNS + 5 {
            for (segmenter, times) in segmenters.iter_mut().zip(&mut times) {
                let start = Instant::now();
                segmenter.run_rgb(&golden.rgb, 1)?;
                // The first runs fill caches and memory arenas.
                if run >= 5 {
                    times.push(start.elapsed());
                }
            }
        }
        times.iter_mut().for_each(|times| times.sort_unstable());
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let [(graph_min, graph_median), (own_min, own_median)] =
            [&times[0], &times[1]].map(|times| (ms(times[0]), ms(times[RUNS / 2])));
        println!(
            "{:<16} {graph_min:10.2} {graph_median:10.2} {own_min:10.2} {own_median:10.2} {:7.3}",
            own.name(),
            graph_median / own_median
        );
    }
    Ok(())
}
