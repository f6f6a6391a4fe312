//! What the Debian package is made of, as far as it shows without installing it; `tests/package.sh` does the rest.

mod common;

use std::path::{Path, PathBuf};

use common::program::{maskcast, run, run_with_input};

fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn the_delivered_configuration_is_good_with_and_without_its_examples() {
    let folder = tempfile::tempdir().unwrap();
    let delivered = std::fs::read_to_string(project("systemd/maskcast.toml")).unwrap();
    let installed = "/usr/share/maskcast/models/street.onnx";
    assert!(delivered.contains(installed));
    let delivered = delivered.replace(installed, project("models/street.onnx").to_str().unwrap());
    // A setting is commented out with "#" alone, prose with "# ".
    let with_examples: Vec<&str> = delivered
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')).unwrap_or(line))
        .collect();
    let with_examples = with_examples.join("\n");
    assert!(with_examples.matches("\n[[stream]]").count() > delivered.matches("\n[[stream]]").count());
    std::fs::write(folder.path().join("gate.password"), "secret\n").unwrap();
    // What the examples name is made as they say.
    let mut user = maskcast();
    user.args(["user", "add", "anna", "--role", "operator", "--password-stdin", "--users"]);
    let ended = run_with_input(user.arg(folder.path().join("users.toml")), "correct horse battery\n");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ended = run(maskcast().args(["cert", "-o"]).arg(folder.path().join("tls")));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for (name, text) in [("delivered.toml", &delivered), ("examples.toml", &with_examples)] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let ended = run(maskcast().arg("check").arg(&path));
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(maskcast().arg("manual").arg(folder.path()));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut pages: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let commands = [
        "bench",
        "cert",
        "check",
        "completions",
        "doctor",
        "model-build",
        "model-show",
        "model-use",
        "model-verify",
        "model",
        "run",
        "schema",
        "segment",
        "user-add",
        "user-list",
        "user-remove",
        "user-token",
        "user",
    ];
    let expected = commands.iter().map(|command| format!("maskcast-{command}.1")).chain(["maskcast.1".to_string()]);
    assert_eq!(pages, expected.collect::<Vec<_>>());
    let page = std::fs::read_to_string(folder.path().join("maskcast-run.1")).unwrap();
    assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{page}");
    assert!(page.contains("SIGTERM"), "the examples and notes of --help are left out:\n{page}");
    let examples = ".SH EXAMPLES\n.nf\nmaskcast run pipelines/demo.toml\nStops on";
    assert!(page.contains(examples) && !page.contains("EXTRA"), "each example has a line of its own:\n{page}");
}

#[test]
fn a_folder_that_is_not_there_gets_no_manual() {
    let ended = run(maskcast().args(["manual", "/nonexistent/man"]));
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("/nonexistent/man"), "{}", ended.stderr);
}

#[test]
fn the_package_has_the_version_of_the_program() {
    let changelog = std::fs::read_to_string(project("systemd/debian/changelog")).unwrap();
    let first = changelog.lines().next().unwrap();
    assert!(first.starts_with(&format!("maskcast ({}-1) ", env!("CARGO_PKG_VERSION"))), "{first}");
}
