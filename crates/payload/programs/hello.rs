//! What is seen from inside a container: `hello [--facts]`.
#![no_std]
#![no_main]

#[path = "sys.rs"]
mod sys;

use sys::{call, exit, number};

struct Text {
    bytes: [u8; 8192],
    length: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; 8192], length: 0 }
    }

    fn add(&mut self, text: &[u8]) -> &mut Self {
        let end = (self.length + text.len()).min(self.bytes.len());
        let room = end - self.length;
        self.bytes[self.length..end].copy_from_slice(&text[..room]);
        self.length = end;
        self
    }

    fn number(&mut self, mut n: u64) -> &mut Self {
        let mut digits = [0u8; 20];
        let mut at = 20;
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.add(&digits[at..])
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn read_file(path: &[u8]) -> Text {
    let mut text = Text::new();
    let fd = call(number::OPEN_AT, [-100isize as usize, path.as_ptr() as usize, 0, 0, 0]);
    if fd >= 0 {
        loop {
            let room = text.bytes.len() - text.length;
            let got = call(number::READ, [fd as usize, text.bytes[text.length..].as_mut_ptr() as usize, room, 0, 0]);
            if got <= 0 {
                break;
            }
            text.length += got as usize;
        }
        call(number::CLOSE, [fd as usize, 0, 0, 0, 0]);
    }
    text
}

fn field<'a>(status: &'a [u8], name: &[u8]) -> &'a [u8] {
    for line in status.split(|b| *b == b'\n') {
        if let Some(rest) = line.strip_prefix(name) {
            if let Some(rest) = rest.strip_prefix(b":") {
                return trim(rest);
            }
        }
    }
    b"?"
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

fn first(text: &[u8]) -> &[u8] {
    text.split(|b| matches!(b, b' ' | b'\t')).next().unwrap_or(b"?")
}

fn parse(text: &[u8], base: u64) -> u64 {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(u64::from(b - b'0')),
        b'a'..=b'f' => Some(u64::from(b - b'a') + 10),
        _ => None,
    };
    let mut n = 0u64;
    for byte in text {
        match digit(*byte).filter(|d| *d < base) {
            Some(d) => n = n.wrapping_mul(base).wrapping_add(d),
            None => break,
        }
    }
    n
}

const CAPABILITIES: [&[u8]; 41] = [
    b"chown", b"dac_override", b"dac_read_search", b"fowner", b"fsetid", b"kill", b"setgid", b"setuid", b"setpcap",
    b"linux_immutable", b"net_bind_service", b"net_broadcast", b"net_admin", b"net_raw", b"ipc_lock", b"ipc_owner",
    b"sys_module", b"sys_rawio", b"sys_chroot", b"sys_ptrace", b"sys_pacct", b"sys_admin", b"sys_boot", b"sys_nice",
    b"sys_resource", b"sys_time", b"sys_tty_config", b"mknod", b"lease", b"audit_write", b"audit_control", b"setfcap",
    b"mac_override", b"mac_admin", b"syslog", b"wake_alarm", b"block_suspend", b"audit_read", b"perfmon", b"bpf",
    b"checkpoint_restore",
];

#[unsafe(no_mangle)]
extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel puts argc and argv here (execve(2)).
    let facts = unsafe { *stack > 1 && *(*stack.add(2) as *const [u8; 3]) == *b"--f" };
    let status = read_file(b"/proc/self/status\0");
    let map = read_file(b"/proc/self/uid_map\0");
    if facts {
        print_facts(status.get(), map.get());
        // stays until its input ends, so that it can be looked at from outside
        let mut byte = [0u8; 64];
        while call(number::READ, [0, byte.as_mut_ptr() as usize, byte.len(), 0, 0]) > 0 {}
    } else {
        print_picture(status.get(), map.get());
    }
    exit(0)
}

fn print_facts(status: &[u8], map: &[u8]) {
    let mut out = Text::new();
    for name in [&b"Uid"[..], b"Gid", b"Groups", b"CapEff", b"CapBnd", b"NoNewPrivs", b"Seccomp", b"Seccomp_filters", b"Pid"] {
        out.add(name).add(b"=").add(field(status, name)).add(b"\n");
    }
    for line in map.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        out.add(b"UidMap=").add(trim(line)).add(b"\n");
    }
    let root = read_file(b"/proc/self/mountinfo\0");
    let line = root.get().split(|b| *b == b'\n').find(|l| l.split(|b| *b == b' ').nth(4) == Some(b"/"));
    let options = line.and_then(|l| l.split(|b| *b == b' ').nth(5)).unwrap_or(b"?");
    out.add(b"Root=").add(options).add(b"\n");
    sys::write(1, out.get());
}

fn print_picture(status: &[u8], map: &[u8]) {
    let mut termios = [0u8; 64];
    let colour = call(number::IOCTL, [1, 0x5401, termios.as_mut_ptr() as usize, 0, 0]) == 0;
    let bold: &[u8] = if colour { b"\x1b[1;36m" } else { b"" };
    let plain: &[u8] = if colour { b"\x1b[0m" } else { b"" };
    let mut out = Text::new();
    let uid = first(field(status, b"Uid"));
    out.add(b"\n  ").add(bold).add("Hello from inside a container of unroot.".as_bytes()).add(plain).add(b"\n\n");
    out.add(b"  I am        uid ").add(uid).add(b", gid ").add(first(field(status, b"Gid"))).add(b", process ");
    out.number(call(number::GETPID, [0; 5]) as u64).add(b" of my own namespace\n");
    for (n, line) in map.split(|b| *b == b'\n').filter(|l| !l.is_empty()).take(6).enumerate() {
        let mut numbers = line.split(|b| *b == b' ').filter(|w| !w.is_empty()).map(|w| parse(w, 10));
        let (inside, outside, length) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        out.add(if n == 0 { b"  my ids      " } else { b"              " });
        range(&mut out, inside, length);
        out.add(" \u{2500}\u{25b6} ".as_bytes());
        range(&mut out, outside, length);
        out.add(b" outside\n");
    }
    let capabilities = parse(field(status, b"CapEff"), 16);
    out.add(b"  I may       ");
    let mut column = 14;
    let mut any = false;
    for (n, name) in CAPABILITIES.iter().enumerate().filter(|(n, _)| capabilities & (1 << n) != 0) {
        let _ = n;
        if column + name.len() + 2 > 78 {
            out.add(b"\n              ");
            column = 14;
        }
        out.add(name).add(b" ");
        column += name.len() + 1;
        any = true;
    }
    out.add(if any { b"" } else { b"nothing that needs a capability" });
    out.add(b"\n              (over my own namespaces, if my ids are not the host's)\n");
    let yes = |on: bool| -> &[u8] { if on { b"on" } else { b"off" } };
    out.add(b"  fences      seccomp ").add(yes(field(status, b"Seccomp") == b"2"));
    out.add(b", no_new_privs ").add(yes(field(status, b"NoNewPrivs") == b"1")).add(b"\n\n");
    sys::write(1, out.get());
}

fn range(out: &mut Text, first: u64, length: u64) {
    out.number(first);
    if length > 1 {
        out.add(b"-").number(first + length - 1);
    }
}
