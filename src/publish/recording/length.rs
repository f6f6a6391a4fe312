//! How long a finished MP4 file is, by its own words.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::path::Path;

/// A header has three boxes in it before the tracks; more is no file of ours.
const MOST_BOXES: usize = 64;

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
fn find(file: &mut File, range: std::ops::Range<u64>, kind: [u8; 4]) -> Result<Option<std::ops::Range<u64>>> {
    let mut at = range.start;
    for _ in 0..MOST_BOXES {
        if at + 8 > range.end {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(at))?;
        let short = number(file, 4)?;
        let mut found = [0; 4];
        file.read_exact(&mut found)?;
        let (head, size) = match short {
            // To the end of the file.
            0 => (8, range.end - at),
            1 => (16, number(file, 8)?),
            size => (8, size),
        };
        let next = at.checked_add(size).filter(|next| size >= head && *next <= range.end);
        let Some(next) = next else { return Err(Error::new(ErrorKind::InvalidData, "a box has no end")) };
        if found == kind {
            return Ok(Some(at + head..next));
        }
        at = next;
    }
    Ok(None)
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
