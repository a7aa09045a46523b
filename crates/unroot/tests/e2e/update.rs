//! update: what changes at once, what with the next start, and what not.

use crate::host::{Host, IMAGE};

fn inspect(host: &Host, template: &str) -> String {
    host.unroot(["inspect", "--format", template, "c"]).ok()
}

#[test]
fn for_the_next_start() {
    let host = Host::new();
    let id = host
        .unroot([
            "create",
            "--name",
            "c",
            "--network=none",
            "-e",
            "A=old",
            "-e",
            "B=b",
            IMAGE,
            "sh",
            "-c",
            "echo $A $B $C; ulimit -n",
        ])
        .ok();
    let change = ["update", "c", "--env", "A=new", "--env=C=c", "--unsetenv=B", "--ulimit=nofile=100:200"];
    assert_eq!(host.unroot(change).ok(), id);
    assert_eq!(host.unroot(["start", "-a", "c"]).ok(), "new c\n100");
    host.unroot(["update", "c", "--ulimit=nofile=50:60"]).ok();
    assert_eq!(host.unroot(["start", "-a", "c"]).ok(), "new c\n50");
    host.unroot(["update", "c", "--memory=100m"]).ok();
    assert_eq!(inspect(&host, "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}"), "104857600 0");
    host.unroot(["update", "c", "--cpus=0.5"]).ok();
    assert_eq!(inspect(&host, "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}"), "104857600 500000000");
    host.unroot(["update"]).fails(125, "requires a name, id, or the");
    host.unroot(["update", "c", "--network=host"]).fails(125, "unknown flag: --network");
    host.unroot(["update", "c", "--device-read-bps=/dev/zero:1m"])
        .fails(125, "/dev/zero: not a block device");
    host.unroot(["update", "c", "--memory-swap=1m"]).fails(125, "larger than memory limit");
    assert_eq!(inspect(&host, "{{.HostConfig.MemorySwap}}"), "0", "what failed has changed nothing");
}

#[test]
fn the_restart_policy_of_one_that_runs() {
    let host = Host::new();
    host.unroot([
        "run",
        "-d",
        "--name",
        "c",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "while ! test -e /stop; do sleep 0.02; done; rm /stop",
    ])
    .ok();
    host.unroot(["update", "--restart=always", "c"]).ok();
    assert_eq!(inspect(&host, "{{.HostConfig.RestartPolicy.Name}}"), "always");
    host.unroot(["exec", "c", "touch", "/stop"]).ok();
    for _ in 0..500 {
        if inspect(&host, "{{.RestartCount}} {{.State.Running}}") == "1 true" {
            host.unroot(["stop", "-t0", "c"]).ok();
            assert_eq!(inspect(&host, "{{.State.Status}}"), "exited");
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it was not started again");
}

/// A monitor that has no check learns of one.
#[test]
fn health_checks_of_one_that_runs() {
    let host = Host::new();
    host.unroot(["run", "-d", "--name", "c", "--network=none", IMAGE, "sleep", "1000"]).ok();
    host.unroot(["update", "c", "--health-interval=1s"]).fails(125, "healthcheck command is not set");
    host.unroot(["update", "c", "--health-cmd=true", "--health-interval=50ms"]).ok();
    host.unroot(["wait", "--condition=healthy", "c"]).ok();
    host.unroot(["update", "c", "--health-cmd=false", "--health-retries=1"]).ok();
    host.unroot(["wait", "--condition=unhealthy", "c"]).ok();
    assert_eq!(
        inspect(&host, "{{.Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}}"),
        "[CMD-SHELL false] 50ms"
    );
    host.unroot(["update", "c", "--no-healthcheck"]).ok();
    assert_eq!(inspect(&host, "{{.Config.Healthcheck.Test}} {{.Config.StartupHealthCheck}}"), "[NONE] <nil>");
}
