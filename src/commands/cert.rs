//! `maskcast cert`: a self-signed certificate for `[server.tls]`.

use std::fs::Metadata;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTimeError, UNIX_EPOCH};

use clap::Args;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use super::Failure;
use crate::base::atomic_file::{AtomicFile, inherit_owner};

/// Names of the files in the output folder.
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";

/// The maximum that browsers accept. For a self-signed certificate they show a warning anyway.
const VALID: Duration = Duration::from_secs(825 * 24 * 3600);

#[derive(Debug, Args)]
pub struct CertArgs {
    /// Host name or address of the service; may be repeated [default: this machine's name and addresses].
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// The folder, created if missing; existing cert.pem and key.pem are not overwritten.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Overwrite existing files.
    #[arg(long)]
    pub force: bool,
}

/// Why no certificate was created.
#[derive(Debug, thiserror::Error)]
enum CertError {
    /// A host name that a certificate cannot contain.
    #[error("{}: {source}", .hosts.join(", "))]
    HostName { hosts: Vec<String>, source: rcgen::Error },
    /// The clock is set to a time before 1970.
    #[error("this machine's clock: {0}")]
    Clock(#[from] SystemTimeError),
    /// The key or the certificate cannot be generated.
    #[error(transparent)]
    Generate(rcgen::Error),
    #[error("{} exists already; --force overwrites it", .0.display())]
    Exists(PathBuf),
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
}

/// Creates the certificate and its key, and prints the settings to use them.
///
/// # Errors
/// An invalid host name, or files that exist already or cannot be written.
pub fn cert(args: &CertArgs) -> Result<(), Failure> {
    create(args).map_err(Failure::runtime)
}

fn create(args: &CertArgs) -> Result<(), CertError> {
    let hosts = if args.host.is_empty() { own_names() } else { args.host.clone() };
    let (cert, key) = generate(&hosts)?;
    // If root creates the key in a folder of a group (as /etc/maskcast is the service's), that group may read it.
    let located = |source| CertError::File { path: args.output.clone(), source };
    std::fs::create_dir_all(&args.output).map_err(located)?;
    let output = args.output.canonicalize().map_err(located)?;
    let mut folders = output.ancestors().take(2).filter_map(|folder| folder.metadata().ok());
    let shared = folders.find(|folder| folder.gid() != 0);
    let (cert_path, key_path) = (args.output.join(CERT), args.output.join(KEY));
    if let Some(existing) = [&cert_path, &key_path].into_iter().find(|path| path.exists() && !args.force) {
        return Err(CertError::Exists(existing.clone()));
    }
    // The key first: a service that checks the files in between finds a pair that does not match, and keeps the old one.
    write(&key_path, &key, 0o600, shared.as_ref())?;
    write(&cert_path, &cert, 0o644, None)?;
    println!("{} and {}, for {}", cert_path.display(), key_path.display(), hosts.join(", "));
    println!("[server.tls]\ncert = {:?}\nkey = {:?}", cert_path.display().to_string(), key_path.display().to_string());
    Ok(())
}

/// Certificate and key as PEM.
fn generate(hosts: &[String]) -> Result<(String, String), CertError> {
    let mut params =
        CertificateParams::new(hosts).map_err(|source| CertError::HostName { hosts: hosts.to_vec(), source })?;
    let since_epoch = UNIX_EPOCH.elapsed()?;
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
    params.not_after = params.not_before + VALID;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Maskcast");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(CertError::Generate)?;
    let cert = params.self_signed(&key).map_err(CertError::Generate)?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// `localhost`, the host name, and the local addresses of the default routes.
fn own_names() -> Vec<String> {
    let mut names = vec!["localhost".to_string(), "127.0.0.1".into(), "::1".into()];
    if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(name.trim().to_ascii_lowercase());
    }
    // Nothing is sent: connecting a UDP socket only selects the local address.
    for (from, to) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let route = UdpSocket::bind(from).and_then(|socket| socket.connect(to).and_then(|()| socket.local_addr()));
        names.extend(
            route.ok().map(|address| address.ip()).filter(|ip: &IpAddr| !ip.is_loopback()).map(|ip| ip.to_string()),
        );
    }
    names.retain(|name| !name.is_empty());
    names.dedup();
    names
}

/// Replaces the file atomically. A key keeps the group of the file that it replaces, or gets that of the `shared` folder.
fn write(path: &Path, text: &str, mode: u32, shared: Option<&Metadata>) -> Result<(), CertError> {
    let before = path.metadata().ok();
    let write = || {
        let mut file = AtomicFile::create(path, 0o600)?;
        file.write_all(text.as_bytes())?;
        file.file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        let replaced = before.as_ref().filter(|_| mode == 0o600);
        if let Some(folder) = replaced.or(shared) {
            inherit_owner(file.file(), replaced, folder)?;
        }
        file.commit()
    };
    write().map_err(|source| CertError::File { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_private_and_files_are_not_overwritten_by_default() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("tls");
        let args = |host: &str, force| CertArgs { host: vec![host.into()], output: output.clone(), force };
        create(&args("cameras.example.org", false)).unwrap();
        let mode = |name: &str| output.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(CERT), mode(KEY)), (0o644, 0o600));
        let before = std::fs::read(output.join(KEY)).unwrap();
        let error = create(&args("cameras.example.org", false)).unwrap_err();
        assert!(matches!(&error, CertError::Exists(path) if *path == output.join(CERT)), "{error}");
        assert_eq!(std::fs::read(output.join(KEY)).unwrap(), before);
        create(&args("192.0.2.7", true)).unwrap();
        assert_ne!(std::fs::read(output.join(KEY)).unwrap(), before);
        assert_eq!(std::fs::read_dir(&output).unwrap().count(), 2);
    }

    #[test]
    fn the_default_names_are_those_of_this_machine() {
        let names = own_names();
        assert!(names.len() >= 3 && names.iter().any(|name| name == "localhost"), "{names:?}");
        generate(&names).unwrap();
    }

    #[test]
    fn a_host_name_that_a_certificate_cannot_contain_is_an_error() {
        let hosts = ["b\u{fc}ro".to_owned()];
        assert!(matches!(generate(&hosts), Err(CertError::HostName { hosts: named, .. }) if named == hosts));
    }
}
