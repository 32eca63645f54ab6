//! A heat map: one square for each pair, in SVG.

use maud::{Markup, html};

/// What a square shows.
pub(crate) enum Square {
    /// The colour goes by the number.
    Count(u64),
    /// There was nothing to explore.
    Skipped,
    Failed,
}

/// One square, and what it says when the pointer is on it.
pub(crate) struct Cell {
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) square: Square,
    pub(crate) says: String,
}

/// A map of squares with the same names at both sides.
pub(crate) struct Map<'a> {
    pub(crate) title: &'a str,
    pub(crate) rows: &'a [String],
    pub(crate) columns: &'a [String],
    pub(crate) cells: &'a [Cell],
    /// The colour of this number and above is the darkest.
    pub(crate) most: u64,
}

const SIDE: usize = 17;
/// Room for the names.
const LEFT: usize = 104;
const TOP: usize = 92;

/// From few to many, of even steps in lightness (ColorBrewer's YlGnBu).
const COLOURS: [&str; 8] = ["#edf8d9", "#d0edb8", "#9ed8bb", "#62c3c0", "#34a1c0", "#2171b2", "#25489d", "#14285f"];
const SKIPPED: &str = "#ececec";
const FAILED: &str = "#d7191c";

/// The colour of a number: each step is as many times more as the one before.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a colour of eight"
)]
fn colour(count: u64, most: u64) -> &'static str {
    let part = (count.max(1) as f64).ln() / (most.max(2) as f64).ln();
    COLOURS[((part * 7.0).round() as usize).min(7)]
}

impl Map<'_> {
    pub(crate) fn draw(&self) -> Markup {
        let width = LEFT + SIDE * self.columns.len() + 24;
        let height = TOP + SIDE * self.rows.len() + 6;
        html! {
            figure {
                figcaption { (self.title) }
                svg width=(width) height=(height) viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(self.title) {
                    @for (at, name) in self.rows.iter().enumerate() {
                        text x=(LEFT - 5) y=(TOP + SIDE * at + 12) text-anchor="end" { (name) }
                    }
                    @for (at, name) in self.columns.iter().enumerate() {
                        @let x = LEFT + SIDE * at + 11;
                        @let y = TOP - 5;
                        text x=(x) y=(y) transform=(format!("rotate(-52 {x} {y})")) { (name) }
                    }
                    @for cell in self.cells {
                        rect x=(LEFT + SIDE * cell.column) y=(TOP + SIDE * cell.row) width=(SIDE - 1) height=(SIDE - 1)
                            fill=(match cell.square {
                                Square::Count(count) => colour(count, self.most),
                                Square::Skipped => SKIPPED,
                                Square::Failed => FAILED,
                            }) {
                            title { (cell.says) }
                        }
                    }
                }
            }
        }
    }
}

/// What the colours mean, for maps with the same `most`.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a colour of eight"
)]
pub(crate) fn legend(what: &str, most: u64) -> Markup {
    let least_of = |step: usize| (most.max(2) as f64).powf((step as f64 - 0.5).max(0.0) / 7.0).ceil() as u64;
    html! {
        p.legend {
            (what) ": "
            @for (step, colour) in COLOURS.iter().enumerate() {
                span.swatch style=(format!("background:{colour}")) {} " " (crate::records::grouped(least_of(step)))
                @if step < 7 { " " } @else { " and more " }
            }
            span.swatch style=(format!("background:{SKIPPED}")) {} " nothing to explore (the reason is in the square) "
            span.swatch style=(format!("background:{FAILED}")) {} " failed"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{COLOURS, colour};

    #[test]
    fn colours_go_by_the_logarithm() {
        assert_eq!(colour(1, 10_000_000), COLOURS[0]);
        assert_eq!(colour(10_000_000, 10_000_000), COLOURS[7]);
        assert_eq!(colour(u64::MAX, 10), COLOURS[7]);
        assert_eq!(colour(1_000, 10_000_000), COLOURS[3]);
    }
}
