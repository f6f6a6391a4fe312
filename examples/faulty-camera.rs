//! Cameras with scripted faults, for any player: `cargo run --example faulty-camera -- --help`.

#[path = "../tests/faulty_camera/mod.rs"]
mod faulty_camera;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use crossbeam_channel::tick;
use faulty_camera::Camera;
use faulty_camera::scenario::{Scenario, Step};

/// Runs the cameras of a scenario, step by step, each at its own port
///
/// A scenario is a TOML file; tests/scenarios/ has one for each fault. The expectations of each step are printed and not
/// checked; `cargo test --test faulty_cameras` checks them.
#[derive(Parser)]
#[command(after_help = "Examples:
  cargo run --example faulty-camera -- tests/scenarios/stall-in-mid-stream.toml
  cargo run --example faulty-camera -- --listen 0.0.0.0 --port 9554 --loop tests/scenarios/one-of-two.toml
  ffplay -rtsp_transport tcp rtsp://127.0.0.1:9554/stream")]
struct Arguments {
    /// The scenario
    scenario: PathBuf,
    /// Address to listen at
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Port of the first camera; the others have the following ports
    #[arg(long, default_value_t = 9554)]
    port: u16,
    /// Start again after the last step, until Ctrl-C
    #[arg(long = "loop")]
    looped: bool,
}

/// How often the end of a step is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scenario = Scenario::load(&arguments.scenario)?;
    println!("{}", scenario.title);
    let mut cameras = Vec::new();
    for (spec, port) in scenario.cameras.iter().zip(arguments.port..) {
        let camera = Camera::start_at(spec, SocketAddr::new(arguments.listen, port))?;
        println!("\n[[stream]]\nname = \"{}\"\nsource = \"{}\"\n{}", spec.name, camera.url(), spec.stream);
        cameras.push(camera);
    }
    loop {
        for step in &scenario.steps {
            let at = scenario.cameras.iter().position(|spec| spec.name == scenario.camera_of(step));
            let camera = at.and_then(|at| cameras.get_mut(at)).context("a step has no camera")?;
            run_step(&scenario, step, camera)?;
        }
        if !arguments.looped {
            return Ok(());
        }
    }
}

/// Runs one step until its time is over and its frames are delivered.
fn run_step(scenario: &Scenario, step: &Step, camera: &mut Camera) -> Result<()> {
    println!("{}: {}", scenario.camera_of(step), step.name);
    for expect in &step.expect {
        let stream = expect.stream.as_deref().unwrap_or(scenario.camera_of(step));
        let after = expect.after.map(|after| format!(" after {after:?}")).unwrap_or_default().to_lowercase();
        println!("  {stream}: viewers must see {:?} within {} s{after}", expect.sees, expect.within);
    }
    if let Some(action) = &step.action {
        camera.perform(action)?;
    }
    let (began, delivered, connected) = (Instant::now(), camera.delivered(), camera.connections());
    let again = tick(POLL_INTERVAL);
    while began.elapsed().as_secs_f64() < step.seconds
        || camera.delivered() - delivered < step.frames
        || camera.connections() - connected < step.connections
    {
        again.recv()?;
    }
    Ok(())
}
