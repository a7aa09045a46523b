/* The physical floor: what the kernel alone takes for one container. All namespaces, an overlay, the usual mounts,
 * pivot_root and execve, with nothing else around them.
 *
 * usage: floor LOWERDIR SCRATCH COMMAND [ARG...]      (as root, or as a user with subordinate ids)
 * build: cc -O2 -o floor floor.c
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) { perror(what); exit(125); }

static void ranges(const char *file, const char *user, char *first, char *count) {
    char line[256];
    FILE *f = fopen(file, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%*[^:]:%31[0-9]:%31[0-9]", first, count) == 2 && !strncmp(line, user, strlen(user)) && line[strlen(user)] == ':') { fclose(f); return; }
    fprintf(stderr, "%s has no range for %s\n", file, user); exit(125);
}

static pid_t map_helper(const char *program, const char *file, pid_t target, unsigned own, int go) {
    char first[32], count[32], pid[16], id[16], byte;
    ranges(file, getenv("USER"), first, count);
    snprintf(pid, sizeof pid, "%d", target); snprintf(id, sizeof id, "%u", own);
    pid_t child = fork();
    if (child) return child;
    if (read(go, &byte, 1) != 1) _exit(1);
    execlp(program, program, pid, "0", id, "1", "1", first, count, (char *)0);
    _exit(127);
}

static void child(const char *lower, const char *scratch, char **argv) {
    char options[4096], target[4096];
    if (mount(0, "/", 0, MS_REC | MS_SLAVE, 0)) die("slave");
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work,userxattr", lower, scratch, scratch);
    snprintf(target, sizeof target, "%s/root", scratch);
    if (mount("overlay", target, "overlay", 0, options)) die("overlay");
    if (chdir(target)) die("chdir");
    mkdir("proc", 0755); mkdir("dev", 0755); mkdir("sys", 0755);
    if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0)) die("proc");
    if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k")) die("dev");
    if (mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, 0)) die("sysfs");
    mkdir("dev/pts", 0755); mkdir("dev/mqueue", 0755); mkdir("dev/shm", 01777);
    if (mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")) die("devpts");
    if (mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0)) die("mqueue");
    if (mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m")) die("shm");
    if (mount("cgroup2", "sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, 0)) die("cgroup2");
    const char *devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
    for (int i = 0; i < 6; i++) {
        char from[64], to[64];
        snprintf(from, sizeof from, "/dev/%s", devices[i]); snprintf(to, sizeof to, "dev/%s", devices[i]);
        close(open(to, O_CREAT | O_WRONLY, 0644));
        if (mount(from, to, 0, MS_BIND, 0)) die(from);
    }
    if (syscall(SYS_pivot_root, ".", ".")) die("pivot_root");
    if (umount2(".", MNT_DETACH)) die("umount");
    if (chdir("/")) die("chdir /");
    sethostname("floor", 5);
    execvp(argv[0], argv);
    die(argv[0]);
}

int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: floor LOWERDIR SCRATCH COMMAND [ARG...]\n"); return 2; }
    char path[4096];
    const char *sub[] = {"", "/upper", "/work", "/root"};
    for (int i = 0; i < 4; i++) { snprintf(path, sizeof path, "%s%s", argv[2], sub[i]); mkdir(path, 0755); }
    if (getuid()) {
        int go[2], status; unsigned uid = getuid(), gid = getgid();
        if (pipe2(go, O_CLOEXEC)) die("pipe");
        pid_t a = map_helper("newuidmap", "/etc/subuid", getpid(), uid, go[0]);
        pid_t b = map_helper("newgidmap", "/etc/subgid", getpid(), gid, go[0]);
        if (unshare(CLONE_NEWUSER)) die("unshare");
        if (write(go[1], "gg", 2) != 2) die("write");
        if (waitpid(a, &status, 0) < 0 || status || waitpid(b, &status, 0) < 0 || status) die("id map");
        if (setgid(0) || setuid(0)) die("setuid");
    }
    struct { unsigned long long flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls; } args = {0};
    args.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
    args.exit_signal = SIGCHLD;
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone3");
    if (!pid) child(argv[1], argv[2], argv + 3);
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
