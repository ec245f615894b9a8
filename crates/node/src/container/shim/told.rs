//! How a change of a pod is told: written down whole, and said to those who watch. The same for a shim and for a relay.

use super::connection::Connection;
use crate::container::protocol::{PodState, Reply, STATE};
use std::{fs, path::Path};

/// Writes a state down in the pod's run directory, whole or not at all, and tells those who watch.
pub fn tell(run: &Path, state: &PodState, connections: &mut [Connection]) {
    let path = run.join(STATE);
    let new = path.with_extension("new");
    let text = serde_json::to_vec(state).expect("a state is plain data");
    // Not flushed to the disk: after a crash of the host there is no pod to tell about.
    if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &path)) {
        eprintln!("cannot write {}: {error}", path.display());
    }
    for connection in connections.iter_mut().filter(|connection| connection.watches) {
        connection.send(&Reply::State(state.clone()), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::protocol::ProcessId;
    use std::{io::Read, os::unix::net::UnixStream};

    #[test]
    fn it_is_written_whole_and_said_to_those_who_watch() {
        let run = tempfile::tempdir().unwrap();
        let (near, mut watching) = UnixStream::pair().unwrap();
        let (other, mut silent) = UnixStream::pair().unwrap();
        let mut connections = [Connection::new(1, near).unwrap(), Connection::new(2, other).unwrap()];
        connections[0].watches = true;
        let state = PodState {
            boot: 3,
            shim: ProcessId { pid: 7, start_time: 8 },
            since_ms: 9,
            paused: false,
            containers: vec![],
            confinement: String::new(),
        };
        tell(run.path(), &state, &mut connections);
        drop(connections);
        let written = fs::read(run.path().join(STATE)).unwrap();
        assert_eq!(serde_json::from_slice::<PodState>(&written).unwrap(), state);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 1);
        let mut said = String::new();
        watching.read_to_string(&mut said).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&said).unwrap(), Reply::State(state));
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    }
}
