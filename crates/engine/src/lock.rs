//! A lock around one container, held while a verb changes it; readers never take it.
//!
//! It is a flock on the container's directory, so it dies with its holder, however that ends.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::dirs::Dirs;
use crate::error::{Context as _, Error, Result};

/// Held until dropped, or until every process that inherited it has ended.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Waits for the container's lock; not found if the container goes away meanwhile.
    pub fn take(dirs: &Dirs, id: &str) -> Result<Self> {
        Self::open(dirs, id, FlockOperation::LockExclusive)?.ok_or_else(|| unreachable_busy(id))
    }

    /// Takes it if nobody has it.
    pub fn try_take(dirs: &Dirs, id: &str) -> Result<Option<Self>> {
        Self::open(dirs, id, FlockOperation::NonBlockingLockExclusive)
    }

    fn open(dirs: &Dirs, id: &str, operation: FlockOperation) -> Result<Option<Self>> {
        let path = dirs.container(id);
        let file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::not_found(format_args!("no container with ID {id} found: no such container"))
            }
            _ => Error::engine(format_args!("open {}: {e}", path.display())),
        })?;
        match rustix::io::retry_on_intr(|| flock(&file, operation)) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(e).context(|| format!("flock {}", path.display())),
        }
        if !path.exists() {
            return Err(Error::not_found(format_args!("no container with ID {id} found: no such container")));
        }
        Ok(Some(Self { file }))
    }

    /// Gives it back, for all processes that inherited it.
    pub fn release(self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Waits for the lock of a file that is there for that alone, and holds it until the file is dropped.
pub fn lock_file(path: &Path) -> Result<File> {
    let open = || File::options().create(true).truncate(false).write(true).open(path);
    let file = open().context(|| format!("open {}", path.display()))?;
    rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
        .context(|| format!("flock {}", path.display()))?;
    Ok(file)
}

fn unreachable_busy(id: &str) -> Error {
    Error::engine(format_args!("flock of container {id}: would block, although told to wait"))
}
