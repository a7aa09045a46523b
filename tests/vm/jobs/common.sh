# shellcheck shell=bash
# Read by the jobs of the VM: an image of busybox, and how a check that fails is told.
set -eu

fail() { echo "failed: $*" >&2; exit 1; }

# SECONDS WHAT CMD...: until it holds
within() {
    local left=$(($1 * 5)) what=$2; shift 2
    until "$@"; do
        left=$((left - 1))
        [ $left -gt 0 ] || fail "$what"
        sleep 0.2
    done
}

make_image() { # UNROOT: localhost/box
    local tree
    tree=$(mktemp -d)
    mkdir -p "$tree"/{bin,etc,proc,sys,dev,tmp}
    cp /bin/busybox "$tree/bin"
    for applet in sh sleep httpd cat; do ln -s busybox "$tree/bin/$applet"; done
    echo root:x:0:0::/:/bin/sh >"$tree/etc/passwd"
    tar -C "$tree" --owner=0 --group=0 --numeric-owner -cf "$tree.tar" .
    "$1" import -q "$tree.tar" localhost/box >/dev/null
    rm -rf "$tree" "$tree.tar"
}
