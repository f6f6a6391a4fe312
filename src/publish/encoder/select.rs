//! Which encoder: the first of the ladder that passes its trial on this machine.
//!
//! An element that is there need not work: a driver refuses another session, a device is another user's, a plugin has
//! lost its library. So each candidate encodes a few pictures first, once a process. An encoder that passes and fails
//! later, with a real stream, is passed over for a while by the streams that saw it fail. One that does not pass is tried
//! again in the background when it is asked for some minutes later: a GPU may have had no free session.

use super::h264::H264;
use super::probe;
use crate::config::EncoderChoice;
use crate::gst::{GstError, has};

/// A kind of encoder, as the configuration names it.
struct EncoderKind {
    name: &'static str,
    choice: EncoderChoice,
    /// In the order in which they are tried.
    encoders: &'static [H264],
    /// What it takes, where GStreamer has none of its elements.
    needs: &'static str,
}

/// Special circuits first, then the CPU's: x264 is faster and better than OpenH264.
const ENCODER_KINDS: [EncoderKind; 5] = [
    EncoderKind {
        name: "nvenc",
        choice: EncoderChoice::Nvenc,
        encoders: &[H264::Nvenc],
        needs: "an NVIDIA GPU that encodes, its driver, and gstreamer1.0-plugins-bad",
    },
    EncoderKind {
        name: "vaapi",
        choice: EncoderChoice::Vaapi,
        encoders: &[H264::VaLowPower, H264::Va, H264::OldVa],
        needs: "a GPU with a VA-API driver, /dev/dri/renderD* open to this user (group render), and \
                gstreamer1.0-plugins-bad or gstreamer1.0-vaapi",
    },
    EncoderKind {
        name: "v4l2",
        choice: EncoderChoice::V4l2,
        encoders: &[H264::Jetson, H264::V4l2],
        needs: "an encoding device /dev/video* open to this user (group video), and gstreamer1.0-plugins-good",
    },
    EncoderKind {
        name: "x264",
        choice: EncoderChoice::X264,
        encoders: &[H264::X264],
        needs: "gstreamer1.0-plugins-ugly",
    },
    EncoderKind {
        name: "openh264",
        choice: EncoderChoice::OpenH264,
        encoders: &[H264::OpenH264],
        needs: "gstreamer1.0-plugins-bad",
    },
];

/// A kind that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    pub kind: &'static str,
    pub reason: String,
}

/// The encoder that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub encoder: H264,
    /// What stands before it on the ladder.
    pub passed_over: Vec<PassedOver>,
}

impl std::fmt::Display for Choice {
    /// `x264 (x264enc); passed over: nvenc (…), vaapi (…)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.encoder.kind(), self.encoder.element())?;
        for (n, passed) in self.passed_over.iter().enumerate() {
            let lead = if n == 0 { "; passed over: " } else { ", " };
            write!(f, "{lead}{} ({})", passed.kind, passed.reason)?;
        }
        Ok(())
    }
}

impl H264 {
    /// The name of its kind in the configuration.
    pub fn kind(self) -> &'static str {
        ENCODER_KINDS.iter().find(|kind| kind.encoders.contains(&self)).map_or("", |kind| kind.name)
    }

    /// The configured encoder, or the first that works on this machine and has not `failed` with this stream. When all
    /// have, the first of them is taken again.
    ///
    /// The first call of a process tries the candidates, which takes some ten milliseconds for an encoder that works and
    /// at most ten seconds for one that hangs.
    ///
    /// # Errors
    /// Why none works, and what it takes.
    pub fn choose(choice: EncoderChoice, failed: &[H264]) -> Result<Choice, GstError> {
        crate::gst::init()?;
        select(choice, failed, &|encoder| has(encoder.element()), &probe::works)
    }
}

impl H264 {
    /// The configuration's choice of this name; a name that is none is taken for `auto`.
    pub fn choice_of(name: &str) -> EncoderChoice {
        ENCODER_KINDS.iter().find(|kind| kind.name == name).map_or(EncoderChoice::Auto, |kind| kind.choice)
    }

    /// Whether [`H264::choose`] answers at once, because all that it would try has been tried.
    pub fn is_tried(choice: EncoderChoice) -> bool {
        crate::gst::init().is_err() || is_known(choice, &|encoder| has(encoder.element()), &probe::known)
    }
}

/// Whether the way down the ladder has no unknown step. `known`: whether an encoder works, if that was tried.
fn is_known(choice: EncoderChoice, there: &dyn Fn(H264) -> bool, known: &dyn Fn(H264) -> Option<bool>) -> bool {
    let kinds = ENCODER_KINDS.iter().filter(|kind| choice == EncoderChoice::Auto || choice == kind.choice);
    for &encoder in kinds.flat_map(|kind| kind.encoders).filter(|encoder| there(**encoder)) {
        match known(encoder) {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
    }
    true
}

/// Tries what the choice of this name would try; an encoder's outcome is known from then on. For threads that may wait, before
/// one asks that may not.
pub fn try_out(name: &str) {
    // Whoever asks for it is told what is wrong with it.
    let _ = H264::choose(H264::choice_of(name), &[]);
}

/// Goes down the ladder. `there`: whether GStreamer has its element; `works`: its trial.
fn select(
    choice: EncoderChoice,
    failed: &[H264],
    there: &dyn Fn(H264) -> bool,
    works: &dyn Fn(H264) -> Result<(), String>,
) -> Result<Choice, GstError> {
    let mut passed_over = Vec::new();
    let mut again = None;
    for kind in ENCODER_KINDS.iter().filter(|kind| choice == EncoderChoice::Auto || choice == kind.choice) {
        let mut reasons = Vec::new();
        for &encoder in kind.encoders.iter().filter(|encoder| there(**encoder)) {
            match works(encoder) {
                Ok(()) if failed.contains(&encoder) => {
                    again = again.or(Some(encoder));
                    reasons.push(format!("{} has failed with this stream", encoder.element()));
                }
                Ok(()) => return Ok(Choice { encoder, passed_over }),
                Err(reason) => reasons.push(format!("{}: {reason}", encoder.element())),
            }
        }
        if reasons.is_empty() {
            let names: Vec<&str> = kind.encoders.iter().map(|encoder| encoder.element()).collect();
            reasons.push(format!("GStreamer has no {} here: it takes {}", names.join(", "), kind.needs));
        }
        passed_over.push(PassedOver { kind: kind.name, reason: reasons.join("; ") });
    }
    if let Some(encoder) = again {
        // Better than nothing: what made it fail may be over.
        return Ok(Choice { encoder, passed_over });
    }
    let reasons: Vec<String> = passed_over.iter().map(|passed| format!("{}: {}", passed.kind, passed.reason)).collect();
    Err(GstError::new(match choice {
        EncoderChoice::Auto => format!("no H.264 encoder works on this machine: {}", reasons.join("; ")),
        _ => format!("it does not work on this machine: {}; \"auto\" takes the first that does", reasons.join("; ")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select_with(
        choice: EncoderChoice,
        failed: &[H264],
        there: &[H264],
        broken: &[(H264, &str)],
    ) -> Result<Choice, GstError> {
        let works = |encoder| match broken.iter().find(|(other, _)| *other == encoder) {
            Some((_, reason)) => Err((*reason).to_string()),
            None => Ok(()),
        };
        select(choice, failed, &|encoder| there.contains(&encoder), &works)
    }

    #[test]
    fn the_first_that_works_is_taken_and_the_others_say_why_not() {
        let there = [H264::Nvenc, H264::Va, H264::V4l2, H264::X264, H264::OpenH264];
        let best = select_with(EncoderChoice::Auto, &[], &there, &[]).unwrap();
        assert_eq!((best.encoder, best.passed_over.len()), (H264::Nvenc, 0));
        let broken = [(H264::Nvenc, "no session is free"), (H264::V4l2, "cannot open /dev/video11")];
        let second = select_with(EncoderChoice::Auto, &[], &there, &broken).unwrap();
        assert_eq!(second.encoder, H264::Va);
        assert_eq!(second.to_string(), "vaapi (vah264enc); passed over: nvenc (nvh264enc: no session is free)");
        let without_va = [H264::Nvenc, H264::V4l2, H264::X264];
        let third = select_with(EncoderChoice::Auto, &[], &without_va, &broken).unwrap().to_string();
        assert!(
            third.starts_with("x264 (x264enc); passed over: nvenc (nvh264enc: no session is free), vaapi (G"),
            "{third}"
        );
        assert!(third.contains("/dev/dri/renderD*"), "what it takes is said: {third}");
        assert!(third.ends_with("v4l2 (v4l2h264enc: cannot open /dev/video11)"), "{third}");
    }

    #[test]
    fn an_encoder_is_known_when_all_before_it_are() {
        let known = |outcomes: &[(H264, bool)], choice| {
            let there = [H264::Nvenc, H264::X264, H264::OpenH264];
            let known = |encoder| outcomes.iter().find(|(other, _)| *other == encoder).map(|(_, works)| *works);
            is_known(choice, &|encoder| there.contains(&encoder), &known)
        };
        use EncoderChoice::{Auto, V4l2, X264};
        assert!(!known(&[], Auto) && !known(&[(H264::X264, true)], Auto), "nvenc has not been tried");
        assert!(known(&[(H264::X264, true)], X264) && known(&[(H264::Nvenc, true)], Auto));
        assert!(known(&[(H264::Nvenc, false), (H264::X264, true)], Auto));
        assert!(known(&[], V4l2), "there is none to try");
    }

    #[test]
    fn each_element_of_a_kind_is_tried_before_the_next_kind() {
        let there = [H264::VaLowPower, H264::Va, H264::OldVa, H264::X264];
        let broken = [(H264::VaLowPower, "no"), (H264::Va, "no")];
        assert_eq!(select_with(EncoderChoice::Auto, &[], &there, &broken).unwrap().encoder, H264::OldVa);
        assert_eq!(select_with(EncoderChoice::Vaapi, &[], &there, &broken).unwrap().encoder, H264::OldVa);
    }

    #[test]
    fn an_encoder_that_was_asked_for_has_no_substitute() {
        let there = [H264::Nvenc, H264::X264];
        let error = select_with(EncoderChoice::Nvenc, &[], &there, &[(H264::Nvenc, "no session")]).unwrap_err();
        assert_eq!(
            error.message,
            "it does not work on this machine: nvenc: nvh264enc: no session; \"auto\" takes the first that does"
        );
        let error = select_with(EncoderChoice::V4l2, &[], &there, &[]).unwrap_err();
        assert!(error.message.contains("no nvv4l2h264enc, v4l2h264enc here: it takes an encoding device"), "{error}");
        let error = select_with(EncoderChoice::Auto, &[], &[], &[]).unwrap_err();
        assert!(ENCODER_KINDS.iter().all(|kind| error.message.contains(kind.name)), "{error}");
    }

    #[test]
    fn one_that_failed_with_this_stream_is_the_last_resort() {
        let there = [H264::X264, H264::OpenH264];
        let select = |choice, failed: &[H264]| select_with(choice, failed, &there, &[]).unwrap().encoder;
        assert_eq!(select(EncoderChoice::Auto, &[H264::X264]), H264::OpenH264);
        assert_eq!(select(EncoderChoice::Auto, &there), H264::X264);
        assert_eq!(select(EncoderChoice::X264, &[H264::X264]), H264::X264, "better than nothing");
    }

    /// As on a machine without the device, where GStreamer has no element for it.
    #[test]
    fn a_kind_that_this_machine_lacks_says_what_it_takes() {
        for (choice, word) in [
            (EncoderChoice::Nvenc, "NVIDIA"),
            (EncoderChoice::Vaapi, "VA-API"),
            (EncoderChoice::V4l2, "/dev/video*"),
            (EncoderChoice::X264, "gstreamer1.0-plugins-ugly"),
            (EncoderChoice::OpenH264, "gstreamer1.0-plugins-bad"),
        ] {
            let there: Vec<H264> = ENCODER_KINDS
                .iter()
                .filter(|kind| kind.choice != choice)
                .flat_map(|kind| kind.encoders)
                .copied()
                .collect();
            let error = select_with(choice, &[], &there, &[]).unwrap_err().message;
            assert!(error.contains(word) && error.contains("does not work on this machine"), "{error}");
        }
    }
}
