//! Standard input and output: nothing lost, nothing held back, whoever ends first.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::host::{Host, IMAGE};

#[test]
fn output_and_errors_are_apart_and_the_exit_code_is_the_commands() {
    let host = Host::new();
    let done = host.sh(&[], "echo out; echo err >&2; exit 42");
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (42, "out\n", "err\n"));
}

#[test]
fn a_killed_command_is_128_and_the_signal() {
    let host = Host::new();
    assert_eq!(host.sh(&[], "(sh -c 'kill -9 $$'); exit $?").code, 137);
    assert_eq!(host.sh(&["--init"], "kill -TERM $$").code, 143);
}

#[test]
fn input_goes_in_and_its_end_is_seen() {
    let host = Host::new();
    let done = host.unroot_with_input(["run", "-i", "--rm", "--network=none", IMAGE, "cat"], b"one\ntwo\n");
    assert_eq!(done.ok(), "one\ntwo");
    let empty = host.unroot_with_input(["run", "--rm", "--network=none", IMAGE, "cat"], b"not for it");
    assert_eq!(empty.ok(), "", "without -i the command has no input");
}

#[test]
fn a_lot_of_data_both_ways() {
    let host = Host::new();
    let data: Vec<u8> = (0..48u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut child = host
        .spawn(["run", "-i", "--rm", "--network=none", "--log-driver=none", IMAGE, "cat"], Stdio::piped());
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(&data).unwrap();
            drop(stdin);
        });
        stdout.read_to_end(&mut back).unwrap();
    });
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(back == data, "{} bytes went in, {} came back", data.len(), back.len());
}

#[test]
fn a_reader_that_goes_away_ends_the_writer() {
    let host = Host::new();
    let mut child = host.spawn(["run", "--rm", "--network=none", IMAGE, "yes"], Stdio::null());
    let mut some = [0; 4096];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    // the pipe is closed now
    let status = child.wait().unwrap();
    assert!(!status.success());
    for _ in 0..100 {
        if host.unroot(["ps", "-q"]).ok().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    host.unroot(["rm", "-fa", "-t0"]).ok();
}

#[test]
fn logs_keep_what_was_printed() {
    let host = Host::new();
    host.unroot([
        "run",
        "--name",
        "c",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "echo one; echo two >&2; printf three",
    ])
    .ok();
    let done = host.unroot(["logs", "c"]);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("one\nthree", "two\n"));
    assert_eq!(host.unroot(["logs", "--tail", "1", "c"]).out.trim_end(), "three");
}

#[test]
fn attach_to_what_runs() {
    let host = Host::new();
    host.unroot([
        "run",
        "-di",
        "--name",
        "c",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "read line; echo got $line; exit 3",
    ])
    .ok();
    let done = host.unroot_with_input(["attach", "c"], b"word\n");
    assert_eq!((done.code, done.out.as_str()), (3, "got word\n"));
}
