//! The default profile: what programs need, and nothing that makes the kernel's less tried parts reachable.
//!
//! Not allowed, whatever the capabilities of a container without CAP_SYS_ADMIN: new namespaces, mounts, io_uring,
//! userfaultfd, bpf, perf, keyrings, modules, clocks, and calls that name no object of this container. A call
//! newer than this list is answered with ENOSYS, so that C libraries fall back.

use super::{ALLOW, Calls, Compare, Condition, ERRNO, Rule, Rules};
use unroot_sys::capability;

const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// Everybody's.
const FILES: &str = "access chdir chmod chown chown32 chroot_ close close_range copy_file_range creat dup dup2 dup3 \
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat \
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs \
    fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat lchown lchown32 \
    lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lseek _llseek lsetxattr lstat lstat64 \
    mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 \
    pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 \
    rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync \
    sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes \
    vmsplice write writev cachestat statmount listmount";

const WAITING: &str = "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch \
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect pause poll \
    ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime \
    timerfd_gettime64 timerfd_settime timerfd_settime64";

const MEMORY: &str = "brk get_mempolicy_ madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock \
    mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free \
    pkey_mprotect process_madvise_ process_mrelease remap_file_pages";

const PROCESSES: &str = "alarm arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue \
    futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area getcpu getegid getegid32 geteuid \
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpgid getpgrp getpid getppid getpriority getrandom \
    getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get \
    ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr \
    lsm_list_modules lsm_set_self_attr modify_ldt_ nanosleep pidfd_open pidfd_send_signal prctl prlimit64 ptrace \
    restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min \
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
    seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid \
    setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sigaltstack sigprocmask sigreturn sysinfo \
    tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 times tkill ugetrlimit uname uretprobe vfork wait4 waitid waitpid clock_getres \
    clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 gettimeofday adjtimex_ \
    ioctl pipe pipe2 arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

const MESSAGES: &str = "accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr \
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget \
    msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 \
    send sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair";

/// Those that a capability opens.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
        move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname \
        setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday stime clock_settime clock_settime64 clock_adjtime clock_adjtime64 adjtimex"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// Calls that exist and are denied: EPERM rather than ENOSYS, so that the reason is seen.
const DENIED: &str = "_sysctl acct add_key adjtimex bpf chroot clock_adjtime clock_adjtime64 clock_settime \
    clock_settime64 create_module delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick \
    get_kernel_syms get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp \
    kexec_file_load kexec_load keyctl lookup_dcookie mbind migrate_pages modify_ldt mount mount_setattr move_mount \
    move_pages nfsservctl open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root \
    process_madvise process_vm_readv process_vm_writev quotactl quotactl_fd reboot request_key set_mempolicy \
    set_mempolicy_home_node setdomainname sethostname setns settimeofday stime swapoff swapon sysfs syslog umount \
    umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old";

/// `CLONE_NEW*` of all kinds.
const NAMESPACES: u64 = 0x7e02_0000;
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const AF_VSOCK: u64 = 40;

const fn always(action: u32) -> Rule {
    Rule { conditions: Vec::new(), action }
}

static PERMIT: &[Rule] = &[always(ALLOW)];
static DENY: &[Rule] = &[always(EPERM)];
static UNKNOWN: &[Rule] = &[always(ENOSYS)];

/// The rules for a process whose bounding set is this.
pub fn rules(capabilities: u64) -> Rules {
    let mut calls = Calls::new();
    for name in DENIED.split_whitespace() {
        calls.insert(name.into(), DENY.into());
    }
    for name in
        [FILES, WAITING, MEMORY, PROCESSES, MESSAGES].iter().flat_map(|group| group.split_whitespace())
    {
        // (a trailing underscore keeps a call in its group for the reader, though a capability gates it)
        if !name.ends_with('_') {
            calls.insert(name.into(), PERMIT.into());
        }
    }
    let one = |argument, compare, value, action| Rule {
        conditions: vec![Condition { argument, compare, value }],
        action,
    };
    calls.insert(
        "socket".into(),
        vec![one(0, Compare::NotEqual, AF_VSOCK, ALLOW), one(0, Compare::Equal, AF_VSOCK, EPERM)].into(),
    );
    let personality = PERSONALITIES.map(|value| one(0, Compare::Equal, value, ALLOW));
    calls.insert("personality".into(), personality.into_iter().chain(DENY.iter().cloned()).collect());
    let clone = vec![
        one(0, Compare::MaskedEqual(NAMESPACES), 0, ALLOW),
        Rule { conditions: Vec::new(), action: EPERM },
    ];
    calls.insert("clone".into(), clone.into());
    calls.insert("clone3".into(), UNKNOWN.into());
    for (capability, names) in BY_CAPABILITY {
        let number =
            capability::NAMES.iter().position(|known| known == capability).expect("a known capability");
        if capabilities & (1 << number) != 0 {
            calls.extend(names.split_whitespace().map(|name| (name.into(), PERMIT.into())));
        }
    }
    Rules { default: ENOSYS, calls, compat: true }
}
