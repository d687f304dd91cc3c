use super::*;
use std::fs;

fn limits(dir: &tempfile::TempDir) -> Limits {
    Limits { dir: dir.path().into(), max_size: 1 << 20, segment: 1000 }
}

fn record(name: &str) -> Commands {
    let mut commands = Commands::new();
    commands.push(name.as_bytes(), 1);
    commands.push(b"second", 1);
    commands
}

fn append(disk: &mut Disk, names: std::ops::Range<usize>) {
    for name in names {
        disk.append(&[record(&format!("{name}"))], 1, false).unwrap();
    }
}

fn names(records: &[Kept]) -> Vec<String> {
    let first = |kept: &Kept| String::from_utf8(kept.commands.iter().next().unwrap().to_vec()).unwrap();
    records.iter().map(first).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn files(dir: &tempfile::TempDir) -> usize {
    fs::read_dir(dir.path()).unwrap().flatten().map(|lane| fs::read_dir(lane.path()).map_or(0, Iterator::count)).sum()
}

#[test]
fn records_come_out_in_order_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(limits(&dir));
    assert!(disk.is_empty());
    append(&mut disk, 0..100);
    assert!(files(&dir) >= 5, "several segments");
    let mut seen = Vec::new();
    append(&mut disk, 100..110);
    loop {
        let unread = disk.has_unread();
        let records = disk.read(100, usize::MAX);
        assert!(unread || records.is_empty());
        if records.is_empty() {
            break;
        }
        seen.extend(names(&records));
        records.iter().for_each(|record| disk.acknowledge(record.number));
    }
    assert_eq!(seen, numbers(0..110));
    assert!(disk.is_empty());
    append(&mut disk, 110..112);
    assert_eq!(names(&disk.read(1000, usize::MAX)), numbers(110..112));
    assert_eq!(disk.take_notes(), []);
    disk.close();
    drop(disk);
    assert_eq!(files(&dir), 2, "one segment, and the cursor");
}

#[test]
fn what_was_not_acknowledged_is_read_by_the_next_owner() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(limits(&dir));
    append(&mut disk, 0..50);
    let records = disk.read(usize::MAX, usize::MAX);
    records[..20].iter().for_each(|record| disk.acknowledge(record.number));
    // Out of turn: an older one is still out.
    disk.acknowledge(records[22].number);
    disk.acknowledge_part(records[20].number, 1);
    let mut other = Disk::new(limits(&dir));
    other.adopt();
    assert!(other.is_empty(), "its owner lives");
    disk.close();
    append(&mut other, 50..60);
    other.adopt();
    let records = other.read(usize::MAX, usize::MAX);
    assert_eq!(records[0].commands.iter().collect::<Vec<_>>(), [b"second"], "one of its commands is done with");
    let expected: Vec<String> = ["second".to_owned()].into_iter().chain(numbers(21..60)).collect();
    assert_eq!(names(&records), expected);
    records.iter().for_each(|record| other.acknowledge(record.number));
    assert!(other.is_empty());
    other.close();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_segment_is_kept_aside_and_what_is_intact_in_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(limits(&dir));
    append(&mut disk, 0..10);
    disk.close();
    drop(disk);
    let lane = fs::read_dir(dir.path()).unwrap().flatten().next().unwrap().path();
    let segment = fs::read_dir(&lane).unwrap().flatten().next().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[150] ^= 1;
    fs::write(&segment, bytes).unwrap();
    fs::write(lane.join("foreign"), "x").unwrap();
    let mut disk = Disk::new(limits(&dir));
    disk.adopt();
    let records = disk.read(usize::MAX, usize::MAX);
    assert_eq!(records.len(), 9);
    records.iter().for_each(|record| disk.acknowledge(record.number));
    let notes: Vec<String> = disk.take_notes().into_iter().map(|note| note.text).collect();
    let notes = notes.join("\n");
    assert!(notes.contains("are damaged and are skipped") && notes.contains("is kept as"), "{notes}");
    assert!(disk.is_empty());
}

#[test]
fn a_full_spool_takes_no_more_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(Limits { max_size: 2000, ..limits(&dir) });
    let taken = (0..100).take_while(|n| disk.append(&[record(&n.to_string())], 1, true).is_ok()).count();
    assert!((10..50).contains(&taken), "{taken}");
    let records = disk.read(usize::MAX, usize::MAX);
    assert_eq!(names(&records), numbers(0..taken));
    records.iter().for_each(|record| disk.acknowledge(record.number));
    append(&mut disk, 0..1);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(Limits { dir: dir.path().join("missing"), ..limits(&dir) });
    let error = disk.append(&[record("0")], 1, false).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    disk.adopt();
    assert_eq!(disk.take_notes().len(), 1);
}

#[test]
fn what_was_rejected_has_a_bounded_share_until_it_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(Limits { max_size: 16_000, ..limits(&dir) });
    let file = dir.path().join("rejected");
    let size = || fs::metadata(&file).unwrap().len();
    let reject = |disk: &mut Disk| disk.reject(&record("x"), 1, "WRONGTYPE no list");
    for _ in 0..2 {
        assert!((0..100).any(|_| reject(&mut disk).is_err()));
        let error = reject(&mut disk).unwrap_err().to_string();
        assert!(error.contains("has its share of max_size, 2000 bytes"), "{error}");
        assert!((1800..=2000).contains(&size()), "{}", size());
        fs::remove_file(&file).unwrap();
    }
    reject(&mut disk).unwrap();
    fs::rename(&file, dir.path().join("looked-at")).unwrap();
    reject(&mut disk).unwrap();
    assert!(size() < 200, "in a new file");
}
