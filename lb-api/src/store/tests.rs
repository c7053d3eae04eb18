mod crash;

use lb_api_types::vip::{Backend, Metadata, VipSpec};

use super::*;

fn some_vip(name: &str) -> Vip {
    Vip {
        metadata: Metadata { name: name.into(), revision: Some(1), ..Metadata::default() },
        spec: VipSpec {
            address: [203, 0, 113, 10].into(),
            pool: None,
            port: 80,
            protocol: Default::default(),
            algorithm: Default::default(),
            affinity_secs: None,
            access: Default::default(),
            nat: Default::default(),
            backends: vec![Backend {
                address: [10, 0, 0, 1].into(),
                port: 8080,
                weight: 1,
                drain: false,
                disabled: false,
            }],
            health_check: Default::default(),
            advertise: true,
        },
        status: None,
    }
}

#[test]
fn what_is_saved_is_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a/b");
    let vips = [some_vip("a"), some_vip("b")];
    let store = Store::open(&folder).unwrap();
    assert_eq!(store.load().unwrap(), Loaded::default());
    store.save(1, &[&vips[0], &vips[1]], &Resources::default()).unwrap();
    drop(store);
    let loaded = Store::open(&folder).unwrap().load().unwrap();
    assert_eq!(
        loaded,
        Loaded {
            revision: 1,
            vips: vips.into(),
            resources: Resources::default(),
            warnings: vec![]
        }
    );
}

#[test]
fn a_damaged_file_is_kept_aside_and_said_until_somebody_removes_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let damages = [
        "",
        "{\"version\": 1, \"vips\": [",
        "{\"version\": 1, \"vips\": [{}]}",
        "{\"vips\": []}",
        "[]",
    ];
    for (place, damage) in damages.iter().enumerate() {
        fs::write(folder.path().join(NAME), damage).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.vips, []);
        assert_eq!(loaded.warnings.len(), place + 1, "{:?}", loaded.warnings);
        let kept = folder.path().join(format!("{NAME}.damaged-{}", place + 1));
        assert_eq!(fs::read_to_string(kept).unwrap(), *damage);
    }
    store.save(1, &[&some_vip("a")], &Resources::default()).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.vips.len(), loaded.warnings.len()), (1, damages.len()));
}

#[test]
fn a_file_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let text = "{\"version\": 4, \"vips\": {}}";
    fs::write(folder.path().join(NAME), text).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Version { found: 4, .. })));
    assert_eq!(fs::read_to_string(folder.path().join(NAME)).unwrap(), text);
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
fn a_save_that_was_interrupted_leaves_the_old_version() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.save(1, &[&some_vip("old")], &Resources::default()).unwrap();
    fs::write(folder.path().join("vips.json.new"), "{\"version\": 1, \"vi").unwrap();
    assert_eq!(store.load().unwrap().vips[0].metadata.name, "old");
    store.save(1, &[&some_vip("new")], &Resources::default()).unwrap();
    assert_eq!(store.load().unwrap().vips[0].metadata.name, "new");
}

/// Names of what the store would serve after a start, and how many warnings it has.
fn start(folder: &Path) -> (Vec<String>, usize) {
    let loaded = Store::open(folder).unwrap().load().unwrap();
    (loaded.vips.into_iter().map(|vip| vip.metadata.name).collect(), loaded.warnings.len())
}

#[test]
fn a_damaged_file_leads_to_the_last_good_generation_and_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let store = Store::open(folder).unwrap();
    for name in ["a", "b", "c"] {
        store.save(1, &[&some_vip(name)], &Resources::default()).unwrap();
    }
    drop(store);
    fs::write(folder.join("vips.json"), "").unwrap();
    fs::write(folder.join("vips.json.previous-1"), "{").unwrap();
    assert_eq!(start(folder), (vec!["a".to_owned()], 2), "what and why, and the file that is kept");
    assert_eq!(start(folder), (vec!["a".to_owned()], 1), "the next start finds it in its place");
    assert_eq!(fs::read(folder.join("vips.json.damaged-1")).unwrap(), b"");
}

#[test]
fn every_flipped_bit_and_every_truncation_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let store = Store::open(folder).unwrap();
    store.save(7, &[&some_vip("old")], &Resources::default()).unwrap();
    store.save(8, &[&some_vip("new")], &Resources::default()).unwrap();
    let whole = fs::read(folder.join(NAME)).unwrap();
    let loaded = |bytes: &[u8]| store.parse(bytes).ok().and_then(Result::ok);
    let expected = loaded(&whole).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // Also one of the version's digit: a file of a later version would not be looked at any further.
        let parsed = store.parse(&damaged).expect("it is damage, and no later version");
        // White space may differ without a difference in meaning.
        assert!(parsed.is_err() || parsed.as_ref() == Ok(&expected), "bit {bit} of {damaged:?}");
    }
    for len in 0..whole.len() - 1 {
        assert_eq!(loaded(&whole[..len]), None, "{len} bytes");
    }
}

#[test]
fn only_so_many_generations_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for revision in 1..=9 {
        store.save(revision, &[], &Resources::default()).unwrap();
    }
    let kept = store.previous().filter(|path| path.exists());
    let revisions: Vec<_> =
        kept.map(|path| store.parse(&fs::read(path).unwrap()).unwrap().unwrap().revision).collect();
    assert_eq!(revisions, [8, 7, 6, 5]);
    assert_eq!(store.load().unwrap().revision, 9);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2 + GENERATIONS - 1, "and the lock");
}

#[test]
fn what_was_prepared_and_not_committed_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.save(1, &[&some_vip("old")], &Resources::default()).unwrap();
    let prepared = store.prepare(2, &[&some_vip("new")], &Resources::default()).unwrap();
    assert_eq!(store.load().unwrap().vips[0].metadata.name, "old");
    store.commit(prepared).unwrap();
    assert_eq!(store.load().unwrap().vips[0].metadata.name, "new");
}

#[test]
fn generations_are_listed_and_an_unfinished_ones_revision_is_not_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.generations(), []);
    for revision in 1..=7 {
        store.save(revision, &[&some_vip(&format!("v{revision}"))], &Resources::default()).unwrap();
    }
    let revisions = || store.generations().iter().map(|g| g.revision).collect::<Vec<_>>();
    assert_eq!(revisions(), [7, 6, 5, 4, 3]);
    assert_eq!(store.generations()[1].vips[0].metadata.name, "v6");
    fs::write(folder.path().join(format!("{NAME}.previous-2")), "damage").unwrap();
    assert_eq!(revisions(), [7, 6, 4, 3]);
    let unfinished = store.prepare(9, &[], &Resources::default()).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.revision, loaded.vips[0].metadata.name.as_str()), (9, "v7"));
    store.discard(unfinished);
    assert_eq!(store.load().unwrap().revision, 7);
}
