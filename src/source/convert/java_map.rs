//! A Java `HashMap` with a crowded bucket, of which the order of iteration is wanted. Its ninth entry makes a small table grow early, and in a larger
//! one becomes part of a red-black tree. Iteration follows the list that the tree's nodes are in besides: the root first, a new
//! node behind its parent.

use std::cmp::Ordering;

use super::java_hash::utf16;

/// Entries of a bucket that are a list at most.
const LIST: usize = 8;
/// Entries of half a bucket, when the table grows, that become a list again.
const LIST_AGAIN: usize = 6;
/// With fewer buckets the table grows instead.
const TREES_FROM: usize = 64;

/// A name with its hash.
type Key<'a> = (u32, &'a [u8]);

/// Whether any bucket may ever have been crowded while these were inserted in this order. May say yes where none was.
pub(super) fn may_crowd(hashes: impl ExactSizeIterator<Item = u32> + Clone) -> bool {
    if hashes.len() <= LIST {
        return false;
    }
    let crowded = |buckets, entries| {
        let mut counts = [0u8; TREES_FROM];
        hashes.clone().take(entries).any(|hash| {
            let count = &mut counts[bucket(hash, buckets)];
            *count += 1;
            usize::from(*count) > LIST
        })
    };
    // The table has 16 buckets for the first 12 entries and 32 for the first 24, or more. A bucket of a larger table is a part of one of a smaller table.
    crowded(16, usize::MAX)
        && [(16, 12), (32, 24), (TREES_FROM, usize::MAX)].into_iter().any(|(buckets, entries)| crowded(buckets, entries))
}

/// The order of iteration after these were inserted in their order.
pub(super) fn order(keys: &[Key]) -> Vec<usize> {
    let mut nodes = Nodes { keys, nodes: vec![Node::default(); keys.len()] };
    let mut table: Vec<Bucket> = vec![Bucket::default(); 16];
    let grown = |table: &mut Vec<Bucket>, nodes: &mut Nodes| *table = nodes.grown(std::mem::take(table));
    for (entry, (hash, _)) in keys.iter().enumerate() {
        let at = bucket(*hash, table.len());
        let small = table.len() < TREES_FROM;
        let bucket = &mut table[at];
        match bucket.root {
            Some(root) => *bucket = nodes.insert(std::mem::take(&mut bucket.list), root, entry),
            None => {
                bucket.list.push(entry);
                if bucket.list.len() > LIST && small {
                    grown(&mut table, &mut nodes);
                } else if bucket.list.len() > LIST {
                    *bucket = nodes.tree(std::mem::take(&mut bucket.list));
                }
            }
        }
        if entry + 1 > table.len() / 4 * 3 {
            grown(&mut table, &mut nodes);
        }
    }
    table.into_iter().flat_map(|bucket| bucket.list).collect()
}

fn bucket(hash: u32, buckets: usize) -> usize {
    hash as usize & (buckets - 1)
}

/// Entries in the order of iteration, and the root of their tree where they are one.
#[derive(Debug, Clone, Default)]
struct Bucket {
    list: Vec<usize>,
    root: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    parent: Option<usize>,
    /// Left, right.
    children: [Option<usize>; 2],
    red: bool,
}

struct Nodes<'a> {
    keys: &'a [Key<'a>],
    nodes: Vec<Node>,
}

impl Nodes<'_> {
    /// The table with twice as many buckets.
    fn grown(&mut self, table: Vec<Bucket>) -> Vec<Bucket> {
        let buckets = table.len();
        let mut low = Vec::with_capacity(2 * buckets);
        let mut high = Vec::with_capacity(buckets);
        for Bucket { list, root } in table {
            let halves: (Vec<usize>, Vec<usize>) = list.into_iter().partition(|entry| self.keys[*entry].0 as usize & buckets == 0);
            let whole = halves.0.is_empty() || halves.1.is_empty();
            let [one, other] = [halves.0, halves.1].map(|list| match root {
                Some(root) if list.len() > LIST_AGAIN && whole => Bucket { list, root: Some(root) },
                Some(_) if list.len() > LIST_AGAIN => self.tree(list),
                _ => Bucket { list, root: None },
            });
            low.push(one);
            high.push(other);
        }
        low.append(&mut high);
        low
    }

    /// Makes a tree of a list.
    fn tree(&mut self, list: Vec<usize>) -> Bucket {
        let mut root = list[0];
        self.nodes[root] = Node::default();
        for &entry in &list[1..] {
            (root, _) = self.attach(root, entry);
        }
        front(list, root)
    }

    /// Adds an entry to a tree.
    fn insert(&mut self, mut list: Vec<usize>, root: usize, entry: usize) -> Bucket {
        let (root, parent) = self.attach(root, entry);
        let behind = list.iter().position(|other| *other == parent).map_or(list.len(), |at| at + 1);
        list.insert(behind, entry);
        front(list, root)
    }

    /// Returns the new root, and the parent that the entry was given, which it may have lost since.
    fn attach(&mut self, root: usize, entry: usize) -> (usize, usize) {
        let (mut parent, mut side) = (root, self.side(root, entry));
        while let Some(child) = self.nodes[parent].children[side] {
            (parent, side) = (child, self.side(child, entry));
        }
        self.nodes[entry] = Node { parent: Some(parent), ..Node::default() };
        self.nodes[parent].children[side] = Some(entry);
        (self.balance(root, entry), parent)
    }

    /// On which side of a node an entry goes. Java compares hashes as signed numbers, and names by UTF-16 units.
    fn side(&self, node: usize, entry: usize) -> usize {
        let ((node_hash, node_name), (hash, name)) = (self.keys[node], self.keys[entry]);
        let order = hash.cast_signed().cmp(&node_hash.cast_signed()).then_with(|| utf16(name).cmp(utf16(node_name)));
        usize::from(order != Ordering::Less)
    }

    fn is_red(&self, node: Option<usize>) -> bool {
        node.is_some_and(|node| self.nodes[node].red)
    }

    /// The textbook's repair after an insertion. Returns the root.
    fn balance(&mut self, mut root: usize, mut entry: usize) -> usize {
        self.nodes[entry].red = true;
        loop {
            let Some(mut parent) = self.nodes[entry].parent else {
                self.nodes[entry].red = false;
                return entry;
            };
            let Some(grandparent) = self.nodes[parent].parent.filter(|_| self.nodes[parent].red) else { return root };
            let side = usize::from(self.nodes[grandparent].children[1] == Some(parent));
            let uncle = self.nodes[grandparent].children[1 - side];
            if let Some(uncle) = uncle.filter(|_| self.is_red(uncle)) {
                self.nodes[uncle].red = false;
                self.nodes[parent].red = false;
                self.nodes[grandparent].red = true;
                entry = grandparent;
                continue;
            }
            if self.nodes[parent].children[1 - side] == Some(entry) {
                root = self.rotate(root, parent, side);
                (entry, parent) = (parent, entry);
            }
            self.nodes[parent].red = false;
            self.nodes[grandparent].red = true;
            root = self.rotate(root, grandparent, 1 - side);
        }
    }

    /// Moves a node down to this side, and its child of the other side up. Returns the root.
    fn rotate(&mut self, root: usize, node: usize, side: usize) -> usize {
        let Some(up) = self.nodes[node].children[1 - side] else { return root };
        let inner = self.nodes[up].children[side];
        self.nodes[node].children[1 - side] = inner;
        if let Some(inner) = inner {
            self.nodes[inner].parent = Some(node);
        }
        let above = self.nodes[node].parent;
        self.nodes[up].parent = above;
        self.nodes[up].children[side] = Some(node);
        self.nodes[node].parent = Some(up);
        match above {
            Some(above) => {
                let at = usize::from(self.nodes[above].children[1] == Some(node));
                self.nodes[above].children[at] = Some(up);
                root
            }
            None => {
                self.nodes[up].red = false;
                up
            }
        }
    }
}

/// The root moves to the front of the list.
fn front(mut list: Vec<usize>, root: usize) -> Bucket {
    if let Some(at) = list.iter().position(|entry| *entry == root) {
        list[..=at].rotate_right(1);
    }
    Bucket { list, root: Some(root) }
}
