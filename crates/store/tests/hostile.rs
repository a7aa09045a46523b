//! Layers that try to get out, lie, or are odd: what is in the store afterwards, and what is outside of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use unroot_store::{Damage, Layer, Load, Progress, Result, Store};

struct Place {
    dir: PathBuf,
    store: Store,
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("unroot-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("outside")).unwrap();
        fs::write(dir.join("outside/file"), "untouched").unwrap();
        Self { store: Store::new(&dir.join("store")), dir }
    }

    /// Takes a layer, and sees that its tar can be written again bit for bit.
    fn ingest(&self, tar: &[u8]) -> Result<Layer> {
        let layer = self.store.ingest_layer(tar, None, &|_, _, _| Ok(()))?;
        let mut again = Vec::new();
        self.store.layer_tar(&layer.diff_id)?.read_to_end(&mut again).unwrap();
        assert_eq!(unroot_store::digest(&again), layer.diff_id);
        Ok(layer)
    }

    fn diff(&self, layer: &Layer) -> PathBuf {
        self.store.layer_dir(&layer.diff_id).join("diff")
    }

    /// Nothing was made or changed outside, and nothing half done is left in the store.
    fn is_clean(&self, layers: usize) {
        assert_eq!(fs::read_dir(self.dir.join("outside")).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(self.dir.join("outside/file")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(&self.dir).unwrap().count(), 2, "something beside the store");
        let count = |dir: &str| fs::read_dir(self.dir.join("store").join(dir)).map_or(0, |d| d.count());
        assert_eq!((count("layers"), count("tmp")), (layers, 0));
    }
}

struct Silent;

impl Progress for Silent {
    fn say(&self, _: &str) {}
    fn begin(&self, _: usize, _: &str, _: u64) {}
    fn advance(&self, _: usize, _: u64) {}
    fn end(&self, _: usize, _: bool) {}
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// An entry as a tar has it: no library that refuses odd names is between.
fn entry(tar: &mut Vec<u8>, name: &str, kind: u8, link: &str, mode: u32, data: &[u8]) {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{:011o}", data.len()).as_bytes());
    put(136, b"00000000001");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(header);
    tar.extend(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn tar(entries: &[(&str, u8, &str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, kind, link, data) in entries {
        entry(&mut tar, name, *kind, link, 0o644, data);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

const FILE: u8 = b'0';
const HARD: u8 = b'1';
const SOFT: u8 = b'2';
const DIR: u8 = b'5';

#[test]
fn paths_that_lead_out() {
    let place = Place::new("paths");
    for name in ["../outside/file", "a/../../outside/file", "../../../../../../tmp/x"] {
        assert!(
            place.ingest(&tar(&[(name, FILE, "", b"bad")])).unwrap_err().to_string().contains("leads out"),
            "{name}"
        );
        place.is_clean(0);
    }
    let layer = place.ingest(&tar(&[("/etc/absolute", FILE, "", b"inside")])).unwrap();
    assert_eq!(fs::read(place.diff(&layer).join("etc/absolute")).unwrap(), b"inside");
    place.is_clean(1);
}

/// A directory that gives its group away does so in containers, not while a layer is made; modes do not depend on umask.
#[test]
fn owners_and_modes_are_the_layers() {
    let place = Place::new("modes");
    let mut bytes = Vec::new();
    entry(&mut bytes, "shared", DIR, "", 0o2775, b"");
    bytes[116..123].copy_from_slice(b"0000062");
    bytes[148..156].copy_from_slice(b"        ");
    let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for (name, mode) in [("shared/file", 0o666), ("open", 0o777), ("closed", 0), ("setuid", 0o4755)] {
        entry(&mut bytes, name, FILE, "", mode, b"text");
    }
    entry(&mut bytes, "shared/dir", DIR, "", 0o755, b"");
    bytes.resize(bytes.len() + 1024, 0);
    let layer = place.ingest(&bytes);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let diff = place.diff(&layer.unwrap());
    let found = |name: &str| {
        let meta = fs::symlink_metadata(diff.join(name)).unwrap();
        (meta.mode() & 0o7777, meta.gid())
    };
    assert_eq!(found("shared"), (0o2775, 50));
    assert_eq!((found("shared/file"), found("shared/dir")), ((0o666, 0), (0o755, 0)));
    assert_eq!((found("open"), found("closed"), found("setuid")), ((0o777, 0), (0, 0), (0o4755, 0)));
}

#[test]
fn links_are_not_ways_out() {
    let place = Place::new("links");
    let up = format!("{}{}", "../".repeat(12), place.dir.join("outside").display());
    let absolute = place.dir.join("outside").display().to_string();
    for target in [up.as_str(), absolute.as_str()] {
        let layer = place.ingest(&tar(&[
            ("out", SOFT, target, b""),
            ("out/new", FILE, "", b"bad"),
            ("out/file", FILE, "", b"bad"),
        ]));
        // (the link is followed in the layer's own root, or replaced by a directory there)
        let layer = layer.unwrap();
        place.is_clean(1);
        fs::remove_dir_all(place.store.layer_dir(&layer.diff_id)).unwrap();
    }
    let hard = place.ingest(&tar(&[("stolen", HARD, "../outside/file", b"")]));
    assert!(hard.is_err());
    let through = place.ingest(&tar(&[("out", SOFT, &absolute, b""), ("stolen", HARD, "out/file", b"")]));
    assert!(through.is_err(), "a hard link through a link to the outside");
    place.is_clean(0);
}

#[test]
fn a_link_is_replaced_not_written_through() {
    let place = Place::new("replace");
    let target = place.dir.join("outside/file").display().to_string();
    let layer = place.ingest(&tar(&[("passwd", SOFT, &target, b""), ("passwd", FILE, "", b"mine")])).unwrap();
    assert!(fs::symlink_metadata(place.diff(&layer).join("passwd")).unwrap().is_file());
    let layer =
        place.ingest(&tar(&[("d", DIR, "", b""), ("d/f", FILE, "", b"1"), ("d", FILE, "", b"2")])).unwrap();
    assert_eq!(fs::read(place.diff(&layer).join("d")).unwrap(), b"2");
    let layer = place.ingest(&tar(&[("p", FILE, "", b"1"), ("p/q", FILE, "", b"2")])).unwrap();
    assert_eq!(fs::read(place.diff(&layer).join("p/q")).unwrap(), b"2");
    place.is_clean(3);
}

#[test]
fn whiteouts() {
    let place = Place::new("whiteouts");
    let layer = place.ingest(&tar(&[
        ("a/.wh.gone", FILE, "", b""),
        ("b/.wh..wh..opq", FILE, "", b""),
        ("b/new", FILE, "", b"x"),
    ]));
    let layer = layer.unwrap();
    let gone = fs::symlink_metadata(place.diff(&layer).join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 8];
    let length =
        rustix::fs::getxattr(place.diff(&layer).join("b"), "user.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");
    for name in ["x/.wh...", "x/.wh.."] {
        assert!(place.ingest(&tar(&[(name, FILE, "", b"")])).is_err(), "{name}");
    }
    place.is_clean(1);
}

#[test]
fn lies_and_damage() {
    let place = Place::new("lies");
    let good = tar(&[("file", FILE, "", b"data")]);
    let lie = format!("sha256:{}", "0".repeat(64));
    let refused = place.store.ingest_layer(&good[..], Some(&lie), &|_, _, _| Ok(())).unwrap_err();
    assert!(refused.to_string().contains("damaged or forged"), "{refused}");
    assert!(place.ingest(&good[..700]).is_err(), "truncated");
    let mut broken = good.clone();
    broken[0] ^= 0xff;
    assert!(place.ingest(&broken).is_err(), "a header whose sum is wrong");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&good).unwrap();
    let gzip = gzip.finish().unwrap();
    assert!(place.ingest(&gzip[..gzip.len() - 9]).is_err(), "a truncated stream");
    for name in ["sha256:../../x", "sha512:aa", ""] {
        assert!(place.store.ingest_layer(&good[..], Some(name), &|_, _, _| Ok(())).is_err(), "{name}");
    }
    place.is_clean(0);
    let layer = place.ingest(&gzip).unwrap();
    let zstd = zstd::encode_all(&good[..], 3).unwrap();
    assert_eq!(place.ingest(&zstd).unwrap().diff_id, layer.diff_id);
    place.is_clean(1);
}

#[test]
fn ids_are_looked_at_before_anything_of_an_entry_is_made() {
    let place = Place::new("ids");
    let refuse = |path: &str, _: u64, _: u64| Err(format!("{path}: no such id here"));
    let refused =
        place.store.ingest_layer(&tar(&[("etc/shadow", FILE, "", b"x")])[..], None, &refuse).unwrap_err();
    assert!(
        matches!(&refused, unroot_store::Error::Ids(text) if text.starts_with("etc/shadow")),
        "{refused}"
    );
    place.is_clean(0);
}

#[test]
fn modes_are_kept() {
    let place = Place::new("modes");
    let mut archive = Vec::new();
    entry(&mut archive, "suid", FILE, "", 0o4755, b"#!");
    entry(&mut archive, "closed", DIR, "", 0o000, b"");
    entry(&mut archive, "closed/file", FILE, "", 0o600, b"x");
    archive.resize(archive.len() + 1024, 0);
    let layer = place.ingest(&archive).unwrap();
    let mode = |name: &str| {
        fs::symlink_metadata(place.diff(&layer).join(name)).map(|m| m.permissions().mode() & 0o7777)
    };
    assert_eq!(mode("suid").unwrap(), 0o4755);
    assert_eq!(mode("closed").unwrap(), 0);
}

/// Eight threads with the same layer: one is kept, all succeed.
#[test]
fn the_same_layer_many_times_at_once() {
    let place = Place::new("race");
    let archive = tar(&[("file", FILE, "", &vec![7; 1 << 20])]);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| place.ingest(&archive).unwrap().diff_id)).collect();
        let ids: std::collections::HashSet<String> = all.into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(ids.len(), 1);
    });
    place.is_clean(1);
}

#[test]
fn archives_that_are_none() {
    let place = Place::new("archives");
    let load = |data: &[u8]| {
        let path = place.dir.join("store/archive.tar");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, data).unwrap();
        let full = |name: &str| Ok(name.to_string());
        let how = Load {
            ids: &|_, _, _| Ok(()),
            now: 0,
            progress: &Silent,
            only: None,
            allows: &|_| Ok(()),
            full_name: &full,
        };
        let result = place.store.load(&path, &how);
        let streamed = place.store.load_stream(data, &how);
        assert_eq!(result.is_ok(), streamed.is_ok());
        fs::remove_file(path).unwrap();
        result
    };
    assert!(load(b"").is_err());
    assert!(load(&tar(&[("x", FILE, "", b"y")])).is_err());
    assert!(
        load(&tar(&[("manifest.json", FILE, "", b"[{\"Config\":\"../../etc/passwd\",\"Layers\":[]}]")]))
            .is_err()
    );
    let looped = [
        ("manifest.json", FILE, "", &b"[{\"Config\":\"c\",\"Layers\":[]}]"[..]),
        ("c", SOFT, "d", b""),
        ("d", SOFT, "c", b""),
    ];
    assert!(load(&tar(&looped)).is_err());
    place.is_clean(0);
    assert!(!Path::new(&place.dir.join("store/images")).exists());
}

/// Entries that replace, hide or move what earlier ones made, and padding that nobody expects.
#[test]
fn any_tar_is_written_again_bit_for_bit() {
    let place = Place::new("bits");
    let cases: &[&[(&str, u8, &str, &[u8])]] = &[
        &[("a", FILE, "", b"1"), ("a", FILE, "", b"22"), ("a", FILE, "", b"333")],
        &[("a", FILE, "", b"1"), (".wh.a", FILE, "", b"odd contents"), ("a", FILE, "", b"2")],
        &[("d/f", FILE, "", b"1"), ("d/f", FILE, "", b"2"), ("d", SOFT, "e", b""), ("d/f", FILE, "", b"3")],
        &[("d/f", FILE, "", b"1"), ("d", FILE, "", b"2"), ("d/f", FILE, "", b"3"), ("d/f/g", FILE, "", b"4")],
        &[("e", DIR, "", b""), ("d", SOFT, "e", b""), ("d/f", FILE, "", b"1"), ("d", FILE, "", b"2")],
        &[("a", FILE, "", b"1"), ("b", HARD, "a", b""), ("a", FILE, "", b"2"), ("b", FILE, "", b"3")],
        &[
            ("./", DIR, "", b""),
            ("./x/../y", FILE, "", b"1"),
            ("/z", FILE, "", b"2"),
            ("empty", FILE, "", b""),
        ],
        &[("a/b/c", FILE, "", b"1"), ("a/.wh.b", FILE, "", b""), ("a/b/c", FILE, "", b"2")],
    ];
    for case in cases {
        let mut archive = tar(case);
        place.ingest(&archive).unwrap();
        archive.resize(archive.len() + 9_728, 0);
        place.ingest(&archive).unwrap();
        archive.extend(b"what follows the end of an archive");
        place.ingest(&archive).unwrap();
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn any_layer(entries in proptest::collection::vec((0usize..10, 0usize..6, 0usize..10, 0usize..2000), 0..24)) {
        const NAMES: [&str; 10] =
            ["a", "b", "a/c", "a/c/d", "b/.wh.c", ".wh.a", "a/.wh..wh..opq", "b/c", "./a/", "c"];
        const KINDS: [u8; 6] = [FILE, FILE, HARD, SOFT, DIR, FILE];
        let place = Place::new("any");
        let data = vec![0x5a; 2000];
        let entries: Vec<_> = entries
            .iter()
            .map(|(name, kind, target, size)| (NAMES[*name], KINDS[*kind], NAMES[*target], &data[..*size]))
            .map(|(name, kind, target, data)| if kind == FILE { (name, kind, "", data) } else { (name, kind, target, &b""[..]) })
            .collect();
        // (some are refused: hard links to what is not there)
        let _ = place.ingest(&tar(&entries));
        assert_eq!(fs::read_to_string(place.dir.join("outside/file")).unwrap(), "untouched");
    }
}

#[test]
fn damage_is_found() {
    let place = Place::new("damage");
    let layer = place
        .ingest(&tar(&[
            ("d", DIR, "", b""),
            ("d/f", FILE, "", b"data"),
            ("l", SOFT, "d", b""),
            ("g", FILE, "", b"g"),
        ]))
        .unwrap();
    let check = || place.store.check_layer(&layer.diff_id, false).unwrap().unwrap_or_default();
    assert_eq!(check(), "");
    let file = place.diff(&layer).join("d/f");
    let restore = || {
        fs::write(&file, "data").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    };
    let damages: [(&dyn Fn(), &str); 6] = [
        (&|| fs::write(&file, "DATA").unwrap(), "checksum failed"),
        (&|| fs::write(&file, "da").unwrap(), "2 bytes too short"),
        (&|| fs::write(&file, "data and more").unwrap(), "13 bytes instead of 4"),
        (&|| fs::remove_file(&file).unwrap(), "checksum failed"),
        (&|| fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap(), "mode is 4755"),
        (&|| fs::write(place.diff(&layer).join("d/new"), "").unwrap(), "d/new: no entry"),
    ];
    for (damage, why) in damages {
        damage();
        assert!(check().contains(why), "{why}: {}", check());
        restore();
    }
    fs::remove_file(place.diff(&layer).join("d/new")).unwrap();
    assert_eq!(check(), "");
    fs::remove_file(place.diff(&layer).join("l")).unwrap();
    std::os::unix::fs::symlink("elsewhere", place.diff(&layer).join("l")).unwrap();
    assert!(check().contains("leads elsewhere"));
    let unused = place.store.check(true, std::time::Duration::ZERO).unwrap();
    assert!(matches!(&unused[..], [Damage::UnusedLayer { diff_id }] if *diff_id == layer.diff_id));
}

/// Whoever makes an image keeps its layers from whoever collects.
#[test]
fn a_lease_keeps_layers() {
    let place = Place::new("lease");
    let lease = place.store.lease().unwrap();
    let layer = place.ingest(&tar(&[("f", FILE, "", b"x")])).unwrap();
    place.store.collect(&[]).unwrap();
    assert!(place.store.layer(&layer.diff_id).is_some());
    drop(lease);
    assert!(place.store.layer(&layer.diff_id).is_none(), "what could not be collected, the lease's end does");
    place.is_clean(0);
}
