use super::*;
use proptest::prelude::*;

fn acknowledge(window: &mut Window<usize>) -> Option<usize> {
    let mut waiter = None;
    window.acknowledge(|command| waiter = Some(command.waiter));
    waiter
}

#[test]
fn entries_are_acknowledged_in_order_once_sent_whole() {
    let mut window = Window::default();
    window.push(b"aaa", 1, 1);
    window.push(b"bb", 3, 2);
    assert_eq!(acknowledge(&mut window), None, "nothing has been sent");
    window.mark_sent(4);
    assert_eq!((window.in_flight(), window.unsent()), (1, &b"b"[..]));
    assert_eq!(acknowledge(&mut window), Some(1));
    assert_eq!(acknowledge(&mut window), None, "the second is sent only in part");
    window.mark_sent(1);
    assert_eq!(window.due(), Some(3));
    window.acknowledge(|command| {
        assert_eq!((&command.bytes()[..], command.replies, command.waiter, command.sent), (&b"bb"[..], 3, 2, true));
    });
    assert!(window.is_empty());
    assert_eq!(window.len(), 0);
}

#[test]
fn what_is_kept_is_sent_again_from_its_beginning() {
    let mut window = Window::default();
    for (command, waiter) in [(b"aaa", 1), (b"bbb", 2), (b"ccc", 3), (b"ddd", 4)] {
        window.push(command, 1, waiter);
    }
    window.mark_sent(7);
    window.rewind();
    let mut seen = Vec::new();
    window.sift(|command| {
        seen.push((command.bytes().to_vec(), command.waiter, command.sent));
        command.waiter % 2 == 0
    });
    let expected = [(b"aaa", 1, true), (b"bbb", 2, true), (b"ccc", 3, false), (b"ddd", 4, false)];
    assert_eq!(seen, expected.map(|(bytes, waiter, sent)| (bytes.to_vec(), waiter, sent)));
    assert_eq!((window.in_flight(), window.unsent()), (0, &b"bbbddd"[..]));
}

#[test]
fn only_what_was_not_sent_at_all_can_be_taken_out() {
    let mut window = Window::default();
    for (command, waiter) in [(b"aa", 1), (b"bb", 2), (b"cc", 3), (b"dd", 4)] {
        window.push(command, 1, waiter);
    }
    window.mark_sent(3);
    window.sift_unsent(|command| command.waiter == 4);
    assert_eq!(window.waiters().collect::<Vec<_>>(), [(1, true), (2, true), (4, false)]);
    assert_eq!(window.unsent(), b"bdd");
}

#[test]
fn an_emptied_window_gives_a_large_buffer_back() {
    let mut window = Window::default();
    window.push(&vec![b'x'; 4 * KEEP], 1, 1);
    window.mark_sent(4 * KEEP);
    assert_eq!(acknowledge(&mut window), Some(1));
    assert!(window.bytes.capacity() <= KEEP);
}

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>),
    Send(usize),
    Reply,
    Lose(usize),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 1..3000).prop_map(Step::Push),
        4 => (0..5000usize).prop_map(Step::Send),
        3 => Just(Step::Reply),
        1 => (1..5usize).prop_map(Step::Lose),
        1 => (1..5usize).prop_map(Step::Remove),
    ]
}

proptest! {
    /// Against a plain list of (bytes, waiter, bytes sent): the same bytes go out, the same waiters come back.
    #[test]
    fn behaves_as_a_list_of_commands(steps in prop::collection::vec(step(), 1..200)) {
        let mut window = Window::default();
        let mut model: VecDeque<(Vec<u8>, usize, usize)> = VecDeque::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(bytes) => {
                    window.push(&bytes, 1, number);
                    model.push_back((bytes, number, 0));
                }
                Step::Send(count) => {
                    let mut left = count.min(window.unsent().len());
                    window.mark_sent(left);
                    for (bytes, _, sent) in &mut model {
                        let now = left.min(bytes.len() - *sent);
                        *sent += now;
                        left -= now;
                    }
                }
                Step::Reply => {
                    let whole = model.front().is_some_and(|(bytes, _, sent)| *sent == bytes.len());
                    let expected = if whole { model.pop_front() } else { None };
                    prop_assert_eq!(acknowledge(&mut window), expected.map(|(_, waiter, _)| waiter));
                }
                Step::Lose(nth) => {
                    window.rewind();
                    window.sift(|command| command.waiter % nth != 0 || !command.sent);
                    model.retain(|(bytes, waiter, sent)| waiter % nth != 0 || *sent < bytes.len());
                    model.iter_mut().for_each(|(_, _, sent)| *sent = 0);
                }
                Step::Remove(nth) => {
                    window.sift_unsent(|command| {
                        assert!(!command.sent);
                        command.waiter % nth != 0
                    });
                    model.retain(|(_, waiter, sent)| *sent > 0 || waiter % nth != 0);
                }
            }
            let unsent: Vec<u8> = model.iter().flat_map(|(bytes, _, sent)| bytes[*sent..].to_vec()).collect();
            prop_assert_eq!(window.unsent(), &unsent[..]);
            prop_assert_eq!(window.len(), model.iter().map(|(bytes, ..)| bytes.len()).sum::<usize>());
            prop_assert_eq!(window.in_flight(), model.iter().filter(|(bytes, _, sent)| *sent == bytes.len()).count());
            let touched = model.iter().map(|(_, waiter, sent)| (*waiter, *sent > 0));
            prop_assert!(window.waiters().eq(touched));
            prop_assert_eq!(window.due(), (window.in_flight() > 0).then_some(1));
        }
    }
}
