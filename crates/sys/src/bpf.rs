//! Which devices the processes of a control group may make and open: a program of bpf(2) that the kernel asks
//! (the kernel's cgroup-v2.rst, "Device controller").

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use crate::SyscallError;

/// mknod(2) of it.
pub const MAKE: u8 = 1;
/// Opening it to read.
pub const READ: u8 = 2;
/// Opening it to write.
pub const WRITE: u8 = 4;

/// Devices that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Block devices or character devices; none is both.
    pub block: Option<bool>,
    /// Major number; none is all.
    pub major: Option<u32>,
    /// Minor number; none is all.
    pub minor: Option<u32>,
    /// Of [`MAKE`], [`READ`], [`WRITE`].
    pub access: u8,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_VALUE: u8 = 0xb7;
const SHIFT_RIGHT: u8 = 0x77;
const AND: u8 = 0x57;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Registers: the kind, the access, and the numbers of the device that is asked for, and a free one.
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const FREE: u8 = 1;

fn one(code: u8, to: u8, from: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate: immediate.cast_signed() }
}

/// Allows what one of the rules allows, and nothing else.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor
    let mut all = vec![
        one(LOAD_WORD, KIND, FREE, 0, 0),
        one(LOAD_WORD, MAJOR, FREE, 4, 0),
        one(LOAD_WORD, MINOR, FREE, 8, 0),
        one(MOVE, ACCESS, KIND, 0, 0),
        one(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        one(AND, KIND, 0, 0, 0xffff),
    ];
    for rule in rules {
        let mut tests = Vec::new();
        if let Some(block) = rule.block {
            tests.push(one(JUMP_IF_NOT, KIND, 0, 0, if block { 1 } else { 2 }));
        }
        if rule.access != MAKE | READ | WRITE {
            tests.push(one(MOVE, FREE, ACCESS, 0, 0));
            tests.push(one(AND, FREE, 0, 0, u32::from(!rule.access & 7)));
            tests.push(one(JUMP_IF_NOT, FREE, 0, 0, 0));
        }
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            tests.extend(number.map(|n| one(JUMP_IF_NOT, register, 0, 0, n)));
        }
        tests.extend([one(MOVE_VALUE, 0, 0, 0, 1), one(EXIT, 0, 0, 0, 0)]);
        // a test that fails goes on behind this rule
        let length = tests.len();
        for (n, test) in tests.iter_mut().enumerate().filter(|(_, t)| t.code == JUMP_IF_NOT) {
            test.offset = (length - n - 1) as i16;
        }
        all.extend(tests);
    }
    all.extend([one(MOVE_VALUE, 0, 0, 0, 0), one(EXIT, 0, 0, 0, 0)]);
    all
}

#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    length: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &T, what: &str) -> Result<i32, SyscallError> {
    let size = std::mem::size_of::<T>();
    // SAFETY: the kernel reads `size` bytes of `attributes`, and what its pointers point to, which lives until after.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
    if done < 0 { Err(SyscallError::last(format!("bpf({what})"))) } else { Ok(done as i32) }
}

/// From here on the processes of a control group may use these devices only; needs CAP_BPF and CAP_NET_ADMIN, or
/// root, in the first user namespace.
pub fn restrict_devices(cgroup: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<(), SyscallError> {
    const PROG_LOAD: libc::c_int = 5;
    const PROG_ATTACH: libc::c_int = 8;
    let program = program(rules);
    let license = c"Apache-2.0";
    let load = Load {
        program_type: 15, // BPF_PROG_TYPE_CGROUP_DEVICE
        length: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    let fd = bpf(PROG_LOAD, &load, "PROG_LOAD, CGROUP_DEVICE")?;
    // SAFETY: the kernel has just given us this descriptor.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: loaded.as_raw_fd().cast_unsigned(),
        attach_type: 6, // BPF_CGROUP_DEVICE
        flags: 2,       // BPF_F_ALLOW_MULTI: those of groups above and below count, too
    };
    bpf(PROG_ATTACH, &attach, "PROG_ATTACH, CGROUP_DEVICE").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do with a program.
    fn allows(program: &[Instruction], block: bool, access: u8, major: u32, minor: u32) -> bool {
        let context = [u32::from(access) << 16 | if block { 1 } else { 2 }, major, minor];
        let (mut registers, mut at) = ([0u64; 10], 0usize);
        loop {
            let now = program[at];
            let (to, from) = (usize::from(now.registers & 15), usize::from(now.registers >> 4));
            at += 1;
            match now.code {
                LOAD_WORD => registers[to] = context[now.offset as usize / 4].into(),
                MOVE => registers[to] = registers[from],
                MOVE_VALUE => registers[to] = now.immediate as u64,
                SHIFT_RIGHT => registers[to] >>= now.immediate,
                AND => registers[to] &= now.immediate as u64,
                JUMP_IF_NOT if registers[to] != now.immediate as u64 => at += now.offset as usize,
                JUMP_IF_NOT => {}
                EXIT => return registers[0] == 1,
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn rules() {
        let null = DeviceRule { block: Some(false), major: Some(1), minor: Some(3), access: 7 };
        let make = DeviceRule { block: None, major: None, minor: None, access: MAKE };
        let loops = DeviceRule { block: Some(true), major: Some(7), minor: None, access: READ };
        let program = program(&[null, make, loops]);
        assert!(allows(&program, false, READ | WRITE, 1, 3) && !allows(&program, false, READ, 1, 4));
        assert!(!allows(&program, true, READ, 1, 3));
        assert!(allows(&program, true, MAKE, 8, 0) && !allows(&program, true, MAKE | READ, 8, 0));
        assert!(allows(&program, true, READ, 7, 9) && !allows(&program, true, READ | WRITE, 7, 9));
    }
}
