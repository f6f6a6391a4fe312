//! What an operator does meanwhile: exchanges the model and changes the configuration, now and then wrongly.

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::Receiver;
use fastrand::Rng;

use super::record::Record;
use super::service::{Service, pause};
use super::setting::Setting;

/// Time between two chores, seconds.
const WAIT: [f64; 2] = [5.0, 20.0];

/// One chore after the other until the run is over.
pub fn attend(setting: &Setting, mut random: Rng, service: &Service, record: &Record, over: &Receiver<()>) {
    let mut turn = 0;
    loop {
        let wait = WAIT[0] + (WAIT[1] - WAIT[0]) * random.f64();
        if pause(over, Duration::from_secs_f64(wait)) {
            return;
        }
        match random.u8(..10) {
            0..5 => {
                turn = (turn + 1) % setting.models.len();
                swap(&setting.models[turn], "done", service, record);
            }
            5 => swap(&setting.wrong_model, "refused", service, record),
            6..9 => {
                // Restarts one stream; the others must not notice.
                reload(&setting.config(0.2 + 0.6 * random.f64()), service, record);
                record.run().reloads += 1;
            }
            _ => {
                // Nobody may be opaque seven times over: everything goes on as before.
                reload(&setting.config(7.0), service, record);
                record.run().reloads_refused += 1;
            }
        }
    }
}

fn swap(model: &Path, expected: &str, service: &Service, record: &Record) {
    match service.change_model(model) {
        Ok(outcome) if outcome == expected => {
            let mut run = record.run();
            let count = if expected == "done" { &mut run.model_swaps } else { &mut run.models_refused };
            *count += 1;
        }
        Ok(outcome) => record.problem(format_args!("{} was {outcome}, not {expected}", model.display())),
        Err(error) => record.problem(format_args!("the model cannot be exchanged: {error:#}")),
    }
}

fn reload(change: &anyhow::Result<()>, service: &Service, record: &Record) {
    if let Err(error) = change {
        record.problem(format_args!("the configuration cannot be written: {error:#}"));
    } else if let Err(error) = service.signal("HUP") {
        record.problem(format_args!("{error:#}"));
    }
}
