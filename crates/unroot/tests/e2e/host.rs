//! A place for one test: own state directories, own image, and everything gone afterwards.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The image of most tests: busybox, and a passwd whose names try to be those of the host.
pub const IMAGE: &str = "localhost/testimage:latest";

/// The test runs as root.
pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// The user's id on the host.
pub fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// The host's name for an id.
pub fn host_name_of(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_string())
    })
}

/// The first subordinate id of the user who runs the test.
pub fn first_subid(file: &str) -> u32 {
    let name = host_name_of(uid()).expect("the test user has a name");
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find(|l| l.starts_with(&format!("{name}:")));
    let line =
        line.unwrap_or_else(|| panic!("{file} has no line for {name}: scripts/test makes a user that has"));
    line.split(':').nth(1).unwrap().parse().unwrap()
}

/// Where the binary under test is.
pub fn binary() -> PathBuf {
    std::env::var_os("UNROOT").map_or_else(|| env!("CARGO_BIN_EXE_unroot").into(), PathBuf::from)
}

/// State directories of one test.
pub struct Host {
    dir: PathBuf,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Done {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Done {
    fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap()),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended well: its output without the last line's end.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self.out.trim_end_matches('\n').to_string()
    }

    /// It ended with this code and its error says this.
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> String {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        assert!(self.err.contains(text), "expected {text:?} in: {}", self.err);
        self.err
    }
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Host {
    /// Empty.
    pub fn empty() -> Self {
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = std::env::var_os("UNROOT_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = base.join(format!("unroot-e2e-{}-{}-{n}", uid(), std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// With [`IMAGE`] in its store.
    pub fn new() -> Self {
        let host = Self::empty();
        let archive = host.path("image.tar");
        write_image(&archive);
        host.unroot(["import", "-q", "--change", "CMD=/bin/sh", archive.to_str().unwrap(), IMAGE]).ok();
        host
    }

    /// A path of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The command, to be changed and run.
    pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("--root")
            .arg(self.path("root"))
            .arg("--runroot")
            .arg(self.path("run"))
            .args(args)
            .stdin(Stdio::null())
            .current_dir("/")
            .env("LC_ALL", "C.UTF-8")
            .env("CONTAINERS_CONF", "/dev/null")
            .env_remove("NO_COLOR");
        command
    }

    /// Runs it.
    pub fn unroot<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    /// Runs a shell command as the root of the engine's user namespace.
    pub fn inside(&self, script: &str) -> Done {
        match is_root() {
            true => Done::of(Command::new("sh").args(["-c", script]).output().unwrap()),
            false => self.unroot(["unshare", "sh", "-c", script]),
        }
    }

    /// Runs a command that was changed.
    pub fn run(&self, command: &mut Command) -> Done {
        Done::of(command.output().unwrap())
    }

    /// Runs it with this on its standard input.
    pub fn unroot_with_input<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(
        &self,
        args: I,
        input: &[u8],
    ) -> Done {
        let mut child = self.spawn(args, Stdio::piped());
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // (the command may end before it has read all)
                let _ = stdin.write_all(input);
            });
            Done::of(child.wait_with_output().unwrap())
        })
    }

    /// Starts it.
    pub fn spawn<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I, stdin: Stdio) -> Child {
        self.command(args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a shell command in a new container of [`IMAGE`].
    pub fn sh(&self, flags: &[&str], script: &str) -> Done {
        self.unroot(["run", "--rm", "--network=none"].iter().chain(flags).chain(&[IMAGE, "sh", "-c", script]))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let removed = self.unroot(["rm", "-fa", "-t", "0"]);
        // files of subordinate ids can be removed from inside the user namespace only
        let cleaned = self.unroot(["unshare", "rm", "-rf", self.path("root").to_str().unwrap()]);
        if cleaned.code != 0 {
            let _ = fs::remove_dir_all(self.path("root"));
        }
        let _ = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert_eq!(removed.code, 0, "rm -fa: {}", removed.err);
            assert!(!self.dir.exists(), "{} is left", self.dir.display());
        }
    }
}

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
bin:x:1:1:bin:/bin:/sbin/nologin
sync:x:5:0:sync:/sbin:/bin/sync
app:x:1000:1000:an application:/home/app:/bin/sh
nobody:x:65534:65534:nobody:/:/sbin/nologin
";

const GROUP: &str = "\
root:x:0:
bin:x:1:
wheel:x:10:app
app:x:1000:
staff:x:1234:app
nogroup:x:65534:
";

/// Writes a root filesystem of busybox as a tar archive. Its passwd also claims the host's names for its own
/// ids, as a hostile image would: `FORGED_...` for the id of whoever runs the test.
pub fn write_image(archive: &Path) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| is_static(Path::new(p)));
    let busybox = busybox.expect("a static busybox: apt-get install busybox-static");
    let tree = archive.with_extension("tree");
    for dir in ["bin", "etc", "home/app", "root", "tmp", "sbin", "usr/bin", "var/lib", "proc", "sys", "dev"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    fs::set_permissions(tree.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    let applets = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|a| *a != "busybox") {
        let _ = symlink("busybox", tree.join("bin").join(applet));
    }
    let forged =
        format!("FORGED_host_user:x:{}:0:forged:/:/bin/sh\nFORGED_subid:x:100004:0::/:/bin/sh\n", uid());
    let forged = if uid() == 0 || uid() == 1000 { String::new() } else { forged };
    fs::write(tree.join("etc/passwd"), format!("{PASSWD}{forged}")).unwrap();
    fs::write(tree.join("etc/group"), GROUP).unwrap();
    fs::write(tree.join("etc/not-executable"), "text\n").unwrap();
    fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let tar = Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "-C"])
        .arg(&tree)
        .arg("-cf")
        .arg(archive)
        .arg(".")
        .status()
        .unwrap();
    assert!(tar.success());
    fs::remove_dir_all(&tree).unwrap();
}

/// A static program has no interpreter: no program header of type PT_INTERP (elf(5)).
fn is_static(program: &Path) -> bool {
    let Ok(bytes) = fs::read(program) else { return false };
    let number = |at: usize, length: usize| {
        bytes[at..at + length].iter().rev().fold(0usize, |n, b| n << 8 | usize::from(*b))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).all(|n| number(table + n * size, 4) != 3)
}
