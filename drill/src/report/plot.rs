//! The picture: bars or dots against their limits, as SVG.

use super::{Plot, Row, page::escape};

const WIDTH: f64 = 900.0;
/// Left of the axis: room for numbers, or for names of so many times this.
const NUMBERS: f64 = 60.0;
const LETTER: f64 = 7.6;
/// Room for the number behind a bar.
const VALUE: f64 = 48.0;

pub fn svg<'a>(rows: impl Iterator<Item = &'a Row>, plot: Plot) -> String {
    let points: Vec<Point> = rows.filter_map(Point::of).collect();
    // A value that was not measured has no place; a limit far above all values would only make them flat.
    let highest = points.iter().map(|point| point.value).fold(0.0, f64::max);
    let limits = points.iter().map(|point| point.limit).filter(|&limit| limit < 3.0 * highest);
    let top = limits.fold(highest, f64::max).max(f64::MIN_POSITIVE) * 1.05;
    match plot {
        Plot::Bars { title, unit } => bars(&points, top, title, unit),
        Plot::Dots { title, unit } => dots(&points, top, title, unit),
    }
}

struct Point<'a> {
    name: &'a str,
    value: f64,
    limit: f64,
    class: &'static str,
}

impl<'a> Point<'a> {
    fn of(row: &'a Row) -> Option<Self> {
        let (value, limit) = row.point.filter(|(value, _)| value.is_finite())?;
        let class = if row.misses.is_empty() { "good" } else { "bad" };
        Some(Self { name: &row.name, value, limit, class })
    }
}

fn bars(points: &[Point], top: f64, title: &str, unit: &str) -> String {
    const ROW: f64 = 22.0;
    let height = 56.0 + ROW * points.len() as f64;
    let longest = points.iter().map(|point| point.name.chars().count()).max().unwrap_or(0);
    let names = (longest as f64 * LETTER + 8.0).min(WIDTH / 2.0);
    let x = |value: f64| names + value / top * (WIDTH - names - 60.0);
    let mut picture = open(height, title, unit, points.iter().any(|point| point.limit <= top));
    for tick in ticks(top) {
        let at = x(tick);
        picture += &format!("<line class=grid x1={at} x2={at} y1=30 y2={}></line>", height - 20.0);
        picture += &format!("<text class=soft x={at} y={} text-anchor=middle>{tick}</text>", height - 5.0);
    }
    for (row, point) in points.iter().enumerate() {
        let y = 32.0 + ROW * row as f64;
        let (name, Point { value, limit, class, .. }) = (escape(point.name), point);
        picture += &format!("<text x={} y={} text-anchor=end>{name}</text>", names - 8.0, y + 14.0);
        picture += &format!(
            "<rect class={class} x={names} y={} width={} height=14></rect>",
            y + 3.0,
            x(*value) - names
        );
        let (end, mut number) = (x(*value), x(*value) + 5.0);
        if *limit <= top {
            let at = x(*limit);
            picture += &format!("<line class=limit x1={at} x2={at} y1={y} y2={}></line>", y + 20.0);
            // Not across the mark.
            number = if (end..end + VALUE).contains(&at) { at + 5.0 } else { number };
        }
        picture += &format!("<text class=soft x={number} y={}>{value:.2}</text>", y + 14.0);
    }
    picture + "</svg>"
}

fn dots(points: &[Point], top: f64, title: &str, unit: &str) -> String {
    const HEIGHT: f64 = 320.0;
    let y = |value: f64| HEIGHT - 20.0 - value / top * (HEIGHT - 60.0);
    let step = (WIDTH - NUMBERS - 20.0) / points.len().max(1) as f64;
    let mut picture = open(HEIGHT, title, unit, points.iter().any(|point| point.limit <= top));
    picture +=
        &format!("<text class=soft x={NUMBERS} y={}>one dot each, in their order</text>", HEIGHT - 4.0);
    for tick in ticks(top) {
        let at = y(tick);
        picture += &format!("<line class=grid x1={NUMBERS} x2={WIDTH} y1={at} y2={at}></line>");
        picture +=
            &format!("<text class=soft x={} y={} text-anchor=end>{tick}</text>", NUMBERS - 8.0, at + 4.0);
    }
    for (number, Point { name, value, limit, class }) in points.iter().enumerate() {
        let (from, name) = (NUMBERS + step * number as f64, escape(name));
        let (middle, to) = (from + step / 2.0, from + step);
        picture += &format!("<circle class={class} cx={middle} cy={} r=3.5>", y(*value));
        picture += &format!("<title>{name}: {value:.2} {unit}</title></circle>");
        if *limit <= top {
            let at = y(*limit);
            picture += &format!("<line class=limit x1={from} x2={to} y1={at} y2={at}></line>");
        }
    }
    picture + "</svg>"
}

fn open(height: f64, title: &str, unit: &str, limits: bool) -> String {
    let legend = if limits { "upright or level marks: limits" } else { "" };
    format!(
        "<svg viewBox='0 0 {WIDTH} {height}' width={WIDTH} role=img><title>{title}</title>\
         <text x=0 y=16 font-weight=600>{title}, {unit}</text>\
         <text class=soft x={WIDTH} y=16 text-anchor=end>{legend}</text>",
        title = escape(title)
    )
}

/// Round numbers from 0 to `top`, at most ten.
fn ticks(top: f64) -> Vec<f64> {
    let step = 10_f64.powf((top / 10.0).log10().ceil());
    let step = [step / 5.0, step / 2.0, step].into_iter().find(|step| top / step <= 10.0).unwrap_or(step);
    (0..=10).map(|n| (f64::from(n) * step * 1e6).round() / 1e6).take_while(|tick| *tick <= top).collect()
}
