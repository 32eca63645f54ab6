//! `upager top`: looks at the figures that another program posts.

use std::io::{self, IsTerminal, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Gauge, Paragraph, Row, Table};

use crate::args::TopArgs;
use crate::failure::Failure;
use crate::watch::figures::Figures;

/// How long a program may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks once.
pub(crate) fn look(path: &Path) -> Result<Figures, Failure> {
    let refused = |source| Failure::Socket { doing: "look at", path: path.to_owned(), source };
    let mut socket = UnixStream::connect(path).map_err(refused)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(refused)?;
    let mut text = String::new();
    socket.read_to_string(&mut text).map_err(refused)?;
    serde_json::from_str(&text).map_err(|_| refused(io::Error::other("it does not post figures of upager")))
}

pub(crate) fn top(args: &TopArgs) -> Result<(), Failure> {
    let figures = look(&args.figures)?;
    if args.json {
        crate::print(&serde_json::to_string_pretty(&figures).unwrap_or_default(), &[]);
    } else if args.prometheus {
        crate::print(figures.prometheus().trim_end(), &[]);
    } else if args.once || !io::stdout().is_terminal() {
        crate::print(&table(&View::new(&figures, None)), &[]);
    } else {
        live(args, figures)?;
    }
    Ok(())
}

/// Shows them until somebody wants no more.
fn live(args: &TopArgs, mut figures: Figures) -> Result<(), Failure> {
    let refused = |source| Failure::Terminal { source };
    let mut terminal = ratatui::try_init().map_err(refused)?;
    let mut taken = Instant::now();
    let mut view = View::new(&figures, None);
    let ended = 'shown: loop {
        if let Err(source) = terminal.draw(|frame| draw(frame, &view)) {
            break Err(refused(source));
        }
        let next = taken + args.interval;
        while Instant::now() < next {
            match event::poll(next.saturating_duration_since(Instant::now()))
                .and_then(|any| any.then(event::read).transpose())
            {
                Ok(Some(Event::Key(key))) => {
                    let interrupted = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    if interrupted || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                        break 'shown Ok(());
                    }
                }
                Ok(Some(Event::Resize(..))) => break, // it is drawn anew
                Ok(_) => {}
                Err(source) => break 'shown Err(refused(source)),
            }
        }
        match look(&args.figures) {
            Ok(now) => {
                view = View::new(&now, Some((&figures, taken.elapsed())));
                figures = now;
            }
            Err(failure) => view.gone = Some(failure.to_string()),
        }
        taken = Instant::now();
    };
    ratatui::restore();
    ended
}

/// What is shown, in words.
struct View {
    title: String,
    /// A name, the total or the level, and the rate.
    counts: Vec<[String; 3]>,
    vmos: Vec<[String; 8]>,
    latencies: Vec<[String; 6]>,
    /// Of all VMOs: in memory, and the size.
    resident: (u64, u64),
    /// The program does not answer any more.
    gone: Option<String>,
}

impl View {
    #[expect(clippy::cast_precision_loss, reason = "rates are shown, and not counted on")]
    fn new(now: &Figures, before: Option<(&Figures, Duration)>) -> Self {
        let rate = |name: &str, total: u64| {
            before.map_or(String::new(), |(before, time)| {
                let since = total.saturating_sub(before.totals.get(name).copied().unwrap_or_default());
                format!("{:.0}/s", since as f64 / time.as_secs_f64())
            })
        };
        let words = |name: &str| name.replace('_', " ");
        let totals =
            now.totals.iter().map(|(name, total)| [words(name), HumanCount(*total).to_string(), rate(name, *total)]);
        let levels =
            now.levels.iter().map(|(name, level)| [words(name), HumanCount(*level).to_string(), String::new()]);
        let bytes = |bytes| BinaryBytes(bytes).to_string();
        let vmos = now.vmos.iter().map(|vmo| {
            let rate = before.map_or(String::new(), |(before, time)| {
                let then = before.vmos.iter().find(|then| then.key == vmo.key).map_or(0, |then| then.requests);
                format!("{:.0}/s", vmo.requests.saturating_sub(then) as f64 / time.as_secs_f64())
            });
            let (in_flight, requests) = (HumanCount(vmo.in_flight).to_string(), HumanCount(vmo.requests).to_string());
            let evictions = HumanCount(vmo.evictions).to_string();
            [
                vmo.key.to_string(),
                bytes(vmo.size),
                bytes(vmo.resident_bytes),
                bytes(vmo.dirty_bytes),
                in_flight,
                requests,
                rate,
                evictions,
            ]
        });
        let us = |us: f64| if us >= 10_000.0 { format!("{:.1} ms", us / 1000.0) } else { format!("{us:.1} us") };
        let latencies = now.latencies.iter().map(|of| {
            let count = HumanCount(of.count).to_string();
            [of.stage.clone(), count, us(of.median_us), us(of.p99_us), us(of.p999_us), us(of.longest_us)]
        });
        Self {
            title: format!("upager {}, {}, process {}, up {:.0} s", now.command, now.source, now.pid, now.up_s),
            counts: totals.chain(levels).collect(),
            vmos: vmos.collect(),
            latencies: latencies.collect(),
            resident: now
                .vmos
                .iter()
                .fold((0, 0), |(resident, size), vmo| (resident + vmo.resident_bytes, size + vmo.size)),
            gone: None,
        }
    }
}

const COUNTS: [&str; 3] = ["", "so far", "rate"];
const VMOS: [&str; 8] = ["VMO", "size", "resident", "dirty", "in flight", "requests", "rate", "evicted"];
const LATENCIES: [&str; 6] = ["stage", "count", "median", "99 %", "99.9 %", "longest"];

/// For a terminal that is none, and for `--once`.
fn table(view: &View) -> String {
    fn part<const N: usize>(text: &mut String, heads: [&str; N], rows: &[[String; N]]) {
        if rows.is_empty() {
            return;
        }
        let width = |n: usize| rows.iter().map(|row| row[n].len()).chain([heads[n].len()]).max().unwrap_or(0);
        let mut line = |cells: [&str; N]| {
            let cells: Vec<_> =
                cells.iter().enumerate().map(|(n, cell)| format!("{cell:<width$}", width = width(n))).collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        };
        line(heads);
        for row in rows {
            line(std::array::from_fn(|n| row[n].as_str()));
        }
        text.push('\n');
    }
    let mut text = format!("{}\n\n", view.title);
    part(&mut text, COUNTS, &view.counts);
    part(&mut text, VMOS, &view.vmos);
    part(&mut text, LATENCIES, &view.latencies);
    text.trim_end().to_owned()
}

fn draw(frame: &mut Frame, view: &View) {
    fn part<'a, const N: usize>(title: &'a str, heads: [&'a str; N], rows: &'a [[String; N]]) -> Table<'a> {
        let rows = rows.iter().map(|row| Row::new(row.iter().map(|cell| Cell::from(cell.as_str()))));
        let heads = Row::new(heads).style(Style::new().add_modifier(Modifier::DIM));
        let mut widths = vec![Constraint::Min(12)];
        widths.resize(N, Constraint::Length(12));
        Table::new(rows, widths).header(heads).block(Block::bordered().title(title))
    }
    #[expect(clippy::cast_possible_truncation, reason = "rows on a screen")]
    let height = |rows: usize| Constraint::Length(rows as u16 + 3);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length((view.resident.1 > 0).into()),
        height(view.counts.len()),
        if view.vmos.is_empty() { Constraint::Length(0) } else { Constraint::Min(4) },
        height(view.latencies.len()),
        Constraint::Length(1),
    ]);
    let [title, resident, counts, vmos, latencies, foot] = areas.areas(frame.area());
    frame.render_widget(Line::from(view.title.as_str()).style(Style::new().add_modifier(Modifier::BOLD)), title);
    if view.resident.1 > 0 {
        #[expect(clippy::cast_precision_loss, reason = "a bar on a screen")]
        let share = view.resident.0 as f64 / view.resident.1 as f64;
        let label = format!("{} of {} in memory", BinaryBytes(view.resident.0), BinaryBytes(view.resident.1));
        frame.render_widget(Gauge::default().ratio(share.clamp(0.0, 1.0)).label(label), resident);
    }
    frame.render_widget(part("counted", COUNTS, &view.counts), counts);
    frame.render_widget(part("VMOs", VMOS, &view.vmos), vmos);
    frame.render_widget(part("latencies", LATENCIES, &view.latencies), latencies);
    let foot_text = view.gone.as_deref().unwrap_or("q: quit");
    frame.render_widget(Paragraph::new(foot_text), foot);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::figures::{LatencyFigures, VmoFigures};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn figures(read: u64) -> Figures {
        Figures {
            command: "attach".into(),
            totals: [("pages_read".to_owned(), read)].into(),
            vmos: vec![VmoFigures {
                key: 3,
                size: 1 << 20,
                resident_bytes: 1 << 19,
                requests: read,
                ..VmoFigures::default()
            }],
            latencies: vec![LatencyFigures {
                stage: "fault".into(),
                count: 9,
                median_us: 12.5,
                p99_us: 20_000.0,
                ..LatencyFigures::default()
            }],
            ..Figures::default()
        }
    }

    #[test]
    fn rates_are_what_was_added_by_the_time() {
        let view = View::new(&figures(300), Some((&figures(100), Duration::from_secs(2))));
        assert_eq!(view.counts, [["pages read", "300", "100/s"]]);
        assert_eq!((view.vmos[0][6].as_str(), view.resident), ("100/s", (1 << 19, 1 << 20)));
        let text = table(&view);
        assert!(text.contains("512.00 KiB") && text.contains("12.5 us") && text.contains("20.0 ms"), "{text}");
    }

    #[test]
    fn it_is_drawn_also_on_a_small_screen_and_when_the_program_is_gone() {
        for (width, height) in [(100, 30), (20, 5), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            let mut view = View::new(&figures(1), None);
            view.gone = Some("it is gone".into());
            terminal.draw(|frame| draw(frame, &view)).unwrap();
            if width == 100 {
                let shown = format!("{}", terminal.backend());
                assert!(
                    ["pages read", "512.00 KiB", "fault", "it is gone"].iter().all(|text| shown.contains(text)),
                    "{shown}"
                );
            }
        }
    }
}
