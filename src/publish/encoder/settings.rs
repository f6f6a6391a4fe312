//! What each encoder is told. Those of GPUs and boards are set by their documented properties, and only by those that
//! the installed version has: names and values differ from version to version.

use gstreamer as gst;

use super::{H264, Purpose};
use crate::config::{EncodeConfig, PRESETS};
use crate::frame::VideoInfo;
use crate::gst::set_if_present;

/// Bits a pixel of the automatic bitrate: enough for the hard edges of masks at x264's fastest preset.
const BITS_PER_PIXEL: f64 = 0.15;

/// Quality of files, as x264's constant rate factor.
const FILE_CRF: u32 = 23;

/// The rate that is reckoned with where a source does not tell its own.
const USUAL_RATE: f64 = 25.0;

/// Frames a second; a usual rate where the source does not tell its own.
pub(in crate::publish) fn fps(info: &VideoInfo) -> f64 {
    if info.fps.0 == 0 { USUAL_RATE } else { f64::from(info.fps.0) / f64::from(info.fps.1) }
}

/// kbit/s for a picture size and rate.
pub fn auto_bitrate(info: &VideoInfo) -> u32 {
    ((info.width * info.height) as f64 * fps(info) * BITS_PER_PIXEL / 1000.0).clamp(200.0, 40_000.0) as u32
}

/// The preset as a share of the way from the fastest (0) to the slowest (1); `None` is the encoder's own for low delay.
fn effort(config: &EncodeConfig) -> Option<f64> {
    let place = PRESETS.iter().position(|preset| *preset == config.preset)?;
    Some(place as f64 / (PRESETS.len() - 1) as f64)
}

/// Sets bitrate, keyframe distance, preset, and what keeps pictures back: nothing, in a live stream.
pub(super) fn configure(encoder: &gst::Element, kind: H264, info: &VideoInfo, config: &EncodeConfig, purpose: Purpose) {
    let bitrate = if config.bitrate == 0 { auto_bitrate(info) } else { config.bitrate };
    let keyframes = (config.keyframe_interval.as_secs_f64() * fps(info)).round().max(1.0) as u32;
    let live = purpose == Purpose::Live;
    let effort = effort(config);
    let set = |property: &str, value: &str| set_if_present(encoder, property, value);
    let number = |property: &str, value: u32| set_if_present(encoder, property, &value.to_string());
    match kind {
        H264::X264 => {
            set("speed-preset", effort.map_or(PRESETS[0], |_| &config.preset));
            number("key-int-max", keyframes);
            set("bframes", "0");
            // One thread: the streams share the cores, and a 1080p frame takes one thread about 10 ms. Larger pictures get more.
            set("threads", if info.width * info.height <= 1920 * 1088 { "1" } else { "0" });
            match purpose {
                Purpose::Live => {
                    set("tune", "zerolatency");
                    number("bitrate", bitrate);
                    // A keyframe may take half a second's worth of the rate; more would show as delay.
                    set("vbv-buf-capacity", "500");
                }
                Purpose::File if config.bitrate == 0 => {
                    set("pass", "qual");
                    number("quantizer", FILE_CRF);
                    // Looking ahead and weighing pictures costs as much as the encode itself at the fast presets.
                    set("rc-lookahead", "0");
                    set("mb-tree", "false");
                }
                Purpose::File => {
                    number("bitrate", bitrate);
                }
            }
        }
        H264::OpenH264 => {
            number("bitrate", bitrate * 1000);
            number("gop-size", keyframes);
            set("complexity", in_steps(effort.unwrap_or(0.0), &["low", "medium", "high"]));
            set("rate-control", if live { "bitrate" } else { "quality" });
        }
        H264::Nvenc => {
            number("gop-size", keyframes);
            set("bframes", "0");
            match purpose {
                Purpose::Live => {
                    let presets = ["low-latency-hp", "low-latency", "low-latency-hq"];
                    set("preset", effort.map_or(presets[2], |effort| in_steps(effort, &presets)));
                    set("zerolatency", "true");
                    set("rc-mode", "cbr");
                    number("bitrate", bitrate);
                }
                Purpose::File => {
                    set("preset", effort.map_or("hq", |effort| in_steps(effort, &["hp", "default", "hq"])));
                    set("rc-mode", "vbr");
                    number("qp-const", FILE_CRF);
                    if config.bitrate != 0 {
                        number("bitrate", bitrate);
                    }
                }
            }
        }
        H264::VaLowPower | H264::Va => {
            number("key-int-max", keyframes);
            set("b-frames", "0");
            set("ref-frames", "1");
            set("target-usage", va_usage(effort));
            number("bitrate", bitrate);
            // Half a second of the rate, in kbit.
            number("cpb-size", bitrate / 2);
            set("rate-control", if live { "cbr" } else { "vbr" });
        }
        H264::OldVa => {
            number("keyframe-period", keyframes);
            set("max-bframes", "0");
            set("quality-level", va_usage(effort));
            number("bitrate", bitrate);
            set("cpb-length", "500");
            set("rate-control", if live { "cbr" } else { "vbr" });
        }
        H264::V4l2 => {
            set("extra-controls", &v4l2_controls(bitrate, keyframes, live));
        }
        H264::Jetson => {
            number("bitrate", bitrate * 1000);
            // 0 is variable, 1 constant bitrate.
            set("control-rate", if live { "1" } else { "0" });
            number("iframeinterval", keyframes);
            number("idrinterval", keyframes);
            set("insert-sps-pps", "true");
            set("num-B-Frames", "0");
            set("maxperf-enable", "true");
            // UltraFast to Slow.
            set("preset-level", in_steps(effort.unwrap_or(0.0), &["1", "2", "3", "4"]));
        }
    }
}

/// One of the values, which stand in order of effort.
fn in_steps<'a>(effort: f64, values: &[&'a str]) -> &'a str {
    let place = (effort * values.len() as f64) as usize;
    values[place.min(values.len() - 1)]
}

/// VA-API's scale: 1 is the best picture, 7 the fastest, 4 between.
fn va_usage(effort: Option<f64>) -> &'static str {
    effort.map_or("4", |effort| in_steps(effort, &["7", "6", "5", "4", "3", "2", "1"]))
}

/// Controls of the kernel's V4L2 codec interface, by the names that GStreamer makes of theirs. Devices leave out those
/// that they do not have.
fn v4l2_controls(bitrate: u32, keyframes: u32, live: bool) -> String {
    let (bits, constant) = (u64::from(bitrate) * 1000, u8::from(live));
    format!(
        "controls,video_bitrate_mode={constant},video_bitrate={bits},h264_i_frame_period={keyframes},\
         video_gop_size={keyframes},video_b_frames=0,repeat_sequence_header=1"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PixelFormat;
    use crate::gst::{has, make};
    use gst::prelude::*;

    #[test]
    fn bitrate_follows_size_and_rate() {
        let mut info = VideoInfo::new(PixelFormat::I420, 960, 540);
        info.fps = (25, 1);
        assert_eq!(auto_bitrate(&info), 1944);
        info.fps = (50, 1);
        assert_eq!(auto_bitrate(&info), 3888);
        assert_eq!(auto_bitrate(&VideoInfo::new(PixelFormat::I420, 16, 16)), 200);
    }

    #[test]
    fn presets_are_spread_over_each_encoders_own_steps() {
        let config = |preset: &str| EncodeConfig { preset: preset.into(), ..EncodeConfig::default() };
        assert_eq!(effort(&EncodeConfig::default()), None);
        let usage = |preset: &str| va_usage(effort(&config(preset)));
        assert_eq!([usage("auto"), usage("ultrafast"), usage("medium"), usage("placebo")], ["4", "7", "4", "1"]);
        let steps = |preset: &str| in_steps(effort(&config(preset)).unwrap(), &["a", "b", "c"]);
        assert_eq!([steps("ultrafast"), steps("fast"), steps("placebo")], ["a", "b", "c"]);
    }

    /// What a V4L2 device is told is a structure as GStreamer reads it.
    #[test]
    fn v4l2_controls_are_a_structure_of_numbers() {
        crate::gst::init().unwrap();
        let controls: gst::Structure = v4l2_controls(2000, 50, true).parse().unwrap();
        for (name, value) in [("video_bitrate", 2_000_000), ("h264_i_frame_period", 50), ("video_bitrate_mode", 1)] {
            assert_eq!(controls.get::<i32>(name), Ok(value));
        }
    }

    #[test]
    fn the_keys_reach_the_encoders_of_this_machine() {
        crate::gst::init().unwrap();
        let info = VideoInfo { fps: (25, 1), ..VideoInfo::new(PixelFormat::I420, 640, 360) };
        let config = EncodeConfig {
            bitrate: 1500,
            preset: "veryfast".into(),
            keyframe_interval: std::time::Duration::from_secs(1),
            ..EncodeConfig::default()
        };
        for (kind, bitrate, keyframes) in [
            (H264::X264, ("bitrate", 1500), ("key-int-max", 25)),
            (H264::OpenH264, ("bitrate", 1_500_000), ("gop-size", 25)),
        ] {
            assert!(has(kind.element()), "{}", kind.element());
            let encoder = make(kind.element()).unwrap();
            configure(&encoder, kind, &info, &config, Purpose::Live);
            for (property, value) in [bitrate, keyframes] {
                assert_eq!(encoder.property::<u32>(property), value, "{} {property}", kind.element());
            }
        }
        let x264 = make("x264enc").unwrap();
        configure(&x264, H264::X264, &info, &config, Purpose::Live);
        assert_eq!(x264.property_value("speed-preset").serialize().unwrap(), "veryfast");
        configure(&x264, H264::X264, &info, &EncodeConfig::default(), Purpose::Live);
        assert_eq!(x264.property_value("speed-preset").serialize().unwrap(), "ultrafast");
    }
}
