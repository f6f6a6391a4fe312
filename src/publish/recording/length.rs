//! Reads the structure of recordings: the duration of a finished MP4 file, and the media data of one that was cut off.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use crate::config::Container;

/// The most boxes that are searched on one level. The recorder's header has three before the tracks.
const MAX_BOXES: usize = 64;

/// State and duration of a file, from its header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// The file is finished; with its duration in seconds, where the header has it. `None` for Matroska, whose duration
    /// follows from the time of writing.
    Finished(Option<f64>),
    /// The file is still being written in fragments, or was cut off; the fragments can be played.
    Open,
    /// The file has no header and cannot be played: it was cut off before its first frames.
    Empty,
}

/// Reads the state and duration of the recording at `path`.
///
/// # Errors
/// When the file cannot be read.
pub fn inspect(path: &Path, container: Container) -> Result<Length> {
    match container {
        Container::Mp4 => match finished_seconds(path) {
            Ok(Some(seconds)) => Ok(Length::Finished(Some(seconds))),
            Ok(None) => Ok(if has_header(path)? { Length::Open } else { Length::Empty }),
            // A box that exceeds the file.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                Ok(if has_header(path).unwrap_or(false) { Length::Open } else { Length::Empty })
            }
            Err(error) => Err(error),
        },
        Container::Mkv => {
            let mut magic = Vec::new();
            File::open(path)?.take(4).read_to_end(&mut magic)?;
            Ok(if magic == EBML { Length::Finished(None) } else { Length::Empty })
        }
    }
}

/// The first bytes of a Matroska file: the identifier of the EBML header (RFC 8794, section 11.2.1).
const EBML: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];

fn has_header(path: &Path) -> Result<bool> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    Ok(find_box(&mut file, 0..end, *b"moov")?.is_some())
}

/// Duration in seconds of the finished MP4 file at `path`; `None` for a file that is still being written in fragments,
/// or was cut off.
///
/// The header (`moov`) of a fragmented file announces fragments with an `mvex` box (ISO/IEC 14496-12, 8.8.1). When the
/// file is finished, a complete header without `mvex` is written after the media data, and the first one is hidden.
///
/// # Errors
/// When the file cannot be read or is not an MP4 file.
pub fn finished_seconds(path: &Path) -> Result<Option<f64>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    let Some(header) = find_box(&mut file, 0..end, *b"moov")? else { return Ok(None) };
    if find_box(&mut file, header.clone(), *b"mvex")?.is_some() {
        return Ok(None);
    }
    let Some(movie_header) = find_box(&mut file, header, *b"mvhd")? else { return Ok(None) };
    file.seek(SeekFrom::Start(movie_header.start))?;
    let version = read_number(&mut file, 4)? >> 24;
    // Creation time, modification time, timescale, duration (8.2.2). The timescale always has 32 bits.
    let width = if version == 1 { 8 } else { 4 };
    file.seek_relative(2 * width as i64)?;
    let (timescale, duration) = (read_number(&mut file, 4)?, read_number(&mut file, width)?);
    Ok((timescale > 0).then(|| duration as f64 / timescale as f64))
}

/// The content of the first box of type `kind` in `range`, in bytes from the start of the file.
fn find_box(file: &mut File, range: Range<u64>, kind: [u8; 4]) -> Result<Option<Range<u64>>> {
    let mut at = range.start;
    for _ in 0..MAX_BOXES {
        let Some(found) = box_at(file, at..range.end)? else { return Ok(None) };
        if found.all.end > range.end {
            return Err(Error::new(ErrorKind::InvalidData, "an MP4 box exceeds the file or its parent box"));
        }
        if found.kind == kind {
            return Ok(Some(found.content));
        }
        at = found.all.end;
    }
    Ok(None)
}

/// An MP4 box. Its size may exceed the file.
struct Mp4Box {
    kind: [u8; 4],
    /// The size field is 0: the box extends to the end of the file.
    open: bool,
    all: Range<u64>,
    content: Range<u64>,
}

/// Reads the header of the box at the start of `range`; `None` where `range` is too short for one.
fn box_at(file: &mut File, range: Range<u64>) -> Result<Option<Mp4Box>> {
    let at = range.start;
    if at.saturating_add(8) > range.end {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at))?;
    let short = read_number(file, 4)?;
    let mut kind = [0; 4];
    file.read_exact(&mut kind)?;
    let (head, size) = match short {
        0 => (8, range.end - at),
        1 => (16, read_number(file, 8)?),
        size => (8, size),
    };
    let end = at.checked_add(size).filter(|_| size >= head);
    let end = end.ok_or_else(|| Error::new(ErrorKind::InvalidData, "the size of an MP4 box is invalid"))?;
    Ok(Some(Mp4Box { kind, open: short == 0, all: at..end, content: at + head..end }))
}

/// The media data (`mdat`) of the finished MP4 file at `path`, in bytes from the start of the file.
///
/// # Errors
/// When the file cannot be read or is not an MP4 file.
pub fn media_data(path: &Path) -> Result<Range<u64>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    Ok(find_box(&mut file, 0..end, *b"mdat")?.unwrap_or_default())
}

/// The media data (`mdat`) of the fragmented MP4 file at `path`, which was cut off: one range per complete fragment, in
/// bytes from the start of the file. `None` when the file is damaged before its end: there may be fragments after the
/// damage, and a demuxer would not find them.
///
/// The muxer writes the media data of a fragment first, and its index (`moov`, later `moof`) after it.
///
/// # Errors
/// When the file cannot be read or is not an MP4 file.
pub fn media_data_of_fragments(path: &Path) -> Result<Option<Vec<Range<u64>>>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    let (mut at, mut complete, mut without_index) = (0, Vec::new(), Vec::new());
    while let Some(found) = box_at(&mut file, at..end)? {
        // After a power failure the unwritten end of the file is zero.
        let last = found.open || found.all.end > end;
        match &found.kind {
            b"mdat" | b"moof" | b"moov" | [0, 0, 0, 0] if last => break,
            b"mdat" => without_index.push(found.content),
            b"moof" | b"moov" => complete.append(&mut without_index),
            b"ftyp" | b"free" | b"mfra" if !last => {}
            _ => return Ok(None),
        }
        at = found.all.end;
    }
    Ok((!has_fragment(&mut file, at.saturating_add(8)..end)?).then_some(complete))
}

/// Whether `range` contains the type of a fragment's box (`moof`) at any position.
fn has_fragment(file: &mut File, range: Range<u64>) -> Result<bool> {
    const KIND: &[u8; 4] = b"moof";
    file.seek(SeekFrom::Start(range.start))?;
    let mut rest = file.take(range.end.saturating_sub(range.start));
    let mut buffer = Vec::new();
    loop {
        // The type may be split between two reads.
        buffer.drain(..buffer.len().saturating_sub(KIND.len() - 1));
        if rest.by_ref().take(1 << 16).read_to_end(&mut buffer)? == 0 {
            return Ok(false);
        }
        if buffer.windows(KIND.len()).any(|bytes| bytes == KIND) {
            return Ok(true);
        }
    }
}

/// Reads a big-endian number of `bytes` bytes, 8 at most.
fn read_number(file: &mut File, bytes: usize) -> Result<u64> {
    let mut buffer = [0; 8];
    file.read_exact(&mut buffer[8 - bytes..])?;
    Ok(u64::from_be_bytes(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &str, content: &[u8]) -> Vec<u8> {
        let size = (content.len() + 8) as u32;
        [&size.to_be_bytes(), kind.as_bytes(), content].concat()
    }

    fn mvhd(scale: u32, length: u32) -> Vec<u8> {
        let numbers = [0, 0, 0, scale, length, 0, 0].map(u32::to_be_bytes).concat();
        boxed("mvhd", &numbers)
    }

    fn length_of(content: &[u8]) -> Result<Option<f64>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        finished_seconds(file.path())
    }

    #[test]
    fn the_duration_of_a_finished_file_is_read() {
        let head = [boxed("ftyp", b"isom"), boxed("mdat", &[7; 100])].concat();
        let moov = boxed("moov", &mvhd(1000, 12_500));
        assert_eq!(length_of(&[head.clone(), moov].concat()).unwrap(), Some(12.5));
        let wide = [&1_u32.to_be_bytes()[..], b"mdat", &116_u64.to_be_bytes(), &[7; 100]].concat();
        let long = [(1_u32 << 24).to_be_bytes().to_vec(), vec![0; 16], 10_u32.to_be_bytes().to_vec()].concat();
        let mvhd = boxed("mvhd", &[long, (1_u64 << 40).to_be_bytes().to_vec(), vec![0; 8]].concat());
        let file = [boxed("ftyp", b"isom"), wide, boxed("moov", &mvhd)].concat();
        assert_eq!(length_of(&file).unwrap(), Some((1_u64 << 40) as f64 / 10.0));
    }

    /// A repaired file may replace the original only if it contains all of its fragments.
    #[test]
    fn fragments_are_counted_up_to_the_end_and_damage_is_detected() {
        let count = |parts: &[Vec<u8>]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), parts.concat()).unwrap();
            let bytes = |frames: Vec<Range<u64>>| frames.iter().map(|part| part.end - part.start).sum::<u64>();
            media_data_of_fragments(file.path()).map(|frames| frames.map(bytes))
        };
        let head = [boxed("ftyp", b"isom"), boxed("mdat", &[3; 100]), boxed("moov", &[1; 50])].concat();
        let fragment = [boxed("free", &[]), boxed("mdat", &[3; 100]), boxed("moof", &[2; 30])].concat();
        let two = || vec![head.clone(), fragment.clone()];
        let with = |more: &[u8]| count(&[two(), vec![more.to_vec()]].concat());
        assert_eq!(count(&two()).unwrap(), Some(200));
        for cut in [1, 7, 8, 15, 16, 50, 116, 120, 124, 130] {
            assert_eq!(with(&fragment[..cut]).unwrap(), Some(200), "cut off after {cut} bytes");
        }
        let open = [&[0, 0, 0, 0][..], &fragment[12..100]].concat();
        assert_eq!(with(&open).unwrap(), Some(200), "the box that is being written has no size yet");
        assert_eq!(with(&[0; 5000]).unwrap(), Some(200));
        let hole = [vec![0; 5000], fragment.clone()].concat();
        assert_eq!(with(&hole).unwrap(), None, "the fragment after the hole would be lost");
        assert_eq!(with(&boxed("tfrt", &[2; 30])).unwrap(), None);
        let endless = [&[0, 0, 0xff, 0xff][..], &fragment[12..116], &[7; 70_000], &fragment[..]].concat();
        assert_eq!(with(&endless[..60_000]).unwrap(), Some(200));
        assert_eq!(
            with(&[&[0, 9, 0, 0][..], &endless[4..]].concat()).unwrap(),
            None,
            "a box that covers another fragment"
        );
        assert!(with(&[0, 0, 0, 3, b'm', b'd', b'a', b't']).is_err());
        assert_eq!(count(&[]).unwrap(), Some(0));
    }

    #[test]
    fn a_file_without_a_header_is_empty() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let inspect = |content: &[u8], container| {
            std::fs::write(file.path(), content).unwrap();
            inspect(file.path(), container).unwrap()
        };
        let head = boxed("ftyp", b"isom");
        for empty in [&b""[..], &head, b"hello, this is a text", &[&head[..], b"\0\0\x10\0moov"].concat()] {
            assert_eq!(inspect(empty, Container::Mp4), Length::Empty, "{empty:?}");
        }
        let fragmented = boxed("moov", &[mvhd(1000, 1000), boxed("mvex", &[])].concat());
        assert_eq!(inspect(&[&head[..], &fragmented, b"\0\0\x10\0moof"].concat(), Container::Mp4), Length::Open);
        let finished = [head, boxed("moov", &mvhd(1000, 2500))].concat();
        assert_eq!(inspect(&finished, Container::Mp4), Length::Finished(Some(2.5)));
        assert_eq!(inspect(&finished, Container::Mkv), Length::Empty);
        assert_eq!(inspect(&[&EBML[..], b"more"].concat(), Container::Mkv), Length::Finished(None));
    }

    #[test]
    fn fragmented_and_truncated_files_have_no_duration() {
        let fragmented = boxed("moov", &[mvhd(1000, 1000), boxed("mvex", &[])].concat());
        assert_eq!(length_of(&[fragmented, boxed("moof", &[])].concat()).unwrap(), None);
        assert_eq!(length_of(b"").unwrap(), None);
        assert_eq!(length_of(&[0, 0, 0, 0, b'm', b'd', b'a', b't', 1, 2, 3]).unwrap(), None, "mdat to the end");
        assert!(length_of(&boxed("moov", &mvhd(1, 1))[..20]).is_err());
        assert!(length_of(b"hello, this is a text").is_err());
        assert!(
            length_of(&[0, 0, 0, 4, b'f', b'r', b'e', b'e', 0, 0, 0, 0]).is_err(),
            "a box that ends before its content"
        );
    }
}
