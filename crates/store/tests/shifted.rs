//! Trees of an image's files with other owners: both kinds, what is in them, an interrupted one, two at once.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use unroot_store::{Image, Store, Wanted};

struct Place {
    dir: PathBuf,
    store: Store,
    image: Image,
}

/// As root owners become others; an ordinary user can have them be the user's only.
fn shifted(uid: u32, gid: u32) -> Option<(u32, u32)> {
    match rustix::process::geteuid().is_root() {
        true => Some((uid + 70_000, gid + 80_000)),
        false => Some((uid, gid)),
    }
}

fn tar_of(tree: &Path) -> Vec<u8> {
    let output =
        std::process::Command::new("tar").arg("-C").arg(tree).args(["-cf", "-", "."]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("unroot-shifted-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let tree = dir.join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        for n in 0..200 {
            fs::write(tree.join(format!("a/b/f{n}")), format!("file {n}")).unwrap();
        }
        fs::write(tree.join("a/empty"), "").unwrap();
        // (longer than a reference may be)
        let deep: PathBuf = (0..12).map(|_| "d".repeat(100)).collect();
        fs::create_dir_all(tree.join(&deep)).unwrap();
        fs::write(tree.join(&deep).join("f"), "deep").unwrap();
        fs::hard_link(tree.join("a/b/f1"), tree.join("a/second-name")).unwrap();
        symlink("b/f2", tree.join("a/link")).unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o2751)).unwrap();
        let store = Store::new(&dir.join("store"));
        let layer =
            |tree: &Path| store.ingest_layer(&tar_of(tree)[..], None, &|_, _, _| Ok(())).unwrap().diff_id;
        let first = layer(&tree);
        // a second layer hides a file, changes one, and has a new one
        let over = dir.join("over");
        fs::create_dir_all(over.join("a/b")).unwrap();
        fs::write(over.join("a/b/.wh.f3"), "").unwrap();
        fs::write(over.join("a/b/f4"), "changed").unwrap();
        fs::write(over.join("a/new"), "new").unwrap();
        let second = layer(&over);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{first}","{second}"]}}}}"#
        );
        let mut image = store.put_image(b"{}", config.as_bytes(), &[], 0).unwrap();
        // (so that there is a tree for an ordinary user's, too)
        image.ids = None;
        Self { dir, store, image }
    }

    fn make(
        &self,
        refers: bool,
        progress: &(dyn Fn(u64) + Sync),
    ) -> unroot_store::Result<unroot_store::LayerDirs> {
        let wanted = Wanted { shift: &shifted, map: "a map".into(), refers, progress };
        self.store.shifted(&self.image, &wanted)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn check(place: &Place, tree: &Path, has_contents: bool) {
    let original = place.store.lower_dirs(&place.image)[1].join("a/b");
    let at = |path: &str| tree.join("a").join(path);
    // (the topmost layer that has a directory says what it is like)
    let top = place.store.lower_dirs(&place.image)[0].join("a/b");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&at("b")), mode(&top));
    let own = fs::metadata(original.join("f5")).unwrap();
    let there = fs::metadata(at("b/f5")).unwrap();
    assert_eq!(Some((there.uid(), there.gid())), shifted(own.uid(), own.gid()));
    assert_eq!((there.mode(), there.len(), there.mtime()), (own.mode(), own.len(), own.mtime()));
    assert!(!at("b/f3").exists(), "what a layer hides is not there");
    let deep: PathBuf = (0..12).map(|_| "d".repeat(100)).collect();
    assert_eq!(fs::read_to_string(tree.join(deep).join("f")).unwrap(), "deep");
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("b/f2"));
    assert_eq!(fs::metadata(at("second-name")).unwrap().ino(), fs::metadata(at("b/f1")).unwrap().ino());
    let mut value = [0; 64];
    let redirect = rustix::fs::getxattr(at("b/f5"), "user.overlay.redirect", &mut value[..]);
    match has_contents {
        true => {
            assert_eq!(fs::read_to_string(at("b/f5")).unwrap(), "file 5");
            assert_eq!(fs::read_to_string(at("b/f4")).unwrap(), "changed");
            assert!(redirect.is_err());
        }
        false => {
            assert_eq!(&value[..redirect.unwrap()], b"/a/b/f5");
            assert_eq!(fs::metadata(at("b/f5")).unwrap().blocks(), 0, "it has no data of its own");
        }
    }
    assert_eq!(fs::read_dir(place.dir.join("store/tmp")).unwrap().count(), 0);
}

#[test]
fn trees_that_refer_to_layers() {
    let place = Place::new("refers");
    let made = place.make(true, &|_| ()).unwrap();
    assert_eq!(made.lower.len(), 1);
    assert_eq!(made.data, place.store.lower_dirs(&place.image));
    check(&place, &made.lower[0], false);
    // made once
    let inode = fs::metadata(&made.lower[0]).unwrap().ino();
    assert_eq!(place.make(true, &|_| panic!("again")).unwrap(), made);
    assert_eq!(fs::metadata(&made.lower[0]).unwrap().ino(), inode);
}

#[test]
fn trees_with_contents_where_the_kernel_cannot_refer() {
    let place = Place::new("copies");
    let made = place.make(false, &|_| ()).unwrap();
    assert!(made.data.is_empty());
    check(&place, &made.lower[0], true);
    // (one that has all serves a newer kernel as well)
    assert_eq!(place.make(true, &|_| ()).unwrap(), made);
}

#[test]
fn an_interrupted_one_is_gone_on_with() {
    let place = Place::new("resumed");
    let whole = place.make(false, &|_| ()).unwrap();
    // as an interruption leaves it: under its name in tmp, some files missing, one half written
    let name = whole.lower[0].file_name().unwrap().to_string_lossy().into_owned();
    let half = place.dir.join("store/tmp").join(format!("{name}-{}", place.image.id));
    fs::rename(&whole.lower[0], &half).unwrap();
    let kept = fs::metadata(half.join("a/b/f100")).unwrap().ino();
    fs::remove_file(half.join("a/b/f7")).unwrap();
    fs::write(half.join("a/b/f8"), "fi").unwrap();
    let again = place.make(false, &|_| ()).unwrap();
    check(&place, &again.lower[0], true);
    assert_eq!(fs::metadata(again.lower[0].join("a/b/f100")).unwrap().ino(), kept, "it was not made anew");
    assert_eq!(fs::read_to_string(again.lower[0].join("a/b/f8")).unwrap(), "file 8");
    assert_eq!(fs::read_to_string(again.lower[0].join("a/b/f7")).unwrap(), "file 7");
}

#[test]
fn two_at_once_make_one() {
    let place = Place::new("twice");
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let made = place.make(false, &|_| ()).unwrap();
                assert!(made.lower[0].join("a/b/f9").exists());
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(done.into_inner(), 4);
    let trees = fs::read_dir(place.dir.join("store/images").join(&place.image.id)).unwrap();
    assert_eq!(trees.flatten().filter(|e| e.file_name().to_string_lossy().contains("-")).count(), 1);
}

#[test]
fn an_owner_without_an_id_is_named() {
    let place = Place::new("missing");
    let wanted = Wanted { shift: &|_, _| None, map: "none".into(), refers: false, progress: &|_| () };
    let error = place.store.shifted(&place.image, &wanted).unwrap_err().to_string();
    assert!(
        error.contains("of the image belongs to ")
            && error.contains("which the container's id map does not have"),
        "{error}"
    );
}
