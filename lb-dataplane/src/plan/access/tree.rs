//! Bounds as the trees that packets search.

use lb_dataplane_common::list::{
    BOUND_BITS, BOUND_SHIFT, NO_BOUND, NODE_LAST, NODE_WORDS, REF_ADMITTED, REF_REFUSED,
};

use super::bounds::Bound;

/// Refs of a node.
const REFS: usize = NODE_WORDS as usize;

/// What holds from a bound on.
enum Holds {
    /// Clients may begin flows, or not.
    Admitted(bool),
    /// For clients whose bits are the bound's, what these bounds say of the next ones; they begin as the first one does.
    Within(Vec<Bound>),
}

/// The nodes of a list, the first one that where a lookup begins.
pub(super) fn words(bounds: &[Bound]) -> Vec<u64> {
    let mut words = Vec::new();
    tree(bounds, &mut words);
    words
}

/// Appends a tree for the upper bits of addresses; the ref of its first node.
fn tree(bounds: &[Bound], words: &mut Vec<u64>) -> u64 {
    let entries = entries(bounds);
    let mut levels = vec![entries.len().div_ceil(REFS)];
    while levels[0] > 1 {
        levels.insert(0, levels[0].div_ceil(REFS));
    }
    let first = words.len();
    words.resize(first + levels.iter().sum::<usize>() * REFS, NO_BOUND);
    let nodes_before = |level: usize| levels[..level].iter().sum::<usize>();
    let node = |level: usize, n: usize| first / REFS + nodes_before(level) + n;
    let last = levels.len() - 1;
    for (n, (bound, holds)) in entries.iter().enumerate() {
        let held = match holds {
            Holds::Admitted(false) => REF_REFUSED,
            Holds::Admitted(true) => REF_ADMITTED,
            Holds::Within(bounds) => tree(bounds, words),
        };
        put(words, node(last, n / REFS), n % REFS, *bound, held | mark(n));
    }
    for level in 0..last {
        for n in 0..levels[level + 1] {
            // What is below begins with the first of its entries.
            let below = n * REFS.pow((last - level - 1) as u32) * REFS;
            let (bound, _) = entries[below];
            put(words, node(level, n / REFS), n % REFS, bound, ref_of(node(level + 1, n)));
        }
    }
    ref_of(first / REFS)
}

fn ref_of(node: usize) -> u64 {
    node as u64 + 1
}

/// What the first word of a node of the last level has, too.
fn mark(n: usize) -> u64 {
    if n.is_multiple_of(REFS) { NODE_LAST } else { 0 }
}

fn put(words: &mut [u64], node: usize, place: usize, bound: u64, held: u64) {
    let bound = if place == 0 { 0 } else { bound << BOUND_SHIFT };
    words[node * REFS + place] = bound | held;
}

/// What holds by the upper bits of addresses: in order, the first at the lowest.
fn entries(bounds: &[Bound]) -> Vec<(u64, Holds)> {
    const LAST: u64 = (1 << BOUND_BITS) - 1;
    let upper = |(at, _): &Bound| (at >> (u128::BITS - BOUND_BITS)) as u64;
    let lower = |(at, is_admitted): &Bound| (at << BOUND_BITS, *is_admitted);
    let mut entries = Vec::with_capacity(bounds.len());
    let mut alike = bounds.chunk_by(|a, b| upper(a) == upper(b)).peekable();
    // What holds before; nothing is before the first bound, which is the lowest address.
    let mut before = false;
    while let Some(bounds) = alike.next() {
        let bound = upper(&bounds[0]);
        let begins = lower(&bounds[0]).0 == 0;
        if begins && bounds.len() == 1 {
            before = bounds[0].1;
            entries.push((bound, Holds::Admitted(before)));
            continue;
        }
        let first = (!begins).then_some((0, before));
        let within: Vec<Bound> = first.into_iter().chain(bounds.iter().map(lower)).collect();
        before = within.last().map_or(before, |(_, is_admitted)| *is_admitted);
        entries.push((bound, Holds::Within(within)));
        // It goes on like that behind them, unless something begins there.
        let next = alike.peek().map(|bounds| upper(&bounds[0]));
        if bound != LAST && next != Some(bound + 1) {
            entries.push((bound + 1, Holds::Admitted(before)));
        }
    }
    entries
}
