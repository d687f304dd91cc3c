use proptest::prelude::*;

use super::*;
use crate::window::Command;

fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut command = redis::Cmd::new();
    command.arg(args);
    command.get_packed_command()
}

fn push(window: &mut Window<usize>, args: &[&str], waiter: usize) {
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    window.push(&encode(&args), 1, waiter);
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\r\\n", " ")
}

fn shown(command: Command<usize>) -> (usize, String) {
    (command.waiter, text(&command.bytes()))
}

fn acknowledge(window: &mut Window<usize>) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    window.acknowledge(|command| all.push(shown(command)));
    all
}

#[test]
fn neighbours_with_one_key_share_a_command_and_a_reply() {
    let mut window = Window::default();
    push(&mut window, &["SADD", "k", "0"], 0);
    push(&mut window, &["RPUSH", "k", "a"], 1);
    push(&mut window, &["RPUSH", "k", "bb"], 2);
    push(&mut window, &["RPUSH", "l", "c"], 3);
    push(&mut window, &["XADD", "s", "*", "e", "d"], 4);
    window.share();
    let expected =
        [&["SADD", "k", "0"][..], &["RPUSH", "k", "a", "bb"], &["RPUSH", "l", "c"], &["XADD", "s", "*", "e", "d"]];
    let expected: Vec<u8> =
        expected.iter().flat_map(|args| encode(&args.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>())).collect();
    assert_eq!(text(window.unsent()), text(&expected));
    window.mark_sent(window.unsent().len());
    assert_eq!((window.in_flight(), acknowledge(&mut window).len()), (5, 1));
    let both = [(1, "*3 $5 RPUSH $1 k $1 a ".to_string()), (2, "*3 $5 RPUSH $1 k $2 bb ".to_string())];
    assert_eq!(acknowledge(&mut window), both);
    assert_eq!((window.in_flight(), acknowledge(&mut window)[0].0, acknowledge(&mut window)[0].0), (2, 3, 4));
    assert!(window.is_empty());
}

#[test]
fn a_shared_command_that_was_sent_in_part_has_not_run_for_any() {
    let mut window = Window::default();
    for waiter in 0..3 {
        push(&mut window, &["LPUSH", "list", "value"], waiter);
    }
    window.share();
    window.mark_sent(window.unsent().len() - 1);
    assert_eq!((window.in_flight(), window.touched(), window.due()), (0, 3, None));
    window.rewind();
    let mut seen = Vec::new();
    window.sift(|command| {
        seen.push((command.waiter, command.sent));
        command.waiter != 1
    });
    assert_eq!(seen, [(0, false), (1, false), (2, false)]);
    let one = encode(&[b"LPUSH", b"list", b"value"]);
    assert_eq!(text(window.unsent()), text(&[&one[..], &one].concat()), "each for itself again");
    window.share();
    assert_eq!(text(window.unsent()), text(&encode(&[b"LPUSH", b"list", b"value", b"value"])));
}

#[test]
fn what_is_in_flight_is_left_alone() {
    let mut window = Window::default();
    push(&mut window, &["PFADD", "p", "a"], 0);
    window.share();
    window.mark_sent(3);
    push(&mut window, &["PFADD", "p", "b"], 1);
    push(&mut window, &["PFADD", "p", "c"], 2);
    window.share();
    let expected = [&encode(&[b"PFADD", b"p", b"a"])[3..], &encode(&[b"PFADD", b"p", b"b", b"c"])].concat();
    assert_eq!(text(window.unsent()), text(&expected));
}

#[test]
fn a_shared_command_has_bounds() {
    let mut window = Window::default();
    for waiter in 0..3 * MAX_ARGUMENTS {
        push(&mut window, &["RPUSH", "k", "v"], waiter);
    }
    let long = "v".repeat(MAX_BYTES / 3);
    for waiter in 0..4 {
        push(&mut window, &["RPUSH", "long", &long], waiter);
    }
    window.share();
    window.mark_sent(window.unsent().len());
    let mut counts = Vec::new();
    while window.due().is_some() {
        counts.push(acknowledge(&mut window).len());
    }
    assert_eq!(counts, [MAX_ARGUMENTS - FIXED, MAX_ARGUMENTS - FIXED, MAX_ARGUMENTS - FIXED, 6, 2, 2]);
}

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<Vec<u8>>, u32),
    Share,
    Send(usize),
    Reply,
    Lose(usize),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let value = || prop::collection::vec(any::<u8>(), 0..20);
    let key = || prop_oneof![Just(b"a".to_vec()), Just(b"key".to_vec())];
    let push = |name: &'static [u8], values: usize| {
        (key(), prop::collection::vec(value(), values))
            .prop_map(move |(key, values)| Step::Push([name.to_vec(), key].into_iter().chain(values).collect(), 1))
    };
    prop_oneof![
        6 => push(b"RPUSH", 1),
        4 => push(b"SADD", 2),
        1 => push(b"APPEND", 1),
        1 => (1..4u32).prop_map(|replies| Step::Push(vec![b"MULTI".to_vec()], replies)),
        5 => Just(Step::Share),
        5 => (0..300usize).prop_map(Step::Send),
        5 => Just(Step::Reply),
        1 => (1..5usize).prop_map(Step::Lose),
        1 => (1..5usize).prop_map(Step::Remove),
    ]
}

/// The commands that Redis would carry out, each as if it had come alone, and how many of them have one reply; takes
/// whole ones off the wire.
fn carry_out(wire: &mut Vec<u8>) -> Vec<(Vec<u8>, usize)> {
    let mut done = Vec::new();
    while let Some(args) = whole_command(wire) {
        let values = match &args[0][..] {
            b"RPUSH" => 1,
            b"SADD" => 2,
            _ => {
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                done.push((encode(&args), 1));
                continue;
            }
        };
        let together = args[2..].len() / values;
        done.extend(args[2..].chunks(values).map(|values| {
            let args = [&args[0], &args[1]].into_iter().chain(values).map(Vec::as_slice).collect::<Vec<_>>();
            (encode(&args), together)
        }));
    }
    done
}

fn whole_command(wire: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut at = 0;
    let number = |at: &mut usize| {
        let end = *at + wire.get(*at..)?.windows(2).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(&wire[*at + 1..end]).unwrap().parse::<usize>().unwrap();
        *at = end + 2;
        Some(number)
    };
    let count = number(&mut at)?;
    let mut args = Vec::new();
    for _ in 0..count {
        let length = number(&mut at)?;
        args.push(wire.get(at..at + length)?.to_vec());
        at += length + 2;
    }
    (at <= wire.len()).then(|| {
        wire.drain(..at);
        args
    })
}

proptest! {
    /// Whatever is shared, Redis carries out each command once, in order, and each comes back as it was put in.
    #[test]
    fn sharing_changes_nothing_but_the_number_of_replies(steps in prop::collection::vec(step(), 1..150)) {
        let mut window = Window::default();
        // Each command, who waits for it, and, once it was carried out, how many have its reply.
        let mut model: VecDeque<(Vec<u8>, usize, Option<usize>)> = VecDeque::new();
        let mut wire = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(args, replies) => {
                    let command = encode(&args.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    window.push(&command, replies, number);
                    model.push_back((command, number, None));
                }
                Step::Share => window.share(),
                Step::Send(count) => {
                    let count = count.min(window.unsent().len());
                    wire.extend_from_slice(&window.unsent()[..count]);
                    window.mark_sent(count);
                    for (command, together) in carry_out(&mut wire) {
                        let next = model.iter_mut().find(|(.., done)| done.is_none());
                        let (expected, _, done) = next.expect("nothing runs that was not asked for");
                        prop_assert_eq!(text(&command), text(expected));
                        *done = Some(together);
                    }
                }
                Step::Reply => {
                    let together = model.front().and_then(|(.., done)| *done).unwrap_or_default();
                    let expected = model.drain(..together).map(|(command, waiter, _)| (waiter, text(&command)));
                    prop_assert_eq!(acknowledge(&mut window), expected.collect::<Vec<_>>());
                }
                Step::Lose(nth) => {
                    window.rewind();
                    wire.clear();
                    let mut seen = Vec::new();
                    window.sift(|command| {
                        seen.push((text(&command.bytes()), command.waiter, command.sent));
                        command.waiter % nth != 0
                    });
                    let expected = model.iter().map(|(command, waiter, done)| (text(command), *waiter, done.is_some()));
                    prop_assert_eq!(seen, expected.collect::<Vec<_>>());
                    model.retain(|(_, waiter, _)| waiter % nth != 0);
                    model.iter_mut().for_each(|(.., done)| *done = None);
                }
                Step::Remove(nth) => {
                    let touched = window.touched();
                    let mut seen = Vec::new();
                    window.sift_unsent(|command| {
                        seen.push((text(&command.bytes()), command.waiter));
                        command.waiter % nth != 0
                    });
                    let expected = model.iter().skip(touched).map(|(command, waiter, _)| (text(command), *waiter));
                    prop_assert_eq!(seen, expected.collect::<Vec<_>>());
                    let mut index = 0;
                    model.retain(|(_, waiter, _)| {
                        index += 1;
                        index <= touched || waiter % nth != 0
                    });
                }
            }
            let done = model.iter().filter(|(.., done)| done.is_some()).count();
            prop_assert_eq!(window.in_flight(), done);
            prop_assert!(window.touched() >= done);
            prop_assert!(window.waiters().map(|(waiter, _)| waiter).eq(model.iter().map(|(_, waiter, _)| *waiter)));
        }
    }
}
