//! Reads the float datasets of an HDF5 file, as Keras writes them.

use std::collections::BTreeMap;
use std::path::Path;

use hdf5_reader::group::Group;
use hdf5_reader::{Datatype, Hdf5File, OpenOptions};

/// A dataset of 32-bit floats.
#[derive(Clone, Debug, PartialEq)]
pub struct Hdf5Dataset {
    pub shape: Vec<i64>,
    /// In row-major order.
    pub values: Vec<f32>,
}

/// Why an HDF5 file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Hdf5Error {
    #[error(transparent)]
    Format(#[from] hdf5_reader::error::Error),
    #[error("{path}: {source}")]
    Dataset { path: String, source: hdf5_reader::error::Error },
    #[error("its groups are nested more than {MAX_DEPTH} levels deep")]
    Depth,
}

/// The deepest nesting of groups. A damaged file may contain a group in itself.
const MAX_DEPTH: usize = 32;

/// The size of the largest dataset. The shape in a damaged file may be anything.
const MAX_DATASET_BYTES: usize = 1 << 31;

/// The 32-bit float datasets of a file, by their path: `block1/conv/kernel`. Datasets of other types are left out.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn datasets(path: &Path) -> Result<BTreeMap<String, Hdf5Dataset>, Hdf5Error> {
    let options = OpenOptions { max_read_bytes: MAX_DATASET_BYTES, ..OpenOptions::default() };
    let file = Hdf5File::open_with_options(path, options)?;
    let mut found = BTreeMap::new();
    visit(&file.root_group()?, "", 0, &mut found)?;
    Ok(found)
}

/// Adds the datasets of a group and of the groups in it.
fn visit(group: &Group, path: &str, depth: usize, found: &mut BTreeMap<String, Hdf5Dataset>) -> Result<(), Hdf5Error> {
    if depth > MAX_DEPTH {
        return Err(Hdf5Error::Depth);
    }
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
    let (groups, datasets) = group.members()?;
    for dataset in datasets {
        if !matches!(dataset.dtype(), Datatype::FloatingPoint { size: 4, .. }) {
            continue;
        }
        let path = below(dataset.name());
        let array = dataset.read_array::<f32>().map_err(|source| Hdf5Error::Dataset { path: path.clone(), source })?;
        let shape = array.shape().iter().map(|&size| size as i64).collect();
        found.insert(path, Hdf5Dataset { shape, values: array.iter().copied().collect() });
    }
    groups.iter().try_for_each(|group| visit(group, &below(group.name()), depth + 1, found))
}
