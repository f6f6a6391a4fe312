//! MP4 and QuickTime files whose video is much shorter than another track.
//!
//! GStreamer's `qtdemux` leaves out every track that is shorter than a fifth of what the file says of its whole length: it
//! takes such a track for a preview. Where subtitles or sound last much longer than the video, no video is left then. So the
//! demuxer reads the video's length in place of the whole one.

use gstreamer as gst;

use gst::prelude::*;

/// `qtdemux` leaves out what is shorter than the whole, divided by this.
const PREVIEW: u64 = 5;

/// Makes `element` read the video's length, if it is such a demuxer and the video is too short for it.
pub fn keep_video(element: &gst::Element) {
    let is_demuxer = element.factory().is_some_and(|factory| factory.name() == "qtdemux");
    let Some(pad) = element.static_pad("sink").filter(|_| is_demuxer) else { return };
    // Files are pulled, and the head of the file (`moov`) in one piece.
    pad.add_probe(gst::PadProbeType::PULL | gst::PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut()
            && let Some(change) = buffer.map_readable().ok().and_then(|bytes| shortened(&bytes))
            && let Ok(mut bytes) = buffer.make_mut().map_writable()
        {
            change.apply(&mut bytes);
        }
        gst::PadProbeReturn::Ok
    });
}

/// The length of the whole, as it is to be written.
#[derive(Debug, PartialEq, Eq)]
struct LengthChange {
    at: usize,
    wide: bool,
    length: u64,
}

impl LengthChange {
    fn apply(&self, head: &mut [u8]) {
        let bytes = self.length.to_be_bytes();
        let bytes = if self.wide { &bytes[..] } else { &bytes[4..] };
        if let Some(place) = head.get_mut(self.at..self.at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// What is to be changed in the head of a file; `None` where `qtdemux` takes the video, or there is none.
fn shortened(head: &[u8]) -> Option<LengthChange> {
    if head.get(4..8)? != b"moov" {
        return None;
    }
    let (movie, start) = (boxed(head, b"moov")?, 8);
    // The head of a file in fragments knows no lengths.
    if boxed(movie, b"mvex").is_some() {
        return None;
    }
    let header = boxed(movie, b"mvhd")?;
    let wide = *header.first()? == 1;
    let (scale, whole) = length(header)?;
    let at = start + (header.as_ptr() as usize - movie.as_ptr() as usize) + if wide { 24 } else { 16 };
    // Of each video track: how long it is, and when it ends, both in the unit of the whole.
    let videos = boxes(movie).filter(|(kind, _)| kind == b"trak").filter_map(|(_, track)| {
        let media = boxed(track, b"mdia")?;
        if boxed(media, b"hdlr")?.get(8..12)? != b"vide" {
            return None;
        }
        let (unit, length) = length(boxed(media, b"mdhd")?)?;
        let length = u64::try_from(u128::from(length) * u128::from(scale) / u128::from(unit)).ok()?;
        Some((length, boxed(track, b"tkhd").and_then(end).unwrap_or(0).max(length)))
    });
    let (length, end) = videos.max()?;
    if length == 0 || length.saturating_mul(PREVIEW) > whole {
        return None;
    }
    // Where it also begins late, only an unknown length makes the demuxer take it.
    let length = if length.saturating_mul(PREVIEW) > end { end.min(whole) } else { 0 };
    Some(LengthChange { at, wide, length })
}

/// The boxes in `bytes`: kind and content.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (size, kind) = (number(bytes.get(..4)?)?, bytes.get(4..8)?.try_into().ok()?);
        let (start, size) = match size {
            0 => (8, bytes.len()),
            1 => (16, usize::try_from(number(bytes.get(8..16)?)?).ok()?),
            size => (8, usize::try_from(size).ok()?),
        };
        let content = bytes.get(start..size)?;
        bytes = &bytes[size..];
        Some((kind, content))
    })
}

fn boxed<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find(|(found, _)| found == kind).map(|(_, content)| content)
}

/// Units a second and length of an `mvhd` or `mdhd`; `None` where the length is not known.
fn length(header: &[u8]) -> Option<(u64, u64)> {
    let (scale, length) = match header.first()? {
        1 => (header.get(20..24)?, header.get(24..32)?),
        _ => (header.get(12..16)?, header.get(16..20)?),
    };
    let (scale, length) = (number(scale)?, known(length)?);
    (scale > 0).then_some((scale, length))
}

/// When a track ends, by its `tkhd`.
fn end(header: &[u8]) -> Option<u64> {
    known(match header.first()? {
        1 => header.get(28..36)?,
        _ => header.get(20..24)?,
    })
}

fn known(bytes: &[u8]) -> Option<u64> {
    number(bytes).filter(|_| bytes.iter().any(|&byte| byte != 0xff))
}

fn number(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed_up(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
    }

    fn header(kind: &[u8; 4], wide: bool, scale: u32, length: u64) -> Vec<u8> {
        let content = if wide {
            [&[1, 0, 0, 0][..], &[0; 16], &scale.to_be_bytes(), &length.to_be_bytes()].concat()
        } else {
            [&[0; 12][..], &scale.to_be_bytes(), &(length as u32).to_be_bytes()].concat()
        };
        boxed_up(kind, &content)
    }

    /// A track of `seconds`, which ends at `end` seconds.
    fn track(handler: &[u8; 4], wide: bool, seconds: u64, end: u32) -> Vec<u8> {
        let shown = boxed_up(b"tkhd", &[&[0; 20][..], &(end * 1000).to_be_bytes(), &[0; 60]].concat());
        let kind = boxed_up(b"hdlr", &[&[0; 8][..], handler, &[0; 12]].concat());
        let media = [header(b"mdhd", wide, 15_360, seconds * 15_360), kind].concat();
        boxed_up(b"trak", &[shown, boxed_up(b"mdia", &media)].concat())
    }

    fn head(wide: bool, seconds: u64, tracks: &[Vec<u8>]) -> Vec<u8> {
        boxed_up(b"moov", &[header(b"mvhd", wide, 1000, seconds * 1000), tracks.concat()].concat())
    }

    /// The length in seconds that the demuxer reads in place of the written one.
    fn read(head: &[u8]) -> Option<u64> {
        let (mut changed, change) = (head.to_vec(), shortened(head)?);
        change.apply(&mut changed);
        assert_eq!(changed.len(), head.len());
        Some(length(boxed(boxed(&changed, b"moov")?, b"mvhd")?)?.1 / 1000)
    }

    #[test]
    fn a_video_that_is_much_shorter_than_the_subtitles_is_the_whole() {
        for wide in [false, true] {
            let subtitles = track(b"sbtl", wide, 61, 61);
            assert_eq!(read(&head(wide, 61, &[track(b"vide", wide, 2, 2), subtitles.clone()])), Some(2));
            assert_eq!(read(&head(wide, 61, &[subtitles.clone(), track(b"vide", wide, 2, 5)])), Some(5));
            assert_eq!(read(&head(wide, 61, &[track(b"vide", wide, 2, 50), subtitles.clone()])), Some(0), "late");
            assert_eq!(read(&head(wide, 61, &[track(b"vide", wide, 20, 20), subtitles])), None, "taken as it is");
        }
    }

    #[test]
    fn other_heads_stay_as_they_are() {
        let (short, long) = (track(b"vide", false, 2, 2), track(b"vide", false, 60, 60));
        assert_eq!(read(&head(false, 60, &[short.clone(), long])), None, "a preview");
        assert_eq!(read(&head(false, 60, &[track(b"soun", false, 60, 60)])), None, "no video");
        assert_eq!(read(&head(false, 60, &[short.clone(), boxed_up(b"mvex", &[])])), None, "fragments");
        let whole = head(false, 60, &[short]);
        for cut in 0..whole.len() {
            assert_eq!(shortened(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(shortened(&[0xff; 64]), None);
    }
}
