//! The layers of the modules of the service and of the trainer, which the table "Layers" in `src/lib.rs` and in
//! `src/train/src/lib.rs` defines: no file uses a module of a layer above its own, and files do not use one another in a
//! cycle.
//!
//! Items for tests (`#[cfg(test)]`) are not checked. `main.rs` and `src/bin` use the crate from outside.

mod graph;

use std::path::Path;

use graph::{Dependency, Source, cycles, dependencies};

/// The source folders of the crates, from the root of the repository.
const CRATES: [&str; 2] = ["src", "src/train/src"];
/// Folders in a source folder that are not part of its crate: other programs, and the trainer.
const OTHER_CRATES: [&str; 2] = ["bin", "train"];

/// The table's modules, from the top layer to the ground.
fn layers(lib: &str) -> Vec<String> {
    let table = lib.lines().skip_while(|line| !line.starts_with("//! # Layers")).skip(1);
    let rows = table.take_while(|line| line.starts_with("//!") && !line.starts_with("//! #"));
    rows.filter_map(|row| row.strip_prefix("//! | [`")?.split_once('`')).map(|(name, _)| name.to_owned()).collect()
}

/// Dependencies on a higher layer, as messages. `folder` is the source folder of the crate.
fn upward(folder: &str, dependencies: &[Dependency], layers: &[String]) -> Vec<String> {
    let layer = |module: &str| layers.iter().position(|layer| layer == module);
    let mut found = Vec::new();
    for Dependency { from, line, to, path, through } in dependencies {
        let user = top(from);
        for used in [top(to), through] {
            match (layer(user), layer(used)) {
                (Some(user_layer), Some(used_layer)) if used_layer < user_layer => {
                    found.push(format!("{folder}/{from}:{line}: {path}: {user} is below {used} and cannot use it"));
                    break;
                }
                (None, _) => {
                    found.push(format!("{folder}/{from}: {user} is not in the table of layers in {folder}/lib.rs"));
                    break;
                }
                _ => {}
            }
        }
    }
    found.dedup();
    found
}

/// The first module of a file's path.
fn top(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Cycles, as messages. `folder` is the source folder of the crate.
fn cycle_messages(folder: &str, dependencies: &[Dependency]) -> Vec<String> {
    let step = |dependency: &&Dependency| {
        format!("{folder}/{}:{}: {} → {folder}/{}", dependency.from, dependency.line, dependency.path, dependency.to)
    };
    cycles(dependencies).iter().map(|cycle| cycle.iter().map(step).collect::<Vec<_>>().join("\n  ")).collect()
}

/// Reads all sources of a crate, below its source folder `root`.
fn read(folder: &Path, root: &Path, files: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !OTHER_CRATES.contains(&name.as_str()) {
            read(&path, root, files);
        } else if name.ends_with(".rs") && name != "main.rs" {
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

fn sources(files: &[(String, String)]) -> Vec<Source<'_>> {
    files.iter().map(|(name, text)| Source { name, text }).collect()
}

fn crate_files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    read(&root, &root, &mut files);
    files
}

#[test]
fn no_module_uses_a_module_of_a_higher_layer() {
    for folder in CRATES {
        let files = crate_files(folder);
        let lib = &files.iter().find(|(name, _)| name == "lib.rs").unwrap().1;
        let layers = layers(lib);
        let dependencies = dependencies(&sources(&files));
        let modules: std::collections::BTreeSet<&str> =
            files.iter().map(|(name, _)| top(name)).filter(|module| *module != "lib").collect();
        let mut listed: Vec<&str> = layers.iter().map(String::as_str).collect();
        listed.sort_unstable();
        assert_eq!(listed, modules.into_iter().collect::<Vec<_>>(), "the table of layers in {folder}/lib.rs");
        let count = dependencies.len();
        assert!(count > 300, "{folder}: only {count} dependencies were found in {} files", files.len());
        let up = upward(folder, &dependencies, &layers);
        assert!(up.is_empty(), "{} dependencies on a higher layer:\n{}", up.len(), up.join("\n"));
    }
}

#[test]
fn files_do_not_use_one_another_in_a_cycle() {
    for folder in CRATES {
        let files = crate_files(folder);
        let dependencies = dependencies(&sources(&files));
        let cycles = cycle_messages(folder, &dependencies);
        assert!(cycles.is_empty(), "{} cycles:\n{}", cycles.len(), cycles.join("\n\n"));
    }
}

/// The lines with one of `words`, outside of tests and comments, as `file: line`.
fn lines_with(files: &[(String, String)], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in files.iter().filter(|(name, _)| !name.ends_with("tests.rs") && !name.contains("tests/")) {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
        for line in code.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{name}: {line}"));
            }
        }
    }
    found
}

/// An output could otherwise publish pixels that `[stream.redact]` hides.
#[test]
fn only_redaction_and_the_model_read_the_pixels_of_frames() {
    const READERS: [&str; 9] = [
        "frame.rs",
        "redact/mod.rs",
        // A stream with redaction collects frames only where the configuration file allows it.
        "collect/picture.rs",
        "segment/segmenter/batch.rs",
        "segment/tiled.rs",
        "commands/bench.rs",
        "commands/flicker/mod.rs",
        "commands/gate/mod.rs",
        // The images of a data set.
        "commands/model/compare.rs",
    ];
    let files = crate_files("src");
    let found = lines_with(&files, &["pixels.image()", ".unredacted(", "::unredacted("]);
    let read_by = |reader: &str| found.iter().any(|line| line.starts_with(&format!("{reader}:")));
    assert!(READERS.iter().all(|reader| read_by(reader)), "a reader in the list reads no pixels: {found:#?}");
    let others: Vec<_> =
        found.iter().filter(|line| !READERS.iter().any(|reader| line.starts_with(&format!("{reader}:")))).collect();
    assert!(others.is_empty(), "these lines use pixels that redaction has not cleared: {others:#?}");
    let outputs: Vec<_> = files.into_iter().filter(|(name, _)| name.starts_with("publish/")).collect();
    assert!(outputs.len() > 20);
    let frames = lines_with(&outputs, &["frame::Frame", "Arc<dyn Pixels>"]);
    assert!(frames.is_empty(), "outputs use frames that redaction has not cleared: {frames:#?}");
}

/// The dependencies among the given files, as `from:line → to`.
fn dependencies_of(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<_> = files.iter().map(|(name, text)| Source { name, text }).collect();
    dependencies(&sources)
        .iter()
        .map(|dependency| format!("{}:{} → {}", dependency.from, dependency.line, dependency.to))
        .collect()
}

#[test]
fn paths_are_followed_to_the_file_that_defines_what_they_name() {
    let lib = ("lib.rs", "pub mod a;\npub mod b;\n");
    let b = ("b/mod.rs", "pub mod deep;\nmod near;\npub use near::Item;\npub fn own() {}\n");
    let deep = ("b/deep.rs", "pub struct Deep;\n");
    let near = ("b/near.rs", "pub struct Item;\n");
    for (text, expected) in [
        ("use crate::b::own;", vec!["a.rs:1 → b/mod.rs"]),
        ("use crate::b::Item;", vec!["a.rs:1 → b/near.rs"]),
        ("use crate::b::{deep::Deep,\n own};", vec!["a.rs:1 → b/deep.rs", "a.rs:2 → b/mod.rs"]),
        ("use crate::b;\nfn x() { b::own() }", vec!["a.rs:1 → b/mod.rs", "a.rs:2 → b/mod.rs"]),
        ("fn x() -> crate::b::deep::Deep { todo!() }", vec!["a.rs:1 → b/deep.rs"]),
        ("fn x() {\n println!(\"{}\", crate::b::own()); }", vec!["a.rs:2 → b/mod.rs"]),
        ("fn x() { use super::b::Item as Other; }", vec!["a.rs:1 → b/near.rs"]),
        ("mod inner { use super::super::b::own; }", vec!["a.rs:1 → b/mod.rs"]),
        ("#[cfg(test)]\nmod tests { use crate::b::own; }", vec![]),
        ("#[cfg(all(test, unix))]\nuse crate::b::own;", vec![]),
        ("#[cfg(not(test))]\nuse crate::b::own;", vec!["a.rs:2 → b/mod.rs"]),
        ("use std::fmt::Debug;\n// crate::b::own\nconst TEXT: &str = \"crate::b::own\";", vec![]),
    ] {
        assert_eq!(dependencies_of(&[lib, ("a.rs", text), b, deep, near]), expected, "{text}");
    }
}

#[test]
fn files_that_only_tests_use_are_not_checked() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a/mod.rs", "#[cfg(test)]\nmod tests;\n"),
        ("a/tests.rs", "use crate::b::X;\n"),
        ("b.rs", "pub struct X;\n"),
    ];
    assert!(dependencies_of(&files).is_empty());
}

#[test]
fn a_dependency_on_a_higher_layer_is_found() {
    let lib = "//! # Layers\n//! | module | what |\n//! | --- | --- |\n//! | [`top`] | x |\n//! | [`ground`] | x |\n\nmod top;\nmod ground;\n";
    let order = layers(lib);
    assert_eq!(order, ["top", "ground"]);
    let check = |top: &str, ground: &str| {
        upward(
            "src",
            &dependencies(&[
                Source { name: "lib.rs", text: lib },
                Source { name: "top.rs", text: top },
                Source { name: "ground/mod.rs", text: ground },
            ]),
            &order,
        )
    };
    assert!(check("use crate::ground::X;", "pub struct X;").is_empty());
    assert_eq!(
        check("pub struct X;", "\nuse crate::top::X;"),
        ["src/ground/mod.rs:2: crate::top::X: ground is below top and cannot use it"]
    );
    // Also through a re-export by the higher module.
    assert_eq!(check("pub use crate::ground::X;", "pub struct X;\nfn x(_: crate::top::X) {}").len(), 1);
}

#[test]
fn a_cycle_is_found_with_every_step() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
        ("a.rs", "use crate::b::B;\npub struct A;\n"),
        ("b.rs", "pub struct B;\n\nfn x() { crate::c::c() }\n"),
        ("c.rs", "pub fn c() -> super::a::A { todo!() }\n"),
    ];
    let sources: Vec<_> = files.iter().map(|(name, text)| Source { name, text }).collect();
    let cycles = cycle_messages("src", &dependencies(&sources));
    assert_eq!(
        cycles,
        [
            "src/a.rs:1: crate::b::B → src/b.rs\n  src/b.rs:3: crate::c::c → src/c.rs\n  src/c.rs:1: super::a::A → src/a.rs"
        ]
    );
}

#[test]
fn a_module_and_its_child_can_form_a_cycle_but_not_by_a_re_export() {
    let cycles = |child: &str, parent: &str| {
        let files = [("lib.rs", "mod p;\n"), ("p/mod.rs", parent), ("p/c.rs", child)];
        let sources: Vec<_> = files.iter().map(|(name, text)| Source { name, text }).collect();
        cycles(&dependencies(&sources)).len()
    };
    assert_eq!(cycles("use super::P;\npub struct C;", "mod c;\npub use c::C;\npub struct P;"), 0);
    assert_eq!(cycles("use super::P;\npub struct C;", "mod c;\npub struct P(c::C);"), 1);
}
