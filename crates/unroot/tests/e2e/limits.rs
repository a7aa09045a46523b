//! Limits of the process, and cgroup limits: held, or an error that says why not.

use crate::host::{Host, IMAGE};

#[test]
fn ulimits_umask_and_oom_score() {
    let host = Host::new();
    assert_eq!(host.sh(&["--ulimit", "nofile=123:456"], "ulimit -Sn; ulimit -Hn").ok(), "123\n456");
    assert_eq!(host.sh(&[], "umask").ok(), "0022");
    assert_eq!(host.sh(&["--umask", "077"], "umask").ok(), "0077");
    assert_eq!(host.sh(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj").ok(), "500");
}

/// A limit that was asked for is there, or the start fails and names the file that lacks it.
#[test]
fn a_memory_limit_is_never_dropped_in_silence() {
    let host = Host::new();
    let done = host.sh(&["--memory", "64m"], "cat /sys/fs/cgroup/memory.max");
    if done.code == 0 {
        assert_eq!(done.out, "67108864\n");
    } else {
        assert_eq!(done.code, 125, "{done:?}");
        assert!(done.err.contains("memory") && done.err.contains("cgroup"), "{}", done.err);
    }
    host.unroot(["run", "--rm", "--memory", "64x", IMAGE, "true"]).fails(125, "64x");
}
