//! Which frame is deleted when a collection is as large as it may be.

use jiff::Timestamp;

use super::record::{FrameId, FrameRecord};
use super::thumbnail::Thumbnail;

/// The oldest frames that are compared: the number of comparisons grows with it and with the size of the collection.
const OLDEST: usize = 200;

/// The frame to delete: among the oldest ones, the one that is most like another frame, and of equal ones the older one. Frames
/// that were accepted or saved are not deleted. `frames` are in the order of their capture. `None`: there is none that may be deleted.
pub fn next(frames: &[(FrameRecord, Vec<u8>)], now: Timestamp) -> Option<FrameId> {
    let with_pictures: Vec<(&FrameRecord, Option<Thumbnail>)> = frames
        .iter()
        .filter(|(record, _)| record.has_pictures())
        .map(|(record, bytes)| (record, Thumbnail::read(bytes)))
        .collect();
    let may_go = with_pictures.iter().enumerate().filter(|(_, (record, _))| !record.is_kept()).take(OLDEST);
    let value = |at: usize, record: &FrameRecord, thumbnail: Option<&Thumbnail>| {
        let others = with_pictures.iter().enumerate().filter(|(other, _)| *other != at);
        let distances = others.filter_map(|(_, (_, other))| Some(thumbnail?.distance(other.as_ref()?)));
        let days = now.duration_since(record.captured).as_secs_f64() / 86_400.0;
        f64::from(distances.fold(1.0, f32::min)) / (1.0 + days.max(0.0))
    };
    let valued = may_go.map(|(at, (record, thumbnail))| (value(at, record, thumbnail.as_ref()), &record.id));
    valued.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, id)| id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::record::{CollectedModel, FrameState, Reason};
    use crate::frame::Guide;

    fn frame(day: u8, cell: usize, state: FrameState, revision: u64) -> (FrameRecord, Vec<u8>) {
        let captured: Timestamp = format!("2026-12-{day:02}T12:00:00Z").parse().unwrap();
        let mut guide = Guide::new(64, 36);
        // A bright square at one of several places.
        for y in 0..36 {
            guide.plane_mut(0)[y * 64 + cell * 8..][..8].fill(200);
        }
        let record = FrameRecord {
            id: FrameId::new(captured, cell as u32 + 1),
            stream: "gate".into(),
            captured,
            model: CollectedModel { name: "m".into(), sha256: String::new() },
            reason: Reason::Novel,
            uncertainty: 0.0,
            novelty: 0.0,
            confidence: None,
            width: 1,
            height: 1,
            hash: String::new(),
            state,
            revision,
            changed: captured,
            evicted: false,
        };
        (record, Thumbnail::of(&guide).unwrap().bytes().to_vec())
    }

    #[test]
    fn the_most_redundant_and_then_the_oldest_frame_is_deleted_but_none_that_a_person_worked_on() {
        use FrameState::{Accepted, Discarded, New};
        let now = "2026-12-09T12:00:00Z".parse().unwrap();
        let id = |frames: &[(FrameRecord, Vec<u8>)]| next(frames, now);
        let frames = [frame(1, 0, New, 0), frame(2, 3, New, 0), frame(3, 3, New, 0)];
        assert_eq!(id(&frames), Some(frames[1].0.id.clone()), "it shows the same as the third");
        let frames = [frame(1, 0, New, 0), frame(2, 3, New, 0), frame(3, 6, New, 0)];
        assert_eq!(id(&frames), Some(frames[0].0.id.clone()), "the oldest");
        let frames = [frame(1, 3, Accepted, 0), frame(2, 3, New, 1), frame(3, 3, Discarded, 0), frame(4, 3, New, 0)];
        assert_eq!(id(&frames), Some(frames[3].0.id.clone()));
        assert_eq!(id(&frames[..3]), None);
    }
}
