//! Tests that depend on privileges and network of the machine.

mod common;

use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use common::harness::{self, is_root};
use common::program::{maskcast, run, run_with_input};
use common::service::{folder, write_config};
use maskcast::config::{ApiSources, SourceRefusal, SourceUri, load};

fn main() {
    harness::main(tests![
        a_users_file_made_by_root_belongs_to_the_group_of_its_folder if can_change_groups,
        a_key_made_by_root_belongs_to_the_group_of_its_folder if can_change_groups,
        the_network_address_of_this_machine_is_refused if has_network,
    ]);
}

/// A group to which no file belongs by default.
const GROUP: u32 = 4711;

fn can_change_groups() -> Result<(), String> {
    if !is_root() {
        return Err("changing the group of a folder needs root".into());
    }
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), None, Some(GROUP)).map_err(|error| format!("cannot change the group of a folder: {error}"))
}

/// Sets the group and the mode of the folder.
fn set_group(folder: &Path, mode: u32) {
    chown(folder, None, Some(GROUP)).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Owner, group and mode.
fn ownership(file: &Path) -> (u32, u32, u32) {
    let metadata = file.metadata().unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
}

/// Like `sudo maskcast user add` in /etc/maskcast, which belongs to root and the group of the service.
fn a_users_file_made_by_root_belongs_to_the_group_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    set_group(folder.path(), 0o750);
    let users = folder.path().join("users.toml");
    for name in ["anna", "bert"] {
        let mut command = maskcast();
        command.args(["user", "add", name, "--password-stdin", "--users"]).arg(&users);
        let ended = run_with_input(&mut command, "correct horse battery\n");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ownership(&users), (0, GROUP, 0o640), "{name}");
    }
}

fn a_key_made_by_root_belongs_to_the_group_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    set_group(folder.path(), 0o770);
    let output = folder.path().join("tls");
    for more in [&[][..], &["--force"]] {
        let ended = run(maskcast().args(["cert", "--host", "localhost", "--output"]).arg(&output).args(more));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ownership(&output.join("key.pem")), (0, GROUP, 0o640), "{more:?}");
    }
}

/// The address of this machine in its network.
fn own_address() -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // For UDP, connect sends nothing.
    socket.connect("192.0.2.254:9")?;
    Ok(socket.local_addr()?.ip())
}

fn has_network() -> Result<(), String> {
    own_address().map(drop).map_err(|error| format!("this machine has no network address: {error}"))
}

/// Services on this machine may trust connections from its own network address like those from localhost.
fn the_network_address_of_this_machine_is_refused() {
    let own = own_address().unwrap();
    let IpAddr::V4(v4) = own else { panic!("{own} is not an IPv4 address") };
    let [a, b] = [u32::from(v4) >> 16, u32::from(v4) & 0xffff];
    let folder = folder();
    let stream = "[[stream]]\nname = \"gate\"\nsource = \"test://\"\n";
    let path = write_config(folder.path(), &format!("api_sources = [\"{own}\"]\n{stream}"));
    let listed = load(&path).unwrap().server.api_sources;
    for source in
        [format!("http://{own}/a"), format!("http://[2002:{a:x}:{b:x}::1]/a"), format!("http://[64:ff9b::{own}]/a")]
    {
        let source = SourceUri::parse(&source, folder.path()).unwrap();
        let refused = ApiSources::default().check(&source).unwrap_err();
        assert!(matches!(refused, SourceRefusal::Address(_)), "{source:?}: {refused}");
        assert_eq!(listed.check(&source), Ok(()), "{source:?}");
    }
}
