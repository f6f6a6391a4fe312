//! How long a finished MP4 file is, by its own words, and how much of pictures is in one that is not.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use crate::config::Container;

/// A header has three boxes in it before the tracks; more is no file of ours.
const MOST_BOXES: usize = 64;

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// It is finished and as long as this, in seconds. Matroska files are as long as they were written: `None`.
    Finished(Option<f64>),
    /// Still written in fragments, or cut off; what there is can be played.
    Open,
    /// There is no header, and nothing can be read from it: it was cut off before its first pictures.
    Nothing,
}

/// How the file at `path` begins and ends.
///
/// # Errors
/// When the file cannot be read.
pub fn look(path: &Path, container: Container) -> Result<Length> {
    match container {
        Container::Mp4 => match finished(path) {
            Ok(Some(seconds)) => Ok(Length::Finished(Some(seconds))),
            Ok(None) => Ok(if has_header(path)? { Length::Open } else { Length::Nothing }),
            // Boxes that end nowhere.
            Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                Ok(if has_header(path).unwrap_or(false) { Length::Open } else { Length::Nothing })
            }
            Err(error) => Err(error),
        },
        Container::Mkv => {
            let mut magic = Vec::new();
            File::open(path)?.take(4).read_to_end(&mut magic)?;
            Ok(if magic == EBML { Length::Finished(None) } else { Length::Nothing })
        }
    }
}

/// How Matroska files begin (RFC 8794).
const EBML: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];

fn has_header(path: &Path) -> Result<bool> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    Ok(find(&mut file, 0..end, *b"moov")?.is_some())
}

/// Seconds of the finished MP4 file at `path`; `None` for one that is still written in fragments, or was cut off.
///
/// A fragmented file's header (ISO/IEC 14496-12, `moov`) announces fragments (`mvex`). When the file is finished, a whole
/// header is written behind the pictures and hides the first one.
///
/// # Errors
/// What cannot be read, or is no MP4.
pub fn finished(path: &Path) -> Result<Option<f64>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    let Some(header) = find(&mut file, 0..end, *b"moov")? else { return Ok(None) };
    if find(&mut file, header.clone(), *b"mvex")?.is_some() {
        return Ok(None);
    }
    let Some(times) = find(&mut file, header, *b"mvhd")? else { return Ok(None) };
    file.seek(SeekFrom::Start(times.start))?;
    let version = number(&mut file, 4)? >> 24;
    // Creation and modification, then the scale and the length in it.
    let wide = if version == 1 { 8 } else { 4 };
    file.seek_relative(2 * wide as i64)?;
    let (scale, length) = (number(&mut file, 4)?, number(&mut file, wide)?);
    Ok((scale > 0).then(|| length as f64 / scale as f64))
}

/// The content of the first box of this kind among the boxes of `range`.
fn find(file: &mut File, range: Range<u64>, kind: [u8; 4]) -> Result<Option<Range<u64>>> {
    let mut at = range.start;
    for _ in 0..MOST_BOXES {
        let Some(found) = box_at(file, at..range.end)? else { return Ok(None) };
        if found.all.end > range.end {
            return Err(Error::new(ErrorKind::InvalidData, "a box has no end"));
        }
        if found.kind == kind {
            return Ok(Some(found.content));
        }
        at = found.all.end;
    }
    Ok(None)
}

/// A box, which may say that it is longer than what there is of it.
struct Mp4Box {
    kind: [u8; 4],
    /// It has no length yet, and ends with the file.
    open: bool,
    all: Range<u64>,
    content: Range<u64>,
}

/// The box at the beginning of `range`; `None` where it is too short for one.
fn box_at(file: &mut File, range: Range<u64>) -> Result<Option<Mp4Box>> {
    let at = range.start;
    if at.saturating_add(8) > range.end {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at))?;
    let short = number(file, 4)?;
    let mut kind = [0; 4];
    file.read_exact(&mut kind)?;
    let (head, size) = match short {
        0 => (8, range.end - at),
        1 => (16, number(file, 8)?),
        size => (8, size),
    };
    let end = at.checked_add(size).filter(|_| size >= head);
    let end = end.ok_or_else(|| Error::new(ErrorKind::InvalidData, "a box has no end"))?;
    Ok(Some(Mp4Box { kind, open: short == 0, all: at..end, content: at + head..end }))
}

/// Where the pictures are in the finished file at `path`, in bytes.
///
/// # Errors
/// What cannot be read, or is no MP4.
pub fn pictures(path: &Path) -> Result<Range<u64>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    Ok(find(&mut file, 0..end, *b"mdat")?.unwrap_or_default())
}

/// Where the pictures are in the file at `path`, which was written in fragments until it was cut off, in bytes. `None` when
/// there may be more behind something that is no part of such a file: nobody would find it there.
///
/// Our muxer writes the pictures first and what tells of them (`moov`, then `moof`) behind them.
///
/// # Errors
/// What cannot be read, or is no MP4.
pub fn pictures_in_fragments(path: &Path) -> Result<Option<Vec<Range<u64>>>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    let (mut at, mut pictures, mut untold) = (0, Vec::new(), Vec::new());
    while let Some(found) = box_at(&mut file, at..end)? {
        // What was not written before the power went is zero.
        let last = found.open || found.all.end > end;
        match &found.kind {
            b"mdat" | b"moof" | b"moov" | [0, 0, 0, 0] if last => break,
            b"mdat" => untold.push(found.content),
            b"moof" | b"moov" => pictures.append(&mut untold),
            b"ftyp" | b"free" | b"mfra" if !last => {}
            _ => return Ok(None),
        }
        at = found.all.end;
    }
    Ok((!has_fragment(&mut file, at.saturating_add(8)..end)?).then_some(pictures))
}

/// Whether a fragment seems to begin somewhere in `range`.
fn has_fragment(file: &mut File, range: Range<u64>) -> Result<bool> {
    const KIND: &[u8; 4] = b"moof";
    file.seek(SeekFrom::Start(range.start))?;
    let mut rest = file.take(range.end.saturating_sub(range.start));
    let mut buffer = Vec::new();
    loop {
        // The last bytes may be the first ones of what is looked for.
        buffer.drain(..buffer.len().saturating_sub(KIND.len() - 1));
        if rest.by_ref().take(1 << 16).read_to_end(&mut buffer)? == 0 {
            return Ok(false);
        }
        if buffer.windows(KIND.len()).any(|bytes| bytes == KIND) {
            return Ok(true);
        }
    }
}

/// A big-endian number of `bytes` bytes, 8 at most.
fn number(file: &mut File, bytes: usize) -> Result<u64> {
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
        finished(file.path())
    }

    #[test]
    fn a_finished_file_says_its_length() {
        let head = [boxed("ftyp", b"isom"), boxed("mdat", &[7; 100])].concat();
        let moov = boxed("moov", &mvhd(1000, 12_500));
        assert_eq!(length_of(&[head.clone(), moov].concat()).unwrap(), Some(12.5));
        let wide = [&1_u32.to_be_bytes()[..], b"mdat", &116_u64.to_be_bytes(), &[7; 100]].concat();
        let long = [(1_u32 << 24).to_be_bytes().to_vec(), vec![0; 16], 10_u32.to_be_bytes().to_vec()].concat();
        let mvhd = boxed("mvhd", &[long, (1_u64 << 40).to_be_bytes().to_vec(), vec![0; 8]].concat());
        let file = [boxed("ftyp", b"isom"), wide, boxed("moov", &mvhd)].concat();
        assert_eq!(length_of(&file).unwrap(), Some((1_u64 << 40) as f64 / 10.0));
    }

    /// Only what comes out of such a file as a whole may take its place.
    #[test]
    fn pictures_of_fragments_are_counted_until_the_end_and_not_past_damage() {
        let count = |parts: &[Vec<u8>]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), parts.concat()).unwrap();
            let bytes = |pictures: Vec<Range<u64>>| pictures.iter().map(|part| part.end - part.start).sum::<u64>();
            pictures_in_fragments(file.path()).map(|pictures| pictures.map(bytes))
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
        assert_eq!(with(&open).unwrap(), Some(200), "what is being written has no length yet");
        assert_eq!(with(&[0; 5000]).unwrap(), Some(200));
        let hole = [vec![0; 5000], fragment.clone()].concat();
        assert_eq!(with(&hole).unwrap(), None, "what comes after the hole would be lost");
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
    fn a_file_without_a_header_holds_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let look = |content: &[u8], container| {
            std::fs::write(file.path(), content).unwrap();
            look(file.path(), container).unwrap()
        };
        let head = boxed("ftyp", b"isom");
        for nothing in [&b""[..], &head, b"hello, this is a text", &[&head[..], b"\0\0\x10\0moov"].concat()] {
            assert_eq!(look(nothing, Container::Mp4), Length::Nothing, "{nothing:?}");
        }
        let fragmented = boxed("moov", &[mvhd(1000, 1000), boxed("mvex", &[])].concat());
        assert_eq!(look(&[&head[..], &fragmented, b"\0\0\x10\0moof"].concat(), Container::Mp4), Length::Open);
        let whole = [head, boxed("moov", &mvhd(1000, 2500))].concat();
        assert_eq!(look(&whole, Container::Mp4), Length::Finished(Some(2.5)));
        assert_eq!(look(&whole, Container::Mkv), Length::Nothing);
        assert_eq!(look(&[&EBML[..], b"more"].concat(), Container::Mkv), Length::Finished(None));
    }

    #[test]
    fn fragments_and_remains_say_nothing() {
        let fragmented = boxed("moov", &[mvhd(1000, 1000), boxed("mvex", &[])].concat());
        assert_eq!(length_of(&[fragmented, boxed("moof", &[])].concat()).unwrap(), None);
        assert_eq!(length_of(b"").unwrap(), None);
        assert_eq!(length_of(&[0, 0, 0, 0, b'm', b'd', b'a', b't', 1, 2, 3]).unwrap(), None, "mdat to the end");
        assert!(length_of(&boxed("moov", &mvhd(1, 1))[..20]).is_err());
        assert!(length_of(b"hello, this is a text").is_err());
        assert!(
            length_of(&[0, 0, 0, 4, b'f', b'r', b'e', b'e', 0, 0, 0, 0]).is_err(),
            "a box that ends before it begins"
        );
    }
}
