//! Draws plots as SVG with `plotters`.
//!
//! Plots are drawn twice as large as they are shown, because the library rounds coordinates to whole pixels. They have the
//! colours of a light page; the style sheet of a dark page replaces them ([`style`]).

use std::fmt::Write;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::error::ReportError;
use super::text::scientific;
use crate::metrics::CalibrationScores;

/// A colour on a light and on a dark page.
struct ThemeColor {
    light: RGBColor,
    dark: &'static str,
}

const TEXT: ThemeColor = ThemeColor { light: RGBColor(0x49, 0x55, 0x62), dark: "#a9b5c1" };
const GRID: ThemeColor = ThemeColor { light: RGBColor(0xdd, 0xe2, 0xe8), dark: "#303a45" };
/// The colours of lines, in order. They can be distinguished with colour blindness (after Okabe and Ito) and are readable on
/// both pages.
const SERIES: [ThemeColor; 8] = [
    ThemeColor { light: RGBColor(0x00, 0x6d, 0xb0), dark: "#5fb4ee" },
    ThemeColor { light: RGBColor(0xd5, 0x5e, 0x00), dark: "#ff9150" },
    ThemeColor { light: RGBColor(0x00, 0x8a, 0x66), dark: "#3fcfa5" },
    ThemeColor { light: RGBColor(0xb0, 0x4a, 0x8b), dark: "#e591c4" },
    ThemeColor { light: RGBColor(0x8a, 0x6d, 0x00), dark: "#e3c339" },
    ThemeColor { light: RGBColor(0x5b, 0x4b, 0xc4), dark: "#a99cff" },
    ThemeColor { light: RGBColor(0x3d, 0x47, 0x52), dark: "#c9d2db" },
    ThemeColor { light: RGBColor(0xa3, 0x20, 0x2e), dark: "#ff8088" },
];

/// The colour of line `n` on a light page, in CSS.
pub(super) fn color(n: usize) -> String {
    hex(SERIES[n % SERIES.len()].light)
}

fn hex(RGBColor(r, g, b): RGBColor) -> String {
    // In upper case as in the output of plotters, because attribute selectors compare strings.
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// The style sheet of plots (class `plot`) and of legends (class `legend`, entries with `data-color`).
pub(super) fn style() -> String {
    let (mut light_page, mut dark_page) = (String::new(), String::new());
    for color in SERIES.iter().chain([&TEXT, &GRID]) {
        let (light, dark) = (hex(color.light), color.dark);
        // Writing to a string cannot fail.
        let _ = write!(light_page, ".legend [data-color=\"{light}\"]{{background:{light}}}");
        let _ = write!(
            dark_page,
            ".plot [stroke=\"{light}\"]{{stroke:{dark}}}.plot [fill=\"{light}\"]{{fill:{dark}}}\
             .legend [data-color=\"{light}\"]{{background:{dark}}}"
        );
    }
    format!("{light_page}@media screen and (prefers-color-scheme:dark){{{dark_page}}}")
}

/// A line of a plot.
#[derive(Clone, Debug, Default)]
pub(super) struct PlotLine {
    pub name: String,
    /// The index of the colour: see [`color`].
    pub color: usize,
    /// `(x, y)`, with ascending `x`.
    pub points: Vec<(f64, f64)>,
    /// `(x, lowest, highest)`, drawn as a band around the line.
    pub band: Vec<(f64, f64, f64)>,
}

/// A plot of lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Plot {
    pub lines: Vec<PlotLine>,
    /// Vertical lines: the epochs at which phases begin, and their names.
    pub marks: Vec<(f64, String)>,
    /// The y axis begins at zero.
    pub from_zero: bool,
    /// The largest possible value of y, such as 1 for shares. The axis does not exceed it.
    pub to: Option<f64>,
    /// The y axis extends at least to this value, so that several plots have the same scale.
    pub at_least: Option<f64>,
    pub labels: AxisLabels,
    pub across: XAxis,
}

/// The quantity on the x axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum XAxis {
    #[default]
    Epochs,
    /// Decimal logarithms of learning rates.
    Rates,
}

/// The format of the numbers on the y axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AxisLabels {
    #[default]
    Plain,
    /// Shares (0 to 1), as per cent.
    Percent,
    /// `2e-3`
    Scientific,
}

/// The size of a plot in a page, twice the displayed size.
const PAGE: (u32, u32) = (960, 560);
/// The size of a sparkline, twice the displayed size.
const SPARKLINE: (u32, u32) = (280, 72);
const FONT: f64 = 34.0;
/// plotters divides font sizes by this factor when it writes SVG.
const EM: f64 = 1.24;

fn failed(error: impl std::fmt::Display) -> ReportError {
    ReportError::Plot(error.to_string())
}

fn font(size: f64) -> TextStyle<'static> {
    ("sans-serif", size * EM).into_font().color(&TEXT.light)
}

type SvgArea<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Plot {
    /// The plot for a page: transparent, without title and legend.
    pub fn inline(&self) -> Result<String, ReportError> {
        let svg = draw(PAGE, |area| {
            let mut chart = self.chart(&area)?;
            self.marks(&mut chart)?;
            self.lines(&mut chart)
        })?;
        Ok(embedded(&svg, PAGE))
    }

    /// The plot as a sparkline, without axes.
    pub fn sparkline(&self) -> Result<String, ReportError> {
        let svg = draw(SPARKLINE, |area| {
            let (x, y) = self.ranges();
            let mut chart = ChartBuilder::on(&area).margin(8).build_cartesian_2d(x, y).map_err(failed)?;
            self.lines(&mut chart)
        })?;
        Ok(embedded(&svg, SPARKLINE))
    }

    /// The plot for an SVG file: white, with a title, and with a legend beside the plot.
    pub fn standalone(&self, title: &str) -> Result<String, ReportError> {
        const PLOT: u32 = 1200;
        const HEIGHT: u32 = 860;
        // A single line needs no legend.
        let named = if self.lines.len() > 1 { &self.lines[..] } else { &[] };
        let longest = named.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
        // The width of the text is not known. The factor is the average of a wide font.
        let legend = if named.is_empty() { 0 } else { 110 + (longest as f64 * 0.56 * FONT) as u32 };
        draw((PLOT + legend, HEIGHT), |area| {
            area.fill(&WHITE).map_err(failed)?;
            let area = area.margin(24, 16, 16, 0).titled(title, font(40.0)).map_err(failed)?;
            let (left, right) = area.split_horizontally(PLOT);
            let mut chart = self.chart(&left)?;
            self.lines(&mut chart)?;
            for (n, line) in named.iter().enumerate() {
                let y = 50 + n as i32 * 56;
                let style = ShapeStyle::from(&SERIES[line.color % SERIES.len()].light).stroke_width(10);
                right.draw(&PathElement::new([(10, y), (56, y)], style)).map_err(failed)?;
                let style = font(FONT).pos(Pos::new(HPos::Left, VPos::Center));
                right.draw(&Text::new(line.name.clone(), (72, y), style)).map_err(failed)?;
            }
            Ok(())
        })
    }

    /// The ranges of the axes.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let bands = self.lines.iter().flat_map(|line| line.band.iter().flat_map(|&(_, low, high)| [low, high]));
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            let finite = values.filter(|value| value.is_finite());
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let (first, last) = bounds(&mut points().map(|(x, _)| x));
        let (mut low, mut high) = bounds(&mut points().map(|(_, y)| y).chain(bands));
        if first > last {
            return (0.0..1.0, 0.0..1.0);
        }
        if self.from_zero {
            low = low.min(0.0);
        }
        high = self.at_least.map_or(high, |least| high.max(least));
        let margin = if high > low { 0.06 * (high - low) } else { 0.1 * high.abs().max(1e-3) };
        high += margin;
        low = if self.from_zero { low } else { low - margin };
        if let Some(most) = self.to {
            high = high.min(most);
        }
        // A single epoch needs an axis of positive length.
        let x = if last > first { first..last } else { first - 0.5..last + 0.5 };
        (x, low..high)
    }

    /// Draws the axes.
    fn chart<'a, 'b>(&self, area: &'a SvgArea<'b>) -> Result<Chart<'a, 'b>, ReportError> {
        let (x, y) = self.ranges();
        let height = y.end - y.start;
        let write_y = |value: &f64| match self.labels {
            AxisLabels::Percent if height < 0.04 => format!("{:.1} %", 100.0 * value),
            AxisLabels::Percent => format!("{:.0} %", 100.0 * value),
            AxisLabels::Scientific => scientific(*value),
            AxisLabels::Plain if height < 0.05 => format!("{value:.3}"),
            AxisLabels::Plain if height < 0.7 => format!("{value:.2}"),
            AxisLabels::Plain => format!("{value:.1}"),
        };
        let write_x = |value: &f64| match self.across {
            // plotters labels fractions of epochs in a plot of few epochs.
            XAxis::Epochs if value.fract() != 0.0 => String::new(),
            XAxis::Epochs => format!("{value:.0}"),
            XAxis::Rates => scientific(10f64.powf(*value)),
        };
        let x_name = match self.across {
            XAxis::Epochs => "epoch",
            XAxis::Rates => "learning rate",
        };
        let mut chart = ChartBuilder::on(area)
            .margin_top(if self.marks.is_empty() { 24 } else { 84 })
            .margin_right(28)
            .x_label_area_size(100)
            .y_label_area_size(132)
            .build_cartesian_2d(x, y)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(9)
            .y_labels(6)
            .max_light_lines(0)
            .bold_line_style(ShapeStyle::from(&GRID.light).stroke_width(2))
            .axis_style(ShapeStyle::from(&GRID.light).stroke_width(2))
            .label_style(font(FONT))
            .x_label_formatter(&write_x)
            .y_label_formatter(&write_y)
            .x_desc(x_name)
            .axis_desc_style(font(FONT))
            .draw()
            .map_err(failed)?;
        Ok(chart)
    }

    fn lines(&self, chart: &mut Chart<'_, '_>) -> Result<(), ReportError> {
        for line in &self.lines {
            let color = SERIES[line.color % SERIES.len()].light;
            if line.band.len() > 1 {
                let there = line.band.iter().map(|&(x, low, _)| (x, low));
                let back = line.band.iter().rev().map(|&(x, _, high)| (x, high));
                let band = Polygon::new(there.chain(back).collect::<Vec<_>>(), color.mix(0.15));
                chart.draw_series([band]).map_err(failed)?;
            }
        }
        for line in &self.lines {
            let style = ShapeStyle::from(&SERIES[line.color % SERIES.len()].light).stroke_width(4);
            let mut points = line.points.iter().copied().filter(|(_, y)| y.is_finite());
            chart.draw_series(LineSeries::new(points.clone(), style)).map_err(failed)?;
            // The last point is marked. A single epoch has no other mark.
            let last = points.next_back().map(|point| Circle::new(point, 7, style.filled()));
            chart.draw_series(last).map_err(failed)?;
        }
        Ok(())
    }

    fn marks(&self, chart: &mut Chart<'_, '_>) -> Result<(), ReportError> {
        let (across, y) = self.ranges();
        for (n, (x, name)) in self.marks.iter().enumerate() {
            let line = [(*x, y.start), (*x, y.end)];
            let style = ShapeStyle::from(&TEXT.light).stroke_width(2);
            chart.draw_series(DashedLineSeries::new(line, 6, 8, style)).map_err(failed)?;
            // The names alternate between two rows, because phases may be short.
            let above = if n % 2 == 0 { -4 } else { -38 };
            // In the right half, the name is on the left of the line, so that it stays within the plot.
            let side = if *x > (across.start + across.end) / 2.0 { HPos::Right } else { HPos::Left };
            let style = font(30.0).pos(Pos::new(side, VPos::Bottom));
            let name = EmptyElement::at((*x, y.end)) + Text::new(name.clone(), (0, above), style);
            chart.draw_series([name]).map_err(failed)?;
        }
        Ok(())
    }
}

/// The plot of accuracy by confidence: a bar for each bin, and the diagonal of perfect calibration.
pub(super) fn calibration(scores: &CalibrationScores) -> Result<String, ReportError> {
    let svg = draw(PAGE, |area| {
        let percent = |value: &f64| format!("{:.0} %", 100.0 * value);
        let mut chart = ChartBuilder::on(&area)
            .margin_top(24)
            .margin_right(64)
            .x_label_area_size(100)
            .y_label_area_size(132)
            .build_cartesian_2d(0.0..1.0, 0.0..1.0)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(6)
            .y_labels(6)
            .max_light_lines(0)
            .bold_line_style(ShapeStyle::from(&GRID.light).stroke_width(2))
            .axis_style(ShapeStyle::from(&GRID.light).stroke_width(2))
            .label_style(font(FONT))
            .axis_desc_style(font(FONT))
            .x_label_formatter(&percent)
            .y_label_formatter(&percent)
            .x_desc("confidence")
            .draw()
            .map_err(failed)?;
        let gap = 0.003;
        let bars =
            scores.bins.iter().filter(|bin| bin.pixels > 0).map(|bin| {
                Rectangle::new([(bin.from + gap, 0.0), (bin.to - gap, bin.accuracy)], SERIES[0].light.filled())
            });
        chart.draw_series(bars).map_err(failed)?;
        let style = ShapeStyle::from(&SERIES[1].light).stroke_width(4);
        chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], style)).map_err(failed)?;
        Ok(())
    })?;
    Ok(embedded(&svg, PAGE))
}

fn draw(size: (u32, u32), content: impl FnOnce(SvgArea<'_>) -> Result<(), ReportError>) -> Result<String, ReportError> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    content(area.clone())?;
    area.present().map_err(failed)?;
    drop(area);
    Ok(svg)
}

/// An SVG for a page: without a size, so that the page scales it, and hidden from screen readers, because the element around it
/// has a description.
fn embedded(svg: &str, (width, height): (u32, u32)) -> String {
    let head = format!("<svg width=\"{width}\" height=\"{height}\"");
    svg.replacen(&head, "<svg aria-hidden=\"true\" class=\"plot\"", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)]) -> Plot {
        let line = PlotLine { name: "a < b".into(), points: points.to_vec(), ..Default::default() };
        Plot { lines: vec![line], ..Default::default() }
    }

    #[test]
    fn runs_of_any_length_are_drawn() {
        for points in [&[][..], &[(1.0, 0.5)], &[(1.0, 0.5), (2.0, f64::NAN)], &[(1.0, 0.0), (2.0, 0.0)]] {
            let svg = plot(points).inline().unwrap();
            assert!(svg.starts_with("<svg aria-hidden") && svg.trim_end().ends_with("</svg>"), "{points:?}");
            plot(points).sparkline().unwrap();
        }
    }

    #[test]
    fn names_of_phases_stay_within_the_plot() {
        let anchor = |x: f64| {
            let marks = vec![(x, "finetune".to_owned())];
            let svg = Plot { marks, ..plot(&[(1.0, 0.5), (4.0, 0.6)]) }.inline().unwrap();
            let text = svg.split("<text").find(|text| text.contains("finetune")).unwrap().to_owned();
            text.split("text-anchor=\"").nth(1).map_or("start", |rest| rest.split('"').next().unwrap()).to_owned()
        };
        assert_eq!((anchor(2.0).as_str(), anchor(4.0).as_str()), ("start", "end"));
    }

    #[test]
    fn an_axis_of_learning_rates_has_labels_of_rates() {
        let svg = super::super::curve("Loss", "loss", vec![(-5.0, 1.0), (-3.0, 0.5), (-1.0, 2.0)]).unwrap();
        assert!(svg.contains("learning rate") && svg.contains("1e-3") && !svg.contains("epoch"));
    }

    #[test]
    fn names_are_escaped_and_the_style_sheet_has_the_colours_of_the_lines() {
        let mut plot = plot(&[(1.0, 0.2), (2.0, 0.4)]);
        plot.lines.push(plot.lines[0].clone());
        let svg = plot.standalone("x & y").unwrap();
        assert!(svg.contains("a &lt; b") && svg.contains("x &amp; y") && !svg.contains("a < b"));
        assert!(svg.contains(&format!("stroke=\"{}\"", color(0))));
        assert!(style().contains(&format!("[stroke=\"{}\"]", color(0))));
    }
}
