//! Figures become tables, in Markdown that can be read on a terminal as well, and what was aimed at is held against them.

use crate::case::{Case, Group};
use crate::figures::Figures;
use crate::peer::RETURN;

/// A table for each group that something was measured of.
pub fn tables(figures: &[Figures]) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let of_group: Vec<&Figures> = figures.iter().filter(|it| it.case.group == group).collect();
        if of_group.is_empty() {
            continue;
        }
        let heading = match group {
            Group::Peers => "Side by side: 300-byte events, 64 connections",
            Group::Sizes => "Larger events, 64 connections",
            Group::Connections => "Fewer and more connections, 300-byte events",
            Group::Ways => "Other ways to Redis: 300-byte events, 64 clients",
            Group::Growth => "Growth: 300-byte events, 64 connections",
        };
        text +=
            &format!("## {heading}\n\n{}\n", table(&load_header(), of_group.iter().map(|it| load_row(it)).collect()));
        if group == Group::Peers {
            let rows = of_group.iter().filter_map(|it| latency_row(it)).collect::<Vec<_>>();
            if !rows.is_empty() {
                text += &format!("## How long an answer takes at half of that load\n\n{}\n", table(&LATENCY, rows));
            }
        }
    }
    text
}

fn load_header() -> [&'static str; 13] {
    [
        "",
        "requests/s",
        "x 204",
        "x Lua",
        "events/s",
        "worker us",
        "user",
        "x 204",
        "Redis us",
        "both x Lua",
        "commands/read",
        "MB before",
        "MB after",
    ]
}

fn load_row(figures: &Figures) -> Vec<String> {
    let it = &figures.typical;
    let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let is_base = figures.case.peer.name == RETURN;
    let redis = it.redis > 0.05;
    vec![
        figures.case.title(),
        format!("{:.0}", it.requests),
        ratio(figures.speed[0].filter(|_| !is_base)),
        ratio(figures.speed[1]),
        format!("{:.0}", it.events),
        format!("{:.2}", it.worker),
        format!("{:.0} %", it.user * 100.0),
        ratio(figures.worker.filter(|_| !is_base)),
        if redis { format!("{:.2}", it.redis) } else { String::new() },
        ratio(figures.both.filter(|_| redis)),
        if redis { format!("{:.1}", it.commands) } else { String::new() },
        format!("{:.1}", it.before / 1024.0),
        format!("{:.1}", it.after / 1024.0),
    ]
}

const LATENCY: [&str; 5] = ["", "requests/s", "p50 us", "p99 us", "p99.9 us"];

fn latency_row(figures: &Figures) -> Option<Vec<String>> {
    let latency = figures.typical.latency?;
    let mut row = vec![figures.case.title(), format!("{:.0}", figures.typical.requests / 2.0)];
    row.extend(latency.map(|time| format!("{time:.0}")));
    Some(row)
}

/// In Markdown, its columns as wide as they need.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
        cells.chain([header[column].len(), 2]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => format!("{:-<width$}", ""),
        _ => format!("{:->1$}", ":", width),
    });
    let rule = format!("| {} |\n", rule.collect::<Vec<_>>().join(" | "));
    let lines = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    line(header.to_vec()) + &rule + &lines.collect::<String>()
}

/// What is aimed at, what was measured, and whether that is met, as far as it was measured.
pub fn targets(figures: &[Figures]) -> String {
    let find = |name: &str| figures.iter().find(|it| it.case.group == Group::Peers && it.case.peer.name == name);
    let grown = |is: fn(&Case) -> bool| {
        let of_group = |it: &&Figures| it.case.group == Group::Growth;
        let grown = figures.iter().filter(of_group).find(|it| is(&it.case))?;
        let plain = figures.iter().filter(of_group).find(|it| it.case.locations == 0 && it.case.idle == 0)?;
        Some(grown.typical.worker / plain.typical.worker)
    };
    let worker = |name: &str| Some(find(name)?.typical.worker);
    let more = |name: &str, than: &str| Some(worker(name)? - worker(than)?);
    let p99 = |name: &str| Some(find(name)?.typical.latency?[1]);
    let at_most = |what: &str, limit: f64, found: Option<f64>| {
        found.map(|found| (what.to_owned(), format!("<= {limit:.2}"), found, found <= limit))
    };
    let at_least = |what: &str, limit: f64, found: Option<f64>| {
        found.map(|found| (what.to_owned(), format!(">= {limit:.2}"), found, found >= limit))
    };
    let all = [
        at_most("stored: worker CPU of an event, x return 204", 1.17, find("stored").and_then(|it| it.worker)),
        at_most("queued: worker CPU of an event, x return 204", 1.15, find("queued").and_then(|it| it.worker)),
        at_most("stored, XADD: worker + Redis CPU, x Lua", 1.0 / 3.0, find("stored").and_then(|it| it.both)),
        at_most("stored, RPUSH: worker + Redis CPU, x Lua", 1.0 / 3.6, find("stored-list").and_then(|it| it.both)),
        at_least("stored: requests/s, x return 204", 0.85, find("stored").and_then(|it| it.speed[0])),
        at_least("stored: requests/s, x Lua", 3.0, find("stored").and_then(|it| it.speed[1])),
        at_most("batches of 100: worker us an event", 1.0, worker("batch-100")),
        at_most("schema: worker us more an event", 1.0, more("schema", "stored")),
        at_most("four commands: worker us more an event", 2.0, more("counting", "stored")),
        at_most(
            "stored: p99 at half load, us more than return 204",
            300.0,
            p99("stored").zip(p99(RETURN)).map(|(a, b)| a - b),
        ),
        at_most(
            "batches of 1000 beside batches of 10: worker CPU of an event",
            1.0,
            worker("batch-1000").zip(worker("batch-10")).map(|(a, b)| a / b),
        ),
        at_most("1000 locations beside one: worker CPU", 1.05, grown(|case| case.locations > 0)),
        at_most("10,000 silent clients beside none: worker CPU", 1.05, grown(|case| case.idle > 0)),
    ];
    let rows: Vec<Vec<String>> = all
        .into_iter()
        .flatten()
        .map(|(what, limit, found, met)| {
            vec![what, limit, format!("{found:.2}"), if met { "met" } else { "missed" }.to_owned()]
        })
        .collect();
    if rows.is_empty() {
        String::new()
    } else {
        format!("## Targets\n\n{}\n", table(&["", "target", "measured", ""], rows))
    }
}
