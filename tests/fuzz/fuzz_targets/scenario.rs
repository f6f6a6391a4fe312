//! Scenario files of the faulty camera: every text is either refused with an error, or is a valid scenario.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../faulty_camera/scenario.rs"]
mod scenario;
#[allow(dead_code)] // Only a part is used here.
#[path = "../../faulty_camera/test_frame.rs"]
mod test_frame;

use scenario::{Action, Scenario};

fuzz_target!(|text: &str| {
    let scenario = match Scenario::parse(text) {
        Ok(scenario) => scenario,
        Err(error) => return assert!(!format!("{error:#}").is_empty()),
    };
    for camera in &scenario.cameras {
        let settings = camera.video_settings();
        assert!(settings.fps > 0 && settings.width >= 64 && settings.height >= 64, "{settings:?}");
    }
    for step in &scenario.steps {
        let name = scenario.camera_of(step);
        assert!(scenario.cameras.iter().any(|camera| camera.name == name), "{name:?}");
        // The camera calculates with these values.
        match &step.action {
            Some(Action::Delay([least, most])) => assert!(least <= most, "{:?}", step.action),
            Some(Action::JumpClock(seconds)) => assert!(seconds.is_finite()),
            Some(Action::ClockRate(rate)) => assert!(rate.is_finite() && *rate > 0.0),
            Some(Action::Reboot(video) | Action::Change(video)) => {
                assert!(video.fps.is_none_or(|fps| (1..=60).contains(&fps)), "{video:?}");
                assert!(video.size.is_none_or(|size| size.iter().all(|side| side % 8 == 0 && *side >= 64)));
            }
            _ => {}
        }
        assert!(step.seconds.is_finite() && step.seconds <= 86_400.0, "{}", step.seconds);
    }
    assert!(scenario.max_age.is_finite());
});
