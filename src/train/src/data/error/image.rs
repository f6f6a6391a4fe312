//! Errors of images.

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("the file is empty")]
    Empty,
    /// Decoders fill the missing part with grey without an error.
    #[error("the {format} file is truncated: its {missing} is missing; copy it again")]
    Truncated { format: &'static str, missing: &'static str },
    #[error("OpenCV cannot decode it: the file is damaged, or its content is not an image; replace it")]
    NotAnImage,
    #[error("{}", .0.message)]
    OpenCv(#[from] opencv::Error),
}
