# unroot: one way for each chore.
#   make demo      see it work: builds, then shows who is root, from inside and from outside
#   make test      all tests; as root also those that need root, and the same as an ordinary user
#   make chaos     random verbs by many at once with kill -9 in between, for half an hour (UNROOT_CHAOS_SECONDS=1800)
#   make test-vm   the tests that need systemd and a delegated cgroup v2, in a VM, as root on Debian
#   make test-faults   kill -9 of image verbs at random moments, KILLS times (500), as whoever calls it
#   make services  real services (apache2, mariadb) in images made from Debian's packages, as root on Debian
#   make interop   images to and from Podman, Docker, skopeo and buildah, where these are installed
#   make bench     timings side by side with the floor program and whatever other engines are installed
#   make check     format, lints, floors, docs, dependencies
#   make install   binary, man pages, completions            (PREFIX, DESTDIR; ALIASES="podman docker")

PREFIX  ?= /usr/local
DESTDIR ?=
ALIASES ?=
KILLS   ?= 500
CARGO   ?= cargo
BINARY   = target/release/unroot

.PHONY: all demo test chaos test-faults test-vm services interop bench check install clean deps

all: $(BINARY)

$(BINARY): FORCE
	$(CARGO) build --release --locked -p unroot
FORCE:

deps:
	@scripts/dependencies

demo: deps $(BINARY)
	@scripts/demo $(BINARY)

test: deps
	@scripts/test

UNROOT_CHAOS_SECONDS ?= 1800
chaos:
	UNROOT_CHAOS_SECONDS=$(UNROOT_CHAOS_SECONDS) nice -n 19 $(CARGO) test --locked -p unroot --test e2e -- --nocapture chaos

test-vm:
	@tests/vm/run

test-faults:
	UNROOT_FAULT_KILLS=$(KILLS) $(CARGO) test --locked -p unroot --test e2e -- --nocapture killed_at_any_moment

services:
	@scripts/test-services

bench: deps $(BINARY)
	@bench/run $(BINARY)
	@bench/images $(BINARY)
	@bench/life $(BINARY)

interop: deps $(BINARY)
	@tests/interop $(BINARY)

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) test --locked -p unroot --test floors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --offline check bans licenses sources; \
	else echo "cargo-deny is not installed: its checks are left out (cargo install cargo-deny)"; fi

install: $(BINARY)
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/unroot
	$(BINARY) man $(DESTDIR)$(PREFIX)/share/man/man1
	mkdir -p $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(BINARY) completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/unroot
	$(BINARY) completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_unroot
	$(BINARY) completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/unroot.fish
	for name in $(ALIASES); do ln -sf unroot $(DESTDIR)$(PREFIX)/bin/$$name; done

clean:
	$(CARGO) clean
