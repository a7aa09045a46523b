//! Compiles the programs: without a standard library and without a C library, so that they run in any image.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=programs");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    for name in ["hello", "init"] {
        let mut rustc = Command::new(env::var("RUSTC").expect("cargo sets RUSTC"));
        rustc.args(["--edition", "2024", "--crate-type", "bin", "--target"]);
        rustc.arg(env::var("TARGET").expect("cargo sets TARGET"));
        rustc.args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "strip=symbols",
            "-C",
            "relocation-model=static",
        ]);
        rustc.args(["-A", "dead_code"]);
        for argument in
            ["-nostdlib", "-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack"]
        {
            rustc.arg("-C").arg(format!("link-arg={argument}"));
        }
        rustc.arg("-o").arg(Path::new(&out).join(name)).arg(format!("programs/{name}.rs"));
        let status = rustc.status().expect("rustc runs");
        assert!(status.success(), "compiling programs/{name}.rs failed");
    }
}
