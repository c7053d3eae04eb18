use lb_api_types::vip::{Backend, Metadata, VipSpec};

use super::*;

fn some_vip(name: &str) -> Vip {
    Vip {
        metadata: Metadata { name: name.into() },
        spec: VipSpec {
            address: [203, 0, 113, 10].into(),
            port: 80,
            protocol: Default::default(),
            algorithm: Default::default(),
            backends: vec![Backend { address: [10, 0, 0, 1].into(), port: 8080 }],
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
    store.save(&[&vips[0], &vips[1]]).unwrap();
    drop(store);
    let loaded = Store::open(&folder).unwrap().load().unwrap();
    assert_eq!(loaded, Loaded { vips: vips.into(), warnings: vec![] });
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
    store.save(&[&some_vip("a")]).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.vips.len(), loaded.warnings.len()), (1, damages.len()));
}

#[test]
fn a_file_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let text = "{\"version\": 2, \"vips\": {}}";
    fs::write(folder.path().join(NAME), text).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Version { found: 2, .. })));
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
    store.save(&[&some_vip("old")]).unwrap();
    fs::write(folder.path().join("vips.json.new"), "{\"version\": 1, \"vi").unwrap();
    assert_eq!(store.load().unwrap().vips[0].metadata.name, "old");
    store.save(&[&some_vip("new")]).unwrap();
    assert_eq!(store.load().unwrap().vips[0].metadata.name, "new");
}
