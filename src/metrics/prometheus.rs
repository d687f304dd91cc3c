//! A reading as the text that Prometheus reads: its own format 0.0.4, or OpenMetrics 1.0. They differ in how a counter's
//! family is called, in `info`, and in the end.

use std::fmt::Write;

use super::BUCKETS;
use super::json::{Nanoseconds, Seconds};
use super::reading::{LocationReading, Reading, RedisReading, SpoolReading};
use crate::response::{Cause, Fate, Lack};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Version 0.0.4.
    Text,
    OpenMetrics,
}

pub fn render(reading: &Reading, format: Format) -> String {
    let Reading { meta, since, restarts, workers, locations, redis } = reading;
    let text = String::with_capacity(16 * 1024 + 8192 * locations.len());
    let mut out = Out { text, format };
    out.info(meta.nginx);
    out.family("meteorit_start_time_seconds", "gauge", "When counting began.");
    out.line("meteorit_start_time_seconds", "", &Seconds(*since));
    out.family("meteorit_workers", "gauge", "Workers that live, those on their way out included.");
    out.line("meteorit_workers", "", &workers.len());
    out.family("meteorit_worker_restarts_total", "counter", "Workers that came in place of one that had died.");
    out.line("meteorit_worker_restarts_total", "", restarts);
    out.locations(locations);
    out.redis(redis);
    let spools: Vec<(String, &SpoolReading)> =
        redis.iter().filter_map(|redis| Some((redis_label(redis), redis.spool.as_ref()?))).collect();
    out.spools(&spools);
    if format == Format::OpenMetrics {
        out.text.push_str("# EOF\n");
    }
    out.text
}

struct Out {
    text: String,
    format: Format,
}

/// A metric of which each thing has one number: its name, type, meaning, and where to look.
type Simple<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);

impl Out {
    fn info(&mut self, nginx: &str) {
        let kind = if self.format == Format::OpenMetrics { "info" } else { "gauge" };
        self.family("meteorit_info", kind, "Which module, in which nginx.");
        let labels = format!("version=\"{}\",nginx=\"{}\"", env!("CARGO_PKG_VERSION"), escape(nginx));
        self.line("meteorit_info", &labels, &1);
    }

    fn locations(&mut self, locations: &[LocationReading]) {
        let locations: Vec<(String, &LocationReading)> = locations.iter().map(|it| (location_labels(it), it)).collect();
        self.labelled("meteorit_requests_total", "Requests by what became of them.", &locations, |it, each| {
            Fate::ALL.iter().zip(it.requests).for_each(|(fate, count)| each("status", fate.name(), count));
        });
        self.labelled("meteorit_events_total", "Events by what became of them.", &locations, |it, each| {
            Fate::ALL.iter().zip(it.events).for_each(|(fate, count)| each("status", fate.name(), count));
        });
        self.labelled("meteorit_events_rejected_total", "Rejected events by cause.", &locations, |it, each| {
            Cause::ALL.iter().zip(it.rejected).for_each(|(cause, count)| each("cause", cause.name(), count));
        });
        self.labelled(
            "meteorit_events_unavailable_total",
            "Events that got a 503, by cause.",
            &locations,
            |it, each| {
                Lack::ALL.iter().zip(it.unavailable).for_each(|(lack, count)| each("cause", lack.name(), count));
            },
        );
        let simple: [Simple<LocationReading>; 4] = [
            ("meteorit_received_bytes_total", "counter", "Bytes of bodies and query strings.", |it| it.bytes_in),
            ("meteorit_batches_total", "counter", "Requests with a batch.", |it| it.batches),
            (
                "meteorit_schema_dry_run_failures_total",
                "counter",
                "Events that do not fit their schema and were taken.",
                |it| it.schema_dry_run,
            ),
            ("meteorit_clients_gone_total", "counter", "Requests whose client left before its answer.", |it| {
                it.clients_gone
            }),
        ];
        self.simple(&simple, &locations);
    }

    fn redis(&mut self, redis: &[RedisReading]) {
        let redis: Vec<(String, &RedisReading)> = redis.iter().map(|it| (redis_label(it), it)).collect();
        self.labelled("meteorit_redis_connections", "Connections by state.", &redis, |it, each| {
            each("state", "ready", it.connections.ready);
            each("state", "connecting", it.connections.connecting);
            each("state", "closed", it.connections.closed);
        });
        self.labelled("meteorit_redis_breaker", "Connections by the state of their breaker.", &redis, |it, each| {
            each("state", "closed", it.connections.sound());
            each("state", "open", it.connections.open);
            each("state", "half_open", it.connections.half_open);
        });
        let simple: [Simple<RedisReading>; 9] = [
            ("meteorit_redis_pending_events", "gauge", "Events that wait for Redis.", |it| it.pending_events),
            ("meteorit_redis_pending_bytes", "gauge", "Their commands, in bytes.", |it| it.pending_bytes),
            ("meteorit_redis_pending_events_limit", "gauge", "The max_pending of one worker.", |it| it.max_events),
            ("meteorit_redis_pending_bytes_limit", "gauge", "The backlog of one worker.", |it| it.max_bytes),
            ("meteorit_redis_commands_total", "counter", "Commands written.", |it| it.commands),
            ("meteorit_redis_writes_total", "counter", "Writes that took.", |it| it.writes),
            ("meteorit_redis_connects_total", "counter", "Connections made.", |it| it.connects),
            ("meteorit_redis_reconnects_total", "counter", "Those that followed on a failure.", |it| it.reconnects),
            ("meteorit_redis_failures_total", "counter", "Connections lost, and not made.", |it| it.failures),
        ];
        self.simple(&simple, &redis);
        const TRIP: &str = "meteorit_redis_round_trip_seconds";
        if !redis.is_empty() {
            self.family(TRIP, "histogram", "From a write to the reply to its last command.");
        }
        let (buckets, count, sum) = (format!("{TRIP}_bucket"), format!("{TRIP}_count"), format!("{TRIP}_sum"));
        for (label, it) in &redis {
            let mut total = 0;
            let ends = BUCKETS.iter().map(|(_, end)| *end).chain(["+Inf"]);
            for (end, trips) in ends.zip(it.trips) {
                total += trips;
                self.line(&buckets, &format!("{label},le=\"{end}\""), &total);
            }
            self.line(&sum, label, &Nanoseconds(it.trips_sum));
            self.line(&count, label, &total);
        }
    }

    fn spools(&mut self, spools: &[(String, &SpoolReading)]) {
        let simple: [Simple<SpoolReading>; 3] = [
            ("meteorit_spool_bytes", "gauge", "What the files use.", |it| it.bytes),
            ("meteorit_spool_max_bytes", "gauge", "What they may use.", |it| it.max_bytes),
            ("meteorit_spool_records", "gauge", "Records that wait to be replayed.", |it| it.records),
        ];
        self.simple(&simple, spools);
        if !spools.is_empty() {
            self.family("meteorit_spool_oldest_seconds", "gauge", "For how long the first of them waits.");
        }
        for (label, it) in spools {
            self.line("meteorit_spool_oldest_seconds", label, &Seconds(it.oldest));
        }
        let simple: [Simple<SpoolReading>; 5] = [
            ("meteorit_spool_written_total", "counter", "Records written.", |it| it.written),
            ("meteorit_spool_replayed_total", "counter", "Records done with.", |it| it.replayed),
            ("meteorit_spool_rejected_total", "counter", "Commands that Redis refused for good.", |it| it.rejected),
            ("meteorit_spool_damaged_total", "counter", "Places with damage.", |it| it.damaged),
            ("meteorit_spool_failed_total", "counter", "Events that were not written.", |it| it.failed),
        ];
        self.simple(&simple, spools);
    }

    /// A counter, or a gauge, with a label more.
    fn labelled<T>(
        &mut self,
        name: &str,
        help: &str,
        things: &[(String, &T)],
        values: impl Fn(&T, &mut dyn FnMut(&str, &str, u64)),
    ) {
        if !things.is_empty() {
            self.family(name, if name.ends_with("_total") { "counter" } else { "gauge" }, help);
        }
        for (labels, thing) in things {
            values(thing, &mut |label, value, count| {
                // Writing to a String cannot fail.
                let _ = writeln!(self.text, "{name}{{{labels},{label}=\"{value}\"}} {count}");
            });
        }
    }

    fn simple<T>(&mut self, metrics: &[Simple<T>], things: &[(String, &T)]) {
        for (name, kind, help, value) in metrics.iter().filter(|_| !things.is_empty()) {
            self.family(name, kind, help);
            for (labels, thing) in things {
                self.line(name, labels, &value(thing));
            }
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // In OpenMetrics the name of a family has no suffix.
        let name = match (self.format, kind) {
            (Format::OpenMetrics, "counter") => name.trim_end_matches("_total"),
            (Format::OpenMetrics, "info") => name.trim_end_matches("_info"),
            _ => name,
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: &dyn std::fmt::Display) {
        let _ = match labels {
            "" => writeln!(self.text, "{name} {value}"),
            labels => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }
}

fn location_labels(it: &LocationReading) -> String {
    let [server, location, redis] = [it.server, it.location, it.redis].map(escape);
    format!("server=\"{server}\",location=\"{location}\",redis=\"{redis}\"")
}

fn redis_label(it: &RedisReading) -> String {
    format!("redis=\"{}\"", escape(it.name))
}

/// As both formats want the value of a label.
fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_escaped() {
        assert_eq!(escape("a\\b\"c\nd"), r#"a\\b\"c\nd"#);
    }
}
