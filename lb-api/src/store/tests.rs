pub(crate) mod crash;

use lb_api_types::resource::{Metadata, NamedHealthCheck};
use lb_api_types::vip::{Backend, VipSpec};

use super::*;

fn some_vip(name: &str) -> Vip {
    Vip {
        metadata: Metadata { name: name.into(), revision: Some(1), ..Metadata::default() },
        spec: VipSpec {
            address: [203, 0, 113, 10].into(),
            pool: None,
            port: 80,
            last_port: None,
            protocol: Default::default(),
            algorithm: Default::default(),
            affinity_secs: None,
            maglev_table_size: None,
            max_flows: None,
            max_flows_per_client: None,
            idle_timeout_secs: None,
            reset_on_expiry: false,
            on_unhealthy: None,
            mss_clamp: None,
            access: Default::default(),
            full_table: Default::default(),
            nat: Default::default(),
            backends: vec![Backend {
                address: [10, 0, 0, 1].into(),
                port: 8080,
                weight: 1,
                max_flows: None,
                drain: false,
                disabled: false,
            }],
            health_check: Default::default(),
            advertise: true,
            announce_on: Vec::new(),
        },
        status: None,
    }
}

/// A change that takes these away and puts those.
fn change(revision: u64, removed: &[&str], put: &[&str]) -> Change {
    Change {
        revision,
        put: put.iter().map(|name| some_vip(name)).collect(),
        removed: removed.iter().map(|name| (*name).to_owned()).collect(),
        resources: None,
    }
}

fn names(vips: &[Vip]) -> Vec<&str> {
    vips.iter().map(|vip| vip.metadata.name.as_str()).collect()
}

/// What a daemon finds that starts now.
fn start(folder: &Path) -> Loaded {
    Store::open(folder).unwrap().load().unwrap()
}

/// A folder with the VIP `a` in a snapshot at revision 1, and `b` and `c` in the journal.
fn folded() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.save(&change(1, &[], &["a"])).unwrap();
    store.fold().unwrap();
    store.save(&change(2, &[], &["b"])).unwrap();
    store.save(&change(3, &[], &["c"])).unwrap();
    folder
}

#[test]
fn what_is_saved_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a/b");
    let store = Store::open(&folder).unwrap();
    assert_eq!(store.load().unwrap(), Loaded::default());
    store.save(&change(1, &[], &["a", "b"])).unwrap();
    store.save(&change(2, &["a"], &["c"])).unwrap();
    drop(store);
    let vips = vec![some_vip("b"), some_vip("c")];
    let mut kept = Loaded { revision: 2, kept_revision: 2, vips, ..Loaded::default() };
    assert_eq!(start(&folder), kept);
    let store = Store::open(&folder).unwrap();
    store.load().unwrap();
    store.reserve(5).unwrap();
    drop(store);
    kept.revision = 5;
    assert_eq!(start(&folder), kept, "what people have seen, and what is kept");
}

#[test]
fn resources_beside_vips_are_kept_by_changes_and_snapshots() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str| {
        let metadata = Metadata { name: name.into(), ..Metadata::default() };
        let spec = lb_api_types::resource::HealthCheckSpec::default();
        Resource::HealthCheck(NamedHealthCheck { metadata, spec, status: None })
    };
    let all: Resources = [check("slow"), check("fast")].into_iter().collect();
    let fewer: Resources = [check("fast")].into_iter().collect();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.save(&Change { resources: Some(all.clone()), ..change(1, &[], &["a"]) }).unwrap();
    assert_eq!(store.load().unwrap().resources, all);
    store.fold().unwrap();
    store.save(&change(2, &[], &["b"])).unwrap();
    assert_eq!(store.load().unwrap().resources, all);
    store.save(&Change { resources: Some(fewer.clone()), ..change(3, &[], &[]) }).unwrap();
    let generations = store.generations();
    let seen: Vec<_> = generations.iter().map(|generation| &generation.resources).collect();
    assert_eq!(seen, [&fewer, &all, &all]);
    assert_eq!(store.load().unwrap().resources, fewer);
}

#[test]
fn a_damaged_file_is_kept_aside_and_said_until_somebody_removes_it() {
    let folder = tempfile::tempdir().unwrap();
    let damages = [
        "",
        "{\"version\": 1, \"vips\": [",
        "{\"version\": 1, \"vips\": [{}]}",
        "{\"vips\": []}",
        "[]",
    ];
    for (place, damage) in damages.iter().enumerate() {
        fs::write(folder.path().join(SNAPSHOT), damage).unwrap();
        let loaded = start(folder.path());
        assert_eq!(loaded.vips, []);
        assert_eq!(loaded.said().len(), place + 2, "what and why, and the files that are kept");
        assert!(loaded.notices.iter().all(Notice::holds));
        let kept = folder.path().join(format!("{SNAPSHOT}.damaged-{}", place + 1));
        assert_eq!(fs::read_to_string(kept).unwrap(), *damage);
    }
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.save(&change(1, &[], &["a"])).unwrap();
    drop(store);
    let loaded = start(folder.path());
    assert_eq!((loaded.vips.len(), loaded.said().len()), (1, damages.len()));
    for place in 1..=damages.len() {
        fs::remove_file(folder.path().join(format!("{SNAPSHOT}.damaged-{place}"))).unwrap();
        let hold = loaded.notices.iter().filter(|notice| notice.holds()).count();
        assert_eq!(hold, damages.len() - place, "it goes with its cause");
    }
}

#[test]
fn a_file_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let text = "{\"version\": 5, \"vips\": {}}";
    fs::write(folder.path().join(SNAPSHOT), text).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Version { found: 5, .. })));
    assert_eq!(fs::read_to_string(folder.path().join(SNAPSHOT)).unwrap(), text);
}

#[test]
fn what_a_later_daemon_wrote_in_the_same_form_is_refused_and_left_alone() {
    let folder = folded();
    for name in [SNAPSHOT, JOURNAL] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&whole).into_owned();
        let later = if name == SNAPSHOT {
            let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
            value["vips"][0]["spec"]["of_tomorrow"] = 1.into();
            value.as_object_mut().unwrap().remove("checksum");
            let sum = format!("crc32:{:08x}", crc32(value.to_string().as_bytes()));
            value["checksum"] = sum.into();
            value.to_string().into_bytes()
        } else {
            let (line, json) = (text.lines().nth(2).unwrap(), text.lines().nth(2).unwrap());
            let json = json[15..].replacen("\"port\":", "\"of_tomorrow\":1,\"port\":", 1);
            let later = format!("crc32:{:08x} {json}", crc32(json.as_bytes()));
            let mut bytes = text.replace(line, &later).trim_end_matches('\0').as_bytes().to_vec();
            bytes.resize((bytes.len() + 1).next_multiple_of(journal::CHUNK), 0);
            bytes
        };
        fs::write(&path, &later).unwrap();
        let refused = Store::open(folder.path()).unwrap().load().unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains("of_tomorrow"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), later);
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_journal_that_is_damaged_while_it_is_open_loses_nothing_that_is_known() {
    let folder = folded();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    let journal = folder.path().join(JOURNAL);
    let mut bytes = fs::read(&journal).unwrap();
    bytes[40] ^= 1;
    fs::write(&journal, bytes).unwrap();
    store.fold().unwrap();
    store.save(&change(4, &["a"], &["d"])).unwrap();
    drop(store);
    let loaded = start(folder.path());
    assert_eq!((names(&loaded.vips), loaded.revision), (vec!["b", "c", "d"], 4));
}

#[test]
fn a_file_of_an_earlier_version_is_read_and_becomes_a_snapshot_before_it_has_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let vip = serde_json::to_value(some_vip("old")).unwrap();
    let text = serde_json::json!({"version": 2, "revision": 7, "vips": [vip]}).to_string();
    fs::write(folder.path().join(SNAPSHOT), text).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!((store.load().unwrap().revision, folder.path().join(JOURNAL).exists()), (7, false));
    store.save(&change(8, &[], &["new"])).unwrap();
    let snapshot = fs::read_to_string(folder.path().join(SNAPSHOT)).unwrap();
    assert!(snapshot.contains("\"version\": 4"), "an lbd that knows no journal refuses it");
    assert_eq!(names(&store.load().unwrap().vips), ["new", "old"]);
}

#[test]
fn a_folder_belongs_to_one_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let second = Store::open(folder.path()).unwrap_err();
    assert!(matches!(second, StoreError::InUse { .. }), "{second}");
    drop(first);
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_line_that_was_not_written_to_its_end_was_never_kept_and_is_no_damage() {
    let folder = folded();
    let journal = folder.path().join(JOURNAL);
    let whole = fs::read(&journal).unwrap();
    let end = whole.iter().rposition(|byte| *byte == b'\n').unwrap();
    let begin = whole[..end].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for upto in begin..end {
        let mut torn = whole.clone();
        torn[upto..=end].fill(0);
        fs::write(&journal, torn).unwrap();
        let loaded = start(folder.path());
        assert_eq!(loaded.said(), [""; 0], "{upto}");
        assert_eq!(names(&loaded.vips), ["a", "b"], "{upto}");
    }
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.save(&change(4, &[], &["d"])).unwrap();
    drop(store);
    assert_eq!(names(&start(folder.path()).vips), ["a", "b", "d"]);
}

#[test]
fn a_last_line_that_lacks_sectors_was_never_kept_and_any_other_that_does_is_damage() {
    let folder = folded();
    let journal = folder.path().join(JOURNAL);
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    let many: Vec<_> = (0..40).map(|n| format!("v{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let before = fs::read(&journal).unwrap();
    let from = before.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    store.save(&change(4, &[], &many)).unwrap();
    let last = fs::read(&journal).unwrap();
    let end = last.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    assert!(end - from > 2 * journal::CHUNK, "it is of several pages");
    store.save(&change(5, &[], &["e"])).unwrap();
    let middle = fs::read(&journal).unwrap();
    drop(store);
    let without = |whole: &[u8], hole: std::ops::Range<usize>| {
        let mut torn = whole.to_vec();
        torn[hole].fill(0);
        fs::write(&journal, torn).unwrap();
        let loaded = start(folder.path());
        assert_eq!(names(&loaded.vips), ["a", "b", "c"]);
        // The disk may have lost it, too: that is said, and is no damage.
        loaded.said().iter().filter(|said| !said.contains("is left out")).count()
    };
    let sectors = (from..end).filter(|at| *at == from || at % 512 == 0);
    for (number, at) in sectors.clone().enumerate() {
        let next = (at + 1).next_multiple_of(512);
        let later = next + 512 * (number % 3);
        assert_eq!(without(&last, at..later.min(last.len())), 0, "{at} to {later}");
        assert_eq!(without(&last, at..last.len()), 0, "nothing from {at} on");
        let is_last = next >= end;
        let part = without(&last, at + 1..next - 1);
        assert!(part > 0 || is_last, "a disk leaves no part of a sector at {at}");
        assert!(without(&middle, at..next.min(end)) > 0, "a change behind it was kept, {at}");
    }
    assert_eq!(without(&last, from..end), 0);
}

#[test]
fn a_damaged_header_of_a_journal_is_said_and_its_changes_hold() {
    let folder = folded();
    let journal = folder.path().join(JOURNAL);
    let whole = fs::read(&journal).unwrap();
    for place in 0..14 {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs::write(&journal, damaged).unwrap();
        let loaded = start(folder.path());
        assert_eq!(names(&loaded.vips), ["a", "b", "c"], "{place}");
        assert!(loaded.said()[0].contains("does not begin"), "{:?}", loaded.said());
    }
}

#[test]
fn any_flipped_bit_and_any_cut_on_the_disk_lead_to_the_last_good_state_and_an_alarm() {
    let folder = folded();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.fold().unwrap();
    store.save(&change(4, &[], &["d"])).unwrap();
    drop(store);
    let all: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> = all.iter().map(|path| (path, fs::read(path).unwrap())).collect();
    let restore = || {
        for entry in fs::read_dir(folder.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    };
    for (name, is_last) in [(SNAPSHOT, false), (JOURNAL, true)] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        let text = whole.iter().rposition(|byte| *byte != 0).unwrap();
        let found = |damaged: &[u8], what: &str| {
            restore();
            fs::write(&path, damaged).unwrap();
            let loaded = start(folder.path());
            let found = names(&loaded.vips).join(" ");
            let (good, less) = ("a b c d", if is_last { "a b c" } else { "a b c d" });
            assert!(found == good || found == less, "{name}: {what}: {found}");
            // White space may differ without a difference in meaning.
            assert!(!loaded.said().is_empty() || found == good, "{name}: {what}");
            loaded.said().len()
        };
        // Which of all of them are found is looked at without a disk.
        for place in (0..text).step_by(7) {
            let mut damaged = whole.clone();
            damaged[place] ^= 1 << (place % 8);
            found(&damaged, &format!("bit {} of byte {place}", place % 8));
        }
        for len in (0..text).step_by(101) {
            assert!(found(&whole[..len], &format!("cut at {len}")) > 0);
        }
    }
}

#[test]
fn a_damaged_snapshot_is_made_up_for_by_the_one_before_it_and_the_journals() {
    let folder = folded();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.fold().unwrap();
    store.save(&change(4, &["a"], &["d"])).unwrap();
    drop(store);
    fs::write(folder.path().join(SNAPSHOT), "").unwrap();
    let loaded = start(folder.path());
    assert_eq!((names(&loaded.vips), loaded.revision), (vec!["b", "c", "d"], 4));
    assert_eq!(loaded.said().len(), 2, "what and why, and the file that is kept");
    fs::write(folder.path().join(format!("{SNAPSHOT}.previous-1")), "{").unwrap();
    let loaded = start(folder.path());
    assert_eq!(names(&loaded.vips), ["b", "c", "d"], "the first one of all and every change");
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.save(&change(5, &[], &["e"])).unwrap();
    drop(store);
    let loaded = start(folder.path());
    assert_eq!((names(&loaded.vips), loaded.said().len()), (vec!["b", "c", "d", "e"], 1));
}

#[test]
fn changes_that_are_missing_are_said_and_what_came_later_is_left_out() {
    let folder = folded();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.fold().unwrap();
    store.save(&change(4, &[], &["d"])).unwrap();
    drop(store);
    for gone in [SNAPSHOT.to_owned(), format!("{JOURNAL}.previous-1")] {
        fs::remove_file(folder.path().join(gone)).unwrap();
    }
    let loaded = start(folder.path());
    assert_eq!(names(&loaded.vips), ["a"]);
    assert!(loaded.said()[0].contains("between the revisions 1 and 3"), "{:?}", loaded.said());
    assert_eq!(loaded.revision, 4, "it is not given again");
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_snapshot_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.save(&change(8, &[], &["new"])).unwrap();
    store.fold().unwrap();
    let whole = fs::read(folder.path().join(SNAPSHOT)).unwrap();
    let loaded = |bytes: &[u8]| {
        snapshot::parse(bytes).ok().map(|snapshot| (snapshot.revision, snapshot.vips))
    };
    let expected = loaded(&whole);
    assert!(expected.is_some());
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let later = matches!(snapshot::parse(&damaged), Err(snapshot::Unfit::Later(_)));
        assert!(!later, "bit {bit}: a later version's would not be looked at any further");
        // White space may differ without a difference in meaning.
        let found = loaded(&damaged);
        assert!(found.is_none() || found == expected, "bit {bit}");
    }
    for len in 0..whole.len() - 1 {
        assert_eq!(loaded(&whole[..len]), None, "{len} bytes");
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_of_a_journal_is_found() {
    let folder = folded();
    let whole = fs::read(folder.path().join(JOURNAL)).unwrap();
    let end = whole.iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let expected = journal::parse(&whole);
    assert_eq!((expected.records.len(), expected.end), (2, end));
    for bit in 0..(end + 64) * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let found = journal::parse(&damaged);
        let is_same = found.records == expected.records;
        assert!(found.damage.is_some() || is_same, "bit {bit}: {found:?}");
        let before = expected.records.starts_with(&found.records);
        assert!(before, "bit {bit}: what is before the damage holds, and nothing else");
    }
    for len in 0..whole.len() {
        assert!(journal::parse(&whole[..len]).damage.is_some(), "{len} bytes");
    }
    // The byte that is cut at is the last one of a line, and the length one that a journal may have.
    let name = "x".repeat(journal::CHUNK - (end + 100) % journal::CHUNK);
    let mut long = whole[..end].to_vec();
    long.extend(journal::line(&change(4, &[&name], &[]), 3).unwrap());
    long.resize(long.len().next_multiple_of(journal::CHUNK), 0);
    let last = long.iter().rposition(|byte| *byte == b'\n').unwrap();
    for len in (journal::CHUNK..=last + 1).filter(|len| len % journal::CHUNK == 0) {
        assert!(journal::parse(&long[..len]).damage.is_some(), "{len} bytes");
    }
}

#[test]
fn a_damaged_journal_leads_to_what_is_before_the_damage_a_warning_and_a_new_snapshot() {
    let folder = folded();
    let journal = folder.path().join(JOURNAL);
    let mut bytes = fs::read(&journal).unwrap();
    let last = bytes.iter().rposition(|byte| *byte == b'\n').unwrap();
    bytes[last - 9] ^= 1;
    fs::write(&journal, bytes).unwrap();
    for _ in 0..2 {
        let loaded = start(folder.path());
        assert_eq!(names(&loaded.vips), ["a", "b"]);
        assert!(loaded.said()[0].contains("behind revision 2"), "{:?}", loaded.said());
    }
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    store.save(&change(4, &[], &["d"])).unwrap();
    drop(store);
    let loaded = start(folder.path());
    assert_eq!(names(&loaded.vips), ["a", "b", "d"]);
}

#[test]
fn only_so_many_generations_and_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    assert_eq!(store.generations(), []);
    let revisions = || store.generations().iter().map(|g| g.revision).collect::<Vec<_>>();
    for revision in 1..=9 {
        store.save(&change(revision, &[], &[&format!("v{revision}")])).unwrap();
        if revision % 3 == 0 {
            store.fold().unwrap();
        }
        let expected: Vec<_> = (1..=revision).rev().take(GENERATIONS).collect();
        assert_eq!(revisions(), expected, "whatever file they are in");
    }
    let generations = store.generations();
    assert_eq!(generations[1].vips.len(), 8);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1 + 2 * (1 + PREVIOUS),
        "and the lock"
    );
}

#[test]
fn what_was_prepared_and_not_committed_changes_nothing() {
    let folder = folded();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    let prepared = store.prepare(&change(4, &["a"], &["d"])).unwrap();
    assert_eq!(names(&store.load().unwrap().vips), ["a", "b", "c"]);
    store.commit(prepared).unwrap();
    assert_eq!(names(&store.load().unwrap().vips), ["b", "c", "d"]);
}

#[test]
fn a_revision_that_people_have_seen_is_not_given_again() {
    let folder = folded();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    let _forgotten = store.prepare(&change(4, &[], &[])).unwrap();
    store.reserve(4).unwrap();
    assert_eq!(store.load().unwrap().revision, 4);
    store.fold().unwrap();
    assert_eq!(store.load().unwrap().revision, 4);
    store.save(&change(5, &[], &["e"])).unwrap();
    assert_eq!(names(&store.load().unwrap().vips), ["a", "b", "c", "e"]);
}

#[test]
fn a_long_journal_is_to_be_folded_and_changes_go_on_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.load().unwrap();
    let many: Vec<_> = (0..600).map(|n| format!("v{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let mut revision = 0;
    while !store.is_long() {
        revision += 1;
        store.save(&change(revision, &[], &many)).unwrap();
    }
    assert!((GENERATIONS as u64..40).contains(&revision), "{revision}");
    let last = std::thread::scope(|scope| {
        let folding = scope.spawn(|| store.fold_if_long());
        let mut last = revision;
        while !folding.is_finished() {
            last += 1;
            store.save(&change(last, &[], &[&format!("w{last}")])).unwrap();
        }
        folding.join().unwrap().unwrap();
        last
    });
    assert!(!store.is_long());
    // Whoever comes late folds nothing: the states that are kept stay.
    let generations = store.generations();
    (0..3).for_each(|_| store.fold_if_long().unwrap());
    assert_eq!((store.generations(), generations.len()), (generations, GENERATIONS));
    let loaded = store.load().unwrap();
    let during = usize::try_from(last - revision).unwrap();
    assert_eq!((loaded.vips.len(), loaded.revision), (600 + during, last));
    assert_eq!(loaded.said(), [""; 0]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    /// Whatever changes, folds and restarts come, what is loaded is what was kept.
    #[test]
    fn what_is_loaded_is_what_was_kept(
        steps in proptest::collection::vec((0_u8..6, 0_u8..6, 0_u8..8), 1..24)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        store.load().unwrap();
        let mut kept = std::collections::BTreeSet::new();
        for (revision, (goes, comes, then)) in (1..).zip(steps) {
            let (goes, comes) = (format!("v{goes}"), format!("v{comes}"));
            store.save(&change(revision, &[&goes], &[&comes])).unwrap();
            kept.remove(&goes);
            kept.insert(comes);
            match then {
                0 => store.fold().unwrap(),
                1 => {
                    drop(store);
                    store = Store::open(folder.path()).unwrap();
                    store.load().unwrap();
                }
                _ => {}
            }
        }
        drop(store);
        let loaded = start(folder.path());
        let names: Vec<_> = kept.iter().map(String::as_str).collect();
        proptest::prop_assert_eq!(self::names(&loaded.vips), names);
        proptest::prop_assert_eq!(loaded.said(), [""; 0]);
    }
}
