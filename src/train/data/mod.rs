//! Labelled pictures on disk. (temporary)

use std::path::{Path, PathBuf};

use crate::frame::{Label, Rgb};
use serde::{Deserialize, Serialize};

pub const VOID: u8 = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair { pub name: String, pub image: PathBuf, pub label: PathBuf }
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled { pub width: usize, pub height: usize, pub rgb: Vec<u8>, pub labels: Vec<u8> }
#[derive(Clone, Debug)]
pub struct Dataset { pub root: PathBuf, pub classes: Vec<Label>, pub train: Vec<Pair>, pub val: Vec<Pair> }
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
pub struct DataArgs { pub data: PathBuf }
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DataError(String);
impl DataArgs { pub fn open(&self) -> Result<Dataset, DataError> { Dataset::open(&self.data) } }
impl Dataset {
    pub fn open(root: &Path) -> Result<Dataset, DataError> {
        let names = ["sky","building","pole","road","pavement","tree","sign","fence","car","pedestrian","bicyclist"];
        let classes = names.iter().enumerate().map(|(i,n)| Label{name:n.to_string(), color: Rgb(i as u8*20, 100, 200)}).collect();
        let list = |split: &str| { let mut v: Vec<Pair> = std::fs::read_dir(root.join(split)).unwrap().map(|e| { let image = e.unwrap().path(); let name = image.file_stem().unwrap().to_string_lossy().into_owned(); let label = root.join(format!("{split}annot")).join(image.file_name().unwrap()); Pair{name, image, label} }).collect(); v.sort_by(|a,b| a.name.cmp(&b.name)); v };
        Ok(Dataset { root: root.into(), classes, train: list("train"), val: list("val") })
    }
    pub fn read(&self, pair: &Pair) -> Result<Labelled, DataError> {
        use opencv::prelude::*;
        let e = |e: opencv::Error| DataError(e.to_string());
        let m = opencv::imgcodecs::imread(pair.image.to_string_lossy().as_ref(), 1).map_err(e)?;
        let (width, height) = (m.cols() as usize, m.rows() as usize);
        let rgb = m.data_bytes().map_err(e)?.chunks(3).flat_map(|p| [p[2],p[1],p[0]]).collect();
        let l = opencv::imgcodecs::imread(pair.label.to_string_lossy().as_ref(), 0).map_err(e)?;
        let labels = l.data_bytes().map_err(e)?.iter().map(|&v| if v == 11 { 255 } else { v }).collect();
        Ok(Labelled { width, height, rgb, labels })
    }
}
