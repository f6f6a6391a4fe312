//! Redaction: pixels of some classes are hidden in a frame before anything can publish it.
//!
//! ```text
//! frame ──▶ Clearance ──▶ ClearedFrame ──▶ overlay ──▶ outputs
//! its mask ─┘   │
//!               ├ area: classes, grown, held
//!               └ cells: hidden in the planes, drawn into the image of an output
//! ```
//!
//! An output draws a [`ClearedFrame`], and only a [`Clearance`] makes one, so that the pixels of a frame reach an output only
//! through it. It fails closed: without a mask that was made from this very frame, and in any other case in which the hidden area is not
//! known, the whole frame is hidden ([`HideReason`]).

mod area;
mod cells;
mod draw;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use self::area::{Area, AreaError, Growth};
use self::cells::{Cells, coarsest_side, side};
use crate::config::{RedactConfig, RedactStyle};
use crate::frame::{ClassBias, Frame, Image, ImageMut, Labels, Mask, OwnedImage, Pixels, VideoInfo};

/// Below this mean probability of the most probable class, the model sees something unlike its training images (darkness, fog, a covered
/// lens), and its masks say nothing.
pub const LEAST_CONFIDENCE: f32 = 0.35;

/// What the masks of a redacted stream must say about probable classes; `None` without a bias.
pub fn class_bias(config: &RedactConfig) -> Option<Arc<ClassBias>> {
    let bias = config.bias() as f32;
    (bias > 0.0).then(|| Arc::new(ClassBias { classes: config.classes.clone(), bias }))
}

/// An image that may be published. Its hidden cells are drawn where it is published, so that it is not copied before.
pub struct ClearedFrame<'a> {
    /// Not redacted.
    image: Image<'a>,
    /// What of it must be hidden.
    hidden: Option<(Arc<HiddenCells>, RedactStyle)>,
}

impl<'a> ClearedFrame<'a> {
    /// A whole image: of a stream without redaction, or one that does not come from a camera.
    pub fn unredacted(image: Image<'a>) -> Self {
        ClearedFrame { image, hidden: None }
    }

    /// Size, format and colours.
    pub fn info(&self) -> VideoInfo {
        self.image.info
    }

    /// The image, if nothing of it is hidden.
    pub fn whole(&self) -> Option<&Image<'a>> {
        let is_whole = self.hidden.as_ref().is_none_or(|(hidden, _)| hidden.cells.are_visible());
        is_whole.then_some(&self.image)
    }

    /// Draws the visible cells and what is drawn instead of the hidden ones.
    ///
    /// # Panics
    /// `target` has another size or format.
    pub fn draw_to(&self, target: &mut ImageMut<'_>) {
        match &self.hidden {
            None => self.image.copy_to(target),
            Some((hidden, style)) => hidden.cells.draw(*style, &self.image, target),
        }
    }

    /// The same in a new image.
    pub fn to_image(&self) -> OwnedImage {
        let mut image = OwnedImage::new(self.info(), 0);
        self.draw_to(&mut image.image_mut());
        image
    }

    /// Why the whole frame is hidden; `None` if it is not.
    pub fn hidden(&self) -> Option<&HideReason> {
        self.hidden.as_ref()?.0.reason.as_ref()
    }
}

/// A copy of a frame that may be published, for the time in which the source sends no frames.
pub struct ClearedImage(Arc<OwnedImage>);

impl ClearedImage {
    pub fn frame(&self) -> ClearedFrame<'_> {
        ClearedFrame::unredacted(self.0.image())
    }
}

/// Why a whole frame is hidden.
#[derive(Clone, Debug, PartialEq)]
pub enum HideReason {
    /// No model is loaded yet.
    NoModel,
    /// The model made no mask of the frame, for this reason.
    NoMask(String),
    /// The mask is of another frame.
    OtherFrame,
    /// The model does not have this class.
    NoClass(String),
    /// The model has no scores, which `bias` needs.
    NoScores,
    /// The mean probability of the most probable class is below [`LEAST_CONFIDENCE`].
    LowConfidence(f32),
    /// After a fault or another size of the masks, what was there before is not known for the time of `hold`.
    UnknownPast,
    /// The hidden area cannot be computed.
    NoArea(String),
}

impl fmt::Display for HideReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HideReason::NoModel => f.write_str("no model is loaded"),
            HideReason::NoMask(reason) => write!(f, "the frame has no mask: {reason}"),
            HideReason::OtherFrame => f.write_str("the mask is of another frame"),
            HideReason::NoClass(class) => write!(f, "the model has no class {class:?}"),
            HideReason::NoScores => f.write_str("redact.bias needs a model with the output \"scores\""),
            HideReason::LowConfidence(confidence) => write!(f, "the model is not sure ({confidence:.2})"),
            HideReason::UnknownPast => f.write_str("what must be hidden of earlier frames is not known"),
            HideReason::NoArea(reason) => write!(f, "the hidden area is unknown: {reason}"),
        }
    }
}

/// Decides what of the frames of a stream may be published.
pub enum Clearance {
    /// The stream has no `[stream.redact]`: whole frames.
    Unredacted,
    /// Frames without the pixels of some classes.
    Redacted(Box<Redactor>),
}

impl Clearance {
    /// The clearance of a stream with this configuration.
    pub fn of(config: Option<&RedactConfig>) -> Self {
        match config {
            None => Clearance::Unredacted,
            Some(config) => Clearance::Redacted(Box::new(Redactor::new(config.clone()))),
        }
    }

    /// Decides what of a frame is hidden. `mask` is the mask that was made from it, or why there is none. It is called for every
    /// frame, published or not, because pixels stay hidden for a time. Without redaction, the mask does not matter.
    pub fn decide(&mut self, frame: &Frame, mask: Result<&Mask, HideReason>) -> Decision {
        match self {
            Clearance::Unredacted => Decision(None),
            Clearance::Redacted(redactor) => Decision(Some(Arc::new(redactor.decide(frame, mask)))),
        }
    }

    /// What may be published of a frame, by the decision about it.
    pub fn clear<'a>(&self, frame: &'a Frame, decision: &Decision) -> ClearedFrame<'a> {
        match self {
            Clearance::Unredacted => ClearedFrame::unredacted(frame.pixels.image()),
            Clearance::Redacted(redactor) => redactor.clear(frame, decision),
        }
    }

    /// Replaces the pixels of a frame, whose buffer belongs to the source, with a copy of what may be published of it, by the
    /// decision about it. Without a decision, nothing of a redacted stream may be published: they become black.
    pub fn release(&self, frame: &mut Frame, decision: Option<&Decision>) -> Option<ClearedImage> {
        let cleared = match (self, decision) {
            (Clearance::Redacted(_), None) => None,
            (_, decision) => Some(Arc::new(self.clear(frame, decision.unwrap_or(&Decision(None))).to_image())),
        };
        frame.pixels = match &cleared {
            Some(cleared) => Arc::clone(cleared) as Arc<dyn Pixels>,
            None => Arc::new(OwnedImage::new(frame.info(), 0)),
        };
        cleared.map(ClearedImage)
    }

    /// After a panic, what was seen before is not certain: whole frames are hidden for the time of `hold`.
    pub fn recover(&mut self) {
        if let Clearance::Redacted(redactor) = self {
            redactor.area.forget(std::time::Instant::now());
        }
    }
}

/// What of one frame is hidden.
pub struct Decision(Option<Arc<HiddenCells>>);

impl Decision {
    /// Why all of the frame is hidden; `None` if it is not.
    pub fn hides_all(&self) -> Option<&HideReason> {
        self.0.as_ref()?.reason.as_ref()
    }
}

/// The hidden cells of the frame with this number.
struct HiddenCells {
    seq: u64,
    cells: Cells,
    /// Why all of them are hidden.
    reason: Option<HideReason>,
}

impl HiddenCells {
    fn all(frame: &Frame, reason: HideReason) -> Self {
        let info = frame.info();
        HiddenCells { seq: frame.seq, cells: Cells::all(&info, coarsest_side(info.height)), reason: Some(reason) }
    }
}

/// Hides classes in the frames of one stream.
pub struct Redactor {
    config: RedactConfig,
    /// The labels of the newest mask, and which of them are hidden.
    classes: Option<(Labels, HiddenClasses)>,
    area: Area,
}

impl Redactor {
    fn new(config: RedactConfig) -> Self {
        Redactor { config, classes: None, area: Area::default() }
    }

    fn decide(&mut self, frame: &Frame, mask: Result<&Mask, HideReason>) -> HiddenCells {
        let info = frame.info();
        match mask.and_then(|mask| self.cells(frame, mask, &info)) {
            Ok(cells) => HiddenCells { seq: frame.seq, cells, reason: None },
            Err(reason) => HiddenCells::all(frame, reason),
        }
    }

    fn clear<'a>(&self, frame: &'a Frame, decision: &Decision) -> ClearedFrame<'a> {
        let hidden = match &decision.0 {
            Some(decided) if decided.seq == frame.seq => Arc::clone(decided),
            _ => Arc::new(HiddenCells::all(frame, HideReason::OtherFrame)),
        };
        ClearedFrame { image: frame.pixels.image(), hidden: Some((hidden, self.config.style)) }
    }

    /// The cells that must be hidden.
    fn cells(&mut self, frame: &Frame, mask: &Mask, info: &VideoInfo) -> Result<Cells, HideReason> {
        if (mask.seq, mask.captured_at) != (frame.seq, frame.captured_at) {
            return Err(HideReason::OtherFrame);
        }
        let is_hidden = self.hidden_classes(&mask.labels)?;
        let size = (mask.width, mask.height);
        let growth = Growth::new(self.config.grow, size, info);
        let failed = |error: AreaError| match error {
            AreaError::UnknownPast => HideReason::UnknownPast,
            error => HideReason::NoArea(error.to_string()),
        };
        // Also for a frame that is hidden below: what is in it stays hidden in the next ones.
        let area = self.area.update(mask, &is_hidden, growth, self.config.hold).map_err(failed)?;
        match &mask.probable {
            None if self.config.bias.is_some_and(|bias| bias > 0.0) => return Err(HideReason::NoScores),
            Some(probable) if f32::from(probable.confidence) < 255.0 * LEAST_CONFIDENCE => {
                return Err(HideReason::LowConfidence(f32::from(probable.confidence) / 255.0));
            }
            _ => {}
        }
        Ok(Cells::of(area, size, info, side(self.config.style, info)))
    }

    /// Which classes of a model are hidden.
    fn hidden_classes(&mut self, labels: &Labels) -> Result<[bool; 256], HideReason> {
        let known = self.classes.take().filter(|(known, _)| Arc::ptr_eq(known, labels));
        let (_, classes) = self
            .classes
            .insert(known.unwrap_or_else(|| (Arc::clone(labels), hidden_classes(&self.config.classes, labels))));
        classes.as_ref().map(|classes| **classes).map_err(|class| HideReason::NoClass(class.clone()))
    }
}

/// For each class index whether it is hidden, or the first name that no class has.
type HiddenClasses = Result<Box<[bool; 256]>, String>;

/// Which class indices have one of these names.
fn hidden_classes(names: &[String], labels: &Labels) -> HiddenClasses {
    let mut hidden = Box::new([false; 256]);
    // A pixel of a class without a name may be anything.
    hidden[labels.len().min(256)..].fill(true);
    for name in names {
        let mut is_known = false;
        // Two classes can have one name.
        for (index, _) in labels.iter().take(256).enumerate().filter(|(_, label)| label.name == *name) {
            (hidden[index], is_known) = (true, true);
        }
        if !is_known {
            return Err(name.clone());
        }
    }
    Ok(hidden)
}
