#!/bin/bash
# Runs one command in the VM of build-vm.sh, printing what it prints and exiting
# as it does.  Each run starts from the same saved state of the VM, booted and
# waiting for a job (made at the first run), and none leaves a trace.
set -euo pipefail
usage() { cat >&2 <<'EOF'
usage: vm-run.sh [-u USER] [-t SECONDS] [-m MIB] [-w] [-o OUTDIR] [-b] [-r] [-v] DIR CMD [ARG...]
  DIR (read-only; writable with -w) is /src in the VM, and CMD's directory.
  CMD runs as USER (default fatherlinux) in a systemd login session.
  OUTDIR, writable to all in the VM, is /out there.
  -t: seconds for it all (default 300); past that, exit 124.
  -b: boot, rather than start from the saved state.  -v: show timings.
  -r: CMD, if it succeeds, is run again after a shutdown and a boot; VMH_BOOT
      is 1 and then 2 in its environment.
  125: the VM did not come up.
EOF
exit 2; }

user=fatherlinux limit=300 memory=2048 work=ro out= boot= again= verbose=
while getopts u:t:m:wo:brv opt; do
    case $opt in
        u) user=$OPTARG ;; t) limit=$OPTARG ;; m) memory=$OPTARG ;;
        w) work=rw ;; o) out=$OPTARG ;; b) boot=1 ;; r) again=1 ;; v) verbose=1 ;; *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || usage
dir=$(readlink -f "$1"); shift
[ -z "$out" ] || { mkdir -p "$out"; chmod 777 "$out"; out=$(readlink -f "$out"); }
here=$(dirname "$(readlink -f "$0")")
cache=$(readlink -m "${VMH_CACHE:-/var/cache/unroot-vm}")

now() { echo $(($(date +%s%3N) - start)); }
note() { [ -z "$verbose" ] || echo "vm-run: $(now) ms: $*" >&2; }
fail() { echo "vm-run: $1" >&2; tail -n 20 "$job/console" "$job/qemu" >&2; exit "$2"; }
reply() { # sets line: the VM's next one on the control port
    until read -r -t 1 line <&4; do
        kill -0 "$qemu" 2>/dev/null || { line=dead; return; }
        [ "$(now)" -lt $((limit * 1000)) ] || { line=late; return; }
    done
}

qemu='' job=$(mktemp -d "${TMPDIR:-/tmp}/vm-run.XXXXXX")
finish() {
    [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
    wait
    rm -rf "$job"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir "$job/out"
mkfifo "$job"/{ctl.in,ctl.out,monitor}
: >"$job/stdout"; : >"$job/stderr"; : >"$job/console"; : >"$job/qemu"
exec 3<>"$job/ctl.in" 4<>"$job/ctl.out" 5<>"$job/monitor"
qemu() { # the one of build-vm.sh, with its own libraries
    local q=$cache/qemu/usr
    QEMU_MODULE_DIR=$q/lib/x86_64-linux-gnu/qemu exec \
        setpriv --pdeathsig TERM "$q/lib64/ld-linux-x86-64.so.2" --library-path "$q/lib/x86_64-linux-gnu" \
        "$q/bin/qemu-system-x86_64" -L "$q/share/qemu" -L "$q/share/seabios" "$@"
}
launch() { # DISK ARG... : starts it; its monitor (QMP) reads from descriptor 5
    local disk=$1; shift
    local reboots=-no-reboot
    [ -z "$again" ] || reboots=
    start=$(date +%s%3N)
    qemu -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" \
        -machine q35 -nodefaults -no-user-config -display none $reboots \
        -kernel "$cache/vmlinux" -initrd "$cache/initrd.img" \
        -append "console=ttyS0 quiet panic=-1 nokaslr mitigations=off init_on_alloc=0 audit=0 net.ifnames=0
            lsm=landlock,lockdown,yama,apparmor rcupdate.rcu_expedited=1 systemd.show_status=0" \
        -chardev "file,id=console,path=$job/console" -serial chardev:console -qmp stdio \
        -drive "id=root,if=none,cache=unsafe,$disk" -device virtio-blk-pci,drive=root \
        -nic user,model=virtio-net-pci -device vmgenid,guid=auto \
        -device virtio-serial-pci \
        -chardev "pipe,id=ctl,path=$job/ctl" -device virtserialport,chardev=ctl,name=vmh.ctl \
        -chardev "file,id=out,path=$job/stdout" -device virtserialport,chardev=out,name=vmh.out \
        -chardev "file,id=err,path=$job/stderr" -device virtserialport,chardev=err,name=vmh.err \
        -fsdev "local,id=work,path=$dir,security_model=none,readonly=$([ $work = rw ] && echo off || echo on)" \
        -device virtio-9p-pci,fsdev=work,mount_tag=work \
        -fsdev "local,id=out,path=${out:-$job/out},security_model=none" \
        -device virtio-9p-pci,fsdev=out,mount_tag=out \
        "$@" <"$job/monitor" >"$job/qemu" 2>&1 3<&- 4<&- 5<&- 6<&- &
    qemu=$!
}
booted() {
    reply
    [ "$line" = ready ] || fail "the VM did not come up ($line)" 125
    note "booted"
}

mkdir -p "$cache"
exec 6>"$cache/lock"
flock 6
"$here/build-vm.sh" >&2
id=$(cat "$cache/key" "$here/vm-run.sh" - <<<"$cache" | sha256sum | head -c 16)
saved=$cache/saved-$memory-$id
if [ -z "$boot" ] && [ ! -e "$saved.ram" ]; then
    rm -f "$cache/saved-$memory"-*
    launch "file=$cache/root.img,format=raw" -S
    cat >&5 <<EOF
{"execute": "qmp_capabilities"}
{"execute": "blockdev-snapshot-sync", "arguments":
    {"device": "root", "snapshot-file": "$saved.disk", "format": "qcow2"}}
{"execute": "cont"}
EOF
    booted
    cat >&5 <<EOF
{"execute": "migrate-set-parameters", "arguments": {"max-bandwidth": 10000000000}}
{"execute": "migrate", "arguments": {"uri": "file:$saved.tmp"}}
EOF
    for _ in {1..300}; do
        echo '{"execute": "query-migrate"}' >&5
        sleep 0.1
        ! grep -q '"status": "completed"' "$job/qemu" || break
    done
    grep -q '"status": "completed"' "$job/qemu" || fail "the VM's state could not be saved" 125
    echo '{"execute": "quit"}' >&5
    wait "$qemu" || true
    mv "$saved.tmp" "$saved.ram"
    note "saved"
fi
flock -u 6

if [ -n "$boot" ]; then
    launch "file=$cache/root.img,format=raw,snapshot=on"
    booted
else
    launch "file=$saved.disk,format=qcow2,snapshot=on" -incoming "file:$saved.ram"
fi
tail -c +1 -s 0.1 -f --pid="$qemu" "$job/stdout" &
tail -c +1 -s 0.1 -f --pid="$qemu" "$job/stderr" >&2 &
job() { # BOOT CMD [ARG...] : sets line: how it ended
    local cmd
    cmd=$(printf 'export VMH_BOOT=%s; exec' "$1"; shift; printf ' %q' "$@"; echo)
    printf '%s\n' "user=$user" "work=$work" "out=$out" "epoch=$(date +%s.%N)" "reboot=$again" \
        "cmd=$(base64 -w 0 <<<"$cmd")" go >&3
    reply
    [ "$line" != running ] || { note running; reply; }
    note "$line"
}
job 1 "$@"
if [ -n "$again" ] && [ "$line" = "rc 0" ]; then
    again=
    booted
    job 2 "$@"
fi
case $line in
    "rc "*) exit "${line#rc }" ;;
    late) fail "stopped after $limit s" 124 ;;
    *) fail "the VM died" 125 ;;
esac
