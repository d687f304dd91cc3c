use std::io::Read;
use std::num::NonZeroU16;
use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::record::{self, Command, HEADER, Marker};
use super::super::{Part, Reader};
use super::*;

fn folder() -> TempDir {
    TempDir::new().unwrap()
}

fn encoded(marker: Marker, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let command = Command { bytes: text.as_bytes(), replies: NonZeroU16::MIN };
    record::encode(marker, 1, "", [command].into_iter(), &mut out).unwrap();
    out
}

/// The commands in a file.
fn texts(mut file: fs::File, mut reader: Reader) -> Vec<String> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    reader.push(&bytes);
    reader.end();
    let mut texts = Vec::new();
    while let Some(part) = reader.next() {
        match part {
            Part::Intact { record, .. } => texts.push(String::from_utf8(record.bytes().to_vec()).unwrap()),
            part => panic!("{part:?}"),
        }
    }
    texts
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn what_is_appended_is_read_back_in_order() {
    let dir = folder();
    let lane = Lane::create(dir.path()).unwrap();
    for number in [1, 10, 2] {
        let mut segment = Segment::create(&lane, number).unwrap();
        assert_eq!(segment.len(), HEADER as u64);
        for text in ["first", "second"] {
            segment.append(&encoded(segment.marker(), &format!("{number} {text}"))).unwrap();
        }
        segment.sync().unwrap();
        assert_eq!(segment.len(), fs::metadata(segment.path()).unwrap().len());
    }
    let segments = lane.segments().unwrap();
    assert_eq!(segments.iter().map(|segment| segment.name.number).collect::<Vec<_>>(), [1, 2, 10]);
    let (file, reader) = segments[1].open_at(0).unwrap();
    assert_eq!(texts(file, reader), ["2 first", "2 second"]);
    let second = (HEADER + encoded(Marker([0; 8]), "2 first").len()) as u64;
    let (file, reader) = segments[1].open_at(second).unwrap();
    assert_eq!(texts(file, reader), ["2 second"]);
    assert_eq!(usage(dir.path()).unwrap(), segments.iter().map(|segment| segment.length).sum::<u64>());
}

#[test]
fn only_the_owner_can_read_what_is_made() {
    let dir = folder();
    let spool = dir.path().join("spool");
    prepare(&spool, None).unwrap();
    let lane = Lane::create(&spool).unwrap();
    let segment = Segment::create(&lane, 1).unwrap();
    lane.write_cursor(&Cursor { segment: segment.name(), offset: 24, commands: 0 }).unwrap();
    let rejected = Rejected::open(&spool).unwrap();
    assert_eq!((mode(&spool), mode(lane.path())), (0o700, 0o700));
    for file in [segment.path(), rejected.path(), &lane.path().join("cursor")] {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
}

#[test]
fn preparing_a_folder_again_changes_nothing_but_its_owner() {
    let dir = folder();
    let spool = dir.path().join("spool");
    prepare(&spool, None).unwrap();
    fs::set_permissions(&spool, Permissions::from_mode(0o050)).unwrap();
    let root = fs::metadata(&spool).unwrap().uid() == 0;
    if root {
        prepare(&spool, Some(4711)).unwrap();
        assert_eq!(fs::metadata(&spool).unwrap().uid(), 4711);
    }
    prepare(&spool, None).unwrap();
    assert_eq!(mode(&spool), 0o750);
}

#[test]
fn a_folder_that_cannot_be_prepared_is_named() {
    let dir = folder();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(prepare(&file, None).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    let missing = dir.path().join("missing/spool");
    let error = prepare(&missing, None).unwrap_err().to_string();
    assert_eq!(error, format!("cannot create \"{}\": No such file or directory (os error 2)", missing.display()));
    assert!(Lane::create(&missing).is_err() && Lane::adopt(&missing).is_err() && usage(&missing).is_err());
}

#[test]
fn a_lane_is_adopted_once_its_owner_has_let_go_of_it() {
    let dir = folder();
    let lane = Lane::create(dir.path()).unwrap();
    let path = lane.path().to_path_buf();
    let adoption = Lane::adopt(dir.path()).unwrap();
    assert!(adoption.lanes.is_empty());
    assert_eq!(adoption.held, std::slice::from_ref(&path));
    assert!(Lane::is_held(&path).unwrap());

    drop(lane);
    assert!(!Lane::is_held(&path).unwrap());
    let first = Lane::adopt(dir.path()).unwrap();
    assert_eq!(first.lanes.iter().map(|lane| lane.path()).collect::<Vec<_>>(), [&path]);
    assert!(Lane::adopt(dir.path()).unwrap().lanes.is_empty(), "by one only");
}

#[test]
fn each_of_many_that_adopt_at_once_gets_lanes_of_its_own() {
    let dir = folder();
    for number in 0..50 {
        fs::create_dir(dir.path().join(format!("1764086400{number:03}-1"))).unwrap();
    }
    let adopt = || Lane::adopt(dir.path()).unwrap().lanes;
    let adopted: Vec<Lane> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(adopt)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut names: Vec<LaneName> = adopted.iter().map(Lane::name).collect();
    names.sort();
    names.dedup();
    assert_eq!((adopted.len(), names.len()), (50, 50));
}

#[test]
fn no_lane_is_lost_or_shared_while_some_remove_what_others_adopt() {
    let dir = folder();
    let work = || {
        for _ in 0..200 {
            let lane = Lane::create(dir.path()).unwrap();
            for lane in Lane::adopt(dir.path()).unwrap().lanes {
                assert!(lane.path().is_dir(), "owned, but removed by another");
                assert!(lane.remove_if_empty().unwrap());
            }
            assert!(lane.path().is_dir(), "removed by another");
            // Left to be adopted, or removed.
            if lane.name().unix_ms.is_multiple_of(2) {
                assert!(lane.remove_if_empty().unwrap());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    for lane in Lane::adopt(dir.path()).unwrap().lanes {
        assert!(lane.remove_if_empty().unwrap());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn lanes_come_in_the_order_of_their_making() {
    let dir = folder();
    let names = ["0999999999999-9", "1764086400123-7", "1764086400123-7-2", "1764086400123-7-10", "1764086400124-1"];
    for name in names.iter().rev() {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let adopted: Vec<String> =
        Lane::adopt(dir.path()).unwrap().lanes.iter().map(|lane| lane.name().to_string()).collect();
    assert_eq!(adopted, names);
    let (a, b) = (Lane::create(dir.path()).unwrap(), Lane::create(dir.path()).unwrap());
    assert!(a.name() < b.name());
}

#[test]
fn what_is_foreign_is_left_alone_and_told() {
    let dir = folder();
    let elsewhere = folder();
    let foreign =
        ["1764086400123", "1764086400123-x", "1764086400123-1-0", "01764086400123-1", "notes.txt", "lost+found"];
    for name in foreign {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("1764086400123-2"), "a file").unwrap();
    symlink(elsewhere.path(), dir.path().join("1764086400123-3")).unwrap();
    fs::write(dir.path().join(REJECTED), "").unwrap();
    let adoption = Lane::adopt(dir.path()).unwrap();
    assert!(adoption.lanes.is_empty() && adoption.failed.is_empty());
    assert_eq!(adoption.foreign.len(), foreign.len() + 2);

    let lane = Lane::create(dir.path()).unwrap();
    let segment = "00000001-0123456789abcdef.seg";
    let inside = [
        "1-0123456789abcdef.seg",
        "00000001-0123456789ABCDEF.seg",
        "00000001-12.seg",
        "99999999999-0123456789abcdef.seg",
        "core",
        "00000002-0123456789abcdef.seg.old",
    ];
    for name in inside {
        fs::write(lane.path().join(name), "foreign").unwrap();
    }
    fs::create_dir(lane.path().join("00000003-0123456789abcdef.seg")).unwrap();
    symlink(dir.path().join(REJECTED), lane.path().join("00000004-0123456789abcdef.seg")).unwrap();
    fs::write(lane.path().join(segment), "").unwrap();
    let contents = lane.contents().unwrap();
    assert_eq!(contents.segments.iter().map(|found| found.name.to_string()).collect::<Vec<_>>(), [segment]);
    assert_eq!(contents.foreign.len(), inside.len() + 2);
    assert!(!lane.remove_if_empty().unwrap());
}

#[test]
fn an_emptied_lane_is_removed_with_its_cursor() {
    let dir = folder();
    let lane = Lane::create(dir.path()).unwrap();
    let segment = Segment::create(&lane, 1).unwrap();
    lane.write_cursor(&Cursor { segment: segment.name(), offset: 24, commands: 0 }).unwrap();
    assert!(!lane.remove_if_empty().unwrap());
    for segment in lane.segments().unwrap() {
        lane.remove(&segment).unwrap();
        lane.remove(&segment).unwrap();
    }
    assert!(lane.remove_if_empty().unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_segment_is_kept_but_never_read_again() {
    let dir = folder();
    let lane = Lane::create(dir.path()).unwrap();
    Segment::create(&lane, 1).unwrap();
    let aside = lane.set_aside(&lane.segments().unwrap()[0]).unwrap();
    assert!(aside.is_file());
    let contents = lane.contents().unwrap();
    assert!(contents.segments.is_empty() && contents.foreign.is_empty());
    assert_eq!(contents.damaged, [aside]);
    assert!(!lane.remove_if_empty().unwrap());
    assert_eq!(usage(dir.path()).unwrap(), HEADER as u64);
}

#[test]
fn a_cursor_is_of_one_segment_only() {
    let dir = folder();
    let lane = Lane::create(dir.path()).unwrap();
    assert_eq!(lane.read_cursor().unwrap(), None);
    let segment = Segment::create(&lane, 7).unwrap().name();
    for commands in [0, 3] {
        let cursor = Cursor { segment, offset: 5_000_000_000, commands };
        lane.write_cursor(&cursor).unwrap();
        assert_eq!(lane.read_cursor().unwrap(), Some(cursor));
        assert_eq!(Cursor::within(Some(cursor), segment), (5_000_000_000, commands));
        let same_number = SegmentName { marker: Marker([0; 8]), ..segment };
        assert_eq!(Cursor::within(Some(cursor), same_number), (0, 0));
    }
}

#[test]
fn rejected_records_are_appended_behind_those_of_before() {
    let dir = folder();
    let path = dir.path().join(REJECTED);
    let (one, other) = (Rejected::open(dir.path()).unwrap(), Rejected::open(dir.path()).unwrap());
    assert_eq!(one.marker(), other.marker());
    for (file, text) in [(&one, "first"), (&other, "second"), (&one, "third")] {
        file.append(&encoded(file.marker(), text)).unwrap();
    }
    assert_eq!(texts(fs::File::open(&path).unwrap(), Reader::new(None)), ["first", "second", "third"]);
}

#[test]
fn what_stands_in_the_place_of_rejected_records_is_not_touched() {
    let dir = folder();
    let path = dir.path().join(REJECTED);
    fs::write(&path, "something else altogether").unwrap();
    assert_eq!(Rejected::open(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(fs::read(&path).unwrap(), b"something else altogether");
    fs::remove_file(&path).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    symlink(&elsewhere, &path).unwrap();
    assert!(Rejected::open(dir.path()).is_err());
    assert!(!elsewhere.exists());
}

#[test]
fn many_that_reject_at_once_lose_nothing() {
    let dir = folder();
    let work = || {
        let file = Rejected::open(dir.path()).unwrap();
        for _ in 0..100 {
            file.append(&encoded(file.marker(), "x")).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    let file = fs::File::open(dir.path().join(REJECTED)).unwrap();
    assert_eq!(texts(file, Reader::new(None)).len(), 400);
}

#[test]
fn two_segments_of_one_number_are_told_apart() {
    let dir = folder();
    let lane = Lane::create(dir.path()).unwrap();
    let (a, b) = (Segment::create(&lane, 1).unwrap(), Segment::create(&lane, 1).unwrap());
    assert_ne!(a.marker(), b.marker());
    assert_eq!(lane.segments().unwrap().len(), 2);
}

proptest! {
    #[test]
    fn a_torn_or_damaged_cursor_is_none(end in 0..36usize, at in 0..36usize, bit in 0..8u8, rubbish in prop::collection::vec(any::<u8>(), 0..60)) {
        let dir = folder();
        let lane = Lane::create(dir.path()).unwrap();
        let segment = SegmentName { number: 3, marker: Marker(*b"abcdefgh") };
        lane.write_cursor(&Cursor { segment, offset: 4711, commands: 2 }).unwrap();
        let path = lane.path().join("cursor");
        let intact = fs::read(&path).unwrap();
        let mut flipped = intact.clone();
        flipped[at] ^= 1 << bit;
        for bytes in [&intact[..end], &flipped, &rubbish] {
            fs::write(&path, bytes).unwrap();
            prop_assert_eq!(lane.read_cursor().unwrap(), None);
        }
    }
}
