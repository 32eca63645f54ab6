//! The plots, as SVG, from the records.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::prelude::*;

use crate::records::Records;
use crate::rows::UNLIKE;

/// One bar for each function of a group.
const BARS: &[(&str, &str)] = &[
    ("resident/random", "random lookup of 1 Mi pages, ns"),
    ("resident/churn", "random lookup beside a churning writer, ns"),
    ("resident/mix", "95 lookups to 5 changes, two threads, ns"),
    ("missing/one", "missing fault, processor time, ns"),
    ("missing/scattered", "missing fault in bursts of 64, processor time, ns"),
    ("blocking/two_cores", "blocking fault across processors, ns"),
    ("supply/512", "supply, 512 pages a call, ns a page"),
    ("dirty/enumerate_few", "enumerate 64 dirty pages of 1 Mi, ns a page"),
    ("memory/dense", "metadata of 1 Mi resident pages, bytes a page"),
];

/// One line for each function, over the numbers that the names of the groups end in.
const LINES: &[(&str, &str)] = &[
    ("detach/in_flight_", "detach by requests in flight, ns a request"),
    ("port/all_", "take by ready VMOs, ns a packet"),
    ("missing/join_", "faults that wait for one page, ns a faulter"),
];

const OURS: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const FLOOR: RGBColor = RGBColor(0x9a, 0x9a, 0x9a);
const PEER: RGBColor = RGBColor(0xd9, 0x8a, 0x3d);

fn colour(function: &str) -> RGBColor {
    match function {
        _ if function.starts_with("upager") => OURS,
        _ if function.starts_with("flat") || function == "futex" || UNLIKE.contains(&function) => FLOOR,
        _ => PEER,
    }
}

fn file_name(group: &str) -> String {
    format!("{}.svg", group.replace('/', "-").trim_end_matches('_'))
}

/// Makes all plots for which there are records. Returns the file and the title of each.
pub(crate) fn all(records: &Records, folder: &Path) -> Result<Vec<(String, &'static str)>, Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    let mut made = Vec::new();
    for (group, title) in BARS {
        let bars = bars_of(records, group);
        if !bars.is_empty() {
            let name = file_name(group);
            bar_plot(&folder.join(&name), title, &bars)?;
            made.push((name, *title));
        }
    }
    for (prefix, title) in LINES {
        let lines = lines_of(records, prefix);
        if !lines.is_empty() {
            let name = file_name(prefix);
            line_plot(&folder.join(&name), title, &lines)?;
            made.push((name, *title));
        }
    }
    Ok(made)
}

/// Function and figure, the longest bar first.
fn bars_of(records: &Records, group: &str) -> Vec<(String, f64)> {
    let figure = |function: &str| Some((function.to_owned(), records.figure(group, function)?.median));
    let mut bars: Vec<_> = records.functions(group).filter_map(figure).collect();
    bars.sort_by(|a, b| b.1.total_cmp(&a.1));
    bars
}

fn bar_plot(file: &Path, title: &str, bars: &[(String, f64)]) -> Result<(), Box<dyn Error>> {
    let height = 70 + 26 * u32::try_from(bars.len())?;
    let root = SVGBackend::new(file, (760, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let least = bars.iter().map(|bar| bar.1).fold(most, f64::min) / 2.0;
    let end = i32::try_from(bars.len())?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(190)
        .build_cartesian_2d((least..most * 2.5).log_scale(), (0..end).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(nth) => {
            usize::try_from(*nth).ok().and_then(|nth| bars.get(nth)).map_or(String::new(), |bar| bar.0.clone())
        }
        _ => String::new(),
    };
    chart.configure_mesh().disable_y_mesh().y_labels(bars.len()).y_label_formatter(&name).draw()?;
    chart.draw_series((0..end).zip(bars).map(|(nth, (function, figure))| {
        let (from, to) = (SegmentValue::Exact(nth), SegmentValue::Exact(nth + 1));
        let mut bar = Rectangle::new([(least, from), (*figure, to)], colour(function).filled());
        bar.set_margin(4, 4, 0, 0);
        bar
    }))?;
    chart.draw_series((0..end).zip(bars).map(|(nth, (_, figure))| {
        let text = crate::page::three_digits(*figure);
        Text::new(text, (*figure * 1.06, SegmentValue::CenterOf(nth)), ("sans-serif", 12).into_font())
    }))?;
    root.present()?;
    Ok(())
}

type Line = (String, Vec<(f64, f64)>);

fn lines_of(records: &Records, prefix: &str) -> Vec<Line> {
    let mut numbers: Vec<(f64, &str)> =
        records.groups().filter_map(|group| Some((group.strip_prefix(prefix)?.parse().ok()?, group))).collect();
    numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut functions: Vec<&str> = numbers.iter().flat_map(|(_, group)| records.functions(group)).collect();
    functions.sort_unstable();
    functions.dedup();
    let points = |function: &str| {
        let point = |(number, group): &(f64, &str)| Some((*number, records.figure(group, function)?.median));
        (function.to_owned(), numbers.iter().filter_map(point).collect())
    };
    functions.into_iter().map(points).collect()
}

fn line_plot(file: &Path, title: &str, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (760, 380)).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || lines.iter().flat_map(|line| &line.1);
    let (most_x, most_y) = points().fold((1.0, 0.0), |most: (f64, f64), at| (most.0.max(at.0), most.1.max(at.1)));
    let least_y = points().map(|at| at.1).fold(most_y, f64::min);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d((1.0..most_x * 1.2).log_scale(), (least_y / 1.5..most_y * 1.5).log_scale())?;
    chart.configure_mesh().draw()?;
    let shades = [PEER, RGBColor(0x6b, 0x8e, 0x4e), RGBColor(0x8c, 0x56, 0x7b)];
    let mut peers = shades.iter().cycle();
    for (function, points) in lines {
        let colour = if colour(function) == OURS { OURS } else { *peers.next().unwrap_or(&PEER) };
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(function)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, colour.filled())))?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(FLOOR).draw()?;
    root.present()?;
    Ok(())
}
