//! Recognises files of other formats by their first bytes.

/// Whether the file has the format of ONNX Runtime: a FlatBuffer with the identifier `ORTM`.
pub(super) fn is_ort_format(head: &[u8]) -> bool {
    head.get(4..8) == Some(b"ORTM")
}

/// The format of a file that begins with `head`, and what to do; `None` for a file that may be ONNX.
pub(super) fn format_and_remedy(head: &[u8]) -> Option<&'static str> {
    const FORMATS: [(usize, &[u8], &str); 17] = [
        (
            0,
            b"PK\x03\x04",
            "a zip archive, as .pt and .pth files of PyTorch and .keras files are; export it as ONNX (torch.onnx.export, tf2onnx) or unpack it",
        ),
        (0, b"\x80\x02", "a Python pickle, as older .pt and .pth files are; export it with torch.onnx.export"),
        (0, b"\x80\x03", "a Python pickle, as older .pt and .pth files are; export it with torch.onnx.export"),
        (0, b"\x80\x04", "a Python pickle, as older .pt and .pth files are; export it with torch.onnx.export"),
        (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as .h5 files of Keras are; convert it with tf2onnx"),
        (4, b"TFL3", "a TensorFlow Lite model; convert it with tf2onnx"),
        (0, b"ftrt", "a TensorRT engine; give the ONNX file that it was made from"),
        (0, b"ptrt", "a TensorRT engine; give the ONNX file that it was made from"),
        (0, b"GGUF", "a GGUF file, which has the weights of a language model"),
        (0, b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
        (0, b"<?xml", "an XML text, as models of OpenVINO are; give the ONNX file that it was made from"),
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
    // Eight bytes with the length of the header, then the header, which is JSON.
    if head.get(3..10) == Some(b"\0\0\0\0\0{\"") {
        return Some("a safetensors file, which has the weights only; export the model as ONNX");
    }
    None
}
