//! A soak test: the real service for a given time, with failing cameras, viewers that connect and disconnect, and changes
//! of model and configuration. `make soak MINUTES=30`; with `--tls`, viewers use RTSPS and HTTPS.
//!
//! | module | content |
//! | --- | --- |
//! | [`setup`] | four cameras, models, the configuration |
//! | [`service`] | the process, its log, its API |
//! | [`faults`] | faults of the cameras, and the time that the streams need to recover |
//! | [`viewers`] | processes of viewers that connect and disconnect in several ways |
//! | [`client`] | the program of a viewer process: RTSP, MJPEG or WebRTC |
//! | [`operations`] | changes of the model and of the configuration |
//! | [`record`] | data that a run collects |
//! | [`evaluate`], [`stats`] | the evaluation of the data |
//! | [`report`] | the report: HTML and JSON |

#[path = "../../tests/faulty_camera/mod.rs"]
mod faulty_camera;
// Shared with the tests, which use all of it.
#[allow(dead_code)]
#[path = "../../tests/common/http.rs"]
mod http;
#[allow(dead_code)]
#[path = "../../tests/common/onnx.rs"]
mod onnx;
#[path = "../../tests/common/wait.rs"]
mod wait;
#[allow(dead_code)]
#[path = "../../tests/common/whep.rs"]
mod whep;

mod client;
mod evaluate;
#[cfg(test)]
mod evaluate_tests;
mod faults;
mod operations;
mod record;
mod report;
mod service;
mod setup;
mod stats;
mod viewers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use crossbeam_channel::{Receiver, bounded, tick};
use fastrand::Rng;

use client::Role;
use record::{IdlePhase, Record, Run};
use service::{Service, pause};
use setup::Setup;

/// Runs the service with failing cameras, viewers and changes of models, and evaluates the run
///
/// Writes report.html, report.json and maskcast.log. Exits with 1 and prints the reasons after a crash, a panic, a ledger
/// that is not closed, growing memory, descriptors or threads, or when streams need more than two seconds (median) to
/// recover from a fault.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Duration of the faults, minutes
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Seed of the random decisions
    #[arg(long)]
    seed: Option<u64>,
    /// Viewers use RTSPS and HTTPS
    #[arg(long)]
    tls: bool,
    /// The program under test
    #[arg(long, default_value = "target/release/maskcast")]
    program: PathBuf,
    /// Output folder
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
}

/// Duration of the idle phases before and after the faults.
const IDLE: Duration = Duration::from_secs(15);

/// Time between the faults and the second idle phase. The service detects a killed WebRTC viewer after 20 s without data
/// (documented: within half a minute), and must have freed its resources then.
const SETTLE: Duration = Duration::from_secs(30);

/// Number of concurrent viewers.
const VIEWERS: u64 = 4;

/// Time between two samples of the process, and between two polls of the streams, which limits the accuracy of recovery times.
const SAMPLE: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum time until all streams are live, before and after the faults.
const ALL_LIVE: Duration = Duration::from_secs(90);

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Role::Watch { protocol, server, stream }) = &arguments.role {
        client::run(*protocol, server, stream)?;
        return Ok(ExitCode::SUCCESS);
    }
    gstreamer::init()?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("seed {seed}, {} minutes, report in {}", arguments.minutes, arguments.out.display());
    let run = soak(&arguments, seed)?;
    let verdict = evaluate::evaluate(&run);
    report::write(&arguments.out, &run, &verdict)?;
    let figures = &verdict.figures;
    println!(
        "memory {:+.2} MiB a minute; descriptors {:?}, threads {:?} before and after; recovery {:.2} s (median), \
         {:.2} s (95 %) of {} recoveries",
        figures.memory_slope.unwrap_or(f64::NAN),
        figures.descriptors.map(Option::unwrap_or_default),
        figures.threads.map(Option::unwrap_or_default),
        figures.recovery.median.unwrap_or(f64::NAN),
        figures.recovery.p95.unwrap_or(f64::NAN),
        figures.recovery.count
    );
    for failure in &verdict.failures {
        println!("failed: {failure}");
    }
    Ok(if verdict.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn soak(arguments: &Arguments, seed: u64) -> Result<Run> {
    let (setup, mut cameras) = Setup::make(&arguments.out, arguments.tls.then_some(&arguments.program))?;
    let log = arguments.out.join("maskcast.log");
    let service = Service::start(&arguments.program, &setup.config_path(), log)?;
    let record = Record::new(seed, arguments.minutes);
    let (polling, polling_over) = bounded::<()>(0);
    let phase: std::sync::Mutex<Option<IdlePhase>> = std::sync::Mutex::new(None);
    let set_phase = |now| *phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
    let get_phase = || *phase.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| -> Result<()> {
        // Dropped also on an error, which ends the polling thread.
        let _polling = polling;
        scope.spawn(|| poll(&service, &record, &get_phase, &polling_over));
        all_live(&setup, &service, &record)?;
        set_phase(Some(IdlePhase::Before));
        let (_never, endless) = bounded::<()>(0);
        pause(&endless, IDLE);
        set_phase(None);
        run_faults(arguments, &setup, &mut cameras, &service, &record);
        if service.ended().is_none() {
            all_live(&setup, &service, &record)?;
            pause(&endless, SETTLE);
            set_phase(Some(IdlePhase::After));
            pause(&endless, IDLE);
        }
        Ok(())
    })?;
    let end = service.stop()?;
    record.run().end = end;
    let run = record.run().clone();
    Ok(run)
}

/// Runs faults, viewers and operations for the given time or until the service ends.
fn run_faults(
    arguments: &Arguments,
    setup: &Setup,
    cameras: &mut [faulty_camera::Camera],
    service: &Service,
    record: &Record,
) {
    let (running, over) = bounded::<()>(0);
    let seed = record.run().seed;
    let random = |n: u64| Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(n));
    std::thread::scope(|scope| {
        for (n, (camera, &name)) in cameras.iter_mut().zip(&setup.names).enumerate() {
            let over = &over;
            scope.spawn(move || faults::run(camera, name, random(n as u64), service, record, over));
        }
        for n in 0..VIEWERS {
            let over = &over;
            scope.spawn(move || viewers::run(&setup.names, random(100 + n), service, record, over));
        }
        scope.spawn(|| operations::run(setup, random(200), service, record, &over));
        let (began, ticks) = (Instant::now(), tick(Duration::from_secs(1)));
        let mut printed = 0;
        while began.elapsed().as_secs_f64() < 60.0 * arguments.minutes && service.ended().is_none() {
            let _ = ticks.recv();
            if began.elapsed().as_secs() / 60 > printed {
                printed += 1;
                print_progress(printed, record);
            }
        }
        drop(running);
    });
}

fn print_progress(minute: u64, record: &Record) {
    let run = record.run();
    if let Some(sample) = run.samples.last() {
        println!(
            "minute {minute}: {:.0} MiB, {} descriptors, {} threads, {} recoveries, {} viewers, {} models, {} reloads",
            sample.anonymous,
            sample.descriptors,
            sample.threads,
            run.recoveries.len(),
            run.visits.len(),
            run.model_changes,
            run.reloads
        );
    }
}

/// Polls the streams ten times a second, and samples the process every two seconds.
fn poll(service: &Service, record: &Record, phase: &dyn Fn() -> Option<IdlePhase>, over: &Receiver<()>) {
    let mut next = Instant::now();
    while !pause(over, POLL_INTERVAL) {
        let polled = service.poll().map(drop);
        let sampled = polled.and_then(|()| {
            if Instant::now() < next {
                return Ok(());
            }
            next = Instant::now() + SAMPLE;
            let sample = service.sample(record.seconds(Instant::now()), phase())?;
            record.run().samples.push(sample);
            Ok(())
        });
        if let Err(error) = sampled {
            if service.ended().is_none() {
                record.problem(format_args!("the service does not answer: {error:#}"));
            }
            return;
        }
    }
}

/// Waits until every stream is live.
fn all_live(setup: &Setup, service: &Service, record: &Record) -> Result<()> {
    let (deadline, again) = (Instant::now() + ALL_LIVE, tick(POLL_INTERVAL));
    loop {
        let state = |name: &&str| service.now(name).map_or("unknown".into(), |now| now.status.state);
        let Some(name) = setup.names.iter().find(|name| state(name) != "live") else { return Ok(()) };
        if Instant::now() > deadline {
            record.problem(format_args!("{name} is {} and not live within {ALL_LIVE:?}", state(name)));
            return Ok(());
        }
        again.recv().context("the ticker has ended")?;
    }
}
