//! The report: one HTML page with embedded charts, and the data as JSON.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::client::Protocol;
use super::evaluate::{Group, Spread, Verdict};
use super::record::{Run, Sample, Visit};
use super::viewers::Departure;

/// Twice the displayed size, because the library rounds positions to whole pixels.
const SIZE: (u32, u32) = (1800, 560);
const FONT: i32 = 34;
/// Distinguishable with any kind of colour vision (after Okabe and Ito).
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 109, 176), RGBColor(213, 94, 0), RGBColor(0, 138, 102), RGBColor(176, 74, 139)];
const GREY: RGBColor = RGBColor(140, 150, 160);
const MESH: RGBColor = RGBColor(221, 226, 232);

/// A named series of points; x in minutes.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Writes `report.html` and `report.json` into `folder`.
///
/// # Errors
/// The files cannot be written.
pub fn write(folder: &Path, run: &Run, verdict: &Verdict) -> Result<()> {
    let json = serde_json::json!({ "verdict": verdict, "run": run });
    std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(&json)?)?;
    std::fs::write(folder.join("report.html"), page(run, verdict)?)?;
    Ok(())
}

fn page(run: &Run, verdict: &Verdict) -> Result<String> {
    let figures = &verdict.figures;
    let mut body = String::new();
    if verdict.failures.is_empty() {
        body += "<p class=\"good\">Passed.</p>";
    } else {
        body += "<p class=\"bad\">Failed:</p><ul>";
        for failure in &verdict.failures {
            write!(body, "<li>{}</li>", escaped(failure))?;
        }
        body += "</ul>";
    }
    let slope = |slope: Option<f64>| slope.map_or("–".into(), |slope| format!("{slope:+.2}"));
    let pair = |[before, after]: [Option<u64>; 2]| {
        let number = |n: Option<u64>| n.map_or("–".into(), |n| n.to_string());
        format!("{} before, {} after", number(before), number(after))
    };
    let visits = |of: &dyn Fn(&Visit) -> bool| run.visits.iter().filter(|visit| of(visit)).count();
    let protocols = Protocol::ALL.map(|protocol| visits(&|visit| visit.protocol == protocol).to_string()).join(", ");
    let departures = |departure| visits(&|visit| visit.departure == departure);
    let rows = [
        ("minutes, seed", format!("{:.1}, {}", run.minutes, run.seed)),
        (
            "anonymous memory, MiB a minute after the first third; middle; last third",
            format!(
                "{}; {}; {}",
                slope(figures.memory_slope),
                slope(figures.memory_slope_middle),
                slope(figures.memory_slope_last)
            ),
        ),
        ("maximum anonymous memory, MiB", figures.memory_maximum.map_or("–".into(), |mib| format!("{mib:.0}"))),
        ("descriptors in the idle phases", pair(figures.descriptors)),
        ("threads in the idle phases", pair(figures.threads)),
        ("viewers by RTSP over TCP, RTSP over UDP, MJPEG, WebRTC", protocols),
        (
            "of these disconnected cleanly, killed, stopped reading and then killed",
            [Departure::Clean, Departure::Killed, Departure::Silent]
                .map(|departure| departures(departure).to_string())
                .join(", "),
        ),
        ("models changed, refused", format!("{}, {}", run.model_changes, run.models_refused)),
        ("configurations reloaded, refused", format!("{}, {}", run.end.reloads, run.end.reloads_refused)),
        ("log: errors, warnings, other lines", format!("{}, {}, {}", run.end.errors, run.end.warnings, run.end.infos)),
        ("seconds from SIGTERM to the end", format!("{:.1}", run.end.took)),
    ];
    body += "<table>";
    for (name, value) in rows {
        write!(body, "<tr><td>{}<td>{}</tr>", escaped(name), escaped(&value))?;
    }
    body += "</table>";
    body += "<h2>Recovery: from the end of a fault to live frames</h2>";
    body += "<table><tr><th>outage<th>number<th>median s<th>95 %<th>longest</tr>";
    spread(&mut body, "all", &figures.recovery)?;
    groups(&mut body, &figures.recovery_by_outage)?;
    body += "<tr><th>fault<th>number<th>median s<th>95 %<th>longest</tr>";
    groups(&mut body, &figures.recovery_by_fault)?;
    body += "</table>";
    let counted = run.recoveries.iter().filter(|recovery| !recovery.disturbed);
    let points: Vec<_> = counted.filter_map(|recovery| Some((recovery.outage, recovery.took?))).collect();
    figure(&mut body, "Seconds to live frames, by the duration of the outage", &scatter(&points)?)?;
    for (title, lines) in charts(&run.samples) {
        let legend: String = lines.iter().zip(COLORS).fold(String::new(), |legend, (line, color)| {
            let RGBColor(r, g, b) = color;
            legend + &format!(" <b style=\"color:rgb({r},{g},{b})\">{}</b>", escaped(&line.name))
        });
        figure(&mut body, &format!("{title}:{legend}"), &plot(&lines)?)?;
    }
    Ok(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Maskcast soak</title><style>{STYLE}</style>\
         <h1>Maskcast soak</h1>{body}</html>"
    ))
}

const STYLE: &str = "body{font:16px/1.45 system-ui,sans-serif;max-width:960px;margin:2rem auto;padding:0 1rem;color:#1d252d}\
    table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .9rem .2rem 0;text-align:left;vertical-align:top;\
    border-bottom:1px solid #dde2e8}.good{color:#006d4c;font-weight:600}.bad{color:#a3202e;font-weight:600}\
    svg{width:100%;height:auto}figure{margin:1.5rem 0}figcaption{font-size:.95rem}";

fn groups(body: &mut String, groups: &[Group]) -> Result<()> {
    groups.iter().filter(|group| group.spread.count > 0).try_for_each(|group| spread(body, &group.name, &group.spread))
}

fn spread(body: &mut String, name: &str, spread: &Spread) -> Result<()> {
    let cell = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
    let [median, p95, longest] = [spread.median, spread.p95, spread.longest].map(cell);
    write!(body, "<tr><td>{}<td>{}<td>{median}<td>{p95}<td>{longest}</tr>", escaped(name), spread.count)?;
    Ok(())
}

/// `caption` is HTML.
fn figure(body: &mut String, caption: &str, svg: &str) -> Result<()> {
    write!(body, "<figure><figcaption>{caption}</figcaption>{svg}</figure>")?;
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn charts(samples: &[Sample]) -> Vec<(&'static str, Vec<Line>)> {
    let of = |name: &str, value: &dyn Fn(&Sample) -> f64| Line {
        name: name.into(),
        points: samples.iter().map(|sample| (sample.at / 60.0, value(sample))).collect(),
    };
    let memory = vec![
        of("anonymous", &|sample| sample.anonymous),
        of("PSS", &|sample| sample.pss),
        of("RSS", &|sample| sample.rss),
    ];
    let open =
        vec![of("descriptors", &|sample| sample.descriptors as f64), of("threads", &|sample| sample.threads as f64)];
    let names: Vec<&str> =
        samples.first().map_or(Vec::new(), |sample| sample.streams.iter().map(|status| status.name.as_str()).collect());
    let rates = |what: fn(&super::record::StreamStatus) -> u64| -> Vec<Line> {
        names
            .iter()
            .map(|name| {
                let status = |sample: &Sample| sample.streams.iter().find(|stream| stream.name == **name).map(what);
                let rate = |pair: &[Sample]| {
                    let [before, after] = pair else { return None };
                    // The counters of a restarted stream start at 0.
                    let frames = status(after)?.checked_sub(status(before)?)?;
                    Some((after.at / 60.0, frames as f64 / (after.at - before.at).max(0.1)))
                };
                Line { name: (*name).into(), points: samples.windows(2).filter_map(rate).collect() }
            })
            .collect()
    };
    vec![
        ("Memory, MiB", memory),
        ("Open descriptors and threads", open),
        ("Frames published a second", rates(|stream| stream.published)),
        ("Frames dropped a second", rates(|stream| stream.dropped)),
    ]
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw a chart: {error}")
}

fn plot(lines: &[Line]) -> Result<String> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let x_max = points().map(|(x, _)| x).fold(0.1, f64::max);
    let y_max = points().map(|(_, y)| y).fold(1.0, f64::max);
    svg(x_max, 1.06 * y_max, "minutes", |chart| {
        for (line, color) in lines.iter().zip(COLORS) {
            let style = ShapeStyle::from(&color).stroke_width(3);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style)).map_err(failed)?;
        }
        Ok(())
    })
}

fn scatter(points: &[(f64, f64)]) -> Result<String> {
    let x_max = points.iter().map(|(x, _)| *x).fold(1.0, f64::max);
    let y_max = points.iter().map(|(_, y)| *y).fold(2.0, f64::max);
    svg(1.04 * x_max, 1.06 * y_max, "duration of the outage, seconds", |chart| {
        let limit = [(0.0, 2.0), (1.04 * x_max, 2.0)];
        chart.draw_series(LineSeries::new(limit, ShapeStyle::from(&GREY).stroke_width(2))).map_err(failed)?;
        let dots = points.iter().map(|point| Circle::new(*point, 8, COLORS[0].mix(0.6).filled()));
        chart.draw_series(dots).map_err(failed)?;
        Ok(())
    })
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn svg(x_max: f64, y_max: f64, name: &str, draw: impl FnOnce(&mut Chart<'_, '_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let font = || ("sans-serif", FONT).into_font().color(&GREY);
        let mut chart = ChartBuilder::on(&area)
            .margin(20)
            .x_label_area_size(90)
            .y_label_area_size(110)
            .build_cartesian_2d(0.0..x_max, 0.0..y_max)
            .map_err(failed)?;
        let digits = usize::from(y_max < 10.0);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .x_labels(12)
            .y_labels(6)
            .bold_line_style(ShapeStyle::from(&MESH).stroke_width(2))
            .axis_style(ShapeStyle::from(&MESH).stroke_width(2))
            .label_style(font())
            .axis_desc_style(font())
            .x_label_formatter(&|x| format!("{x:.*}", usize::from(x_max < 10.0)))
            .y_label_formatter(&|y| format!("{y:.digits$}"))
            .x_desc(name)
            .draw()
            .map_err(failed)?;
        draw(&mut chart)?;
        area.present().map_err(failed)?;
    }
    // The page scales the image.
    Ok(svg.replacen(&format!("width=\"{}\" height=\"{}\"", SIZE.0, SIZE.1), "role=\"img\"", 1))
}
