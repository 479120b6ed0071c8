//! Plots as SVG, in the colors of no theme: they stand on white and on black.

use std::fmt::Write;
use std::path::Path;

use crate::Failure;
use crate::engine::Kind;
use crate::measures::MEASURES;
use crate::report::Report;

/// Which measures get a plot of bars.
const BARS: &[&str] = &["size", "get_us", "zipf_us", "miss_us", "import_mb_s", "commit_8_per_s"];
/// The plot of two measures: where engines stand between size and speed.
const FRONTIER: (&str, &str) = ("size", "get_us");

const WIDTH: f64 = 640.0;
const BAR_HEIGHT: f64 = 26.0;
const LABEL_WIDTH: f64 = 150.0;
/// Room for the figure behind a bar.
const FIGURE_WIDTH: f64 = 80.0;
const TITLE_HEIGHT: f64 = 34.0;
const FRONTIER_HEIGHT: f64 = 400.0;
const MARGIN: f64 = 50.0;
const OURS: &str = "#d9480f";
const THEIRS: &str = "#748ca3";
const INK: &str = "#6b7280";

/// Writes all plots of `report` into `folder`.
pub fn write(report: &Report, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    for name in BARS {
        let Some(measure) = MEASURES.iter().find(|measure| measure.name == *name) else { continue };
        let mut values = values_of(report, name);
        values.sort_by(|a, b| a.1.total_cmp(&b.1));
        if measure.more_is_better {
            values.reverse();
        }
        if !values.is_empty() {
            let title = format!("{}: {}", report.data, measure.title);
            std::fs::write(folder.join(format!("{name}.svg")), bars(&title, &values))?;
        }
    }
    let (x, y) = (values_of(report, FRONTIER.0), values_of(report, FRONTIER.1));
    let points: Vec<(Kind, f64, f64)> = x
        .iter()
        .filter_map(|(kind, x)| Some((*kind, *x, y.iter().find(|(other, _)| other == kind)?.1)))
        .collect();
    if !points.is_empty() {
        let title = format!("{}: size after settling, MB, and warm random get, us", report.data);
        std::fs::write(folder.join("frontier.svg"), frontier(&title, &points))?;
    }
    Ok(())
}

fn values_of(report: &Report, name: &str) -> Vec<(Kind, f64)> {
    let engines = report.rounds.keys();
    engines.filter_map(|engine| Some((*engine, report.median(*engine, name)?))).collect()
}

fn bars(title: &str, values: &[(Kind, f64)]) -> String {
    let largest = values.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = String::new();
    let mut y = TITLE_HEIGHT;
    for (engine, value) in values {
        let length = value / largest * (WIDTH - LABEL_WIDTH - FIGURE_WIDTH);
        let (color, middle) = (color(*engine), y + BAR_HEIGHT * 0.66);
        text(&mut svg, LABEL_WIDTH - 8.0, middle, "end", &engine.name());
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            svg,
            "<rect x=\"{LABEL_WIDTH}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" \
             fill=\"{color}\"/>",
            y + 3.0,
            BAR_HEIGHT - 6.0
        );
        text(&mut svg, LABEL_WIDTH + length + 6.0, middle, "start", &crate::report::digits(*value));
        y += BAR_HEIGHT;
    }
    page(title, y + 8.0, &svg)
}

/// Both axes are logarithmic: a factor is as long everywhere.
fn frontier(title: &str, points: &[(Kind, f64, f64)]) -> String {
    let (x_of, y_of) = (
        scale(points.iter().map(|point| point.1), MARGIN, WIDTH - LABEL_WIDTH),
        scale(points.iter().map(|point| point.2), FRONTIER_HEIGHT - MARGIN, TITLE_HEIGHT + 20.0),
    );
    let mut svg = String::new();
    for (engine, size, time) in points {
        let (x, y) = (x_of(*size), y_of(*time));
        let color = color(*engine);
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{color}\"/>");
        let figures = format!(
            "{} {} MB, {} us",
            engine.name(),
            crate::report::digits(*size),
            crate::report::digits(*time)
        );
        text(&mut svg, x + 9.0, y + 4.0, "start", &figures);
    }
    text(&mut svg, MARGIN, FRONTIER_HEIGHT - 12.0, "start", "smaller is left, faster is down");
    page(title, FRONTIER_HEIGHT, &svg)
}

/// From a value to its place between `start` and `end`.
fn scale(values: impl Iterator<Item = f64> + Clone, start: f64, end: f64) -> impl Fn(f64) -> f64 {
    let low = values.clone().fold(f64::INFINITY, f64::min).max(f64::MIN_POSITIVE).ln();
    let high = values.fold(f64::MIN_POSITIVE, f64::max).ln();
    let span = (high - low).max(f64::MIN_POSITIVE);
    move |value| start + (value.max(f64::MIN_POSITIVE).ln() - low) / span * (end - start)
}

fn color(engine: Kind) -> &'static str {
    if engine == Kind::Zkv { OURS } else { THEIRS }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{INK}\">{words}</text>"
    );
}

fn page(title: &str, height: f64, content: &str) -> String {
    let mut heading = String::new();
    text(&mut heading, 8.0, 20.0, "start", title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n{heading}{content}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let svg = bars("a < b", &[(Kind::Zkv, 10.0), (Kind::Redb, 40.0)]);
        let full = WIDTH - LABEL_WIDTH - FIGURE_WIDTH;
        assert!(svg.contains(&format!("width=\"{full:.1}\"")), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\"", full / 4.0)), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains(OURS) && svg.contains(THEIRS), "{svg}");
    }

    #[test]
    fn the_frontier_takes_the_same_length_for_the_same_factor() {
        let place = scale([1.0, 10.0, 100.0].into_iter(), 0.0, 200.0);
        let places = [1.0, 10.0, 100.0].map(|value| place(value).round());
        assert_eq!(places, [0.0, 100.0, 200.0]);
        // One point alone has no span.
        let alone = scale([5.0].into_iter(), 0.0, 200.0);
        assert!(alone(5.0).is_finite());
    }
}
