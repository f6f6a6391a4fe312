use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use clap::Parser;
use maskcast::train::*;
use maskcast::train::fit::{config::*, run::*, optimizer::Optimizer, checkpoint::*};
use maskcast::train::net::Params;
#[derive(Parser)]
struct Cli { #[command(flatten)] data: data::DataArgs, #[arg(short)] out: PathBuf, #[arg(long)] resume: bool, #[command(flatten)] fit: FitOptions }
fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let mut config = RunConfig { data: cli.data, fit: cli.fit };
    let checkpoint = if cli.resume { let c = Checkpoint::read(&cli.out)?; config = c.config().clone(); Some(c) } else { None };
    for p in config.fit.problems() { println!("{p}"); }
    let dataset = Arc::new(config.data.open()?);
    let fit = &config.fit;
    device::set_threads(fit.machine.threads);
    let device = fit.machine.device.device().unwrap();
    let net = fit.net.encoder.unet(&fit.net.decoder(), dataset.classes.len() as i64).unwrap();
    println!("{} GMAC", net.multiply_adds(288, 512) as f64 / 1e9);
    let optimizer = Optimizer::new(fit.optimizer, fit.weight_decay);
    let mut state = match checkpoint { Some(c) => c.state(&net, optimizer, device)?, None => {
        let mut params = Params::fresh(&net, fit.seed);
        if let Some(w) = &fit.net.weights {
            let r = pytorch_reader::PytorchReader::new(w)?;
            let mut n = 0;
            for (name, t) in r.into_tensors() {
                let key = format!("encoder.{name}");
                if let Some(p) = params.0.get_mut(&key) {
                    let shape: Vec<i64> = t.shape().iter().map(|&s| s as i64).collect();
                    assert_eq!(shape, p.size(), "{key}");
                    *p = tch::Tensor::from_data_size(&t.read()?, &shape, tch::Kind::Float); n += 1;
                }
            }
            println!("{n} tensors of {}", net.shapes().iter().filter(|s| s.name.starts_with("encoder.")).count());
        }
        let average = (fit.ema > 0.0).then(|| params.copied());
        State { params, average, optimizer, progress: Default::default() }
    } };
    let shares = evaluate::class_shares(&dataset, &dataset.train, 2)?;
    println!("{shares:?}");
    let loss = loss::Loss::new(&fit.loss, &shares, device);
    std::fs::create_dir_all(&cli.out)?;
    let out = cli.out.clone();
    let mut run = Fit { config: &config, dataset: dataset.clone(), net: &net, loss, device, precision: fit.machine.precision.kind(device), folder: Some(cli.out.clone()), stop: Default::default(),
        on_best: Box::new(move |p, _| tensor_file::write(&out.join("best.safetensors"), p.0.iter().map(|(n, t)| (n.clone(), t)), HashMap::new()).map_err(|e| e.to_string())) };
    let ended = run.run(&mut state)?;
    println!("{ended:?}");
    Ok(())
}
