//! Float datasets of an HDF5 file, as Keras writes them.

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

/// Groups in groups; more would be a loop in a damaged file.
const MAX_DEPTH: usize = 32;

/// No layer is larger; a damaged file's shape may say anything.
const MAX_DATASET_BYTES: usize = 1 << 31;

/// The 32-bit float datasets of a file, by their path: `block1/conv/kernel`. Others are left out.
///
/// # Errors
/// What is wrong with the file.
pub fn datasets(path: &Path) -> Result<BTreeMap<String, Hdf5Dataset>, String> {
    let options = OpenOptions { max_read_bytes: MAX_DATASET_BYTES, ..OpenOptions::default() };
    let file = Hdf5File::open_with_options(path, options).map_err(|error| error.to_string())?;
    let root = file.root_group().map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    visit(&root, "", 0, &mut found)?;
    Ok(found)
}

fn visit(group: &Group, path: &str, depth: usize, found: &mut BTreeMap<String, Hdf5Dataset>) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("groups within groups without end".into());
    }
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
    let (groups, datasets) = group.members().map_err(|error| error.to_string())?;
    for dataset in datasets {
        if !matches!(dataset.dtype(), Datatype::FloatingPoint { size: 4, .. }) {
            continue;
        }
        let path = below(dataset.name());
        let array = dataset.read_array::<f32>().map_err(|error| format!("{path}: {error}"))?;
        let shape = array.shape().iter().map(|&size| size as i64).collect();
        found.insert(path, Hdf5Dataset { shape, values: array.iter().copied().collect() });
    }
    groups.iter().try_for_each(|group| visit(group, &below(group.name()), depth + 1, found))
}
