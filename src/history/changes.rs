//! The difference that an event makes to its conversation's state, as a JSON Patch (RFC 6902) that also holds the old values.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// One operation of a patch.
///
/// Operations applied in order turn the state before into the state after.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Change {
    Add { path: String, value: Value },
    Remove { path: String, before: Value },
    Replace { path: String, value: Value, before: Value },
}

/// Returns the patch that turns `before` into `after`.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare("", before, after, &mut found);
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<Change>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(a), Value::Object(b)) => {
            for (name, before) in a {
                let path = below(path, name);
                match b.get(name) {
                    Some(after) => compare(&path, before, after, found),
                    None => found.push(Change::Remove { path, before: before.clone() }),
                }
            }
            let new = b.iter().filter(|(name, _)| !a.contains_key(*name));
            found.extend(new.map(|(name, value)| Change::Add { path: below(path, name), value: value.clone() }));
        }
        (Value::Array(a), Value::Array(b)) => lists(path, a, b, found),
        _ => {
            let (value, before) = (after.clone(), before.clone());
            found.push(Change::Replace { path: path.into(), value, before });
        }
    }
}

/// Compares lists of a state: these grow at their end and are cut at their front, so both changes are reported as such.
fn lists(path: &str, before: &[Value], after: &[Value], found: &mut Vec<Change>) {
    let cut = cut_from_front(before, after);
    for value in &before[..cut] {
        found.push(Change::Remove { path: below(path, "0"), before: value.clone() });
    }
    let before = &before[cut..];
    for (at, (before, after)) in before.iter().zip(after).enumerate() {
        compare(&below(path, &at.to_string()), before, after, found);
    }
    for (at, value) in before.iter().enumerate().skip(after.len()).rev() {
        found.push(Change::Remove { path: below(path, &at.to_string()), before: value.clone() });
    }
    for (at, value) in after.iter().enumerate().skip(before.len()) {
        found.push(Change::Add { path: below(path, &at.to_string()), value: value.clone() });
    }
}

/// Counts the elements cut from the front, if the remainder is a prefix of the new list.
fn cut_from_front(before: &[Value], after: &[Value]) -> usize {
    let is_rest = |cut: &usize| {
        let rest = &before[*cut..];
        rest.len() <= after.len() && rest == &after[..rest.len()]
    };
    // An empty remainder is a prefix of every list.
    (0..before.len()).find(is_rest).unwrap_or(if after.is_empty() { before.len() } else { 0 })
}

/// Extends a JSON Pointer (RFC 6901) by a name.
fn below(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn apply(state: &mut Value, change: &Change) {
        let (path, value) = match change {
            Change::Add { path, value } | Change::Replace { path, value, .. } => (path, Some(value)),
            Change::Remove { path, .. } => (path, None),
        };
        let Some((parent, name)) = path.rsplit_once('/') else {
            *state = value.unwrap().clone();
            return;
        };
        let name = name.replace("~1", "/").replace("~0", "~");
        match (state.pointer_mut(parent).unwrap(), change) {
            (Value::Array(list), Change::Add { value, .. }) => list.insert(name.parse().unwrap(), value.clone()),
            (Value::Array(list), Change::Remove { before, .. }) => {
                assert_eq!(&list.remove(name.parse().unwrap()), before);
            }
            (Value::Object(map), Change::Remove { before, .. }) => assert_eq!(map.remove(&name).as_ref(), Some(before)),
            (Value::Object(map), Change::Add { value, .. }) => assert_eq!(map.insert(name, value.clone()), None),
            (parent, Change::Replace { value, before, .. }) => {
                let place = match parent {
                    Value::Array(list) => &mut list[name.parse::<usize>().unwrap()],
                    parent => &mut parent[&name],
                };
                assert_eq!(std::mem::replace(place, value.clone()), *before);
            }
            (parent, _) => panic!("{parent} holds nothing"),
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), (0..4u8).prop_map(Value::from), "[a/~]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-c/~]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn changes_turn_the_state_before_into_the_state_after(before in json_value(), after in json_value()) {
            let mut state = before.clone();
            for change in changes(&before, &after) {
                apply(&mut state, &change);
            }
            prop_assert_eq!(state, after);
        }
    }

    #[test]
    fn a_moved_queue_is_a_removal_and_an_addition() {
        let told = changes(&json!({"q": [1, 2, 3], "n": 1}), &json!({"q": [2, 3, 4], "n": 1}));
        let (path, value) = ("/q/0".to_string(), json!(4));
        assert_eq!(told, [Change::Remove { path, before: json!(1) }, Change::Add { path: "/q/2".into(), value }]);
        assert!(changes(&json!([1]), &json!([1])).is_empty());
    }
}
