//! `type = "jsonl"`: one JSON object in a line for each mask, appended to a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use super::kind::{KeyKind, MaskSinkKind, SinkKey};
use super::mask::{MaskSink, SinkError, StreamMask};
use super::message::MaskMessage;

pub static KIND: MaskSinkKind = MaskSinkKind {
    name: "jsonl",
    about: "Appends one line of JSON to a file for each mask: stream, number and time of the frame, and the share of each \
            class. A file that was moved or deleted is created again with the next line.",
    keys: &[SinkKey {
        name: "path",
        kind: KeyKind::File,
        is_required: true,
        about: "Path of the file. File and folder are created if they do not exist.",
    }],
    label: |settings| settings.file("path").display().to_string(),
    open: |settings| Box::new(JsonLines::new(settings.file("path").to_path_buf())),
};

/// The file of one sink.
struct JsonLines {
    path: PathBuf,
    file: Option<File>,
    /// A line was written in part, because the disk is full for instance: the next one must not continue it.
    is_cut: bool,
}

impl JsonLines {
    fn new(path: PathBuf) -> Self {
        JsonLines { path, file: None, is_cut: false }
    }

    /// Opens the file, if it is not open, or if its path leads to another file or to none: it was moved or deleted.
    fn current(&mut self) -> io::Result<()> {
        let is_current = |file: &File| {
            let (open, there) = (file.metadata()?, std::fs::metadata(&self.path)?);
            io::Result::Ok((open.dev(), open.ino()) == (there.dev(), there.ino()))
        };
        if self.file.as_ref().is_some_and(|file| is_current(file).unwrap_or(false)) {
            return Ok(());
        }
        self.file = None;
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        // Each line is one write at the end of the file, so that several streams may share it.
        let file = File::options().create(true).append(true).read(true).open(&self.path)?;
        self.is_cut = ends_within_a_line(&file)?;
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, mask: &StreamMask) -> io::Result<()> {
        self.current()?;
        let mut line = if self.is_cut { b"\n".to_vec() } else { Vec::new() };
        serde_json::to_writer(&mut line, &MaskMessage::of(mask))?;
        line.push(b'\n');
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut rest = &line[..];
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.is_cut = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether the last line of a file is incomplete: the process or the machine ended while it was written.
fn ends_within_a_line(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let mut last = [b'\n'];
    if metadata.is_file() && metadata.len() > 0 {
        file.read_exact_at(&mut last, metadata.len() - 1)?;
    }
    Ok(last != [b'\n'])
}

impl MaskSink for JsonLines {
    fn push(&mut self, mask: &StreamMask) -> Result<(), SinkError> {
        self.write(mask).map_err(|source| SinkError::File { path: self.path.clone(), source })
    }
}
