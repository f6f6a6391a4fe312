//! What depends on rights and devices of the machine that runs the tests.

mod common;

use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use common::harness::{self, is_root};
use common::program::{maskcast, run, run_with_input};
use common::service::{folder, write_config};
use maskcast::config::{ApiSources, SourceUri, load};

fn main() {
    harness::main(tests![
        a_users_file_made_by_root_is_for_the_group_that_shares_the_folder if can_give_files_away,
        a_key_made_by_root_is_for_the_group_that_shares_the_folder if can_give_files_away,
        an_address_of_this_machine_in_its_network_is_refused if has_network,
    ]);
}

/// A group that no file has by itself.
const GROUP: u32 = 4711;

fn can_give_files_away() -> Result<(), String> {
    if !is_root() {
        return Err("only root can give a folder to another group".into());
    }
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), None, Some(GROUP)).map_err(|error| format!("no folder can be given to another group: {error}"))
}

/// Gives the folder to the group, with this mode.
fn share(folder: &Path, mode: u32) {
    chown(folder, None, Some(GROUP)).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Owner, group and mode.
fn ownership(file: &Path) -> (u32, u32, u32) {
    let facts = file.metadata().unwrap();
    (facts.uid(), facts.gid(), facts.mode() & 0o777)
}

/// As `sudo maskcast user add` in /etc/maskcast, which belongs to root and the service's group.
fn a_users_file_made_by_root_is_for_the_group_that_shares_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    share(folder.path(), 0o750);
    let users = folder.path().join("users.toml");
    for name in ["anna", "bert"] {
        let mut command = maskcast();
        command.args(["user", "add", name, "--password-stdin", "--users"]).arg(&users);
        let ended = run_with_input(&mut command, "correct horse battery\n");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ownership(&users), (0, GROUP, 0o640), "{name}");
    }
}

fn a_key_made_by_root_is_for_the_group_that_shares_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    share(folder.path(), 0o770);
    let output = folder.path().join("tls");
    for more in [&[][..], &["--force"]] {
        let ended = run(maskcast().args(["cert", "--host", "localhost", "--output"]).arg(&output).args(more));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ownership(&output.join("key.pem")), (0, GROUP, 0o640), "{more:?}");
    }
}

/// The address by which this machine reaches others.
fn own_address() -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Nothing is sent.
    socket.connect("192.0.2.254:9")?;
    Ok(socket.local_addr()?.ip())
}

fn has_network() -> Result<(), String> {
    own_address().map(drop).map_err(|error| format!("this machine has no address in a network: {error}"))
}

/// Services of this machine that listen to its network trust it no less when it comes by that address.
fn an_address_of_this_machine_in_its_network_is_refused() {
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
        assert!(refused.contains("which is this machine"), "{source:?}: {refused}");
        assert_eq!(listed.check(&source), Ok(()), "{source:?}");
    }
}
