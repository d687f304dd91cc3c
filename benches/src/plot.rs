//! Figures become pictures, drawn by gnuplot.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::case::Group;
use crate::figures::Figures;

const BEGIN: &str = "set terminal svg size 860,480 dynamic background rgb 'white' font 'sans-serif,13'\n\
                     set style fill solid 0.9 noborder\nset boxwidth 0.7\nset grid ytics lc rgb '#dddddd'\n\
                     set border 3\nset tics nomirror out\nset yrange [0:*]\nset key top left reverse Left\n\
                     set xtics rotate by -25\nset rmargin 8\n";

/// Writes `NAME-cpu.svg`, `NAME-latency.svg` and `NAME-batches.svg`, as far as they were measured; gives the files' names.
pub fn plot(figures: &[Figures], dir: &Path, name: &str) -> io::Result<Vec<String>> {
    let peers: Vec<&Figures> = figures.iter().filter(|it| it.case.group == Group::Peers).collect();
    let single = peers.iter().filter(|it| it.case.peer.batch.is_none());
    let cpu = single.clone().map(|it| row(it.case.peer.name, &[it.typical.worker, it.typical.redis]));
    let latency = single.filter_map(|it| Some(row(it.case.peer.name, &it.typical.latency?)));
    let batches = peers.iter().filter_map(|it| Some((it.case.peer.batch?, it)));
    let batches = batches.map(|(batch, it)| row(&batch.to_string(), &[it.typical.worker, it.typical.redis]));
    let stacked = "set style data histogram\nset style histogram rowstacked\nset ylabel 'CPU of an event, us'\n";
    let stacked_plot =
        "plot $data using 2:xtic(1) title 'nginx worker' lc rgb '#2f6fb0', '' using 3 title 'Redis' lc rgb '#d98a3d'\n";
    let clustered = "set style data histogram\nset style histogram clustered gap 1\nset ylabel 'answer at half load, us'\nset logscale y\nset yrange [10:*]\n";
    let clustered_plot = "plot $data using 2:xtic(1) title 'p50' lc rgb '#9dbfe0', '' using 3 title 'p99' lc rgb '#2f6fb0', '' using 4 title 'p99.9' lc rgb '#143a61'\n";
    let mut files = Vec::new();
    for (kind, rows, settings, plot) in [
        ("cpu", cpu.collect::<String>(), stacked.to_owned(), stacked_plot),
        ("latency", latency.collect(), clustered.to_owned(), clustered_plot),
        (
            "batches",
            batches.collect(),
            format!("{stacked}set xlabel 'events in a request'\nset xtics norotate\n"),
            stacked_plot,
        ),
    ] {
        if rows.lines().count() < 2 {
            continue;
        }
        let file = format!("{name}-{kind}.svg");
        draw(&dir.join(&file), &format!("{BEGIN}{settings}$data << END\n{rows}END\n"), plot)?;
        files.push(file);
    }
    Ok(files)
}

fn row(name: &str, values: &[f64]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    format!("{name} {}\n", values.join(" "))
}

fn draw(file: &Path, settings: &str, plot: &str) -> io::Result<()> {
    let mut gnuplot = Command::new("gnuplot").stdin(Stdio::piped()).stdout(fs::File::create(file)?).spawn()?;
    if let Some(mut input) = gnuplot.stdin.take() {
        input.write_all(format!("{settings}{plot}").as_bytes())?;
    }
    match gnuplot.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("gnuplot could not draw {}", file.display()))),
    }
}
