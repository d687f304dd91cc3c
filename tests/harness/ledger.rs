//! The ledger finds what it is there to find.

use crate::common::ledger::{Answer, Counts, Entry, Promise, audit, event};

fn entry(id: u64, answer: Answer) -> Entry {
    Entry { id, connection: 0, answer }
}

fn audit_of(entries: &[Entry], stored: &[u64]) -> Result<Counts, String> {
    audit(entries, &stored.iter().map(|id| event(*id)).collect::<Vec<_>>(), &Promise::stored())
}

#[test]
fn an_audit_finds_every_broken_promise() {
    const ONCE: Answer = Answer::Status(204);
    for (answer, copies) in [(ONCE, 1), (Answer::Status(503), 0), (Answer::Status(504), 0), (Answer::Status(504), 1)] {
        let counts = audit_of(&[entry(1, answer)], &vec![1; copies]).expect("a promise that was kept");
        assert_eq!(counts.unclear_and_there, usize::from(answer == Answer::Status(504) && copies == 1));
    }
    for (answer, copies) in [
        (ONCE, 0),
        (ONCE, 2),
        (Answer::Status(422), 1),
        (Answer::Status(502), 1),
        (Answer::Status(503), 1),
        (Answer::Status(504), 2),
        (Answer::Cut, 2),
        (Answer::Left, 2),
        // No answer at all, and one that this location never gives.
        (Answer::Hung, 0),
        (Answer::Status(500), 0),
    ] {
        assert!(audit_of(&[entry(1, answer)], &vec![1; copies]).is_err(), "{answer:?}, {copies} times");
    }
    assert!(audit_of(&[entry(1, ONCE)], &[1, 2]).unwrap_err().contains("nobody sent"));
}

#[test]
fn an_audit_counts_duplicates_where_they_are_allowed() {
    let promise = Promise::stored().with(202..=202, 1..=9).with_unanswered(0..=9);
    let entries = [entry(1, Answer::Status(202)), entry(2, Answer::Cut)];
    let counts = audit(&entries, &[event(1), event(2), event(1), event(2)], &promise).expect("allowed");
    assert_eq!((counts.repeated, counts.promised(), counts.cut()), (2, 1, 1));
    assert!(audit(&entries, &[event(2)], &promise).is_err());
}

#[test]
fn an_audit_finds_a_wrong_order_and_a_changed_byte() {
    let entries = [entry(1, Answer::Status(204)), entry(2, Answer::Status(204))];
    assert!(audit_of(&entries, &[1, 2]).is_ok());
    assert!(audit_of(&entries, &[2, 1]).unwrap_err().contains("which was sent before it"));
    let in_any_order = Promise::stored().in_any_order();
    assert!(audit(&entries, &[event(2), event(1)], &in_any_order).is_ok());
    let mut changed = event(1);
    *changed.last_mut().unwrap() = b' ';
    assert!(audit(&entries[..1], &[changed], &Promise::stored()).unwrap_err().contains("not an event"));
}
