use std::io::{Seek, SeekFrom, Write};

use super::structure::Operation;
use super::*;

/// A field of a protocol buffer with bytes in it.
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

/// A tensor whose data are in another file.
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

fn problem(bytes: &[u8]) -> String {
    let (_folder, path) = written(bytes);
    let error = read(&path).unwrap_err().0;
    assert!(error.contains("net.onnx: ") && error.lines().count() == 1, "{error}");
    error
}

#[test]
fn nodes_and_weight_files_are_found_and_weights_skipped() {
    // Raw data that would be no protocol buffer.
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
    let file = read(&path).unwrap_err().0;
    assert!(file.contains("a.data") && file.contains("put that file beside the model"), "{file}");
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
fn a_graph_in_a_circle_has_an_end() {
    let operation = |input: &str, output: &str| Operation {
        op: "Identity".into(),
        inputs: vec![input.into()],
        outputs: vec![output.into()],
    };
    let structure = Structure { nodes: vec![operation("a", "b"), operation("b", "a")], external: Vec::new() };
    assert_eq!(structure.last_operator("a"), None);
}

#[test]
fn damage_is_found_without_reading_on() {
    let whole = model(&[node("Conv", "image", "mask")]);
    for length in 1..whole.len() {
        assert!(!problem(&whole[..length]).is_empty(), "{length}");
    }
    assert!(problem(&[&whole[..], &[0; 64]].concat()).contains("0 is not a field number"));
    assert!(problem(&model(&[])).contains("no nodes"));
    assert!(problem(&[0x08, 9]).contains("without a graph"));
    assert!(problem(b"this is no model at all, but long enough").contains("not a complete ONNX model"));
    // A graph in a graph in a graph …
    let mut graph = node("Conv", "a", "b");
    for _ in 0..40 {
        graph = field(1, &field(5, &field(6, &graph)));
    }
    assert!(problem(&model(&[graph])).contains("nested too deeply"));
}

#[test]
fn files_of_other_formats_are_named() {
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
        let error = problem(bytes);
        assert!(error.contains("it is not an ONNX model but") && error.contains(what), "{error}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.onnx");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let empty = folder.path().join("empty.onnx");
    std::fs::write(&empty, "").unwrap();
    let socket = folder.path().join("socket.onnx");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        (folder.path(), "a folder"),
        (&pipe, "a named pipe"),
        (Path::new("/dev/zero"), "a device"),
        (&socket, "a socket"),
        (&empty, "the file is empty"),
        (&folder.path().join("gone.onnx"), "No such file"),
    ] {
        let error = read(path).unwrap_err().0;
        assert!(error.contains(&path.display().to_string()) && error.contains(what), "{error}");
        assert_eq!(external_of(path), [""; 0].map(PathBuf::from));
    }
    // A weight file is waited for no more than the model.
    let (other, path) = written(&model(&[node("Conv", "a", "b"), field(5, &tensor_in("w"))]));
    rustix::fs::mknodat(rustix::fs::CWD, other.path().join("w"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let error = read(&path).unwrap_err().0;
    assert!(error.contains("a named pipe"), "{error}");
}

/// The most memory that the process has had, in kB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn gigabytes_of_something_else_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let start = model(&[node("Conv", "image", "mask")]);
    // Nothing at all, a model with something behind it, and a model whose name is a gigabyte long.
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
        let error = read(&path).unwrap_err().0;
        assert!(error.contains("not a complete ONNX model"), "{error}");
        assert!(peak() - before < 500_000, "{n}: {} kB more", peak() - before);
    }
    // Sparse, so that nothing is on the disk.
    let large = folder.path().join("large.onnx");
    File::create(&large).unwrap().set_len(3 << 30).unwrap();
    assert!(read(&large).unwrap_err().0.contains("more than an ONNX file can have"));
}

#[test]
fn a_bare_name_lies_in_the_current_folder() {
    for (path, folder) in [("net.onnx", "."), ("./net.onnx", "."), ("a/net.onnx", "a"), ("/net.onnx", "/"), ("", ".")] {
        assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
    }
}
