//! Recordings. The input begins with a byte: even, and the rest is the names of a stream and of a file, a line each; odd,
//! and it is damage to a recording, which is mended then. Names lead nowhere; a file loses no whole fragment.
#![no_main]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use maskcast::config::{EncodeConfig, RecordConfig};
use maskcast::frame::{PixelFormat, VideoInfo};
use maskcast::publish::live::{LiveOutput, StreamOutputs};
use maskcast::publish::recording::Archive;
use maskcast::publish::recording::name::RecordingName;
use maskcast::publish::recording::repair::Repair;
use maskcast::publish::{Output, CaptureTime};
use maskcast::base::status::Status;

const FILE: &str = "gate-20200101T000000Z.mp4";

/// How long a recording may take to be mended, or made.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that happens to a file. Places and lengths are parts of 65536 of it.
#[derive(Arbitrary, Debug)]
enum Damage {
    Truncate { at: u16 },
    Zero { at: u16, length: u16 },
    Write { at: u16, bytes: Vec<u8> },
    Cut { at: u16, length: u16 },
    Append { bytes: Vec<u8> },
}

/// A recording, and where its pictures are.
struct Movie {
    bytes: Vec<u8>,
    /// The end of what the fragments need.
    head: usize,
    /// Each with its pictures.
    fragments: Vec<(Range<usize>, Vec<Range<usize>>)>,
}

/// A folder in memory, a recording that was cut off, and the same finished.
static RECORDED: LazyLock<(tempfile::TempDir, [Movie; 2])> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(parent).expect("a folder for recordings can be made");
    let movies = record(folder.path());
    (folder, movies)
});

/// Records some seconds of pictures, as the service does it.
fn record(folder: &Path) -> [Movie; 2] {
    maskcast::gst::init().expect("GStreamer is installed: make setup");
    let encode = EncodeConfig { keyframe_interval: Duration::from_secs(1), ..EncodeConfig::default() };
    let archive = Arc::new(Archive::new("gate", RecordConfig::to(folder)));
    let status = Arc::new(Status::new("gate"));
    let mut output =
        LiveOutput::new(encode, Some(archive), &[], status, StreamOutputs::default()).expect("a thread").patient();
    let info = VideoInfo { fps: (10, 1), ..VideoInfo::new(PixelFormat::I420, 64, 48) };
    for n in 0..65_u64 {
        let stamp = CaptureTime { pts: Duration::from_millis(100 * n), captured_at: Instant::now(), slate: false };
        let paint = &mut |picture: &mut maskcast::frame::ImageMut<'_>| {
            for plane in &mut picture.planes {
                plane.data.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at as u64 * (n + 7) / 5) as u8);
            }
        };
        output.publish(stamp, info, paint).expect("an encoder is installed: make setup");
    }
    let path = || Some(std::fs::read_dir(folder).ok()?.next()?.ok()?.path());
    let deadline = Instant::now() + PATIENCE;
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
    assert!(pictures(&finished.bytes).is_some_and(|pictures| pictures.len() == 65));
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
                // The first pictures come before it.
                b"moov" => head = all.end,
                // It stands behind its pictures.
                b"moof" => {
                    let pictures = runs(&bytes, all.start, content);
                    fragments.push((begin.take().unwrap_or(all.start)..all.end, pictures));
                }
                _ => {}
            }
        }
        let whole = fragments.last().map_or(head, |(range, _)| range.end);
        // Some of what is still being written.
        bytes.truncate(whole + 1000);
        Movie { bytes, head, fragments }
    }

    /// The file after the damage, and the pictures of fragments that nothing has happened to.
    fn damaged(&self, damage: &[Damage]) -> (Vec<u8>, Vec<&[u8]>) {
        let mut bytes = self.bytes.clone();
        // Places of the whole file, as long as nothing before them was cut out.
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
        let whole = if is_whole(&(0..self.head)) { &self.fragments[..] } else { &[] };
        let whole = whole.iter().filter(|(range, _)| is_whole(range));
        (bytes, whole.flat_map(|(_, pictures)| pictures).map(|range| &self.bytes[range.clone()]).collect())
    }
}

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((first, names)) if first % 2 == 0 => {
            if let Some((stream, file)) = std::str::from_utf8(names).ok().and_then(|names| names.split_once('\n')) {
                name(stream, file);
            }
        }
        Some((first, rest)) => {
            if let Ok(damage) = Vec::<Damage>::arbitrary(&mut Unstructured::new(rest)) {
                mend(first & 2 != 0, &damage[..damage.len().min(4)]);
            }
        }
        None => {}
    }
});

fn name(stream: &str, file: &str) {
    let Some(name) = RecordingName::parse(stream, file) else { return };
    assert_eq!(name.file_name(stream), file);
    let rest = file.strip_prefix(stream).expect("it begins with its stream");
    assert!(rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{file:?}");
    assert!(!rest.contains("..") && rest.len() >= "-20200101T000000Z.mp4".len(), "{file:?}");
    let later = RecordingName { number: name.number.saturating_add(1), ..name.clone() };
    assert!(later >= name && RecordingName::parse(stream, &later.file_name(stream)) == Some(later), "{file:?}");
}

fn mend(finished: bool, damage: &[Damage]) {
    let (folder, movies) = &*RECORDED;
    let folder = folder.path();
    let movie = &movies[usize::from(finished)];
    let (before, whole) = movie.damaged(damage);
    let path = folder.join(FILE);
    std::fs::write(&path, &before).expect("it can be written");
    let once = repaired(folder, &path);
    if once != before {
        let pictures = pictures(&once).expect("what takes the place of a file is whole");
        let sizes = |pictures: &[&[u8]]| pictures.iter().map(|picture| picture.len()).collect::<Vec<_>>();
        let mut rest = pictures.iter();
        for (at, picture) in whole.iter().enumerate() {
            assert!(
                rest.any(|other| other == picture),
                "picture {at} is lost; of pictures of {:?} bytes there are {:?}: {damage:?}",
                sizes(&whole),
                sizes(&pictures)
            );
        }
    }
    let cut_only = damage.iter().all(|damage| matches!(damage, Damage::Truncate { .. }));
    match (finished, cut_only, damage) {
        (true, _, []) => assert!(once == before, "nothing was wrong with it"),
        (false, true, _) if !whole.is_empty() => assert!(once != before, "it is not mended: {damage:?}"),
        _ => {}
    }
    assert!(repaired(folder, &path) == once, "what was mended is mended again: {damage:?}");
}

/// The file after a look at it.
fn repaired(folder: &Path, path: &PathBuf) -> Vec<u8> {
    let began = Instant::now();
    let archive = Arc::new(Archive::new("gate", RecordConfig::to(folder)));
    assert!(Repair::start(archive).expect("a thread").finish(), "a panic");
    assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
    let files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert_eq!(files, [path.clone()], "nothing else is left");
    std::fs::read(path).expect("it is still there")
}

// What follows reads MP4 (ISO/IEC 14496-12) without GStreamer, which is what is tested.

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// Kind, whole range and content of the whole boxes in a range.
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

/// The content of the box at the end of this way.
fn inner(bytes: &[u8], range: Range<usize>, way: &[&[u8; 4]]) -> Option<Range<usize>> {
    let Some((first, rest)) = way.split_first() else { return Some(range) };
    let (.., content) = boxes(bytes, range).into_iter().find(|(kind, ..)| kind == *first)?;
    inner(bytes, content, rest)
}

/// The pictures of a fragment whose `moof` begins at `start`; all sizes are in its runs, as our muxer writes it.
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
        let mut pictures = Vec::new();
        for n in 0..count {
            let size = size(n)?;
            pictures.push(at..at + size);
            at += size;
        }
        (at <= bytes.len()).then_some(pictures)
    };
    read().unwrap_or_default()
}

/// The pictures of a finished file.
fn pictures(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let header = inner(bytes, 0..bytes.len(), &[b"moov"])?;
    assert!(inner(bytes, header.clone(), &[b"mvex"]).is_none(), "it is still in fragments");
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
