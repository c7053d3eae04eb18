//! Keys of TCP MD5 signatures, which stand in files of their own so that the configuration can be shown.

use std::fs;
use std::io::{self, Read};
use std::path::Path as FilePath;

use lb_api_types::config::Config;
use lb_routing::Md5Key;

use super::credential;
use crate::read::{Mistake, Path};

/// Octets of a file that are read; a longer one is no key.
const LONGEST_FILE: u64 = 1024;

/// Reads a key.
///
/// # Errors
///
/// One sentence that follows the field's name and does not show the key.
pub(crate) fn read(file: &FilePath) -> Result<Md5Key, String> {
    let name = file.display();
    let text = contents(&credential::path(file)?).map_err(|error| {
        format!("names {name}, which cannot be read: {error}; write the neighbour's key into it")
    })?;
    Md5Key::from_text(&text).map_err(|error| format!("names {name}, which {error}"))
}

fn contents(file: &FilePath) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(file)?.take(LONGEST_FILE).read_to_end(&mut text)?;
    Ok(text)
}

/// What is wrong with the key files that a configuration names. Credentials are looked at where there are any.
pub(super) fn mistakes(config: &Config) -> Vec<Mistake> {
    let section = Path::default().field("bgp");
    let (peers, groups) = (section.field("peers"), section.field("peer_groups"));
    let of_peers = config.bgp.peers.iter().map(|peer| &peer.spec.options).enumerate();
    let of_groups = config.bgp.peer_groups.iter().map(|group| &group.options).enumerate();
    let all = of_peers.map(|it| (&peers, it)).chain(of_groups.map(|it| (&groups, it)));
    let wrong = all.filter_map(|(list, (index, options))| {
        let file = options.md5_key_file.as_deref()?;
        let message = credential::path(file).ok().and_then(|_| read(file).err())?;
        Some(Mistake { path: list.index(index).field("md5_key_file"), message })
    });
    wrong.collect()
}
