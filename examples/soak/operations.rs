//! Operations during the run: changes of the model and of the configuration, some of them invalid.

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::Receiver;
use fastrand::Rng;

use super::record::Record;
use super::service::{Service, pause};
use super::setup::Setup;

/// Time between two operations, seconds.
const PAUSE: [f64; 2] = [5.0, 20.0];

/// Performs operations until the run is over.
pub fn run(setup: &Setup, mut random: Rng, service: &Service, record: &Record, over: &Receiver<()>) {
    let mut turn = 0;
    loop {
        let wait = PAUSE[0] + (PAUSE[1] - PAUSE[0]) * random.f64();
        if pause(over, Duration::from_secs_f64(wait)) {
            return;
        }
        match random.u8(..10) {
            0..5 => {
                turn = (turn + 1) % setup.models.len();
                change_model(&setup.models[turn], "done", service, record);
            }
            5 => change_model(&setup.wrong_model, "refused", service, record),
            6..9 => {
                // Restarts one stream and must not affect the others.
                reload(&setup.config(0.2 + 0.6 * random.f64()), service, record);
                record.run().reloads += 1;
            }
            _ => {
                // An alpha of 7 is invalid: the service must refuse it and keep the old configuration.
                reload(&setup.config(7.0), service, record);
                record.run().reloads_refused += 1;
            }
        }
    }
}

fn change_model(model: &Path, expected: &str, service: &Service, record: &Record) {
    match service.change_model(model) {
        Ok(outcome) if outcome == expected => {
            let mut run = record.run();
            let count = if expected == "done" { &mut run.model_changes } else { &mut run.models_refused };
            *count += 1;
        }
        Ok(outcome) => record.problem(format_args!("{} was {outcome}, not {expected}", model.display())),
        Err(error) => record.problem(format_args!("the model cannot be changed: {error:#}")),
    }
}

fn reload(change: &anyhow::Result<()>, service: &Service, record: &Record) {
    if let Err(error) = change {
        record.problem(format_args!("the configuration cannot be written: {error:#}"));
    } else if let Err(error) = service.signal("HUP") {
        record.problem(format_args!("{error:#}"));
    }
}
