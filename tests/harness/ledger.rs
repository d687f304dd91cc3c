//! The ledger finds what it is there to find.

use crate::common::ledger::{Answer, Counts, Ends, Entry, Lost, Promise, audit, event};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

fn entry(id: u64, answer: Answer) -> Entry {
    Entry { id, connection: 0, answer, worker: None, at: UNIX_EPOCH }
}

fn audit_of(entries: &[Entry], stored: &[u64]) -> Result<Counts, String> {
    audit_by(&Promise::stored(), entries, stored)
}

fn audit_by(promise: &Promise, entries: &[Entry], stored: &[u64]) -> Result<Counts, String> {
    audit(entries, &events(stored), promise, &Ends::default())
}

fn events(ids: &[u64]) -> Vec<Vec<u8>> {
    ids.iter().map(|id| event(*id)).collect()
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
    let counts = audit_by(&promise, &entries, &[1, 2, 1, 2]).expect("allowed");
    assert_eq!((counts.repeated, counts.promised(), counts.cut()), (2, 1, 1));
    assert!(audit_by(&promise, &entries, &[2]).is_err());
}

#[test]
fn an_audit_finds_a_wrong_order_and_a_changed_byte() {
    let entries = [entry(1, Answer::Status(204)), entry(2, Answer::Status(204))];
    assert!(audit_of(&entries, &[1, 2]).is_ok());
    assert!(audit_of(&entries, &[2, 1]).unwrap_err().contains("which was sent before it"));
    assert!(audit_by(&Promise::stored().in_any_order(), &entries, &[2, 1]).is_ok());
    let mut changed = event(1);
    *changed.last_mut().unwrap() = b' ';
    let found = audit(&entries[..1], &[changed], &Promise::stored(), &Ends::default());
    assert!(found.unwrap_err().contains("not an event"));
}

#[test]
fn an_audit_finds_a_loss_that_no_worker_held() {
    let entries = [1, 2, 3, 4].map(|id| {
        let (worker, at) = (Some(if id < 4 { 10 } else { 11 }), UNIX_EPOCH + Duration::from_secs(id));
        Entry { worker, at, ..entry(id, Answer::Status(202)) }
    });
    let killed = |pid: i32| Ends { killed: BTreeMap::from([(pid, UNIX_EPOCH)]), ..Ends::default() };
    let told = |count: usize| {
        let log =
            format!("2026/01/31 12:00:00 [alert] 10#10: redis \"q\": {count} events that were accepted are lost: why");
        Ends::of(BTreeMap::new(), &log)
    };
    let lost = |promise: &Promise, stored: &[u64], ends: &Ends| {
        audit(&entries, &events(stored), promise, ends).map(|counts| counts.lost)
    };
    let queued = Promise::queued(2);
    let both = BTreeMap::from([(10, 2)]);
    assert_eq!(lost(&queued, &[3, 4], &killed(10)), Ok(Lost { killed: both.clone(), ..Lost::default() }));
    assert_eq!(lost(&queued.clone().unless_told(), &[3, 4], &told(2)), Ok(Lost { told: both, ..Lost::default() }));
    // By a worker that lives, by one that was killed and cannot have held so much, by one that told less, or should not have had to.
    let broken: [(Promise, &[u64], Ends); 6] = [
        (queued.clone(), &[1, 2, 3], killed(10)),
        (Promise::queued(1), &[3, 4], killed(10)),
        // Longer ago than it holds events.
        (Promise::queued(1), &[2, 3, 4], killed(10)),
        (Promise::spooled(), &[3, 4], killed(10)),
        (queued.clone().unless_told(), &[3, 4], told(1)),
        (queued, &[3, 4], told(2)),
    ];
    for (promise, stored, ends) in broken {
        let faults = lost(&promise, stored, &ends).expect_err("a loss");
        assert!(faults.contains(".000, is lost: its worker, 1"), "{faults}");
    }
}
