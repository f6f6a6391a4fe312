//! Encoder selection: the first candidate that passes its trial on this machine.
//!
//! An encoder that is installed may still not work: the driver has no free session, the user may not open the device, a
//! plugin lacks a library. So each candidate encodes a few test frames once per process (`probe`). An encoder that
//! passed and fails later with a real stream is skipped for a while by the streams in which it failed. An encoder that
//! did not pass is probed again in the background when it is requested some minutes later: a GPU may have had no free
//! session.

use super::h264::H264;
use super::probe::{self, ProbeError};
use crate::config::EncoderChoice;
use crate::gst::{GstError, has};

/// A kind of encoder: a value of the configuration key `encode.encoder`.
struct EncoderKind {
    name: &'static str,
    choice: EncoderChoice,
    /// In the order in which they are probed.
    encoders: &'static [H264],
    /// What to install or to configure when GStreamer has none of the elements.
    needs: &'static str,
}

/// All kinds in the order of preference: hardware encoders first, then the CPU. x264 is faster than OpenH264 and has
/// the better quality.
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

/// Why an encoder was not selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// GStreamer has none of the elements of this kind.
    #[error("GStreamer has no {} here: it needs {needs}", names(.elements))]
    NotInstalled { elements: &'static [H264], needs: &'static str },
    /// The encoder passed its trial and failed with this stream.
    #[error("{} failed with this stream", .0.element())]
    FailedWithStream(H264),
    /// The encoder did not pass its trial.
    #[error("{}: {error}", .encoder.element())]
    NotWorking { encoder: H264, error: ProbeError },
}

fn names(elements: &[H264]) -> String {
    elements.iter().map(|encoder| encoder.element()).collect::<Vec<_>>().join(", ")
}

/// A kind of encoder that was not selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKind {
    /// Its name in the configuration.
    pub kind: &'static str,
    /// One reason per element of the kind that is installed; never empty.
    pub reasons: Vec<SkipReason>,
}

impl SkippedKind {
    fn reasons(&self) -> String {
        self.reasons.iter().map(SkipReason::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// Why no encoder could be selected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    #[error(transparent)]
    Gst(#[from] GstError),
    /// With `encode.encoder = "auto"`.
    #[error("no H.264 encoder works on this machine: {}", list(.0))]
    NoneWorks(Vec<SkippedKind>),
    /// With a configured encoder.
    #[error("the encoder does not work on this machine: {}; \"auto\" selects the first one that works", list(.0))]
    NotUsable(Vec<SkippedKind>),
}

fn list(skipped: &[SkippedKind]) -> String {
    skipped.iter().map(|skipped| format!("{}: {}", skipped.kind, skipped.reasons())).collect::<Vec<_>>().join("; ")
}

/// The selected encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub encoder: H264,
    /// The kinds that are preferred and cannot be used.
    pub skipped: Vec<SkippedKind>,
}

impl std::fmt::Display for Choice {
    /// `x264 (x264enc); skipped: nvenc (…), vaapi (…)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.encoder.kind(), self.encoder.element())?;
        for (n, skipped) in self.skipped.iter().enumerate() {
            let lead = if n == 0 { "; skipped: " } else { ", " };
            write!(f, "{lead}{} ({})", skipped.kind, skipped.reasons())?;
        }
        Ok(())
    }
}

impl H264 {
    /// The name of the encoder's kind in the configuration.
    pub fn kind(self) -> &'static str {
        ENCODER_KINDS.iter().find(|kind| kind.encoders.contains(&self)).map_or("", |kind| kind.name)
    }

    /// Selects the configured encoder, or the first that works on this machine and is not in `failed`, the encoders
    /// that failed with this stream. When all that work are in `failed`, the first of them is selected again.
    ///
    /// The first call of a process probes the candidates. That takes about ten milliseconds for an encoder that works,
    /// and ten seconds for one that hangs.
    ///
    /// # Errors
    /// When no encoder works; with the reason for each, and what to install.
    pub fn choose(choice: EncoderChoice, failed: &[H264]) -> Result<Choice, SelectError> {
        crate::gst::init()?;
        select(choice, failed, &|encoder| has(encoder.element()), &probe::probe)
    }

    /// The choice with this name in the configuration; `auto` for an unknown name.
    pub fn choice_by_name(name: &str) -> EncoderChoice {
        ENCODER_KINDS.iter().find(|kind| kind.name == name).map_or(EncoderChoice::Auto, |kind| kind.choice)
    }

    /// The name of its kind, as in `encode.encoder`.
    pub fn kind_name(self) -> &'static str {
        ENCODER_KINDS.iter().find(|kind| kind.encoders.contains(&self)).map_or(self.element(), |kind| kind.name)
    }

    /// Whether [`H264::choose`] returns immediately, because the outcome of every trial that it needs is known.
    pub fn is_probed(choice: EncoderChoice) -> bool {
        crate::gst::init().is_err() || is_known(choice, &|encoder| has(encoder.element()), &probe::known_outcome)
    }
}

/// Probes the encoders that the choice with this name needs, unless their outcomes are known. Blocks; call it before
/// [`H264::choose`] is called on a thread that must not block.
pub fn probe_choice(name: &str) {
    // The later call of `choose` reports the error.
    let _ = H264::choose(H264::choice_by_name(name), &[]);
}

fn kinds_of(choice: EncoderChoice) -> impl Iterator<Item = &'static EncoderKind> {
    ENCODER_KINDS.iter().filter(move |kind| choice == EncoderChoice::Auto || choice == kind.choice)
}

/// Whether [`select`] needs no further trial. `installed`: whether GStreamer has the element; `known`: whether the
/// encoder works, `None` before its first trial.
fn is_known(choice: EncoderChoice, installed: &dyn Fn(H264) -> bool, known: &dyn Fn(H264) -> Option<bool>) -> bool {
    for &encoder in kinds_of(choice).flat_map(|kind| kind.encoders).filter(|encoder| installed(**encoder)) {
        match known(encoder) {
            Some(true) => return true,
            Some(false) => {}
            None => return false,
        }
    }
    true
}

/// Selects the first encoder that works. `installed`: whether GStreamer has the element; `probe`: runs the trial.
fn select(
    choice: EncoderChoice,
    failed: &[H264],
    installed: &dyn Fn(H264) -> bool,
    probe: &dyn Fn(H264) -> Result<(), ProbeError>,
) -> Result<Choice, SelectError> {
    let mut skipped = Vec::new();
    let mut last_resort = None;
    for kind in kinds_of(choice) {
        let mut reasons = Vec::new();
        for &encoder in kind.encoders.iter().filter(|encoder| installed(**encoder)) {
            match probe(encoder) {
                Ok(()) if failed.contains(&encoder) => {
                    last_resort = last_resort.or(Some(encoder));
                    reasons.push(SkipReason::FailedWithStream(encoder));
                }
                Ok(()) => return Ok(Choice { encoder, skipped }),
                Err(error) => reasons.push(SkipReason::NotWorking { encoder, error }),
            }
        }
        if reasons.is_empty() {
            reasons.push(SkipReason::NotInstalled { elements: kind.encoders, needs: kind.needs });
        }
        skipped.push(SkippedKind { kind: kind.name, reasons });
    }
    if let Some(encoder) = last_resort {
        // The cause of its failure may be gone.
        return Ok(Choice { encoder, skipped });
    }
    Err(match choice {
        EncoderChoice::Auto => SelectError::NoneWorks(skipped),
        _ => SelectError::NotUsable(skipped),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select_with(
        choice: EncoderChoice,
        failed: &[H264],
        installed: &[H264],
        broken: &[(H264, ProbeError)],
    ) -> Result<Choice, SelectError> {
        let probe = |encoder| match broken.iter().find(|(other, _)| *other == encoder) {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        };
        select(choice, failed, &|encoder| installed.contains(&encoder), &probe)
    }

    fn no_session() -> ProbeError {
        ProbeError::Gst(GstError::new("no session is free"))
    }

    #[test]
    fn the_first_encoder_that_works_is_selected_with_the_reasons_of_the_others() {
        let installed = [H264::Nvenc, H264::Va, H264::V4l2, H264::X264, H264::OpenH264];
        let best = select_with(EncoderChoice::Auto, &[], &installed, &[]).unwrap();
        assert_eq!((best.encoder, best.skipped.len()), (H264::Nvenc, 0));
        let broken = [(H264::Nvenc, no_session()), (H264::V4l2, ProbeError::NoKeyframe)];
        let second = select_with(EncoderChoice::Auto, &[], &installed, &broken).unwrap();
        assert_eq!(second.encoder, H264::Va);
        assert_eq!(second.to_string(), "vaapi (vah264enc); skipped: nvenc (nvh264enc: no session is free)");
        let without_va = [H264::Nvenc, H264::V4l2, H264::X264];
        let third = select_with(EncoderChoice::Auto, &[], &without_va, &broken).unwrap();
        assert_eq!(third.encoder, H264::X264);
        let [nvenc, vaapi, v4l2] = &third.skipped[..] else { panic!("{third}") };
        assert_eq!((nvenc.kind, vaapi.kind, v4l2.kind), ("nvenc", "vaapi", "v4l2"));
        assert_eq!(nvenc.reasons, [SkipReason::NotWorking { encoder: H264::Nvenc, error: no_session() }]);
        assert!(
            matches!(&vaapi.reasons[..], [SkipReason::NotInstalled { needs, .. }] if needs.contains("/dev/dri/renderD*"))
        );
        assert_eq!(v4l2.reasons, [SkipReason::NotWorking { encoder: H264::V4l2, error: ProbeError::NoKeyframe }]);
    }

    #[test]
    fn no_further_trial_is_needed_when_all_earlier_outcomes_are_known() {
        let known = |outcomes: &[(H264, bool)], choice| {
            let installed = [H264::Nvenc, H264::X264, H264::OpenH264];
            let known = |encoder| outcomes.iter().find(|(other, _)| *other == encoder).map(|(_, works)| *works);
            is_known(choice, &|encoder| installed.contains(&encoder), &known)
        };
        use EncoderChoice::{Auto, V4l2, X264};
        assert!(!known(&[], Auto) && !known(&[(H264::X264, true)], Auto), "nvenc has not been probed");
        assert!(known(&[(H264::X264, true)], X264) && known(&[(H264::Nvenc, true)], Auto));
        assert!(known(&[(H264::Nvenc, false), (H264::X264, true)], Auto));
        assert!(known(&[], V4l2), "no V4L2 encoder is installed");
    }

    #[test]
    fn each_element_of_a_kind_is_probed_before_the_next_kind() {
        let installed = [H264::VaLowPower, H264::Va, H264::OldVa, H264::X264];
        let broken = [(H264::VaLowPower, no_session()), (H264::Va, no_session())];
        assert_eq!(select_with(EncoderChoice::Auto, &[], &installed, &broken).unwrap().encoder, H264::OldVa);
        assert_eq!(select_with(EncoderChoice::Vaapi, &[], &installed, &broken).unwrap().encoder, H264::OldVa);
    }

    #[test]
    fn a_configured_encoder_is_not_replaced_by_another() {
        let installed = [H264::Nvenc, H264::X264];
        let error = select_with(EncoderChoice::Nvenc, &[], &installed, &[(H264::Nvenc, no_session())]).unwrap_err();
        let reasons = vec![SkipReason::NotWorking { encoder: H264::Nvenc, error: no_session() }];
        assert_eq!(error, SelectError::NotUsable(vec![SkippedKind { kind: "nvenc", reasons }]));
        let error = select_with(EncoderChoice::V4l2, &[], &installed, &[]).unwrap_err();
        let SelectError::NotUsable(skipped) = &error else { panic!("{error}") };
        assert!(matches!(
            &skipped[0].reasons[..],
            [SkipReason::NotInstalled { elements: [H264::Jetson, H264::V4l2], .. }]
        ));
        let error = select_with(EncoderChoice::Auto, &[], &[], &[]).unwrap_err();
        let SelectError::NoneWorks(skipped) = &error else { panic!("{error}") };
        let kinds = |kind: &EncoderKind| skipped.iter().any(|skipped| skipped.kind == kind.name);
        assert!(ENCODER_KINDS.iter().all(kinds), "{error}");
    }

    #[test]
    fn an_encoder_that_failed_with_this_stream_is_the_last_resort() {
        let installed = [H264::X264, H264::OpenH264];
        let select = |choice, failed: &[H264]| select_with(choice, failed, &installed, &[]).unwrap().encoder;
        assert_eq!(select(EncoderChoice::Auto, &[H264::X264]), H264::OpenH264);
        assert_eq!(select(EncoderChoice::Auto, &installed), H264::X264);
        assert_eq!(select(EncoderChoice::X264, &[H264::X264]), H264::X264, "no other encoder is allowed");
    }

    /// On a machine without the device GStreamer has no element for it.
    #[test]
    fn the_error_of_a_kind_that_is_not_installed_names_what_it_needs() {
        for (choice, word) in [
            (EncoderChoice::Nvenc, "NVIDIA"),
            (EncoderChoice::Vaapi, "VA-API"),
            (EncoderChoice::V4l2, "/dev/video*"),
            (EncoderChoice::X264, "gstreamer1.0-plugins-ugly"),
            (EncoderChoice::OpenH264, "gstreamer1.0-plugins-bad"),
        ] {
            let installed: Vec<H264> = ENCODER_KINDS
                .iter()
                .filter(|kind| kind.choice != choice)
                .flat_map(|kind| kind.encoders)
                .copied()
                .collect();
            let error = select_with(choice, &[], &installed, &[]).unwrap_err();
            assert!(matches!(error, SelectError::NotUsable(_)) && error.to_string().contains(word), "{error}");
        }
    }
}
