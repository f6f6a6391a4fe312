//! Sets the properties of each encoder. Properties of hardware encoders are set only if the installed version has them,
//! because names and values differ between versions.

use gstreamer as gst;

use super::bitrate::{fps, rate_control};
use super::{H264, Purpose};
use crate::base::encode_status::RateControl;
use crate::config::{EncodeConfig, PRESETS};
use crate::frame::VideoInfo;
use crate::gst::{accepts, set_if_present};

/// Quality of live streams and of files, as a constant rate factor of x264. Measured with three clips of fixed cameras
/// (`make quality`): the mean SSIM is 0.987 or better.
const CRF: u32 = 23;

/// The quality factor of VA-API, on the scale of quantizers, for about that quality. Not measured: no device was available.
const VA_QUALITY: u32 = 22;

/// The smallest quantizer of OpenH264, which gives about that quality with about a sixth more bits.
const OPENH264_QUANTIZER: u32 = 18;

/// The deblocking filter of x264, which its preset `ultrafast` alone disables. It costs 2 to 4 % of the encode's time, and gives
/// the SSIM of a constant rate factor that is lower by one.
const DEBLOCKING: &str = "deblock=0,0";

/// The preset on a scale from the fastest (0) to the slowest (1); `None` selects the encoder's default for low latency.
fn effort(config: &EncodeConfig) -> Option<f64> {
    let index = PRESETS.iter().position(|preset| *preset == config.preset)?;
    Some(index as f64 / (PRESETS.len() - 1) as f64)
}

/// Whether the encoder can hold the quality of a live stream constant below a limit of the bitrate.
fn holds_quality(encoder: &gst::Element, kind: H264) -> bool {
    match kind {
        H264::X264 | H264::OpenH264 => true,
        H264::Nvenc => accepts(encoder, "rc-mode", "vbr") && accepts(encoder, "const-quality", "23"),
        // The property has only the modes that the driver supports.
        H264::VaLowPower | H264::Va => accepts(encoder, "rate-control", "qvbr"),
        H264::OldVa | H264::V4l2 | H264::Jetson => false,
    }
}

/// Sets bitrate, keyframe interval and preset, and disables everything that buffers frames in a live stream. Returns the rate
/// control of a live stream; files have the quality [`CRF`] unless a bitrate is configured.
pub(super) fn configure(
    encoder: &gst::Element,
    kind: H264,
    info: &VideoInfo,
    config: &EncodeConfig,
    purpose: Purpose,
) -> RateControl {
    let control = rate_control(info, config, holds_quality(encoder, kind));
    let bitrate = control.limit();
    let quality = matches!(control, RateControl::Quality { .. });
    let keyframes = (config.keyframe_interval.as_secs_f64() * fps(info)).round().max(1.0) as u32;
    let live = purpose == Purpose::Live;
    let effort = effort(config);
    let set = |property: &str, value: &str| set_if_present(encoder, property, value);
    let number = |property: &str, value: u32| set_if_present(encoder, property, &value.to_string());
    match kind {
        H264::X264 => {
            set("speed-preset", effort.map_or(PRESETS[0], |_| &config.preset));
            if effort.is_none() {
                set("option-string", DEBLOCKING);
            }
            number("key-int-max", keyframes);
            set("bframes", "0");
            // Up to 1080p one thread, because the streams share the cores and one thread needs about 10 ms per frame.
            set("threads", if info.width * info.height <= 1920 * 1088 { "1" } else { "0" });
            if config.bitrate == 0 {
                set("pass", "qual");
                number("quantizer", CRF);
            }
            match purpose {
                Purpose::Live => {
                    set("tune", "zerolatency");
                    // With `pass=qual` the limit.
                    number("bitrate", bitrate);
                    // A keyframe may have the size of half a second at the bitrate; more would add latency.
                    set("vbv-buf-capacity", "500");
                }
                Purpose::File if config.bitrate == 0 => {
                    // Without it the property `bitrate`, which is 2048 kbit/s, limits the quality.
                    set("vbv-buf-capacity", "0");
                    // With the fast presets, lookahead and macroblock trees cost as much as the encode itself.
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
            set("complexity", value_for_effort(effort.unwrap_or(0.0), &["low", "medium", "high"]));
            set("rate-control", if live { "bitrate" } else { "quality" });
            if quality {
                // It uses no more bits than this quality needs.
                number("qp-min", OPENH264_QUANTIZER);
                // It would keep errors in areas that it takes for background.
                set("background-detection", "false");
            }
        }
        H264::Nvenc => {
            number("gop-size", keyframes);
            set("bframes", "0");
            match purpose {
                Purpose::Live => {
                    let presets = ["low-latency-hp", "low-latency", "low-latency-hq"];
                    set("preset", effort.map_or(presets[2], |effort| value_for_effort(effort, &presets)));
                    set("zerolatency", "true");
                    if quality {
                        set("rc-mode", "vbr");
                        number("const-quality", CRF);
                        number("max-bitrate", bitrate);
                    } else {
                        set("rc-mode", "cbr");
                    }
                    number("bitrate", bitrate);
                }
                Purpose::File => {
                    set("preset", effort.map_or("hq", |effort| value_for_effort(effort, &["hp", "default", "hq"])));
                    set("rc-mode", "vbr");
                    number("qp-const", CRF);
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
            set("target-usage", va_target_usage(effort));
            number("bitrate", bitrate);
            // Half a second at the bitrate, in kbit.
            number("cpb-size", bitrate / 2);
            if live && quality {
                set("rate-control", "qvbr");
                // In this mode, the factor of the quality.
                number("qpi", VA_QUALITY);
            } else {
                set("rate-control", if live { "cbr" } else { "vbr" });
            }
        }
        H264::OldVa => {
            number("keyframe-period", keyframes);
            set("max-bframes", "0");
            set("quality-level", va_target_usage(effort));
            number("bitrate", bitrate);
            set("cpb-length", "500");
            set("rate-control", if live { "cbr" } else { "vbr" });
        }
        H264::V4l2 => {
            set("extra-controls", &v4l2_controls(bitrate, keyframes, live));
        }
        H264::Jetson => {
            number("bitrate", bitrate * 1000);
            // 0: variable bitrate, 1: constant bitrate.
            set("control-rate", if live { "1" } else { "0" });
            number("iframeinterval", keyframes);
            number("idrinterval", keyframes);
            set("insert-sps-pps", "true");
            set("num-B-Frames", "0");
            set("maxperf-enable", "true");
            // 1: UltraFastPreset, 4: SlowPreset.
            set("preset-level", value_for_effort(effort.unwrap_or(0.0), &["1", "2", "3", "4"]));
        }
    }
    control
}

/// One of `values`, which are ordered by increasing effort.
fn value_for_effort<'a>(effort: f64, values: &[&'a str]) -> &'a str {
    let index = (effort * values.len() as f64) as usize;
    values[index.min(values.len() - 1)]
}

/// The scale of VA-API: from 1, the best quality, to 7, the fastest. The default is 4.
fn va_target_usage(effort: Option<f64>) -> &'static str {
    effort.map_or("4", |effort| value_for_effort(effort, &["7", "6", "5", "4", "3", "2", "1"]))
}

/// Controls of the kernel's V4L2 codec interface, with the names that GStreamer derives from theirs. GStreamer skips
/// controls that a device does not have.
fn v4l2_controls(bitrate: u32, keyframes: u32, live: bool) -> String {
    let (bits, constant) = (u64::from(bitrate) * 1000, u8::from(live));
    format!(
        "controls,video_bitrate_mode={constant},video_bitrate={bits},h264_i_frame_period={keyframes},\
         video_gop_size={keyframes},video_b_frames=0,repeat_sequence_header=1"
    )
}

#[cfg(test)]
mod tests {
    use super::super::bitrate::bitrate_limit;
    use super::*;
    use crate::frame::PixelFormat;
    use crate::gst::{has, make};
    use gst::prelude::*;

    #[test]
    fn presets_are_mapped_to_the_values_of_each_encoder() {
        let config = |preset: &str| EncodeConfig { preset: preset.into(), ..EncodeConfig::default() };
        assert_eq!(effort(&EncodeConfig::default()), None);
        let usage = |preset: &str| va_target_usage(effort(&config(preset)));
        assert_eq!([usage("auto"), usage("ultrafast"), usage("medium"), usage("placebo")], ["4", "7", "4", "1"]);
        let steps = |preset: &str| value_for_effort(effort(&config(preset)).unwrap(), &["a", "b", "c"]);
        assert_eq!([steps("ultrafast"), steps("fast"), steps("placebo")], ["a", "b", "c"]);
    }

    #[test]
    fn v4l2_controls_are_a_valid_structure_of_numbers() {
        crate::gst::init().unwrap();
        let controls: gst::Structure = v4l2_controls(2000, 50, true).parse().unwrap();
        for (name, value) in [("video_bitrate", 2_000_000), ("h264_i_frame_period", 50), ("video_bitrate_mode", 1)] {
            assert_eq!(controls.get::<i32>(name), Ok(value));
        }
    }

    #[test]
    fn configured_values_are_set_on_the_encoders() {
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
        assert_eq!(x264.property::<Option<String>>("option-string").unwrap_or_default(), "", "the preset as it is");
        configure(&x264, H264::X264, &info, &EncodeConfig::default(), Purpose::Live);
        assert_eq!(x264.property_value("speed-preset").serialize().unwrap(), "ultrafast");
    }

    #[test]
    fn live_encoders_hold_the_quality_below_the_limit_of_size_and_rate() {
        crate::gst::init().unwrap();
        let info = VideoInfo { fps: (25, 2), ..VideoInfo::new(PixelFormat::I420, 768, 432) };
        let limit = bitrate_limit(&info);
        let (automatic, set) = (EncodeConfig::default(), EncodeConfig { bitrate: 900, ..EncodeConfig::default() });
        let x264 = |config: &EncodeConfig, purpose| {
            let encoder = make("x264enc").unwrap();
            let control = configure(&encoder, H264::X264, &info, config, purpose);
            let pass = encoder.property_value("pass").serialize().unwrap().to_string();
            let numbers = ["bitrate", "vbv-buf-capacity"].map(|property| encoder.property::<u32>(property));
            (control, pass, numbers)
        };
        let (control, pass, numbers) = x264(&automatic, Purpose::Live);
        assert_eq!(control, RateControl::Quality { limit });
        assert_eq!((pass.as_str(), numbers), ("qual", [limit, 500]));
        let (control, pass, numbers) = x264(&set, Purpose::Live);
        assert_eq!(control, RateControl::Constant { bitrate: 900 });
        assert_eq!((pass.as_str(), numbers), ("cbr", [900, 500]));
        let (_, pass, [_, vbv]) = x264(&automatic, Purpose::File);
        assert_eq!((pass.as_str(), vbv), ("qual", 0), "files have no limit");
        for (config, control, least) in [
            (&automatic, RateControl::Quality { limit }, OPENH264_QUANTIZER),
            (&set, RateControl::Constant { bitrate: 900 }, 0),
        ] {
            let encoder = make("openh264enc").unwrap();
            assert_eq!(configure(&encoder, H264::OpenH264, &info, config, Purpose::Live), control);
            let numbers = ["bitrate", "qp-min"].map(|property| encoder.property::<u32>(property));
            assert_eq!(numbers, [control.limit() * 1000, least]);
            assert_eq!(encoder.property_value("rate-control").serialize().unwrap(), "bitrate");
        }
    }
}
