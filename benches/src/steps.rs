//! One of the pure steps, done so many times for the same event: what callgrind counts. `meteorit-steps STEP TIMES SCHEMA`.

mod event;

use std::convert::Infallible;
use std::env;
use std::hint::black_box;
use std::path::Path;

use ngx_http_meteorit_module::command::{Arg, Commands, KeyLimit, Source, Template};
use ngx_http_meteorit_module::event::{Limits, Tape};
use ngx_http_meteorit_module::reply::Parser;
use ngx_http_meteorit_module::schema::Schema;
use ngx_http_meteorit_module::window::Window;

/// A variable with this value.
struct Value;

impl Source<()> for Value {
    type Error = Infallible;

    fn value(&self, (): &()) -> Result<&[u8], Infallible> {
        Ok(b"01890a5d-ac96-774b-bcce-b302099a8057")
    }
}

fn main() {
    let args: Vec<String> = env::args().collect();
    let [_, step, times, schema] = &args[..] else { panic!("meteorit-steps STEP TIMES SCHEMA") };
    let times: usize = times.parse().expect("a number");
    let text = event::body(300, None);
    let text = text.as_bytes();
    let limits = Limits::default();
    let mut tape = Tape::new();
    match &step[..] {
        "validate" => {
            for _ in 0..times {
                black_box(tape.parse(black_box(text), &limits).is_ok());
            }
        }
        "fields" => {
            let event = tape.parse(text, &limits).expect("an event");
            for _ in 0..times {
                for name in [&b"page"[..], b"user", b"kind"] {
                    black_box(event.member(black_box(name)).and_then(|value| value.string()));
                }
            }
        }
        "schema" => {
            let schema = Schema::load(Path::new(schema)).expect("a schema");
            let event = tape.parse(text, &limits).expect("an event");
            for _ in 0..times {
                assert!(schema.is_valid(black_box(event)));
            }
        }
        "encode" => {
            let literal = |text: &str| Arg::Literal(text.into());
            let mut args: Vec<Arg<()>> = ["XADD", "events", "MAXLEN", "~", "100000", "*", "id"].map(literal).into();
            args.extend([Arg::Value(()), literal("event"), Arg::Event]);
            let template = Template::new(None, args);
            let mut commands = Commands::new();
            for _ in 0..times {
                commands.clear();
                black_box(template.encode(black_box(text), &Value, &KeyLimit::default(), &mut commands).is_ok());
            }
        }
        "window" => {
            let mut window = Window::default();
            for number in 0..times {
                window.push(black_box(text), 1, number);
                window.mark_sent(text.len());
                window.acknowledge(|command| {
                    black_box(command);
                });
            }
        }
        "reply" => {
            let mut parser = Parser::new();
            for _ in 0..times {
                black_box(parser.next(black_box(b"$15\r\n1763991123456-0\r\n")).is_ok());
            }
        }
        _ => panic!("no such step"),
    }
}
