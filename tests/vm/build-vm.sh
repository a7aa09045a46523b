#!/bin/bash
# Builds the VM that vm-run.sh boots: a Debian root file system (raw ext4, no
# boot loader), its kernel, a very small initrd, and the QEMU to run them.  Kept
# in $VMH_CACHE; a second run with nothing changed does nothing.  Needs root,
# a Debian mirror, mmdebstrap, mke2fs, zstd and xz.  -f: all anew, with the
# packages of today.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cache=$(readlink -m "${VMH_CACHE:-/var/cache/unroot-vm}")
cd "$here"

suite=${VMH_SUITE:-trixie}
mirror=${VMH_MIRROR:-$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Identifier: Packages' |
    sed -n 's/^Debian //p' | head -n 1)}        # the one that this machine uses
packages=(systemd systemd-sysv udev kmod dbus dbus-user-session libpam-systemd
    procps iproute2 uidmap passt util-linux bsdutils file strace
    crun docker-registry busybox-static ${VMH_PACKAGES:-})
user=fatherlinux
# Not the cloud kernel: it has no 9p.
kernel=linux-image-amd64

key=$(cat build-vm.sh guest/* <(echo "$suite $mirror ${packages[*]}") | sha256sum)
[ "${1:-}" != -f ] || rm -rf "$cache"/{key,base-*,qemu-*}
[ "$(cat "$cache/key" 2>/dev/null)" != "$key" ] || exit 0
mkdir -p "$cache"
rm -f "$cache"/{key,root.img,vmlinux,initrd.img}
t=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$t"' EXIT
root=$t/root

# --- packages (kept apart, as this is the slow part)
fetch() { # MMDEBSTRAP-ARG... : a trimmed Debian; mirrors fail now and then
    for try in 1 2 3; do
        ! fetch_once "$@" || return 0
        echo "build-vm: try $try failed" >&2; sleep 5
    done
    return 1
}
fetch_once() {
    mmdebstrap --quiet "$@" --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "5"' \
        --dpkgopt='path-exclude=/usr/share/'{doc,man,locale,info}'/*'
}
base=$cache/base-$(sha256sum <<<"$suite $mirror $kernel ${packages[*]}" | head -c 16).tar
if [ ! -e "$base" ]; then
    rm -f "$cache"/base-*.tar
    fetch --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
        --customize-hook='cd "$1/root" && export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG &&
            apt-get -qq -o APT::Sandbox::User=root download $(
                apt-cache depends --recurse --important '"$kernel"' |
                grep -E "^linux-(image|base|binary|modules)-[0-9]" | sort -u)' \
        "$suite" "$t/base.tar" "$mirror"
    mv "$t/base.tar" "$base"
fi
# Not the host's QEMU: before 8.1 its TCG, with more than one CPU, now and then
# loses a race against the kernel's patching of its own code ("Oops: int3").
if [ ! -e "$cache/qemu-$suite" ]; then
    fetch --variant=extract --include=qemu-system-x86 "$suite" "$t/qemu" "$mirror"
    mv "$t/qemu" "$cache/qemu-$suite"
fi
ln -sfn "qemu-$suite" "$cache/qemu"
mkdir "$root"
tar -C "$root" --numeric-owner --xattrs --xattrs-include='*' -xf "$base"

# --- kernel: unpacked here, as its package would pull in and run initramfs-tools
for deb in "$root"/root/linux-*.deb; do dpkg-deb -x "$deb" "$t/k"; rm "$deb"; done
modules=$(dirname "$(find "$t/k" -name modules.builtin)")
version=$(basename "$modules")
image=$(find "$t/k" -type f -name 'vmlinuz*')
dest=$root/usr/lib/modules/$version
mkdir -p "$dest/kernel/drivers"
cp "$modules"/modules.{builtin,builtin.modinfo,order} "$dest"
for d in arch block crypto fs lib mm net security; do
    [ ! -d "$modules/kernel/$d" ] || cp -r "$modules/kernel/$d" "$dest/kernel"
done
for d in block virtio char/hw_random net; do
    mkdir -p "$dest/kernel/drivers/$d"
    cp -r "$modules/kernel/drivers/$d/." "$dest/kernel/drivers/$d"
done
rm -rf "$dest"/kernel/drivers/net/{ethernet,wireless,usb,phy,can,wwan,fddi,hamradio,arcnet,ieee802154,dsa}
find "$dest" -name '*.ko.xz' -exec xz -d {} +      # unpacking them is slow under TCG
chroot "$root" depmod "$version"
# The uncompressed kernel inside the bzImage boots (by PVH) without unpacking itself.
for offset in $(LC_ALL=C grep -obUaP '\x28\xb5\x2f\xfd' "$image" | cut -d: -f1); do
    tail -c "+$((offset + 1))" "$image" | zstd -dcq >"$t/vmlinux" 2>/dev/null || true
    [ "$(head -c 4 "$t/vmlinux" | tr -d '\0')" != $'\x7fELF' ] || break
done

# --- initrd: the root disk's driver and file system, no more
mkdir -p "$t"/ird/{bin,dev,root}
cp "$root/bin/busybox" "$t/ird/bin"
chroot "$root" sh -c "for m in virtio_blk ext4; do modprobe -S $version --show-depends \$m; done" |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
    while read -r m; do cp "$root$m" "$t/ird"; basename "$m"; done >"$t/ird/order"
cat >"$t/ird/init" <<'EOF'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
while read -r m; do $b insmod /$m; done </order
until [ -b /dev/vda ]; do $b sleep 0.05; done
$b mount -t ext4 -o noatime /dev/vda /root
$b mount -o move /dev /root/dev
exec $b switch_root /root /sbin/init
EOF
chmod +x "$t/ird/init"
(cd "$t/ird" && find . | "$root/bin/busybox" cpio -o -H newc) >"$t/initrd.img" 2>/dev/null

# --- configuration
conf() { mkdir -p "$(dirname "$root$1")"; cat >"$root$1"; }
mask() { local d=$root$1 u; shift; mkdir -p "$d"; for u; do ln -sf /dev/null "$d/$u"; done; }
echo vm >"$root/etc/hostname"
printf '127.0.0.1 localhost vm\n::1 localhost\n' >"$root/etc/hosts"
echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$root/etc/machine-id"
echo >>"$root/etc/machine-id"
chroot "$root" useradd -m -u 1000 -s /bin/bash "$user"
chroot "$root" useradd -m -u 1001 -s /bin/bash fred     # whose processes end with his sessions
printf '%s:100000:65536\nfred:165536:65536\n' "$user" | tee "$root/etc/subuid" >"$root/etc/subgid"
mkdir -p "$root/var/lib/systemd/linger" "$root/src" "$root/out"
touch "$root/var/lib/systemd/linger/$user"

install -m 755 guest/vmh-agent "$root/usr/local/sbin/vmh-agent"
conf /etc/systemd/system/vmh.service <<'EOF'
[Unit]
Description=Job agent of the test VM
Wants=user@1000.service
After=user@1000.service

[Service]
ExecStart=/usr/local/sbin/vmh-agent
KillMode=process
EOF
ln -s ../vmh.service "$root/etc/systemd/system/multi-user.target.wants"
ln -s /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
# Users have the controllers that unroot's documentation asks for, but cpuset.
conf /etc/systemd/system/user@.service.d/delegate.conf <<'EOF'
[Service]
Delegate=cpu io memory pids
EOF
# What a throw-away VM without a console can do without: each costs 0.1 to 3 s.
mask /etc/systemd/system getty.target getty-static.service \
    systemd-ask-password-{wall,console}.path \
    {apt-daily,apt-daily-upgrade,dpkg-db-backup,fstrim,systemd-tmpfiles-clean}.timer \
    systemd-{firstboot,hwdb-update,journal-catalog-update,sysusers}.service \
    systemd-{machine-id-commit,random-seed,update-done,update-utmp,pstore,binfmt}.service \
    systemd-{pcrphase,pcrphase-sysinit,pcrmachine,tpm2-setup,tpm2-setup-early}.service \
    systemd-{hibernate-clear,battery-check,remount-fs,modules-load,udev-load-credentials}.service \
    systemd-{pcrextend,pcrlock,creds,sysext,hostnamed,initctl}.socket modprobe@.service \
    proc-sys-fs-binfmt_misc.automount sys-kernel-{config,debug,tracing}.mount
mask /etc/systemd/user {dirmngr,gpg-agent{,-browser,-extra,-ssh},keyboxd}.socket
mask /etc/systemd/system-generators \
    systemd-{debug,fstab,getty,gpt-auto,hibernate-resume,rc-local,run,ssh,system-update,sysv,tpm2}-generator
mask /etc/systemd/user-generators systemd-xdg-autostart-generator
# Of the devices present at boot, udev needs to set up only these.
conf /etc/systemd/system/systemd-udev-trigger.service.d/vm.conf <<'EOF'
[Service]
ExecStart=
ExecStart=udevadm trigger --action=add --subsystem-match=virtio --subsystem-match=net --subsystem-match=block
EOF
# Sandboxes of the system's own services (logind, journald, udevd ...) are slow to set up.
conf /etc/systemd/system/service.d/vm.conf <<'EOF'
[Service]
SystemCallFilter=
SystemCallArchitectures=
RestrictAddressFamilies=
RestrictNamespaces=no
RestrictRealtime=no
RestrictSUIDSGID=no
RestrictFileSystems=
MemoryDenyWriteExecute=no
LockPersonality=no
IPAddressAllow=
IPAddressDeny=
DeviceAllow=
DevicePolicy=auto
ProtectSystem=no
ProtectHome=no
ProtectProc=default
ProtectClock=no
ProtectControlGroups=no
ProtectHostname=no
ProtectKernelLogs=no
ProtectKernelModules=no
ProtectKernelTunables=no
PrivateTmp=no
PrivateDevices=no
ReadWritePaths=
ImportCredential=
EOF
# Only a persistent journal has the parts that "journalctl --user" reads.
printf '[Journal]\nStorage=persistent\n' | conf /etc/systemd/journald.conf.d/vm.conf

# --- disk: thrown away after each run, so without a journal and checksums
truncate -s 6G "$t/root.img"
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -m 0 -d "$root" "$t/root.img"
mv "$t"/{root.img,vmlinux,initrd.img} "$cache"
echo "$key" >"$cache/key"
