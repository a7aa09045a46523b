//! Log files that end at their bound, and are compressed by a child: a program with one thread, as a monitor is.

use std::path::{Path, PathBuf};

use unroot_monitor::log::{Driver, Line, Options, ReadOptions, Stream, Writer, read};

fn all(path: &Path, options: &ReadOptions) -> String {
    let mut text = Vec::new();
    read(path, options, || false, &mut |line: &Line<'_>| {
        text.extend(&*line.text);
        true
    })
    .unwrap();
    String::from_utf8(text).unwrap()
}

fn tail(n: usize) -> ReadOptions {
    ReadOptions { tail: Some(n), ..ReadOptions::default() }
}

fn main() {
    let dir = std::env::temp_dir().join(format!("unroot-rotation-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (compress, max_files) in [(false, 3), (true, 3), (false, 1), (true, 30)] {
        rotated_parts_are_read(&dir, compress, max_files);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

fn rotated_parts_are_read(dir: &Path, compress: bool, max_files: u32) {
    let path = dir.join(format!("{compress}-{max_files}"));
    let options = Options {
        driver: Driver::K8sFile,
        path: path.clone(),
        max_size: Some(1000),
        max_files,
        compress,
        ..Options::default()
    };
    let mut log = Writer::open(options).unwrap();
    for n in 0..100 {
        log.write(Stream::Stdout, format!("line {n:03}\n").as_bytes());
    }
    drop(log);
    let text = all(&path, &ReadOptions::default());
    assert!(text.ends_with("line 098\nline 099\n"), "{text}");
    assert_eq!(text.lines().count() == 100, max_files == 30, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    for n in [1, 5, lines.len() - 1, lines.len()] {
        assert_eq!(all(&path, &tail(n)).lines().collect::<Vec<_>>(), lines[lines.len() - n..]);
    }
    let part = |n: u32, end: &str| PathBuf::from(format!("{}.{n}{end}", path.display()));
    assert_eq!(part(1, ".gz").exists(), compress && max_files > 1);
    assert!(!part(max_files, "").exists() && !part(max_files, ".gz").exists());
}
