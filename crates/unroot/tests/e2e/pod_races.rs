//! Pods under SIGKILL and under many commands at once.

use std::process::{Command, Stdio};

use crate::host::{Host, IMAGE};
use crate::pods::{becomes, infra, namespace, run, status};

fn kill(host: &Host, container: &str, field: &str) {
    let pid = host.unroot(["inspect", "-f", &format!("{{{{.State.{field}}}}}"), container]).ok();
    assert!(host.run(Command::new("kill").args(["-9", &pid])).code == 0);
}

#[test]
fn an_infra_container_that_was_killed_is_told_and_can_be_replaced() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", "p"]).ok();
    run(&host, "p", "a");
    let before = namespace(&host, "a", "net");
    for field in ["Pid", "ConmonPid"] {
        kill(&host, &infra(&host, "p"), field);
        becomes(&host, "p", "Degraded");
        // whoever stays behind is named
        let started = host.unroot(["pod", "start", "p"]);
        assert!(
            started.err.contains("a still run in the namespaces of the infra container that has ended"),
            "{}",
            started.err
        );
        assert!(started.err.contains("pod restart p"), "{}", started.err);
        assert_eq!(status(&host, "p"), "Running");
        assert_eq!(namespace(&host, "a", "net"), before);
        let new = host.unroot(["run", "--rm", "--pod", "p", IMAGE, "readlink", "/proc/self/ns/net"]).ok();
        assert_ne!(new, before);
    }
    host.unroot(["pod", "restart", "p"]).ok();
    run(&host, "p", "b");
    assert_eq!(namespace(&host, "a", "net"), namespace(&host, "b", "net"));
    kill(&host, &infra(&host, "p"), "ConmonPid");
    host.unroot(["pod", "rm", "-f", "-t", "1", "p"]).ok();
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
}

#[test]
fn a_pod_whose_maker_was_killed_says_so_and_can_be_removed() {
    let host = Host::new();
    let id = host.unroot(["pod", "create", "--network=none", "p"]).ok();
    // (as it is between the pod's rename and its infra container's)
    host.unroot(["pod", "create", "--infra=false", "q"]).ok();
    let file = host.path("root").join("pods").join(&id).join("pod.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let infra = infra(&host, "p");
    std::fs::write(&file, text.replace(&format!("\"infra\":\"{infra}\""), "\"infra\":null")).unwrap();
    host.unroot(["create", "--pod", "p", IMAGE]).fails(125, "whoever made the pod was killed");
    host.unroot(["pod", "start", "p"]).fails(125, "pod rm p");
    host.unroot(["pod", "rm", "p"]).ok();
    assert_eq!(host.unroot(["ps", "-aq"]).ok(), "");
    // an infra container that is gone is told, too
    let id = host.unroot(["pod", "create", "--network=none", "p"]).ok();
    let of = host.unroot(["pod", "inspect", "-f", "{{.InfraContainerID}}", "p"]).ok();
    host.inside(&format!("rm -rf {}", host.path("root").join("containers").join(&of).display())).ok();
    host.unroot(["create", "--pod", "p", IMAGE]).fails(125, "is gone");
    host.unroot(["pod", "rm", &id]).ok();
}

#[test]
fn one_name_is_one_pods() {
    let host = Host::new();
    let makers: Vec<_> =
        (0..8).map(|_| host.spawn(["pod", "create", "--network=none", "p"], Stdio::null())).collect();
    let done: Vec<_> = makers.into_iter().map(|c| c.wait_with_output().unwrap()).collect();
    assert_eq!(done.iter().filter(|d| d.status.success()).count(), 1, "{done:?}");
    assert_eq!(host.unroot(["pod", "ps", "-q"]).ok().lines().count(), 1);
    assert_eq!(host.unroot(["ps", "-aq"]).ok().lines().count(), 1);
}

/// Nothing runs yet, so that each of them might make a user namespace of the engine's: they have to be in one.
#[test]
fn many_start_in_a_cold_pod() {
    let host = Host::new();
    host.unroot(["pod", "create", "--network=none", "p"]).ok();
    for round in 0..3 {
        let script = "readlink /proc/self/ns/net";
        let runs: Vec<_> = (0..6)
            .map(|_| host.spawn(["run", "--rm", "--pod", "p", IMAGE, "sh", "-c", script], Stdio::null()))
            .collect();
        let mut seen: Vec<String> = Vec::new();
        for one in runs {
            let done = one.wait_with_output().unwrap();
            assert!(done.status.success(), "{round}: {done:?}");
            seen.push(String::from_utf8(done.stdout).unwrap());
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
        host.unroot(["pod", "stop", "p"]).ok();
    }
}

/// A container is either refused or goes with its pod: none is left in a pod that is no more.
#[test]
fn making_and_removing_at_once() {
    let host = Host::new();
    for _ in 0..5 {
        host.unroot(["pod", "create", "--network=none", "p"]).ok();
        let mut all: Vec<_> = (0..4)
            .map(|_| host.spawn(["run", "-d", "--pod", "p", IMAGE, "sleep", "100"], Stdio::null()))
            .collect();
        all.push(host.spawn(["pod", "rm", "-f", "-t", "0", "p"], Stdio::null()));
        all.push(host.spawn(["pod", "ps"], Stdio::null()));
        for one in all {
            let done = one.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&done.stderr).into_owned();
            let known =
                ["no such pod", "no such container", "is gone", "not running", "container state improper"];
            assert!(done.status.success() || known.iter().any(|k| text.contains(k)), "{text}");
        }
        host.unroot(["pod", "rm", "-f", "-t", "0", "p"]).ok();
        assert_eq!(host.unroot(["ps", "-a", "--format", "{{.Names}} {{.PodName}} {{.Status}}"]).ok(), "");
    }
}
