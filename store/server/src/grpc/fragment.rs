//! Fragments: a watcher's response too large for one message, in several.
//!
//! Source: etcd `rpc.proto` WatchCreateRequest.fragment, `v3rpc/watch.go` sendFragments.

use prost::Message as _;

use super::watch::Answer;

/// What an encoded event adds to the response it stands in: a tag, its length, itself.
fn size(event: &[u8]) -> usize {
    1 + prost::length_delimiter_len(event.len()) + event.len()
}

/// The response in messages smaller than `bytes_max`, as far as single events are; all but the last are marked.
pub(super) fn fragments(mut response: Answer, bytes_max: usize) -> Vec<Answer> {
    if response.events.len() < 2 || response.encoded_len() < bytes_max {
        return vec![response];
    }
    let events = std::mem::take(&mut response.events);
    response.fragment = true;
    let bare = response.encoded_len();
    let (mut all, mut current, mut bytes) = (Vec::new(), response.clone(), bare);
    for event in events {
        let more = size(&event);
        if !current.events.is_empty() && bytes + more >= bytes_max {
            all.push(std::mem::replace(&mut current, response.clone()));
            bytes = bare;
        }
        bytes += more;
        current.events.push(event);
    }
    current.fragment = false;
    all.push(current);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(values: &[usize]) -> Answer {
        Answer { watch_id: 3, events: values.iter().map(|n| vec![b'v'; *n].into()).collect(), ..Answer::default() }
    }

    fn shape(values: &[usize], bytes_max: usize) -> Vec<(usize, bool)> {
        let all = fragments(response(values), bytes_max);
        assert!(all.iter().all(|f| f.watch_id == 3 && (f.events.len() == 1 || f.encoded_len() < bytes_max)));
        all.iter().map(|f| (f.events.len(), f.fragment)).collect()
    }

    #[test]
    fn all_but_the_last_fragment_are_marked() {
        assert_eq!(shape(&[10, 10], 1000), [(2, false)]);
        assert_eq!(shape(&[400, 400, 400], 1000), [(2, true), (1, false)]);
        assert_eq!(shape(&[400; 5], 1000), [(2, true), (2, true), (1, false)]);
        // What can't be split is sent whole.
        assert_eq!(shape(&[5000], 1000), [(1, false)]);
        assert_eq!(shape(&[5000, 10, 5000], 1000), [(1, true), (1, true), (1, false)]);
    }
}
