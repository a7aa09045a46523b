//! Pid 1 of a container with `--init`: `init -- COMMAND [ARGUMENT...]`; without a command it only waits, until it is
//! asked to end.
//!
//! All signals are blocked and waited for one after the other: SIGCHLD means to reap, any other goes to the command.
#![no_std]
#![no_main]

#[path = "sys.rs"]
mod sys;

use sys::{call, exit, number};

const SIGCHLD: isize = 17;

#[unsafe(no_mangle)]
extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc, argv, a null pointer, the environment and a null pointer here (execve(2)).
    let (argv, env) = unsafe {
        let argc = *stack;
        (stack.add(1), stack.add(argc + 2))
    };
    let all = !0u64;
    let mut before = 0u64;
    call(number::SIGPROCMASK, [0, &raw const all as usize, &raw mut before as usize, 8, 0]);
    // SAFETY: argv has at least the program's name and the separator, else the command is missing.
    let command = unsafe { argv.add(if *argv.add(1) != 0 { 2 } else { 1 }) };
    // SAFETY: as above.
    if unsafe { *argv.add(1) } == 0 {
        wait()
    }
    let child = call(number::CLONE, [SIGCHLD as usize, 0, 0, 0, 0]);
    if child == 0 {
        let none = 0u64;
        call(number::SETPGID, [0, 0, 0, 0, 0]);
        let mine = call(number::GETPID, [0; 5]) as i32;
        call(number::IOCTL, [0, 0x5410, &raw const mine as usize, 0, 0]); // TIOCSPGRP, if 0 is our terminal
        call(number::SIGPROCMASK, [2, &raw const none as usize, 0, 8, 0]);
        // SAFETY: the list ends with a null pointer.
        let path = unsafe { *command };
        run(path, command, env);
        sys::write(2, b"init: the command was not found or cannot be executed\n");
        exit(127)
    }
    if child < 0 {
        exit(125)
    }
    loop {
        let signal = call(number::SIGTIMEDWAIT, [&raw const all as usize, 0, 0, 8, 0]);
        if signal == SIGCHLD {
            reap(child);
        } else if signal > 0 {
            call(number::KILL, [child as usize, signal as usize, 0, 0, 0]);
        }
    }
}

/// Holds the namespaces of a container in which nothing runs.
fn wait() -> ! {
    let all = !0u64;
    loop {
        match call(number::SIGTIMEDWAIT, [&raw const all as usize, 0, 0, 8, 0]) {
            2 | 15 => exit(0),
            SIGCHLD => reap(0),
            _ => {}
        }
    }
}

/// Executes the command, looked up in PATH if it has no slash.
fn run(path: usize, command: *const usize, env: *const usize) {
    let name = text(path);
    if name.contains(&b'/') {
        call(number::EXECVE, [path, command as usize, env as usize, 0, 0]);
        return;
    }
    let mut search: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut entry = env;
    // SAFETY: the environment ends with a null pointer.
    while let Some(address) = Some(unsafe { *entry }).filter(|a| *a != 0) {
        if let Some(value) = text(address).strip_prefix(b"PATH=") {
            search = value;
        }
        // SAFETY: not past the null pointer, which was not met yet.
        entry = unsafe { entry.add(1) };
    }
    for dir in search.split(|b| *b == b':') {
        let mut full = [0u8; 4096];
        if dir.len() + name.len() + 2 > full.len() {
            continue;
        }
        full[..dir.len()].copy_from_slice(dir);
        full[dir.len()] = b'/';
        full[dir.len() + 1..dir.len() + 1 + name.len()].copy_from_slice(name);
        call(number::EXECVE, [full.as_ptr() as usize, command as usize, env as usize, 0, 0]);
    }
}

/// The bytes of a C string.
fn text(address: usize) -> &'static [u8] {
    let start = address as *const u8;
    let mut length = 0;
    // SAFETY: the kernel's strings end with a NUL and live as long as the process.
    unsafe {
        while address != 0 && *start.add(length) != 0 {
            length += 1;
        }
        if address == 0 { &[] } else { core::slice::from_raw_parts(start, length) }
    }
}

fn reap(child: isize) {
    loop {
        let mut status = 0i32;
        let pid = call(number::WAIT4, [usize::MAX, &raw mut status as usize, 1, 0, 0]);
        if pid <= 0 {
            return;
        }
        if pid == child {
            exit(if status & 0x7f == 0 { (status >> 8) & 0xff } else { 128 + (status & 0x7f) });
        }
    }
}
