use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// Files of the corpus of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).expect("the corpus is kept");
    files.map(|file| std::fs::read(file.expect("a file").path()).expect("it is read")).collect()
}

#[test]
fn the_kept_corpus_of_the_codec_is_survived() {
    let corpus = corpus("codec");
    assert!(corpus.len() > 100, "only {} files", corpus.len());
    corpus.iter().for_each(|bytes| codec(bytes));
}

#[test]
fn the_kept_corpus_of_the_session_is_survived() {
    let (corpus, now) = (corpus("session"), Instant::now());
    assert!(corpus.len() > 100, "only {} files", corpus.len());
    corpus.iter().for_each(|bytes| session(bytes, now));
}

proptest! {
    #[test]
    fn a_neighbour_may_do_anything(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        // An accepted connection whose OPEN is good, and then anything.
        session(&[&[0, 1, 2], bytes.as_slice()].concat(), Instant::now());
    }
}
