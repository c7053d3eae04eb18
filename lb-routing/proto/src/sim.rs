//! Networks of speakers.
