//! Random numbers, and hashes of secrets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// SHA-256.
pub(crate) fn digest(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// The system's random number generator failed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("random numbers are not available: {0}")]
pub struct RandomError(#[from] getrandom::Error);

/// Cryptographically secure random bytes.
///
/// # Errors
/// The system's random number generator failed.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// 256 random bits as URL-safe Base64.
///
/// # Errors
/// The system's random number generator failed.
pub(crate) fn random_text() -> Result<String, RandomError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}
