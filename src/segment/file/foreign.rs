//! Files of other formats that are given as models by mistake, by their first bytes.

/// Whether this is ONNX Runtime's own format: a FlatBuffer with the identifier `ORTM`.
pub(super) fn is_ort_format(head: &[u8]) -> bool {
    head.get(4..8) == Some(b"ORTM")
}

/// What a file is that begins with `head`, and what to do about it; `None` for what may be ONNX.
pub(super) fn named(head: &[u8]) -> Option<&'static str> {
    const FORMATS: [(usize, &[u8], &str); 17] = [
        (
            0,
            b"PK\x03\x04",
            "a zip archive, as PyTorch's .pt and .pth files and .keras files are; export it as ONNX (torch.onnx.export, tf2onnx) or unpack it",
        ),
        (0, b"\x80\x02", "a Python pickle, as older .pt and .pth files are; export it with torch.onnx.export"),
        (0, b"\x80\x03", "a Python pickle, as older .pt and .pth files are; export it with torch.onnx.export"),
        (0, b"\x80\x04", "a Python pickle, as older .pt and .pth files are; export it with torch.onnx.export"),
        (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras's .h5 files are; convert it with tf2onnx"),
        (4, b"TFL3", "a TensorFlow Lite model; convert it with tf2onnx"),
        (0, b"ftrt", "a TensorRT engine; give the ONNX file that it was made from"),
        (0, b"ptrt", "a TensorRT engine; give the ONNX file that it was made from"),
        (0, b"GGUF", "a GGUF file, which has weights of language models"),
        (
            0,
            b"version https://git-lfs",
            "a pointer of Git LFS in the place of the file; fetch the file with `git lfs pull`",
        ),
        (0, b"<?xml", "an XML text, as OpenVINO's models are; give the ONNX file that it was made from"),
        (0, b"<!", "a web page; download the file itself"),
        (0, b"<html", "a web page; download the file itself"),
        (0, b"\x1f\x8b", "a gzip archive; unpack it"),
        (0, b"\xfd7zXZ\0", "an xz archive; unpack it"),
        (0, b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it"),
        (257, b"ustar", "a tar archive; unpack it"),
    ];
    let begins = |&&(at, magic, _): &&(usize, &[u8], &str)| head.get(at..at + magic.len()) == Some(magic);
    if let Some((_, _, what)) = FORMATS.iter().find(begins) {
        return Some(what);
    }
    // The length of the header as eight bytes, then the header, which is JSON.
    if head.get(3..10) == Some(b"\0\0\0\0\0{\"") {
        return Some("a safetensors file, which has weights and no network; export the model as ONNX");
    }
    None
}
