//! System calls that a container may make: profiles in the OCI's and Docker's JSON format, and a default one,
//! compiled to a classic BPF program.
//!
//! The program first looks at the architecture, then finds the call by binary search over ranges of numbers with
//! equal rules, so that a filter of hundreds of calls takes about nine comparisons; the kernel's own cache skips
//! even these for calls that are always allowed.

mod default;
mod profile;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use unroot_sys::seccomp::Instruction;

use crate::Error;
use crate::process::capability_bits;
use crate::spec::Capabilities;

/// Which filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Ours.
    Default,
    /// None.
    Unconfined,
    /// A JSON file's.
    File(PathBuf),
}

/// What becomes of a call: a `SECCOMP_RET_*` value.
pub type Action = u32;

pub(crate) const KILL_PROCESS: Action = 0x8000_0000;
pub(crate) const ALLOW: Action = 0x7fff_0000;
pub(crate) const LOG: Action = 0x7ffc_0000;
pub(crate) const ERRNO: Action = 0x0005_0000;
pub(crate) const TRAP: Action = 0x0003_0000;
pub(crate) const KILL_THREAD: Action = 0;

/// How an argument is compared (seccomp's `scmp_compare`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `==`
    Equal,
    /// `>=`
    GreaterEqual,
    /// `>`
    Greater,
    /// `arg & mask == value`
    MaskedEqual(u64),
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0 on.
    pub argument: u8,
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: u64,
}

/// One rule of a call: the action if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All of them.
    pub conditions: Vec<Condition>,
    /// What then.
    pub action: Action,
}

/// Rules by name of a call.
pub type Calls = BTreeMap<Cow<'static, str>, Cow<'static, [Rule]>>;

/// Rules by name of the call; the first that holds decides.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Of calls without a rule, or none of whose rules holds.
    pub default: Action,
    /// By name.
    pub calls: Calls,
    /// Programs of the 32-bit architecture may run, too.
    pub compat: bool,
}

/// The filter for a process with these capabilities; none for [`Profile::Unconfined`].
pub fn compile(profile: &Profile, capabilities: &Capabilities) -> Result<Option<Vec<Instruction>>, Error> {
    Ok(rules(profile, capabilities)?.map(|rules| assemble(&rules)))
}

/// The same in the form of the runtime spec, for other runtimes.
pub fn document(profile: &Profile, capabilities: &Capabilities) -> Result<Option<serde_json::Value>, Error> {
    Ok(rules(profile, capabilities)?.map(|rules| profile::document(&rules)))
}

fn rules(profile: &Profile, capabilities: &Capabilities) -> Result<Option<Rules>, Error> {
    let bits = capability_bits(&capabilities.bounding)?;
    Ok(Some(match profile {
        Profile::Unconfined => return Ok(None),
        Profile::Default => default::rules(bits),
        Profile::File(path) => {
            let text = std::fs::read(path).map_err(|e| {
                Error::Spec(format!("opening seccomp profile failed: open {}: {e}", path.display()))
            })?;
            profile::parse(&text, bits)
                .map_err(|e| Error::Spec(format!("seccomp profile {}: {e}", path.display())))?
        }
    }))
}

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;
#[cfg(target_arch = "x86_64")]
const COMPAT: u32 = 0x4000_0003;
#[cfg(target_arch = "aarch64")]
const COMPAT: u32 = 0x4000_0028;

#[cfg(target_arch = "aarch64")]
use syscalls::arm::Sysno as CompatSysno;
#[cfg(target_arch = "x86_64")]
use syscalls::x86::Sysno as CompatSysno;

/// Numbers of calls by name. (A table, since to parse a name compares it with every other one.)
type Numbers = HashMap<&'static str, u32>;

fn compat_numbers() -> Numbers {
    CompatSysno::iter().map(|n| (n.name(), n.id() as u32)).collect()
}

fn native_numbers() -> Numbers {
    syscalls::Sysno::iter().map(|n| (n.name(), n.id() as u32)).collect()
}

/// The bit of x32's call numbers (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;
const ENOSYS: Action = ERRNO | 38;

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// The whole program.
pub fn assemble(rules: &Rules) -> Vec<Instruction> {
    let native = section(rules, &native_numbers());
    let compat = if rules.compat {
        section(rules, &compat_numbers())
    } else {
        vec![instruction(RETURN, 0, 0, KILL_PROCESS)]
    };
    let mut program = vec![
        instruction(LOAD, 0, 0, ARCHITECTURE_OFFSET),
        instruction(JUMP_EQUAL, 1, 0, NATIVE),
        instruction(JUMP, 0, 0, native.len() as u32),
    ];
    program.extend(native);
    program.push(instruction(JUMP_EQUAL, 1, 0, COMPAT));
    program.push(instruction(RETURN, 0, 0, KILL_PROCESS));
    program.extend(compat);
    program
}

/// A run of call numbers with equal rules.
struct Range<'a> {
    first: u32,
    rules: &'a [Rule],
}

fn section(rules: &Rules, numbers: &Numbers) -> Vec<Instruction> {
    let numbered: BTreeMap<u32, &[Rule]> =
        rules.calls.iter().filter_map(|(name, rules)| Some((*numbers.get(&name[..])?, &rules[..]))).collect();
    let mut ranges: Vec<Range<'_>> = vec![Range { first: 0, rules: &[] }];
    let mut next = 0;
    for (number, rules) in numbered {
        if number > next {
            push(&mut ranges, next, &[]);
        }
        push(&mut ranges, number, rules);
        next = number + 1;
    }
    push(&mut ranges, next, &[]);
    let mut program = vec![
        instruction(LOAD, 0, 0, NUMBER_OFFSET),
        // (calls of x32 are the same ones by other numbers: no rule is about them, so no default is for them either)
        instruction(JUMP_GREATER_EQUAL, 0, 1, X32),
        instruction(RETURN, 0, 0, ENOSYS),
    ];
    program.extend(search(&ranges, rules.default));
    program
}

fn push<'a>(ranges: &mut Vec<Range<'a>>, first: u32, rules: &'a [Rule]) {
    match ranges.last_mut() {
        Some(last) if last.first == first => last.rules = rules,
        Some(last) if last.rules == rules => {}
        _ => ranges.push(Range { first, rules }),
    }
}

fn search(ranges: &[Range<'_>], default: Action) -> Vec<Instruction> {
    if let [range] = ranges {
        return body(range.rules, default);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (below, above) = (search(low, default), search(high, default));
    let mut program = match u8::try_from(below.len()) {
        Ok(distance) => vec![instruction(JUMP_GREATER_EQUAL, distance, 0, high[0].first)],
        Err(_) => vec![
            instruction(JUMP_GREATER_EQUAL, 0, 1, high[0].first),
            instruction(JUMP, 0, 0, below.len() as u32),
        ],
    };
    program.extend(below);
    program.extend(above);
    program
}

fn body(rules: &[Rule], default: Action) -> Vec<Instruction> {
    let mut program = Vec::new();
    for rule in rules {
        let mut tests: Vec<Vec<Instruction>> = Vec::new();
        let mut after = 1; // the return of this rule
        for condition in rule.conditions.iter().rev() {
            let test = test(condition, after);
            after += test.len() as u8;
            tests.push(test);
        }
        program.extend(tests.into_iter().rev().flatten());
        program.push(instruction(RETURN, 0, 0, rule.action));
        if rule.conditions.is_empty() {
            return program;
        }
    }
    program.push(instruction(RETURN, 0, 0, default));
    program
}

/// Falls through if the condition holds, else jumps over `skip` more instructions after the test.
fn test(condition: &Condition, skip: u8) -> Vec<Instruction> {
    let low = 16 + 8 * u32::from(condition.argument);
    let high = low + 4;
    let (value_low, value_high) = (condition.value as u32, (condition.value >> 32) as u32);
    let load = |offset| instruction(LOAD, 0, 0, offset);
    let jump = |code, jt, jf, k| instruction(code, jt, jf, k);
    match condition.compare {
        Compare::Equal => vec![
            load(high),
            jump(JUMP_EQUAL, 0, skip + 2, value_high),
            load(low),
            jump(JUMP_EQUAL, 0, skip, value_low),
        ],
        Compare::NotEqual => vec![
            load(high),
            jump(JUMP_EQUAL, 0, 2, value_high),
            load(low),
            jump(JUMP_EQUAL, skip, 0, value_low),
        ],
        Compare::MaskedEqual(mask) => vec![
            load(high),
            instruction(AND, 0, 0, (mask >> 32) as u32),
            jump(JUMP_EQUAL, 0, skip + 3, value_high),
            load(low),
            instruction(AND, 0, 0, mask as u32),
            jump(JUMP_EQUAL, 0, skip, value_low),
        ],
        Compare::Greater => ordered(high, low, value_high, value_low, JUMP_GREATER, skip, false),
        Compare::GreaterEqual => ordered(high, low, value_high, value_low, JUMP_GREATER_EQUAL, skip, false),
        Compare::LessEqual => ordered(high, low, value_high, value_low, JUMP_GREATER, skip, true),
        Compare::Less => ordered(high, low, value_high, value_low, JUMP_GREATER_EQUAL, skip, true),
    }
}

/// `arg > value` and its like: the upper halves decide unless they are equal. `negated` turns the answer.
fn ordered(
    high: u32,
    low: u32,
    value_high: u32,
    value_low: u32,
    code: u16,
    skip: u8,
    negated: bool,
) -> Vec<Instruction> {
    let (yes, no) = if negated { (skip, 0) } else { (0, skip) };
    let after = |distance: u8, target: u8| if target == 0 { distance } else { distance + target };
    vec![
        instruction(LOAD, 0, 0, high),
        instruction(JUMP_GREATER, after(3, yes), 0, value_high),
        instruction(JUMP_EQUAL, 0, after(2, no), value_high),
        instruction(LOAD, 0, 0, low),
        instruction(code, yes, no, value_low),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let load = |offset: u32| match offset {
            0 => number,
            4 => architecture,
            16.. => {
                let argument = arguments[(offset as usize - 16) / 8];
                if (offset - 16).is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
            _ => panic!("offset {offset}"),
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            let branch = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
            match i.code {
                LOAD => a = load(i.k),
                AND => a &= i.k,
                JUMP => at += i.k as usize,
                JUMP_EQUAL => at += branch(a == i.k),
                JUMP_GREATER => at += branch(a > i.k),
                JUMP_GREATER_EQUAL => at += branch(a >= i.k),
                RETURN => return i.k,
                code => panic!("code {code:#x}"),
            }
        }
    }

    #[test]
    fn comparisons() {
        let values = [0u64, 1, 7, 8, 9, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0008, u64::MAX];
        type Meaning = fn(u64, u64) -> bool;
        let all: [(Compare, Meaning); 6] = [
            (Compare::Equal, |a, b| a == b),
            (Compare::NotEqual, |a, b| a != b),
            (Compare::Less, |a, b| a < b),
            (Compare::LessEqual, |a, b| a <= b),
            (Compare::Greater, |a, b| a > b),
            (Compare::GreaterEqual, |a, b| a >= b),
        ];
        for (compare, meaning) in all {
            for value in values {
                let condition = Condition { argument: 1, compare, value };
                let rules = Rules {
                    default: ERRNO | 1,
                    calls: [(
                        "read".into(),
                        vec![Rule { conditions: vec![condition, condition], action: ALLOW }].into(),
                    )]
                    .into(),
                    compat: false,
                };
                let program = assemble(&rules);
                for argument in values {
                    let got = run(&program, NATIVE, native_numbers()["read"], [0, argument, 0, 0, 0, 0]);
                    assert_eq!(
                        got == ALLOW,
                        meaning(argument, value),
                        "{argument:#x} {compare:?} {value:#x}"
                    );
                }
            }
        }
    }

    fn decide(program: &[Instruction], name: &str, arguments: [u64; 6]) -> u32 {
        run(program, NATIVE, native_numbers()[name], arguments)
    }

    #[test]
    fn the_default_profile() {
        let bits = |names: &[&str]| {
            capability_bits(&names.iter().map(|s| s.to_string()).collect::<Vec<_>>()).unwrap()
        };
        let usual = assemble(&default::rules(bits(&["CHOWN", "SETUID"])));
        let none = [0; 6];
        for name in [
            "read",
            "openat",
            "execve",
            "clone",
            "futex",
            "mmap",
            "socketpair",
            "epoll_wait",
            "statx",
            "rseq",
        ] {
            assert_eq!(decide(&usual, name, none), ALLOW, "{name}");
        }
        for name in [
            "mount",
            "bpf",
            "keyctl",
            "add_key",
            "kexec_load",
            "init_module",
            "perf_event_open",
            "userfaultfd",
            "ptrace",
            "io_uring_setup",
            "reboot",
            "swapon",
            "setns",
            "unshare",
            "open_by_handle_at",
            "mount_setattr",
            "process_vm_writev",
            "settimeofday",
        ] {
            let got = decide(&usual, name, none);
            // (ptrace is open to everybody since Linux 4.8, where it cannot get round a filter any more)
            assert!(name == "ptrace" || got == ERRNO | 1, "{name}: {got:#x}");
        }
        assert_eq!(decide(&usual, "clone3", none), ERRNO | 38);
        assert_eq!(
            decide(&usual, "clone", [0x1000_0000, 0, 0, 0, 0, 0]),
            ERRNO | 1,
            "clone of a user namespace"
        );
        assert_eq!(decide(&usual, "socket", [40, 0, 0, 0, 0, 0]), ERRNO | 1, "AF_VSOCK");
        assert_eq!(decide(&usual, "socket", [2, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(decide(&usual, "personality", [0x8, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(
            decide(&usual, "personality", [0x0040_0000, 0, 0, 0, 0, 0]),
            ERRNO | 1,
            "ADDR_NO_RANDOMIZE"
        );
        assert_eq!(run(&usual, 0xdead, 0, none), KILL_PROCESS);
        assert_eq!(run(&usual, NATIVE, 100_000, none), ERRNO | 38, "a call that nobody knows yet");
        let admin = assemble(&default::rules(bits(&["SYS_ADMIN"])));
        for name in ["mount", "unshare", "setns", "clone3", "bpf"] {
            assert_eq!(decide(&admin, name, none), ALLOW, "{name}");
        }
        assert!(usual.len() < 4096, "{} instructions", usual.len());
    }

    #[test]
    fn a_profile_file() {
        let text = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["read","nosuchcall"],"action":"SCMP_ACT_ALLOW"},
            {"names":["write"],"action":"SCMP_ACT_ERRNO","errnoRet":13,"args":[{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]},
            {"names":["write"],"action":"SCMP_ACT_ALLOW"},
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
        let program = assemble(&profile::parse(text, 0).unwrap());
        assert_eq!(decide(&program, "read", [0; 6]), ALLOW);
        assert_eq!(decide(&program, "write", [2, 0, 0, 0, 0, 0]), ERRNO | 13);
        assert_eq!(decide(&program, "write", [1, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(decide(&program, "mount", [0; 6]), ERRNO | 38);
        assert_eq!(decide(&assemble(&profile::parse(text, 1 << 21).unwrap()), "mount", [0; 6]), ALLOW);
        let open = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO"}]}"#;
        let program = assemble(&profile::parse(open, 0).unwrap());
        assert_eq!(decide(&program, "mount", [0; 6]), ERRNO | 1);
        assert_eq!(decide(&program, "read", [0; 6]), ALLOW);
        let by_x32 = X32 | native_numbers()["mount"];
        assert_eq!(run(&program, NATIVE, by_x32, [0; 6]), ENOSYS, "not a way round a rule");
        for broken in [&b"{"[..], br#"{"defaultAction":"SCMP_ACT_NOSUCH"}"#] {
            assert!(profile::parse(broken, 0).is_err());
        }
    }
}
