//! How many flows clients have, of services that bound those of each.
//!
//! A client has an entry while flows of it are counted, and no longer: so the table has room for every client that has a flow, none
//! is forgotten for another, and who comes when it is full is refused. The kernel gives a removed entry's memory to another client
//! at once, though another CPU may have looked the old one up. So the upper half of a word says whose it is, and who removes an
//! entry marks it first: one flow more is counted by a compare-and-swap of a word that is the client's and not marked. One flow
//! fewer is counted by whoever ends a flow that is counted there, so that the entry stays until then.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use lb_dataplane_common::hash::FlowHash;
use lb_dataplane_common::service::{AffinityKey, CLIENT_REMOVED};

use crate::atomic;

/// Memory is taken only while clients are counted: 80 bytes each, more or less.
#[map]
static CLIENT_FLOWS: HashMap<AffinityKey, u64> = HashMap::with_max_entries(64, BPF_F_NO_PREALLOC);

/// How often one flow more is tried to be counted: each time that fails another CPU was faster.
const TRIES: u32 = 4;

/// By how many bits of their addresses clients are counted, IPv4 mapped into IPv6. Set by the loader.
#[unsafe(no_mangle)]
static LBD_CLIENT_BITS: u32 = 128;
#[unsafe(no_mangle)]
static LBD_CLIENT_BITS6: u32 = 128;

/// By how many bits of their addresses clients are counted whose flows begin now.
#[inline(always)]
pub fn client_bits(is_v6: bool) -> u32 {
    let bits = if is_v6 { &raw const LBD_CLIENT_BITS6 } else { &raw const LBD_CLIENT_BITS };
    // SAFETY: a static of this program; volatile, since the loader changes it in the object.
    unsafe { bits.read_volatile() }
}

/// How many flows of a client are counted.
#[inline(always)]
pub fn client_flows(client: &AffinityKey) -> u32 {
    let Some(word) = CLIENT_FLOWS.get_ptr(client) else { return 0 };
    // SAFETY: the element is aligned; volatile, since other CPUs write it.
    let word = unsafe { word.read_volatile() };
    if is_of(word, client) { word as u32 } else { 0 }
}

/// Counts one more flow of a client; whether there was a place for it. A subprogram: its key needs room that its callers' stacks
/// have not.
#[inline(never)]
pub fn count_client(client: &AffinityKey) -> bool {
    const EEXIST: i32 = -17;
    let first = tag(client) | 1;
    let mut tries = 0;
    while tries < TRIES {
        tries += 1;
        let Some(flows) = CLIENT_FLOWS.get_ptr_mut(client) else {
            match CLIENT_FLOWS.insert(client, &first, u64::from(BPF_NOEXIST)) {
                Ok(()) => return true,
                Err(EEXIST) => continue,
                Err(_) => return false,
            }
        };
        // SAFETY: the element is aligned to 8 bytes; volatile, since other CPUs write it.
        let counted = unsafe {
            let word = flows.read_volatile();
            is_of(word, client) && atomic::compare_exchange(flows, word, word + 1) == word
        };
        if counted {
            return true;
        }
    }
    false
}

/// Counts one flow fewer of a client, if it is counted.
#[inline(always)]
pub fn discount_client(client: &AffinityKey) {
    let Some(flows) = CLIENT_FLOWS.get_ptr_mut(client) else { return };
    // SAFETY: the element is aligned to 8 bytes, and is only changed atomically.
    let is_last = unsafe {
        let word = atomic::fetch_add(flows, u64::MAX);
        if !is_of(word, client) || word as u32 == 0 {
            // Its entry is gone, and this one is another's, whose count is as it was.
            atomic::add(flows, 1);
            return;
        }
        let none = word - 1;
        word as u32 == 1
            && atomic::compare_exchange(flows, none, none | u64::from(CLIENT_REMOVED)) == none
    };
    if is_last {
        remove(client, flows);
    }
}

/// Removes an entry that this CPU has marked, as nobody else does. The kernel refuses that where its bucket is busy: then the entry stays
/// without a mark, or its client would never be counted again.
#[inline(always)]
fn remove(client: &AffinityKey, flows: *mut u64) {
    if CLIENT_FLOWS.remove(client).is_err() {
        let none = tag(client);
        // SAFETY: the element is aligned to 8 bytes, and is only changed atomically.
        unsafe { atomic::compare_exchange(flows, none | u64::from(CLIENT_REMOVED), none) };
    }
}

/// Whose a word is, in its upper half.
#[inline(always)]
fn tag(client: &AffinityKey) -> u64 {
    u64::from(FlowHash::of_source(client.client).for_backend() ^ client.service) << 32
}

/// Whether a word is a client's, and stays so.
#[inline(always)]
fn is_of(word: u64, client: &AffinityKey) -> bool {
    (word ^ tag(client)) >> 32 == 0 && word as u32 & CLIENT_REMOVED == 0
}
