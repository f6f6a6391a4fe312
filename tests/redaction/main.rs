//! Redaction of the real program: no output of a stream with `[stream.redact]` ever shows a pixel of a person.
//!
//! A test model takes red pixels for persons. Clips show shapes of that colour, with a checker of two reds, so that their colour
//! and their detail can be found in published frames. Each test runs `gate`, which redacts, and `open`, which shows the same
//! source: real clients of both must find the person in `open`, which proves that the check can fail, and must find
//! nothing of it in `gate`.
//!
//! `MASKCAST_TEST_LEAK=1 cargo test --test redaction` removes `[stream.redact]` from all streams. All tests of streams must fail then.
//!
//! | module | content |
//! | --- | --- |
//! | [`paint`] | the clips |
//! | [`models`] | the test models |
//! | [`detect`] | finds persons in frames |
//! | [`capture`] | clients of the outputs |
//! | [`camera`] | cameras that show a clip |
//! | [`fixture`] | the streams and their viewers |
//! | [`shapes`] | all shapes by RTSP, MJPEG, snapshots, pushes and recordings (MP4), and in masks |
//! | [`webrtc`] | all shapes by WebRTC, in a browser, by WHIP, and in recordings (Matroska) |
//! | [`models_change`] | models that are late, change, are refused, disappear, or cannot be run |
//! | [`cameras`] | cameras that disappear and return, frames of other sizes, a stopped service, a failing encoder |
//! | [`storage`] | recordings of a killed service, of events, and on a full disk; images of events, in the history and by MQTT |
//! | [`hanging`] | streams that hang, and a worker that pauses after failures |
//! | [`configuration`] | reloads, restarts, clients of the API, and `maskcast check` |
//!
//! A worker that panics and a provider that is lost cannot be caused from outside of the program; `tests/pipeline.rs` causes
//! panics in its parts. Nor can a fallback from one software encoder to the next: x264, the first, accepts every frame
//! that OpenH264 accepts.

#[path = "../common/mod.rs"]
mod common;

mod camera;
mod cameras;
mod capture;
mod configuration;
mod detect;
mod fixture;
mod hanging;
mod models;
mod models_change;
mod paint;
mod shapes;
mod storage;
mod webrtc;

use cameras::{a_failing_encoder_shows_nothing, a_lost_camera_shows_nothing, frames_of_changing_size_show_nothing};
use common::harness;
use configuration::{
    check_says_where_persons_can_leave, clients_of_the_api_cannot_show_persons,
    only_the_file_weakens_redaction_and_that_is_noticed,
};
use fixture::can_mount;
use hanging::{a_file_is_hidden_while_the_worker_pauses, a_stream_that_hangs_shows_nothing_after_a_reload};
use models_change::{
    a_change_of_the_model_shows_nothing, a_model_that_cannot_be_run_shows_nothing,
    a_model_that_is_slow_to_load_and_to_run_shows_nothing,
};
use shapes::{no_shape_leaves_by_any_output, the_detector_finds_every_shape_of_the_clip};
use storage::{
    a_new_redaction_hides_the_pre_roll_too, recorded_events_and_images_of_events_show_nothing,
    recordings_of_a_killed_service_show_nothing, recordings_on_a_full_disk_show_nothing,
};
use webrtc::no_shape_leaves_by_webrtc;

fn main() {
    harness::main(tests![
        the_detector_finds_every_shape_of_the_clip,
        no_shape_leaves_by_any_output,
        no_shape_leaves_by_webrtc,
        a_change_of_the_model_shows_nothing,
        a_model_that_is_slow_to_load_and_to_run_shows_nothing,
        a_model_that_cannot_be_run_shows_nothing,
        a_lost_camera_shows_nothing,
        frames_of_changing_size_show_nothing,
        a_failing_encoder_shows_nothing,
        a_stream_that_hangs_shows_nothing_after_a_reload,
        a_file_is_hidden_while_the_worker_pauses,
        recordings_of_a_killed_service_show_nothing,
        recorded_events_and_images_of_events_show_nothing,
        a_new_redaction_hides_the_pre_roll_too,
        recordings_on_a_full_disk_show_nothing if can_mount,
        only_the_file_weakens_redaction_and_that_is_noticed,
        clients_of_the_api_cannot_show_persons,
        check_says_where_persons_can_leave,
    ]);
}
