//! `[server]`.

use super::*;

#[test]
fn a_listening_address_is_an_ip_address_and_a_port() {
    let dir = folder();
    let http = |address: &str| {
        let text = format!(
            "model.path = \"m.onnx\"\nserver.http = \"{address}\"\n[[stream]]\nname = \"a\"\nsource = \"test://\""
        );
        read(dir.path(), &text).map(|config| config.server.http.to_string())
    };
    assert_eq!(http("localhost:0").unwrap(), "127.0.0.1:0");
    assert_eq!(http("[::1]:80").unwrap(), "[::1]:80");
    for address in ["8080", ":8080", "example.org:80", "127.0.0.1", "127.0.0.1:65536", "::1:80", "127.0.0.1:"] {
        assert!(only(http(address)).contains("is not an IP address (or localhost) and a port"), "{address}");
    }
    assert!(only(http("127.0.0.1:8554")).starts_with("server.rtsp: 127.0.0.1:8554 is taken by server.http"));
}

fn server(dir: &Path, text: &str) -> Result<ServerConfig, ConfigErrors> {
    let text = format!("[model]\npath = \"m.onnx\"\n[server]\n{text}\n[[stream]]\nname = \"a\"\nsource = \"test://\"");
    read(dir, &text).map(|config| config.server)
}

const USERS: &str = "[[token]]\nname = \"hub\"\nrole = \"viewer\"\n\
    sha256 = \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"\n";

fn write_users(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn an_open_listener_without_users_is_refused() {
    let dir = folder();
    for key in ["http", "rtsp"] {
        for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
            let text = format!("{key} = \"{address}\"");
            let error = only(server(dir.path(), &text));
            assert!(error.starts_with(&format!("server.{key}: {address} is open to the network")), "{error}");
            assert!(error.contains("maskcast user add") && error.contains("allow_anonymous = true"), "{error}");
            let open = server(dir.path(), &format!("{text}\nallow_anonymous = true")).unwrap();
            assert!(!open.guards_rtsp());
            // From a network, changes need credentials.
            assert_eq!(open.anonymous(), Some(if key == "http" { Role::Viewer } else { Role::Operator }));
        }
    }
    let local = server(dir.path(), "http = \"[::1]:80\"\nrtsp = \"127.0.0.2:81\"").unwrap();
    assert_eq!((local.anonymous(), local.guards_rtsp()), (Some(Role::Operator), false));
}

#[test]
fn users_are_read_from_beside_the_configuration_or_from_where_it_says() {
    let dir = folder();
    write_users(&dir.path().join("users.toml"), USERS);
    let found = server(dir.path(), "http = \"0.0.0.0:80\"\nrtsp = \"0.0.0.0:81\"").unwrap();
    assert_eq!(found.users.tokens[0].name, "hub");
    assert_eq!((found.anonymous(), found.guards_rtsp()), (None, true));
    // With users, credentials are needed on this machine, too.
    let local = server(dir.path(), "").unwrap();
    assert_eq!((local.anonymous(), local.guards_rtsp()), (None, true));
    assert_eq!(server(dir.path(), "allow_anonymous = true").unwrap().anonymous(), Some(Role::Viewer));

    write_users(&dir.path().join("others.toml"), "");
    assert!(server(dir.path(), "users = \"others.toml\"").unwrap().users.is_empty());
    let error = only(server(dir.path(), "users = \"absent.toml\""));
    assert!(
        error.starts_with("server.users: no such file (help: make it with `maskcast user add NAME --users "),
        "{error}"
    );
    // A broken file is one error, and gives no access.
    write_users(&dir.path().join("users.toml"), "[[user]]\nname = \"anna\"\nrole = \"viewer\"\npassword = \"hunter2\"");
    let error = only(server(dir.path(), "http = \"0.0.0.0:80\""));
    assert!(
        error.contains("users.toml: user \"anna\": password is not an Argon2 hash") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn the_users_file_is_found_in_a_configuration_that_cannot_be_used_without_it() {
    let dir = folder();
    let path = dir.path().join("maskcast.toml");
    let found = |text: &str| {
        std::fs::write(&path, text).unwrap();
        users_file(&path)
    };
    assert_eq!(found("[server]\nhttp = \"0.0.0.0:80\"").unwrap(), dir.path().join("users.toml"));
    assert_eq!(found("server.users = \"a/u.toml\"").unwrap(), dir.path().join("a/u.toml"));
    assert_eq!(found("server.users = \"/srv/u.toml\"").unwrap(), Path::new("/srv/u.toml"));
    assert!(matches!(found("[server"), Err(UsersPathError::Syntax { path: named, .. }) if named == path));
}

#[test]
fn tls_hosts_and_api_sources() {
    let dir = folder();
    let text = "hosts = [\"Cameras.example.org.\"]\napi_sources = [\"127.0.0.1\"]\n[server.tls]\ncert = \"pw\"\nkey = \"crlf\"";
    let read = server(dir.path(), text).unwrap();
    assert_eq!(read.hosts, ["cameras.example.org"]);
    assert_eq!(read.tls, Some(TlsConfig { cert: dir.path().join("pw"), key: dir.path().join("crlf") }));
    let errors =
        server(dir.path(), "hosts = [\"http://a\"]\napi_sources = [\"rstp\"]\n[server.tls]\ncert = \"absent\"\nca = 1");
    let errors: Vec<String> = errors.unwrap_err().errors.iter().map(ToString::to_string).collect();
    for (error, start) in errors.iter().zip([
        "server.hosts[0]: \"http://a\" is not the name of a host",
        "server.api_sources[0]: \"rstp\" is neither a scheme nor an address (help: did you mean rtsp?)",
        "server.tls.key: is missing",
        "server.tls.cert: no such file",
        "server.tls.ca: unknown key",
    ]) {
        assert!(error.starts_with(start), "{error}");
    }
    assert_eq!(errors.len(), 5);
}

#[test]
fn proxies_are_addresses_and_networks() {
    let dir = folder();
    let read =
        server(dir.path(), "trusted_proxies = [\"127.0.0.1\", \"10.1.2.3/8\", \"::1\", \"::ffff:192.0.2.1\"]").unwrap();
    let trusts = |text: &str| {
        read.trusted_proxies.iter().any(|network| network.contains(&text.parse::<std::net::IpAddr>().unwrap()))
    };
    for proxy in ["127.0.0.1", "10.0.0.1", "10.255.0.1", "::1", "192.0.2.1"] {
        assert!(trusts(proxy), "{proxy}");
    }
    assert!(!trusts("127.0.0.2") && !trusts("11.0.0.1") && !trusts("::2"));
    assert_eq!(server(dir.path(), "").unwrap().trusted_proxies, []);
    let errors = server(dir.path(), "trusted_proxies = [\"proxy.local\", \"10.0.0.0/33\", \"0.0.0.0/0\", \"::/0\", 7]")
        .unwrap_err();
    let errors: Vec<String> = errors.errors.iter().map(ToString::to_string).collect();
    for (error, start) in errors.iter().zip([
        "server.trusted_proxies[0]: \"proxy.local\" is neither an address nor a network (help: write the proxies' addresses",
        "server.trusted_proxies[1]: \"10.0.0.0/33\" is neither an address nor a network",
        "server.trusted_proxies[2]: 0.0.0.0/0 is every address: every client could forge its address",
        "server.trusted_proxies[3]: ::/0 is every address",
        "server.trusted_proxies[4]: ",
    ]) {
        assert!(error.starts_with(start), "{error}");
    }
    assert_eq!(errors.len(), 5);
}
