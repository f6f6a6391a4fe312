//! MP4 and QuickTime files (ISO/IEC 14496-12) whose video is much shorter than another track.
//!
//! GStreamer's `qtdemux` ignores every track that is shorter than a fifth of the movie's length, as a preview. When subtitles
//! or audio are much longer than the video, no video is left. Therefore the movie's length in `mvhd` is replaced by that of
//! the video before the demuxer reads it.

use gstreamer as gst;

use gst::prelude::*;

/// `qtdemux` ignores tracks that are shorter than the movie's length divided by this.
const PREVIEW: u64 = 5;

/// Replaces the movie's length that `element` reads, if it is a `qtdemux` and would ignore the video.
pub fn keep_short_video(element: &gst::Element) {
    let is_demuxer = element.factory().is_some_and(|factory| factory.name() == "qtdemux");
    let Some(pad) = element.static_pad("sink").filter(|_| is_demuxer) else { return };
    // In pull mode, as for files, the demuxer reads the `moov` box in one buffer.
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

/// A change of the movie's length.
#[derive(Debug, PartialEq, Eq)]
struct LengthChange {
    /// The offset of the length, in bytes from the start of the `moov` box.
    at: usize,
    /// Whether the length has 64 bits (version 1 of `mvhd`), not 32.
    wide: bool,
    /// The new length, in units of the movie's time scale.
    length: u64,
}

impl LengthChange {
    fn apply(&self, moov: &mut [u8]) {
        let bytes = self.length.to_be_bytes();
        let bytes = if self.wide { &bytes[..] } else { &bytes[4..] };
        if let Some(field) = moov.get_mut(self.at..self.at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }
}

/// The change for a `moov` box; `None` if `qtdemux` accepts the video, or there is none.
fn shortened(moov: &[u8]) -> Option<LengthChange> {
    if moov.get(4..8)? != b"moov" {
        return None;
    }
    let (movie, start) = (find_box(moov, b"moov")?, 8);
    // The `moov` box of a fragmented file has no lengths.
    if find_box(movie, b"mvex").is_some() {
        return None;
    }
    let header = find_box(movie, b"mvhd")?;
    let wide = *header.first()? == 1;
    let (scale, movie_length) = length(header)?;
    let at = start + (header.as_ptr() as usize - movie.as_ptr() as usize) + if wide { 24 } else { 16 };
    // Length and end of each video track, in units of the movie's time scale.
    let videos = boxes(movie).filter(|(kind, _)| kind == b"trak").filter_map(|(_, track)| {
        let media = find_box(track, b"mdia")?;
        if find_box(media, b"hdlr")?.get(8..12)? != b"vide" {
            return None;
        }
        let (media_scale, length) = length(find_box(media, b"mdhd")?)?;
        let length = u64::try_from(u128::from(length) * u128::from(scale) / u128::from(media_scale)).ok()?;
        Some((length, find_box(track, b"tkhd").and_then(end).unwrap_or(0).max(length)))
    });
    let (length, end) = videos.max()?;
    if length == 0 || length.saturating_mul(PREVIEW) > movie_length {
        return None;
    }
    // If the track also begins late, the demuxer accepts it only with an unknown length (0).
    let length = if length.saturating_mul(PREVIEW) > end { end.min(movie_length) } else { 0 };
    Some(LengthChange { at, wide, length })
}

/// The boxes in `bytes`: type and content (ISO/IEC 14496-12, section 4.2).
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

/// The content of the first box of this type.
fn find_box<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find(|(found, _)| found == kind).map(|(_, content)| content)
}

/// Time scale (units per second) and length of an `mvhd` or `mdhd` box; `None` if the length is unknown.
fn length(header: &[u8]) -> Option<(u64, u64)> {
    let (scale, length) = match header.first()? {
        1 => (header.get(20..24)?, header.get(24..32)?),
        _ => (header.get(12..16)?, header.get(16..20)?),
    };
    let (scale, length) = (number(scale)?, known(length)?);
    (scale > 0).then_some((scale, length))
}

/// The end of a track by its `tkhd` box, in units of the movie's time scale.
fn end(header: &[u8]) -> Option<u64> {
    known(match header.first()? {
        1 => header.get(28..36)?,
        _ => header.get(20..24)?,
    })
}

/// A length; `None` if it is unknown, which all bits set mean.
fn known(bytes: &[u8]) -> Option<u64> {
    number(bytes).filter(|_| bytes.iter().any(|&byte| byte != 0xff))
}

/// A big-endian number of at most 8 bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make_box(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
    }

    fn header(kind: &[u8; 4], wide: bool, scale: u32, length: u64) -> Vec<u8> {
        let content = if wide {
            [&[1, 0, 0, 0][..], &[0; 16], &scale.to_be_bytes(), &length.to_be_bytes()].concat()
        } else {
            [&[0; 12][..], &scale.to_be_bytes(), &(length as u32).to_be_bytes()].concat()
        };
        make_box(kind, &content)
    }

    /// A track with a length of `seconds` and an end at `end` seconds.
    fn track(handler: &[u8; 4], wide: bool, seconds: u64, end: u32) -> Vec<u8> {
        let track_header = make_box(b"tkhd", &[&[0; 20][..], &(end * 1000).to_be_bytes(), &[0; 60]].concat());
        let kind = make_box(b"hdlr", &[&[0; 8][..], handler, &[0; 12]].concat());
        let media = [header(b"mdhd", wide, 15_360, seconds * 15_360), kind].concat();
        make_box(b"trak", &[track_header, make_box(b"mdia", &media)].concat())
    }

    fn moov(wide: bool, seconds: u64, tracks: &[Vec<u8>]) -> Vec<u8> {
        make_box(b"moov", &[header(b"mvhd", wide, 1000, seconds * 1000), tracks.concat()].concat())
    }

    /// The length in seconds after the change; `None` if there is no change.
    fn changed_length(moov: &[u8]) -> Option<u64> {
        let (mut changed, change) = (moov.to_vec(), shortened(moov)?);
        change.apply(&mut changed);
        assert_eq!(changed.len(), moov.len());
        Some(length(find_box(find_box(&changed, b"moov")?, b"mvhd")?)?.1 / 1000)
    }

    #[test]
    fn a_movie_gets_the_length_of_a_video_that_is_much_shorter_than_the_subtitles() {
        for wide in [false, true] {
            let subtitles = track(b"sbtl", wide, 61, 61);
            assert_eq!(changed_length(&moov(wide, 61, &[track(b"vide", wide, 2, 2), subtitles.clone()])), Some(2));
            assert_eq!(changed_length(&moov(wide, 61, &[subtitles.clone(), track(b"vide", wide, 2, 5)])), Some(5));
            assert_eq!(
                changed_length(&moov(wide, 61, &[track(b"vide", wide, 2, 50), subtitles.clone()])),
                Some(0),
                "late"
            );
            assert_eq!(
                changed_length(&moov(wide, 61, &[track(b"vide", wide, 20, 20), subtitles])),
                None,
                "long enough"
            );
        }
    }

    #[test]
    fn other_movies_are_unchanged() {
        let (short, long) = (track(b"vide", false, 2, 2), track(b"vide", false, 60, 60));
        assert_eq!(changed_length(&moov(false, 60, &[short.clone(), long])), None, "a preview");
        assert_eq!(changed_length(&moov(false, 60, &[track(b"soun", false, 60, 60)])), None, "no video");
        assert_eq!(changed_length(&moov(false, 60, &[short.clone(), make_box(b"mvex", &[])])), None, "fragments");
        let complete = moov(false, 60, &[short]);
        for cut in 0..complete.len() {
            assert_eq!(shortened(&complete[..cut]), None, "cut at {cut}");
        }
        assert_eq!(shortened(&[0xff; 64]), None);
    }
}
