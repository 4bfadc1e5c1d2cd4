//! Writing, going on, rotation, and what `verify` finds.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::fs;
use std::time::Duration;

use bulla_journal::verify::verify;
use bulla_journal::{JournalError, Options, Sync, read_entries};
use common::{NAME, Place, event, lines, options, write, write_lines};

fn names(place: &Place) -> Vec<String> {
    read_entries(&place.log()).unwrap().into_iter().map(|entry| entry.event).collect()
}

#[test]
fn what_was_taken_is_there_in_order_and_verifies() {
    let place = Place::new();
    let journal = place.open(Options { version: Some("1.2.3"), ..options() });
    write(&journal, 0..100);
    assert!(place.verify().is_good(), "{:?}", place.verify());
    journal.close();
    let entries = read_entries(&place.log()).unwrap();
    assert_eq!(entries.len(), 102);
    assert_eq!(entries[0].event, "journal-opened");
    assert_eq!(entries[101].event, "journal-closed");
    assert_eq!(entries[101].fields["size"], 101);
    for (entry, n) in entries[1..].iter().zip(0..100) {
        assert_eq!(entry.event, event(n).name());
        assert_eq!(entry.seq, n + 1);
    }
    let report = place.verify();
    assert_eq!((report.records, report.signed, report.unsigned()), (102, 102, 0));
    assert_eq!(report.origin.as_deref(), Some("example.org/journal/test"));
}

#[test]
fn it_goes_on_where_it_was_and_has_one_writer() {
    let place = Place::new();
    for round in 0..5 {
        let journal = place.open(options());
        assert!(matches!(
            bulla_journal::Journal::open(&place.log(), place.key(), options()),
            Err(JournalError::Busy { .. })
        ));
        write(&journal, round * 10..round * 10 + 10);
        journal.close();
    }
    let report = place.verify();
    assert!(report.is_good() && report.records == 50, "{report:?}");
}

#[test]
fn another_key_does_not_go_on_with_it() {
    let place = Place::new();
    write(&place.open(options()), 0..3);
    fs::remove_file(place.dir.path().join("journal.key")).unwrap();
    let opened = bulla_journal::Journal::open(&place.log(), place.key(), options());
    assert!(matches!(opened, Err(JournalError::NoCheckpoint { .. })));
    let other = place.key();
    assert!(!verify(&place.log(), other.public(), None).is_good());
}

#[test]
fn files_follow_one_another_and_old_ones_go() {
    let place = Place::new();
    let small = Options { file_bytes: 4096, ..options() };
    let journal = place.open(small.clone());
    (0..10).for_each(|round| write(&journal, round * 20..round * 20 + 20));
    journal.close();
    let kept = place.files().len();
    assert!(kept > 3, "{kept}");
    assert!(place.verify().is_good() && place.verify().first == 0);

    let journal = place.open(Options { keep_files: 2, ..small.clone() });
    (0..3).for_each(|round| write(&journal, round * 20..round * 20 + 20));
    journal.close();
    assert_eq!(place.files().len(), 2);
    let report = place.verify();
    assert!(report.is_good() && report.first > 0, "{report:?}");
    assert!(names(&place).contains(&"journal-trimmed".to_owned()));

    // By age: whatever is not the present file is older than nothing.
    let journal = place.open(Options { keep_age: Some(Duration::ZERO), ..small });
    (0..2).for_each(|round| write(&journal, round * 20..round * 20 + 20));
    journal.close();
    assert_eq!(place.files().len(), 1);
    assert!(place.verify().is_good());

    // What goes without being let go is missed.
    let place = Place::new();
    let journal = place.open(Options { file_bytes: 4096, ..options() });
    (0..10).for_each(|round| write(&journal, round * 20..round * 20 + 20));
    journal.close();
    fs::remove_file(&place.files()[0]).unwrap();
    let finding = place.verify().finding.unwrap();
    assert!(finding.what.contains("not recorded that they were let go"), "{finding}");
}

#[test]
fn a_torn_end_is_cut_off_kept_and_recorded() {
    let place = Place::new();
    write(&place.open(options()), 0..10);
    let file = place.files().pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend_from_slice(b"{\"seq\":10,\"time\":\"20");
    fs::write(&file, &bytes).unwrap();
    assert!(place.verify().finding.unwrap().what.contains("torn"));
    write(&place.open(options()), 10..20);
    let report = place.verify();
    assert!(report.is_good() && report.records == 21, "{report:?}");
    let entries = read_entries(&place.log()).unwrap();
    let cut = entries.iter().find(|entry| entry.event == "journal-cut").unwrap();
    assert_eq!(cut.fields["bytes"], 20);
    let kept = place.log().join(cut.fields["kept"].as_str().unwrap());
    assert_eq!(fs::read(kept).unwrap(), b"{\"seq\":10,\"time\":\"20");
}

#[test]
fn records_without_a_checkpoint_are_taken_over_after_a_crash() {
    let place = Place::new();
    let journal = place.open(options());
    write(&journal, 0..10);
    // The process is gone: neither a checkpoint nor an end.
    let copy = Place::new();
    fs::create_dir(copy.log()).unwrap();
    for file in fs::read_dir(place.log()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.log().join(file.file_name())).unwrap();
    }
    fs::copy(place.dir.path().join("journal.key"), copy.dir.path().join("journal.key")).unwrap();
    let report = verify(&copy.log(), &place.public, None);
    assert!(report.is_good() && report.unsigned() == 10, "{report:?}");
    write(&copy.open(options()), 10..12);
    let report = verify(&copy.log(), &place.public, None);
    assert!(report.is_good() && report.records == 12 && report.unsigned() == 0, "{report:?}");
}

#[test]
fn checkpoints_come_by_number_and_by_time() {
    let place = Place::new();
    let journal = place.open(Options { checkpoint_records: 10, ..options() });
    (0..5).for_each(|round| write(&journal, round * 10..round * 10 + 10));
    let report = place.verify();
    assert!(report.is_good() && report.signed == 50, "{report:?}");
    journal.close();

    let journal = place.open(Options {
        checkpoint_every: Duration::from_millis(10),
        sync: Sync::Every(Duration::from_millis(10)),
        ..options()
    });
    write(&journal, 50..53);
    while place.verify().signed < 53 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_sort_of_tampering_is_found_and_told_where() {
    let fresh = || {
        let place = Place::new();
        let journal = place.open(Options { checkpoint_records: 10, file_bytes: 8192, ..options() });
        (0..12).for_each(|round| write(&journal, round * 10..round * 10 + 10));
        write(&journal, 120..125);
        journal.close();
        assert!(place.files().len() >= 3 && place.verify().is_good(), "{:?}", place.verify());
        place
    };
    let found = |place: &Place, wanted: &str| {
        let finding = place.verify().finding.unwrap_or_else(|| panic!("not found: {wanted}"));
        assert!(finding.to_string().contains(wanted), "{finding}");
        finding
    };

    let place = fresh();
    let file = &place.files()[1];
    let mut all = lines(file);
    let at = all[3].windows(6).position(|part| part == b"\"time\"").unwrap();
    all[3][at + 8] = b'3';
    write_lines(file, &all);
    let finding = found(&place, "does not follow");
    assert_eq!((finding.line, &finding.file), (Some(4), file));

    let place = fresh();
    let file = &place.files()[0];
    let mut all = lines(file);
    all.remove(4);
    write_lines(file, &all);
    assert_eq!(found(&place, "record 3 should stand here, and it is record 4").line, Some(5));

    let place = fresh();
    let file = &place.files()[0];
    let mut all = lines(file);
    all.swap(4, 5);
    write_lines(file, &all);
    found(&place, "record 3 should stand here");

    let place = fresh();
    fs::remove_file(&place.files()[1]).unwrap();
    found(&place, "a file is missing");

    let place = fresh();
    let file = place.files().pop().unwrap();
    let mut all = lines(&file);
    all.truncate(all.len() - 2);
    write_lines(&file, &all);
    found(&place, "the end of the journal was cut off");

    // A checkpoint that is older than those among the records.
    let place = fresh();
    let all = lines(&place.files()[0]);
    let old: serde_json::Value = serde_json::from_slice(&all[0]).unwrap();
    fs::write(place.log().join("checkpoint"), old["checkpoint"].as_str().unwrap()).unwrap();
    found(&place, "older than the checkpoints among the records");

    let place = fresh();
    let forged = place.note().replace("\n125\n", "\n115\n");
    fs::write(place.log().join("checkpoint"), forged).unwrap();
    found(&place, "its signature is forged");

    let place = fresh();
    fs::remove_file(place.log().join("checkpoint")).unwrap();
    found(&place, "can't be read");
}

/// Who controls the machine, and not the key, writes all of it anew: chains and all.
#[test]
fn records_written_anew_up_to_a_checkpoint_do_not_fit_it() {
    let (place, other) = (Place::new(), Place::new());
    for (place, begin) in [(&place, 0), (&other, 1)] {
        let journal = place.open(options());
        write(&journal, begin..begin + 9);
        journal.close();
    }
    let (mine, theirs) = (place.files().pop().unwrap(), other.files().pop().unwrap());
    let (own, forged) = (lines(&mine), lines(&theirs));
    let mixed = [&own[..1], &forged[1..10], &own[10..]].concat();
    write_lines(&mine, &mixed);
    let finding = place.verify().finding.unwrap();
    assert!(finding.what.contains("not the ones that it signs"), "{finding}");
}

#[test]
fn a_checkpoint_kept_elsewhere_shows_what_the_machine_alone_does_not() {
    let place = Place::new();
    let journal = place.open(Options { checkpoint_records: 10, ..options() });
    write(&journal, 0..10);
    let old: Vec<_> = fs::read_dir(place.log())
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    write(&journal, 10..20);
    journal.close();
    let note = place.note();
    assert!(verify(&place.log(), &place.public, Some(&note)).is_good());
    // All of the folder as it was before.
    old.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    assert!(place.verify().is_good());
    let finding = verify(&place.log(), &place.public, Some(&note)).finding.unwrap();
    assert!(finding.what.contains("cut off, or an old copy put back"), "{finding}");
    // It goes on differently: as long, and another.
    let journal = place.open(Options { checkpoint_records: 10, ..options() });
    write(&journal, 30..40);
    journal.close();
    assert!(place.verify().is_good());
    let finding = verify(&place.log(), &place.public, Some(&note)).finding.unwrap();
    assert!(finding.what.contains("another journal"), "{finding}");
    assert!(note.starts_with(&format!("{NAME}/test\n20\n")), "{note}");
}

#[test]
fn a_journal_put_back_in_part_says_so_when_it_goes_on() {
    let place = Place::new();
    let journal = place.open(options());
    write(&journal, 0..10);
    let file = place.files().pop().unwrap();
    let before = fs::read(&file).unwrap();
    write(&journal, 10..20);
    journal.close();
    // The newest checkpoint stays, and signs more than there is.
    fs::write(&file, &before[..before.len() / 2]).unwrap();
    write(&place.open(options()), 0..1);
    let entries = read_entries(&place.log()).unwrap();
    let told = entries.iter().find(|entry| entry.event == "journal-rolled-back").unwrap();
    assert_eq!(told.fields["signed"], 20);
    fs::remove_file(&file).unwrap();
    write(&place.open(options()), 0..1);
    assert!(names(&place).contains(&"journal-rolled-back".to_owned()));
}
