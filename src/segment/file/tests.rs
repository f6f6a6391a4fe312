use std::io::{Seek, SeekFrom, Write};

use super::structure::{DamageProblem, Operation};
use super::*;

/// A field of a protocol buffer with these bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(bytes);
    out
}

fn node(op: &str, input: &str, output: &str) -> Vec<u8> {
    field(1, &[field(1, input.as_bytes()), field(2, output.as_bytes()), field(4, op.as_bytes())].concat())
}

/// A tensor with its data in another file.
fn tensor_in(file: &str) -> Vec<u8> {
    field(13, &[field(1, b"location"), field(2, file.as_bytes())].concat())
}

fn model(graph: &[Vec<u8>]) -> Vec<u8> {
    // ir_version 9 first
    [vec![0x08, 9], field(7, &graph.concat())].concat()
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn problem(bytes: &[u8]) -> ModelFileProblem {
    let (_folder, path) = written(bytes);
    let problem = read(&path).unwrap_err();
    assert_eq!(problem.to_string().lines().count(), 1, "{problem}");
    problem
}

#[track_caller]
fn damage(bytes: &[u8]) -> DamageProblem {
    match problem(bytes) {
        ModelFileProblem::Damaged(damage) => damage.problem,
        other => panic!("{other}"),
    }
}

#[test]
fn reads_nodes_and_weight_files_and_skips_weights() {
    // Raw data that is not a protocol buffer.
    let weights = field(5, &field(9, &[0xff; 100_000]));
    let inner = field(7, &[]);
    let constant = field(1, &[field(4, b"Constant"), field(5, &field(5, &tensor_in("b.data")))].concat());
    let bytes = model(&[
        node("Conv", "image", "a"),
        weights,
        field(5, &tensor_in("a.data")),
        constant,
        inner,
        node("Sigmoid", "a", "b"),
        node("Transpose", "b", "mask"),
    ]);
    let (folder, path) = written(&bytes);
    let problem = read(&path).unwrap_err();
    assert!(matches!(&problem, ModelFileProblem::Weights { path, .. } if path.ends_with("a.data")), "{problem}");
    for name in ["a.data", "b.data"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let file = read(&path).unwrap();
    assert_eq!(file.bytes, bytes);
    let ops: Vec<&str> = file.structure.nodes.iter().map(|node| node.op.as_str()).collect();
    assert_eq!(ops, ["Conv", "Constant", "Sigmoid", "Transpose"]);
    for (data, name) in file.external.iter().zip(["a.data", "b.data"]) {
        assert_eq!((data.name.as_str(), &*data.bytes), (name, name.as_bytes()));
    }
    assert_eq!(external_of(&path), ["a.data", "b.data"].map(|name| folder.path().join(name)));
    assert_eq!(file.structure.final_sigmoid("mask"), Some("Sigmoid"));
    assert_eq!(file.structure.final_sigmoid("a"), None);
    assert_eq!(file.structure.final_sigmoid("none"), None);
}

#[test]
fn last_operator_ends_in_a_cyclic_graph() {
    let operation = |input: &str, output: &str| Operation {
        op: "Identity".into(),
        inputs: vec![input.into()],
        outputs: vec![output.into()],
    };
    let structure = Structure { nodes: vec![operation("a", "b"), operation("b", "a")], external: Vec::new() };
    assert_eq!(structure.last_operator("a"), None);
}

#[test]
fn finds_damage_in_truncated_and_foreign_files() {
    let whole = model(&[node("Conv", "image", "mask")]);
    for length in 1..whole.len() {
        damage(&whole[..length]);
    }
    assert_eq!(damage(&[&whole[..], &[0; 64]].concat()), DamageProblem::FieldNumber(0));
    assert_eq!(damage(&model(&[])), DamageProblem::NoNodes);
    assert_eq!(damage(&[0x08, 9]), DamageProblem::NoGraph);
    damage(b"this is not a model, but it is long enough");
    // Nested graphs.
    let mut graph = node("Conv", "a", "b");
    for _ in 0..40 {
        graph = field(1, &field(5, &field(6, &graph)));
    }
    assert_eq!(damage(&model(&[graph])), DamageProblem::TooDeep);
}

#[test]
fn names_the_format_of_foreign_files() {
    let tar = [&[0; 257][..], b"ustar\0"].concat();
    for (bytes, what) in [
        (&b"PK\x03\x04archive/data.pkl"[..], "torch.onnx.export"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x89HDF\r\n\x1a\n\0\0\0", "HDF5"),
        (b"\x1c\0\0\0TFL3\0\0", "TensorFlow Lite"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x1f\x8b\x08\0\0\0", "gzip"),
        (b"\x20\0\0\0\0\0\0\0{\"a\":{}}", "safetensors"),
        (tar.as_slice(), "tar archive"),
    ] {
        let problem = problem(bytes);
        assert!(matches!(problem, ModelFileProblem::Foreign(text) if text.contains(what)), "{problem}");
    }
}

#[test]
fn rejects_folders_pipes_devices_and_sockets_without_blocking() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.onnx");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let empty = folder.path().join("empty.onnx");
    std::fs::write(&empty, "").unwrap();
    let socket = folder.path().join("socket.onnx");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, expected) in [
        (folder.path(), FileKind::Folder),
        (&pipe, FileKind::Pipe),
        (Path::new("/dev/zero"), FileKind::Device),
        (&socket, FileKind::Socket),
    ] {
        let problem = read(path).unwrap_err();
        assert!(matches!(problem, ModelFileProblem::Kind(kind) if kind == expected), "{problem}");
        assert_eq!(external_of(path), [""; 0].map(PathBuf::from));
    }
    assert!(matches!(read(&empty), Err(ModelFileProblem::Empty)));
    let missing = folder.path().join("missing.onnx");
    let problem = read(&missing).unwrap_err();
    assert!(
        matches!(&problem, ModelFileProblem::Io(error) if error.kind() == std::io::ErrorKind::NotFound),
        "{problem}"
    );
    for path in [&empty, &missing] {
        assert_eq!(external_of(path), [""; 0].map(PathBuf::from));
    }
    // Neither does a weight file block.
    let (other, path) = written(&model(&[node("Conv", "a", "b"), field(5, &tensor_in("w"))]));
    rustix::fs::mknodat(rustix::fs::CWD, other.path().join("w"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let problem = read(&path).unwrap_err();
    let ModelFileProblem::Weights { problem, .. } = problem else { panic!("{problem}") };
    assert!(matches!(*problem, ModelFileProblem::Kind(FileKind::Pipe)), "{problem}");
}

/// The largest amount of memory that the process has had, in kB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn large_files_that_are_not_models_are_not_read_into_memory() {
    let folder = tempfile::tempdir().unwrap();
    let start = model(&[node("Conv", "image", "mask")]);
    // Zeros, a model with zeros after it, and a model with a name of a gigabyte.
    let long_name = [vec![
        0x3a, 0x80, 0x80, 0x80, 0x80, 0x04, 0x0a, 0xf0, 0xff, 0xff, 0xff, 0x03, 0x0a, 0xe0, 0xff, 0xff, 0xff, 0x03,
    ]]
    .concat();
    for (n, start) in [vec![], start, long_name].iter().enumerate() {
        let path = folder.path().join(format!("{n}.onnx"));
        let mut file = File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(start).unwrap();
        let before = peak();
        let problem = read(&path).unwrap_err();
        assert!(matches!(problem, ModelFileProblem::Damaged(_)), "{problem}");
        assert!(peak() - before < 500_000, "{n}: {} kB more", peak() - before);
    }
    // Sparse, so that it needs no space on the disk.
    let large = folder.path().join("large.onnx");
    File::create(&large).unwrap().set_len(3 << 30).unwrap();
    assert!(matches!(read(&large), Err(ModelFileProblem::TooLarge(bytes)) if bytes == 3 << 30));
}

#[test]
fn a_path_without_a_folder_is_in_the_current_folder() {
    for (path, folder) in [("net.onnx", "."), ("./net.onnx", "."), ("a/net.onnx", "a"), ("/net.onnx", "/"), ("", ".")] {
        assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
    }
}
