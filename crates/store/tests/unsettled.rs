//! What a power cut takes is found before it is used; what it leaves stays.

use std::fs;
use std::path::{Path, PathBuf};

use unroot_store::{ImageConfig, Store};

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::new(&dir.path().join("store")), dir }
    }

    /// An image of one file.
    fn image(&self, name: &str, text: &str) -> unroot_store::Image {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        tar.append_data(&mut header, "file", text.as_bytes()).unwrap();
        let tar = tar.into_inner().unwrap();
        let config = ImageConfig { os: name.into(), ..ImageConfig::default() };
        self.store
            .import(&tar[..], config, unroot_store::History::default(), &[name.into()], &|_, _, _| Ok(()), 1)
            .unwrap()
    }

    fn layer(&self, image: &unroot_store::Image) -> PathBuf {
        self.store.layer_dir(&image.layers[0])
    }

    fn marks(&self) -> PathBuf {
        self.dir.path().join("store/unsettled")
    }

    /// What was stored in this boot was stored in another one.
    fn reboot(&self) {
        let now = fs::read_dir(self.marks()).unwrap().next().unwrap().unwrap().path();
        fs::rename(now, self.marks().join("11111111-2222-3333-4444-555555555555")).unwrap();
    }

    fn recover(&self) -> Vec<String> {
        self.store.recover(&|_| ()).unwrap()
    }
}

fn empty(path: &Path) {
    fs::File::options().write(true).truncate(true).open(path).unwrap();
}

#[test]
fn in_the_same_boot_nothing_is_looked_at() {
    let place = Place::new();
    let image = place.image("localhost/a:1", "text");
    empty(&place.layer(&image).join("diff/file"));
    assert_eq!(place.recover(), Vec::<String>::new());
    assert!(place.marks().exists());
}

#[test]
fn what_is_right_stays_and_is_looked_at_once() {
    let place = Place::new();
    let image = place.image("localhost/a:1", "text");
    place.reboot();
    assert_eq!(place.recover(), Vec::<String>::new());
    assert!(!place.marks().exists());
    assert!(place.store.image_by_name("localhost/a:1").unwrap().is_some());
    assert_eq!(fs::read_to_string(place.layer(&image).join("diff/file")).unwrap(), "text");
}

#[test]
fn a_file_without_its_content_takes_its_layer_with_it() {
    let place = Place::new();
    let (lost, kept) = (place.image("localhost/a:1", "text"), place.image("localhost/b:1", "other"));
    place.reboot();
    empty(&place.layer(&lost).join("diff/file"));
    let said = place.recover();
    assert!(said.len() == 1 && said[0].contains(&lost.layers[0]) && said[0].contains("file"), "{said:?}");
    assert!(!place.layer(&lost).exists() && place.layer(&kept).exists() && !place.marks().exists());
    assert_eq!(place.store.missing_layer(&lost), Some(&lost.layers[0]));
}

#[test]
fn an_image_without_its_records_goes_with_its_names() {
    let place = Place::new();
    for record in ["image.json", "config.json", "manifest.json"] {
        let image = place.image("localhost/a:1", "text");
        place.reboot();
        empty(&place.dir.path().join("store/images").join(&image.id).join(record));
        let said = place.recover();
        assert!(said.len() == 1 && said[0].contains(&image.id), "{record}: {said:?}");
        assert!(!place.store.has_image(&image.id) && place.store.names().is_empty(), "{record}");
    }
}

#[test]
fn who_makes_images_does_not_build_on_what_was_lost() {
    let place = Place::new();
    let image = place.image("localhost/a:1", "text");
    place.reboot();
    empty(&place.layer(&image).join("diff/file"));
    let again = place.image("localhost/b:1", "text");
    assert_eq!(again.layers, image.layers);
    assert_eq!(fs::read_to_string(place.layer(&again).join("diff/file")).unwrap(), "text");
}

#[test]
fn a_layer_without_a_record_is_replaced() {
    let place = Place::new();
    let image = place.image("localhost/a:1", "text");
    empty(&place.layer(&image).join("layer.json"));
    place.image("localhost/b:1", "text");
    assert!(place.store.layer(&image.layers[0]).is_some());
}

#[test]
fn marks_go_when_the_disk_was_waited_for() {
    let place = Place::new();
    let image = place.image("localhost/a:1", "text");
    place.store.settle().unwrap();
    assert!(place.marks().exists(), "too young");
    let now = fs::read_dir(place.marks()).unwrap().next().unwrap().unwrap().path();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    fs::File::open(&now).unwrap().set_modified(old).unwrap();
    place.store.settle().unwrap();
    assert!(!place.marks().exists());
    empty(&place.layer(&image).join("diff/file"));
    assert_eq!(place.recover(), Vec::<String>::new());
}
