//! Many rounds become one figure: medians, and ratios within a round, whose median is taken then.

use crate::case::Case;
use crate::measure::Sample;
use crate::peer::{LUA, LUA_LIST, RETURN};

/// A case with what each round gave.
pub struct Measured {
    pub case: Case,
    pub samples: Vec<Sample>,
}

/// The medians of a case.
pub struct Figures {
    pub case: Case,
    pub typical: Sample,
    /// Requests a second, beside `return 204` and beside the Lua layer.
    pub speed: [Option<f64>; 2],
    /// CPU of the worker for an event, beside `return 204`.
    pub worker: Option<f64>,
    /// CPU of worker and Redis for an event, beside the Lua layer that does the same.
    pub both: Option<f64>,
}

pub fn figures(measured: &[Measured]) -> Vec<Figures> {
    let of = |one: &Measured| {
        let lua = if one.case.peer.name.ends_with("list") { LUA_LIST } else { LUA };
        let ratio = |base: &str, value: fn(&Sample) -> f64| {
            let base = measured.iter().find(|it| it.case.peer.name == base && it.case.is_beside(&one.case))?;
            median(one.samples.iter().zip(&base.samples).map(|(one, base)| value(one) / value(base)))
        };
        Some(Figures {
            case: one.case,
            typical: typical(&one.samples)?,
            speed: [RETURN, lua].map(|base| ratio(base, |it| it.requests)),
            worker: ratio(RETURN, |it| it.worker),
            both: ratio(lua, |it| it.worker + it.redis),
        })
    };
    measured.iter().filter_map(of).collect()
}

/// Each figure's own median.
fn typical(samples: &[Sample]) -> Option<Sample> {
    let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
    let latency = |index: usize| median(samples.iter().filter_map(|it| Some(it.latency?[index])));
    Some(Sample {
        requests: of(|it| it.requests)?,
        events: of(|it| it.events)?,
        worker: of(|it| it.worker)?,
        user: of(|it| it.user)?,
        redis: of(|it| it.redis)?,
        commands: of(|it| it.commands)?,
        before: of(|it| it.before)?,
        after: of(|it| it.after)?,
        latency: (|| Some([latency(0)?, latency(1)?, latency(2)?]))(),
    })
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}
