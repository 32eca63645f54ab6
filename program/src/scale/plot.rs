//! The plot: how many times as much is done, by the threads.

use std::path::Path;

use plotters::prelude::*;

const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1b, 0x6c, 0xa8),
    RGBColor(0xd9, 0x8a, 0x3d),
    RGBColor(0x6b, 0x8e, 0x4e),
    RGBColor(0x8c, 0x56, 0x7b),
    RGBColor(0xb5, 0x3f, 0x3f),
    RGBColor(0x3f, 0x9c, 0x9c),
];
const GREY: RGBColor = RGBColor(0x9a, 0x9a, 0x9a);

/// Each line has a name, and points: threads and speed-up.
///
/// Errors: what the system says of the file.
pub(crate) fn write(file: &Path, lines: &[(&str, Vec<(f64, f64)>)]) -> Result<(), String> {
    draw(file, lines).map_err(|error| error.to_string())
}

fn draw(file: &Path, lines: &[(&str, Vec<(f64, f64)>)]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| &line.1);
    let (fewest, most) =
        points().fold((f64::INFINITY, 1.0), |(least, most): (f64, f64), at| (least.min(at.0), most.max(at.0)));
    let top = points().map(|at| at.1).fold(most / fewest, f64::max);
    let bottom = points().map(|at| at.1).fold(1.0, f64::min);
    let root = SVGBackend::new(file, (760, 440)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("throughput by threads, times that of the fewest", ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d((fewest / 1.1..most * 1.1).log_scale(), (bottom / 1.2..top * 1.2).log_scale())?;
    chart.configure_mesh().x_desc("threads").draw()?;
    let ideal = [(fewest, 1.0), (most, most / fewest)];
    chart.draw_series(DashedLineSeries::new(ideal, 4, 4, GREY.stroke_width(1)))?.label("ideal").legend(swatch(GREY));
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(*name)
            .legend(swatch(*colour));
        chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, colour.filled())))?;
    }
    let place = SeriesLabelPosition::UpperLeft;
    chart.configure_series_labels().position(place).background_style(WHITE).border_style(GREY).draw()?;
    root.present()?;
    Ok(())
}

fn swatch(colour: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
}
