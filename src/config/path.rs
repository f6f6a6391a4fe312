//! Paths in the configuration: the folder of relative paths, and serialisation.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serializer};
use serde_json::Value as Json;

/// The folder to which the relative paths of a configuration file refer.
pub fn folder_of(path: &Path) -> PathBuf {
    // Absolute, so that a later change of the current folder changes nothing. Fails only for an empty path.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The path without `..` components, if it exists, for clear names in logs. Symbolic links are not resolved, because a
/// manifest is beside the link to its model.
pub(super) fn tidy(path: PathBuf) -> PathBuf {
    let has_parents = path.components().any(|part| part == Component::ParentDir);
    let direct = if has_parents { path.canonicalize().ok() } else { None };
    direct.unwrap_or(path)
}

/// A path as [`deserialize`] reads it: text, or its bytes where it is not UTF-8.
pub(super) fn to_json(path: &Path) -> Json {
    path.to_str().map_or_else(|| path.as_os_str().as_bytes().into(), Json::from)
}

pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Ok(AnyPath::deserialize(deserializer)?.0)
}

/// For `#[serde(with = …)]` on an `Option<PathBuf>`.
pub(super) mod optional {
    use super::{AnyPath, Deserialize, Deserializer, PathBuf, Serializer};

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => super::serialize(path, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<AnyPath>::deserialize(deserializer)?.map(|path| path.0))
    }
}

struct AnyPath(PathBuf);

impl<'de> Deserialize<'de> for AnyPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Paths;
        impl<'de> Visitor<'de> for Paths {
            type Value = AnyPath;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a path")
            }

            fn visit_str<E>(self, text: &str) -> Result<AnyPath, E> {
                Ok(AnyPath(text.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<AnyPath, A::Error> {
                let mut path = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    path.push(byte);
                }
                Ok(AnyPath(OsString::from_vec(path).into()))
            }
        }
        deserializer.deserialize_any(Paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_utf_8_is_kept() {
        for bytes in [&b"/srv/a b"[..], b"/srv/\xff/a"] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(deserialize(to_json(&path)).unwrap(), path);
        }
    }
}
