//! The parts of the Debian package that can be tested without installing it; `tests/package.sh` tests the rest.

mod common;

use std::path::{Path, PathBuf};

use common::program::{maskcast, run, run_with_input};

fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn the_packaged_configuration_is_valid_with_and_without_its_examples() {
    let folder = tempfile::tempdir().unwrap();
    let packaged = std::fs::read_to_string(project("systemd/maskcast.toml")).unwrap();
    let installed = "/usr/share/maskcast/models/everyday.onnx";
    assert!(packaged.contains(installed));
    let packaged = packaged.replace(installed, project("models/everyday.onnx").to_str().unwrap());
    // Settings are commented out with "#", prose with "# ".
    let with_examples: Vec<&str> = packaged
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')).unwrap_or(line))
        .collect();
    let with_examples = with_examples.join("\n");
    assert!(with_examples.matches("\n[[stream]]").count() > packaged.matches("\n[[stream]]").count());
    for secret in ["gate.password", "alarm.secret", "mqtt.password"] {
        std::fs::write(folder.path().join(secret), "a secret of some length\n").unwrap();
    }
    // Create the files that the examples name, with their commands.
    let mut user = maskcast();
    user.args(["user", "add", "anna", "--role", "operator", "--password-stdin", "--users"]);
    let ended = run_with_input(user.arg(folder.path().join("users.toml")), "correct horse battery\n");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ended = run(maskcast().args(["cert", "-o"]).arg(folder.path().join("tls")));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for (name, text) in [("packaged.toml", &packaged), ("examples.toml", &with_examples)] {
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
        "listen",
        "model-build",
        "model-compare",
        "model-rollback",
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
    assert!(page.contains("SIGTERM"), "the page lacks the examples and notes of --help:\n{page}");
    let examples = ".SH EXAMPLES\n.nf\nmaskcast run pipelines/demo.toml\nStops on";
    assert!(page.contains(examples) && !page.contains("EXTRA"), "each example must be on its own line:\n{page}");
}

#[test]
fn manual_fails_for_a_missing_folder() {
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
