//! Programs that go into containers, as bytes: each is static, needs no library, and is smaller than 64 KiB.

/// `--init`: starts a command, hands signals on to it, reaps what it leaves, ends as it did.
pub const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// The image `unroot/hello`: says what is seen from inside.
pub const HELLO: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// One test at a time: a fork of another thread, while a program is being written, makes it "busy" (ETXTBSY).
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

    fn install(name: &str, program: &[u8]) -> std::path::PathBuf {
        assert!(program.len() < 64 << 10, "{name} has {} bytes", program.len());
        let path = std::env::temp_dir().join(format!("unroot-payload-{name}-{}", std::process::id()));
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn init_ends_as_its_command() {
        let _one = ONE.lock().unwrap();
        let init = install("init", super::INIT);
        let code =
            |script: &str| Command::new(&init).args(["--", "/bin/sh", "-c", script]).status().unwrap().code();
        assert_eq!(code("exit 7"), Some(7));
        assert_eq!(code("kill -TERM $$"), Some(143));
        assert_eq!(code("(sleep 0.05 &) ; exit 0"), Some(0));
        let missing = Command::new(&init).args(["--", "/nosuch"]).status().unwrap();
        assert_eq!(missing.code(), Some(127));
        let mut child = Command::new(&init)
            .args(["--", "/bin/sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.01; done"])
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(5));
        fs::remove_file(init).unwrap();
    }

    #[test]
    fn hello_says_who_it_is() {
        let _one = ONE.lock().unwrap();
        let hello = install("hello", super::HELLO);
        let output = Command::new(&hello).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("uid") && !text.contains('\x1b'), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        let facts = String::from_utf8(
            Command::new(&hello).arg("--facts").stdin(std::process::Stdio::null()).output().unwrap().stdout,
        )
        .unwrap();
        assert!(facts.lines().any(|l| l.starts_with("Uid=")), "{facts}");
        fs::remove_file(hello).unwrap();
    }
}
