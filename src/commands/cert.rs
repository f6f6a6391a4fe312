//! `maskcast cert`: a self-signed certificate for `[server.tls]`.

use std::fs::Metadata;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

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

/// Creates the certificate and its key.
///
/// # Errors
/// An invalid host name, or files that exist already or cannot be written.
pub fn cert(args: &CertArgs) -> Result<(), Failure> {
    let hosts = if args.host.is_empty() { own_names() } else { args.host.clone() };
    let (cert, key) = make(&hosts).map_err(Failure::runtime)?;
    // If root creates the key in a folder of a group (as /etc/maskcast is the service's), that group may read it.
    std::fs::create_dir_all(&args.output).map_err(|error| located(&args.output, &error))?;
    let output = args.output.canonicalize().map_err(|error| located(&args.output, &error))?;
    let mut folders = output.ancestors().take(2).filter_map(|folder| folder.metadata().ok());
    let shared = folders.find(|folder| folder.gid() != 0);
    let (cert_path, key_path) = (args.output.join(CERT), args.output.join(KEY));
    if let Some(existing) = [&cert_path, &key_path].into_iter().find(|path| path.exists() && !args.force) {
        return Err(Failure::runtime(format!("{} exists already; --force overwrites it", existing.display())));
    }
    // The key first: a service that checks the files in between finds a pair that does not match, and keeps the old one.
    write(&key_path, &key, 0o600, shared.as_ref())?;
    write(&cert_path, &cert, 0o644, None)?;
    println!("{} and {}, for {}", cert_path.display(), key_path.display(), hosts.join(", "));
    println!("[server.tls]\ncert = {:?}\nkey = {:?}", cert_path.display().to_string(), key_path.display().to_string());
    Ok(())
}

/// Certificate and key as PEM.
fn make(hosts: &[String]) -> Result<(String, String), String> {
    let mut params = CertificateParams::new(hosts).map_err(|error| format!("{}: {error}", hosts.join(", ")))?;
    let since_epoch = UNIX_EPOCH.elapsed().map_err(|error| format!("this machine's clock: {error}"))?;
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
    params.not_after = params.not_before + VALID;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Maskcast");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let cert = params.self_signed(&key).map_err(|error| error.to_string())?;
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
fn write(path: &Path, text: &str, mode: u32, shared: Option<&Metadata>) -> Result<(), Failure> {
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
    write().map_err(|error| located(path, &error))
}

fn located(path: &Path, error: &std::io::Error) -> Failure {
    Failure::runtime(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_private_and_files_are_not_overwritten_by_default() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("tls");
        let args = |host: &str, force| CertArgs { host: vec![host.into()], output: output.clone(), force };
        cert(&args("cameras.example.org", false)).unwrap();
        let mode = |name: &str| output.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(CERT), mode(KEY)), (0o644, 0o600));
        let before = std::fs::read(output.join(KEY)).unwrap();
        assert!(cert(&args("cameras.example.org", false)).unwrap_err().message.contains("exists already"));
        assert_eq!(std::fs::read(output.join(KEY)).unwrap(), before);
        cert(&args("192.0.2.7", true)).unwrap();
        assert_ne!(std::fs::read(output.join(KEY)).unwrap(), before);
        assert_eq!(std::fs::read_dir(&output).unwrap().count(), 2);
    }

    #[test]
    fn the_default_names_are_those_of_this_machine() {
        let names = own_names();
        assert!(names.len() >= 3 && names.iter().any(|name| name == "localhost"), "{names:?}");
        make(&names).unwrap();
    }
}
