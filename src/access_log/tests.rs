//! Writers with real files, and shards played by the test.

use std::path::Path;
use std::sync::Arc;

use weir_core::model::{AccessLog, AccessLogFormat, Config, Handles, Listener};
use weir_core::obs::Pipe;

use super::*;

/// A state whose listeners log to these files.
fn state(paths: &[&Path]) -> State {
    let listener = |path: &&Path| Listener {
        name: path.display().to_string(),
        access_log: weir_core::model::ListenerLog::Own(AccessLog {
            target: LogTarget::File(path.to_path_buf()),
            format: AccessLogFormat::Elb,
        }),
        ..Listener::default()
    };
    let config = Config {
        balancers: vec![weir_core::model::Balancer::default()],
        listeners: paths.iter().map(listener).collect(),
        ..Config::default()
    };
    State::default().next(&config, &|_| vec![0], &mut Handles::default())
}

fn pipe(writers: &Writers, path: &Path) -> Arc<Pipe> {
    Arc::clone(writers.spools()[&LogTarget::File(path.to_owned())].pipe(0).unwrap())
}

fn line(pipe: &Pipe, text: &str) {
    pipe.line(|out| out.extend_from_slice(format!("{text}\n").as_bytes()));
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = weir_core::time::clock::mono().plus(Duration::from_secs(20));
    while !condition() {
        assert!(weir_core::time::clock::mono() < end, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn lines_reach_their_files_and_the_last_ones_too() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let mut writers = Writers::new(1);
    writers.follow(writers.open(&state(&[&one, &two])).unwrap()).unwrap();
    line(&pipe(&writers, &one), "a");
    line(&pipe(&writers, &two), "b");
    until("the lines come by themselves", || read(&one) == "a\n" && read(&two) == "b\n");
    line(&pipe(&writers, &one), "last");
    writers.finish();
    assert_eq!(read(&one), "a\nlast\n");
}

#[test]
fn a_rotation_loses_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("log"), folder.path().join("old"));
    let mut writers = Writers::new(1);
    writers.follow(writers.open(&state(&[&path])).unwrap()).unwrap();
    let pipe = pipe(&writers, &path);
    line(&pipe, "before");
    std::fs::rename(&path, &old).unwrap();
    line(&pipe, "meanwhile");
    writers.reopen();
    until("the new file", || path.exists());
    line(&pipe, "after");
    drop(pipe);
    writers.finish();
    assert_eq!(read(&old), "before\nmeanwhile\n");
    assert_eq!(read(&path), "after\n");
}

/// A target that nobody names any more gets the lines of those who still have its pipe.
#[test]
fn a_target_that_goes_gets_its_last_lines() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let mut writers = Writers::new(1);
    writers.follow(writers.open(&state(&[&one])).unwrap()).unwrap();
    let held = pipe(&writers, &one);
    writers.follow(writers.open(&state(&[&two])).unwrap()).unwrap();
    assert_eq!(writers.spools().len(), 1);
    line(&held, "late");
    drop(held);
    until("the late line", || read(&one) == "late\n");
    writers.finish();
}

/// A shard that is behind finds the target in an update that it has not looked at yet.
#[test]
fn a_target_that_goes_waits_for_who_will_find_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let mut writers = Writers::new(1);
    writers.follow(writers.open(&state(&[&one])).unwrap()).unwrap();
    let update = writers.spools();
    writers.follow(writers.open(&state(&[&two])).unwrap()).unwrap();
    let soon = weir_core::time::clock::mono().plus(Duration::from_millis(200));
    assert!(!writers.leaving.last().unwrap().1.wait(soon));
    let found = Arc::clone(update[&LogTarget::File(one.clone())].pipe(0).unwrap());
    drop(update);
    line(&found, "late");
    drop(found);
    until("the thread to end", || writers.leaving.iter().all(|(_, one)| one.has_ended()));
    assert_eq!(read(&one), "late\n");
    // At the process' end shards have ended, and what they were told stays.
    let told = writers.spools();
    line(&pipe(&writers, &two), "last");
    writers.finish();
    assert_eq!(read(&two), "last\n");
    assert_eq!(Arc::strong_count(&told[&LogTarget::File(two)]), 1, "the thread has ended");
}

/// A target that goes while its reader has stalled keeps neither file nor thread: again and again,
/// the process is as small as before.
#[test]
fn a_stalled_target_that_goes_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (fifo, other) = (folder.path().join("fifo"), folder.path().join("other"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut writers = Writers::new(1);
    for _ in 0..3 {
        writers.follow(writers.open(&state(&[&fifo])).unwrap()).unwrap();
        let held = pipe(&writers, &fifo);
        let spool = writers.spools().remove(&LogTarget::File(fifo.clone())).unwrap();
        let long = "x".repeat(999);
        until("lines to be dropped", || {
            (0..100).for_each(|_| line(&held, &long));
            spool.dropped() > 0
        });
        drop(spool);
        writers.follow(writers.open(&state(&[&other])).unwrap()).unwrap();
        // Somebody may have lines still.
        assert!(!writers.leaving.last().unwrap().1.has_ended());
        drop(held);
    }
    until("the threads to end", || writers.leaving.iter().all(|(_, one)| one.has_ended()));
    assert_eq!(holders(&fifo), 0);
    writers.finish();
}

/// Descriptors of this process for this file.
fn holders(path: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file == path)).count()
}

#[test]
fn a_target_that_cannot_be_had_leaves_all_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    let mut writers = Writers::new(1);
    writers.follow(writers.open(&state(&[&good])).unwrap()).unwrap();
    assert!(writers.open(&state(&[&good, Path::new("/nonexistent/log")])).is_err());
    let many: Vec<_> = (0..=LOG_TARGETS).map(|n| folder.path().join(n.to_string())).collect();
    let many: Vec<&Path> = many.iter().map(|path| path.as_path()).collect();
    let error = writers.open(&state(&many)).unwrap_err();
    assert!(error.to_string().contains("at most 64"), "{error}");
    line(&pipe(&writers, &good), "a");
    writers.finish();
    assert_eq!(read(&good), "a\n");
}
