//! Recordings. When the first byte of the input is even, the rest is the names of a stream and of a file, one per line; when it
//! is odd, the rest is damage to a recording, which is then repaired. Names must not contain paths, and the repair must keep
//! all complete fragments.
#![no_main]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use maskcast::base::status::Status;
use maskcast::config::{EncodeConfig, RecordConfig, SourceSpec, defaults_stream};
use maskcast::frame::{OwnedImage, PixelFormat, Pixels, VideoInfo};
use maskcast::overlay::OutputImage;
use maskcast::publish::live::LiveOutput;
use maskcast::publish::outputs::StreamOutputs;
use maskcast::publish::recording::Archive;
use maskcast::publish::recording::name::RecordingName;
use maskcast::publish::recording::repair::Repair;
use maskcast::publish::{CaptureTime, Output};
use maskcast::redact::ClearedFrame;

const FILE: &str = "gate-20200101T000000Z.mp4";

/// Maximum time to repair or write a recording.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Damage to a file. Positions and lengths are in units of 1/65536 of the file.
#[derive(Arbitrary, Debug)]
enum Damage {
    Truncate { at: u16 },
    Zero { at: u16, length: u16 },
    Write { at: u16, bytes: Vec<u8> },
    Cut { at: u16, length: u16 },
    Append { bytes: Vec<u8> },
}

/// A recording and the positions of its frames.
struct Movie {
    bytes: Vec<u8>,
    /// End of the header that the fragments need.
    head: usize,
    /// The fragments, each with its frames.
    fragments: Vec<(Range<usize>, Vec<Range<usize>>)>,
}

/// A folder in memory, an incomplete recording, and the same recording finished.
static RECORDED: LazyLock<(tempfile::TempDir, [Movie; 2])> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(parent).expect("a folder for recordings can be created");
    let movies = record(folder.path());
    (folder, movies)
});

/// Records some seconds of frames with the recorder of the service.
fn record(folder: &Path) -> [Movie; 2] {
    maskcast::gst::init().expect("GStreamer is installed: make setup");
    let encode = EncodeConfig { keyframe_interval: Duration::from_secs(1), ..EncodeConfig::default() };
    let archive = Arc::new(Archive::new("gate", RecordConfig::to(folder)));
    let status = Arc::new(Status::new("gate"));
    let mut output = LiveOutput::new(encode, status, StreamOutputs::default()).blocking();
    let source = SourceSpec::parse("test://black", folder).expect("a source");
    output.start_sinks(&defaults_stream("gate", source), Some(&archive)).expect("a thread");
    let info = VideoInfo { fps: (10, 1), ..VideoInfo::new(PixelFormat::I420, 64, 48) };
    for n in 0..65_u64 {
        let stamp = CaptureTime { pts: Duration::from_millis(100 * n), captured_at: Instant::now(), slate: false };
        let mut frame = OwnedImage::new(info, 0);
        for plane in &mut frame.image_mut().planes {
            plane.data.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at as u64 * (n + 7) / 5) as u8);
        }
        let paint = &mut |target: &mut OutputImage<'_, '_>| target.copy(&ClearedFrame::unredacted(frame.image()));
        output.publish(stamp, info, paint).expect("an encoder is installed: make setup");
    }
    let path = || Some(std::fs::read_dir(folder).ok()?.next()?.ok()?.path());
    let deadline = Instant::now() + TIMEOUT;
    let cut_off = loop {
        assert!(Instant::now() < deadline, "the recording does not grow");
        let movie = path().and_then(|path| std::fs::read(path).ok()).map(Movie::cut_off);
        if let Some(movie) = movie.filter(|movie| movie.fragments.len() >= 5) {
            break movie;
        }
        std::thread::yield_now();
    };
    output.finish().expect("the recording ends");
    let path = path().expect("the recording is there");
    let finished = Movie { bytes: std::fs::read(&path).expect("it can be read"), head: 0, fragments: Vec::new() };
    assert!(frames(&finished.bytes).is_some_and(|frames| frames.len() == 65));
    std::fs::remove_file(path).expect("it can be removed");
    [cut_off, finished]
}

impl Movie {
    fn cut_off(mut bytes: Vec<u8>) -> Self {
        let mut fragments: Vec<(Range<usize>, Vec<Range<usize>>)> = Vec::new();
        let (mut head, mut begin) = (0, None);
        for (kind, all, content) in boxes(&bytes, 0..bytes.len()) {
            match &kind {
                b"mdat" => begin = Some(all.start),
                // The frames of the first fragment are before it.
                b"moov" => head = all.end,
                // It is after its frames.
                b"moof" => {
                    let frames = runs(&bytes, all.start, content);
                    fragments.push((begin.take().unwrap_or(all.start)..all.end, frames));
                }
                _ => {}
            }
        }
        let whole = fragments.last().map_or(head, |(range, _)| range.end);
        // A part of the fragment that is being written.
        bytes.truncate(whole + 1000);
        Movie { bytes, head, fragments }
    }

    /// The file after the damage, and the frames of undamaged fragments.
    fn damaged(&self, damage: &[Damage]) -> (Vec<u8>, Vec<&[u8]>) {
        let mut bytes = self.bytes.clone();
        // Positions in the original file are valid up to `moved`.
        let (mut touched, mut moved) = (Vec::new(), bytes.len());
        for damage in damage {
            let place = |part: u16| usize::from(part) * bytes.len() / 65536;
            match damage {
                Damage::Truncate { at } => {
                    let at = place(*at);
                    bytes.truncate(at);
                    moved = moved.min(at);
                }
                Damage::Zero { at, length } => {
                    let range = place(*at)..(place(*at) + place(*length)).min(bytes.len());
                    bytes[range.clone()].fill(0);
                    touched.push(range);
                }
                Damage::Write { at, bytes: new } => {
                    let range = place(*at)..(place(*at) + new.len()).min(bytes.len());
                    bytes[range.clone()].copy_from_slice(&new[..range.len()]);
                    touched.push(range);
                }
                Damage::Cut { at, length } => {
                    let range = place(*at)..(place(*at) + place(*length)).min(bytes.len());
                    moved = moved.min(range.start);
                    bytes.drain(range);
                }
                Damage::Append { bytes: new } => bytes.extend(&new[..new.len().min(4096)]),
            }
        }
        let is_whole = |range: &Range<usize>| {
            range.end <= moved && touched.iter().all(|other| other.end <= range.start || range.end <= other.start)
        };
        let intact = if is_whole(&(0..self.head)) { &self.fragments[..] } else { &[] };
        let intact = intact.iter().filter(|(range, _)| is_whole(range));
        (bytes, intact.flat_map(|(_, frames)| frames).map(|range| &self.bytes[range.clone()]).collect())
    }
}

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((first, names)) if first % 2 == 0 => {
            if let Some((stream, file)) = std::str::from_utf8(names).ok().and_then(|names| names.split_once('\n')) {
                check_name(stream, file);
            }
        }
        Some((first, rest)) => {
            if let Ok(damage) = Vec::<Damage>::arbitrary(&mut Unstructured::new(rest)) {
                repair(first & 2 != 0, &damage[..damage.len().min(4)]);
            }
        }
        None => {}
    }
});

fn check_name(stream: &str, file: &str) {
    let Some(name) = RecordingName::parse(stream, file) else { return };
    assert_eq!(name.file_name(stream), file);
    let rest = file.strip_prefix(stream).expect("the name begins with the stream");
    assert!(rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{file:?}");
    assert!(!rest.contains("..") && rest.len() >= "-20200101T000000Z.mp4".len(), "{file:?}");
    let later = RecordingName { number: name.number.saturating_add(1), ..name.clone() };
    assert!(later >= name && RecordingName::parse(stream, &later.file_name(stream)) == Some(later), "{file:?}");
}

fn repair(finished: bool, damage: &[Damage]) {
    let (folder, movies) = &*RECORDED;
    let folder = folder.path();
    let movie = &movies[usize::from(finished)];
    let (before, whole) = movie.damaged(damage);
    let path = folder.join(FILE);
    std::fs::write(&path, &before).expect("it can be written");
    let once = repaired(folder, &path);
    if once != before {
        let frames = frames(&once).expect("the repaired file is complete");
        let sizes = |frames: &[&[u8]]| frames.iter().map(|frame| frame.len()).collect::<Vec<_>>();
        let mut rest = frames.iter();
        for (at, frame) in whole.iter().enumerate() {
            assert!(
                rest.any(|other| other == frame),
                "frame {at} is missing; expected sizes {:?}, actual sizes {:?}: {damage:?}",
                sizes(&whole),
                sizes(&frames)
            );
        }
    }
    let cut_only = damage.iter().all(|damage| matches!(damage, Damage::Truncate { .. }));
    match (finished, cut_only, damage) {
        (true, _, []) => assert!(once == before, "a finished recording was changed"),
        (false, true, _) if !whole.is_empty() => assert!(once != before, "the recording was not repaired: {damage:?}"),
        _ => {}
    }
    assert!(repaired(folder, &path) == once, "a repaired recording was repaired again: {damage:?}");
}

/// The file after a run of the repair.
fn repaired(folder: &Path, path: &PathBuf) -> Vec<u8> {
    let began = Instant::now();
    let archive = Arc::new(Archive::new("gate", RecordConfig::to(folder)));
    assert!(Repair::start(archive).expect("a thread").finish(), "the repair panicked");
    assert!(began.elapsed() < TIMEOUT, "the repair took {:?}", began.elapsed());
    let files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert_eq!(files, [path.clone()], "other files remain");
    std::fs::read(path).expect("the file still exists")
}

// The following functions read MP4 (ISO/IEC 14496-12) without GStreamer, because the tested code uses GStreamer.

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// Kind, range, and range of the content of the complete boxes in a range.
fn boxes(bytes: &[u8], range: Range<usize>) -> Vec<([u8; 4], Range<usize>, Range<usize>)> {
    let (mut found, mut at) = (Vec::new(), range.start);
    while let (Some(size), Some(kind)) = (number(bytes, at), bytes.get(at + 4..at + 8)) {
        let (head, size) = match size {
            1 => (16, number(bytes, at + 12).unwrap_or(0)),
            0 => (8, range.end - at),
            size => (8, size),
        };
        if size < head || at + size > range.end {
            break;
        }
        found.push((kind.try_into().expect("four bytes"), at..at + size, at + head..at + size));
        at += size;
    }
    found
}

/// The range of the content of the box at this path.
fn inner(bytes: &[u8], range: Range<usize>, path: &[&[u8; 4]]) -> Option<Range<usize>> {
    let Some((first, rest)) = path.split_first() else { return Some(range) };
    let (.., content) = boxes(bytes, range).into_iter().find(|(kind, ..)| kind == *first)?;
    inner(bytes, content, rest)
}

/// The frames of a fragment whose `moof` begins at `start`. The muxer writes all sizes to the `trun` boxes.
fn runs(bytes: &[u8], start: usize, moof: Range<usize>) -> Vec<Range<usize>> {
    let read = || {
        let track = inner(bytes, moof, &[b"traf"])?;
        let header = inner(bytes, track.clone(), &[b"tfhd"])?;
        let base = match number(bytes, header.start)? & 1 {
            1 => number(bytes, header.start + 12)?,
            _ => start,
        };
        let run = inner(bytes, track, &[b"trun"])?;
        let (flags, count) = (number(bytes, run.start)?, number(bytes, run.start + 4)?);
        assert!(flags & 0x201 == 0x201, "{flags:x}");
        let first = run.start + 12 + if flags & 4 != 0 { 4 } else { 0 };
        let fields = [0x100, 0x200, 0x400, 0x800].into_iter().filter(|field| flags & field != 0).count();
        let mut at = base + number(bytes, run.start + 8)?;
        let size = |n: usize| number(bytes, first + 4 * fields * n + if flags & 0x100 != 0 { 4 } else { 0 });
        let mut frames = Vec::new();
        for n in 0..count {
            let size = size(n)?;
            frames.push(at..at + size);
            at += size;
        }
        (at <= bytes.len()).then_some(frames)
    };
    read().unwrap_or_default()
}

/// The frames of a finished file.
fn frames(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let header = inner(bytes, 0..bytes.len(), &[b"moov"])?;
    assert!(inner(bytes, header.clone(), &[b"mvex"]).is_none(), "the file still has fragments");
    let table = inner(bytes, header, &[b"trak", b"mdia", b"minf", b"stbl"])?;
    let part = |kind| inner(bytes, table.clone(), &[kind]);
    let (sizes, chunks, offsets) = (part(b"stsz")?.start, part(b"stsc")?.start, part(b"stco")?.start);
    let (same, count) = (number(bytes, sizes + 4)?, number(bytes, sizes + 8)?);
    let size = |n: usize| if same != 0 { Some(same) } else { number(bytes, sizes + 12 + 4 * n) };
    let mut found = Vec::new();
    let groups = number(bytes, chunks + 4)?;
    for chunk in 0..number(bytes, offsets + 4)? {
        let mut at = number(bytes, offsets + 8 + 4 * chunk)?;
        let first_of = |group: usize| number(bytes, chunks + 8 + 12 * group);
        let group = (0..groups).rev().find(|&group| first_of(group).is_some_and(|first| first <= chunk + 1))?;
        for _ in 0..number(bytes, chunks + 12 + 12 * group)? {
            let size = size(found.len())?;
            found.push(bytes.get(at..at + size)?);
            at += size;
        }
    }
    (found.len() == count).then_some(found)
}
