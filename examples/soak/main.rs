//! A soak: the real service, for as long as you like, with cameras that fail, viewers that come and go, models and
//! configurations that change. `make soak MINUTES=30`; with `--tls`, viewers come by RTSPS and HTTPS.
//!
//! | file | what it knows |
//! | --- | --- |
//! | [`setting`] | four cameras, models, the configuration |
//! | [`service`] | the process, its log, its API |
//! | [`faults`] | what goes wrong with cameras, and how long the streams need afterwards |
//! | [`viewers`] | viewers that come and go, politely or not |
//! | [`watching`] | what one of them does: an RTSP player, a browser |
//! | [`chores`] | models exchanged, configurations read again |
//! | [`record`] | what a run leaves behind |
//! | [`judge`], [`stats`] | whether that is good |
//! | [`report`] | the page that shows it |

#[path = "../../tests/faulty_camera/mod.rs"]
mod faulty_camera;
// What the tests have, too; they use all of it.
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

mod chores;
mod faults;
mod judge;
#[cfg(test)]
mod judge_tests;
mod record;
mod report;
mod service;
mod setting;
mod stats;
mod viewers;
mod watching;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use crossbeam_channel::{Receiver, bounded, tick};
use fastrand::Rng;

use record::{Quiet, Record, Run};
use service::{Service, pause};
use setting::Setting;
use watching::Role;

/// Runs the service with failing cameras, passing viewers, changing models, and judges it
///
/// Writes report.html, report.json and maskcast.log. Exits with 1, and says why, on a crash, a panic, a ledger that does
/// not close, memory, descriptors or threads that grow, or cameras that need more than two seconds in the median to be
/// live again after their return.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// How long the faults go on
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Makes the same decisions again
    #[arg(long)]
    seed: Option<u64>,
    /// Viewers come by RTSPS and HTTPS
    #[arg(long)]
    tls: bool,
    /// The program under test
    #[arg(long, default_value = "target/release/maskcast")]
    program: PathBuf,
    /// Where everything is written
    #[arg(long, default_value = "target/soak")]
    out: PathBuf,
}

/// The calm before the faults and after them.
const CALM: Duration = Duration::from_secs(15);

/// How long after the faults that calm begins. A viewer by WebRTC who was killed is known to be gone only when nothing
/// has come from it for 20 s (README: within half a minute); whatever served it must be gone then.
const LINGER: Duration = Duration::from_secs(30);

/// Viewers at a time.
const VIEWERS: u64 = 4;

/// Time between two samples of the process, and between two looks at the streams: times of return are known so far.
const SAMPLE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// How long the streams may take to be all live, before the faults and after them.
const ALL_LIVE: Duration = Duration::from_secs(90);

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Role::Watch { by, server, stream }) = &arguments.role {
        watching::watch(*by, server, stream)?;
        return Ok(ExitCode::SUCCESS);
    }
    gstreamer::init()?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("seed {seed}, {} minutes, report in {}", arguments.minutes, arguments.out.display());
    let run = soak(&arguments, seed)?;
    let verdict = judge::judge(&run);
    report::write(&arguments.out, &run, &verdict)?;
    let figures = &verdict.figures;
    println!(
        "memory {:+.2} MiB a minute; descriptors {:?}, threads {:?} before and after; live again after {:.2} s in the \
         median, {:.2} s at 95 %, of {} returns",
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
    let (setting, mut cameras) = Setting::make(&arguments.out, arguments.tls.then_some(&arguments.program))?;
    let log = arguments.out.join("maskcast.log");
    let service = Service::start(&arguments.program, &setting.config_path(), log)?;
    let record = Record::new(seed, arguments.minutes);
    let (watching, unwatched) = bounded::<()>(0);
    let calm: std::sync::Mutex<Option<Quiet>> = std::sync::Mutex::new(None);
    let set_calm = |now| *calm.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
    let get_calm = || *calm.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| -> Result<()> {
        // Dropped however this ends, so that the watcher ends, too.
        let _watching = watching;
        scope.spawn(|| watch(&service, &record, &get_calm, &unwatched));
        all_live(&setting, &service, &record)?;
        set_calm(Some(Quiet::Before));
        let (_never, endless) = bounded::<()>(0);
        pause(&endless, CALM);
        set_calm(None);
        turmoil(arguments, &setting, &mut cameras, &service, &record);
        if service.ended().is_none() {
            all_live(&setting, &service, &record)?;
            pause(&endless, LINGER);
            set_calm(Some(Quiet::After));
            pause(&endless, CALM);
        }
        Ok(())
    })?;
    let end = service.stop()?;
    record.run().end = end;
    let run = record.run().clone();
    Ok(run)
}

/// Faults, viewers and chores, for as long as was asked for or the service lives.
fn turmoil(
    arguments: &Arguments,
    setting: &Setting,
    cameras: &mut [faulty_camera::Camera],
    service: &Service,
    record: &Record,
) {
    let (going_on, over) = bounded::<()>(0);
    let seed = record.run().seed;
    let random = |n: u64| Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(n));
    std::thread::scope(|scope| {
        for (n, (camera, &name)) in cameras.iter_mut().zip(&setting.names).enumerate() {
            let over = &over;
            scope.spawn(move || faults::play(camera, name, random(n as u64), service, record, over));
        }
        for n in 0..VIEWERS {
            let over = &over;
            scope.spawn(move || viewers::come_and_go(&setting.names, random(100 + n), service, record, over));
        }
        scope.spawn(|| chores::attend(setting, random(200), service, record, &over));
        let (began, minute) = (Instant::now(), tick(Duration::from_secs(1)));
        let mut told = 0;
        while began.elapsed().as_secs_f64() < 60.0 * arguments.minutes && service.ended().is_none() {
            let _ = minute.recv();
            if began.elapsed().as_secs() / 60 > told {
                told += 1;
                tell(told, record);
            }
        }
        drop(going_on);
    });
}

fn tell(minute: u64, record: &Record) {
    let run = record.run();
    if let Some(sample) = run.samples.last() {
        println!(
            "minute {minute}: {:.0} MiB, {} descriptors, {} threads, {} returns, {} visits, {} models, {} reloads",
            sample.anonymous,
            sample.descriptors,
            sample.threads,
            run.recoveries.len(),
            run.visits.len(),
            run.model_swaps,
            run.reloads
        );
    }
}

/// Looks at the streams ten times a second, and at the process every other second.
fn watch(service: &Service, record: &Record, calm: &dyn Fn() -> Option<Quiet>, over: &Receiver<()>) {
    let mut next = Instant::now();
    while !pause(over, LOOK) {
        let looked = service.look().map(drop);
        let sampled = looked.and_then(|()| {
            if Instant::now() < next {
                return Ok(());
            }
            next = Instant::now() + SAMPLE;
            let sample = service.sample(record.seconds(Instant::now()), calm())?;
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
fn all_live(setting: &Setting, service: &Service, record: &Record) -> Result<()> {
    let (deadline, again) = (Instant::now() + ALL_LIVE, tick(LOOK));
    loop {
        let state = |name: &&str| service.now(name).map_or("unknown".into(), |now| now.standing.state);
        let Some(name) = setting.names.iter().find(|name| state(name) != "live") else { return Ok(()) };
        if Instant::now() > deadline {
            record.problem(format_args!("{name} is {} and not live within {ALL_LIVE:?}", state(name)));
            return Ok(());
        }
        again.recv().context("a clock never ends")?;
    }
}
