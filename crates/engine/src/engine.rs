//! The engine: who runs it, where its state is, and the user namespace that it works in.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use unroot_idmap::{EngineNamespace, EngineUser};
use unroot_store::Store;

use crate::dirs::{Dirs, make_dir};
use crate::error::{Error, Result};
use crate::record::{self, Record};
use crate::state::State;

/// One user's engine.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Where its state is.
    pub dirs: Dirs,
    /// Who runs it.
    pub user: EngineUser,
    /// Its images, layers and volumes.
    pub store: Store,
    /// systemd makes containers' control groups, where it is there.
    pub scopes: bool,
    /// `--config`: the directory of Docker's config.json.
    pub docker_config: Option<PathBuf>,
    /// What inspect shows of a container, for events that carry it.
    pub inspect: Option<fn(&Self, &Record) -> String>,
    namespace: OnceLock<EngineNamespace>,
}

impl Engine {
    /// The engine of whoever runs this process; nothing is made or entered yet.
    pub fn open(root: Option<PathBuf>, run: Option<PathBuf>) -> Result<Self> {
        Self::open_as(EngineUser::current(), root, run)
    }

    /// The same, of whoever it was before this process entered the engine's user namespace.
    pub fn open_outside(root: Option<PathBuf>, run: Option<PathBuf>) -> Result<Self> {
        Self::open_as(EngineUser::outside(), root, run)
    }

    fn open_as(user: EngineUser, root: Option<PathBuf>, run: Option<PathBuf>) -> Result<Self> {
        let dirs = Dirs::locate((user.uid, &user.name), &user.home, root, run)?;
        let store = Store::new(&dirs.root);
        Ok(Self {
            dirs,
            user,
            store,
            scopes: true,
            docker_config: None,
            inspect: None,
            namespace: OnceLock::new(),
        })
    }

    /// Begins to make the user namespace that will be entered, unless there may be one to join. It goes on while this
    /// process does other things.
    pub fn prepare(&self) {
        let mut containers = std::fs::read_dir(self.dirs.run.join("containers")).into_iter().flatten();
        let is_kept = self.dirs.userns.as_ref().is_some_and(|file| file.exists());
        if self.user.is_rootless() && !is_kept && containers.next().is_none() {
            unroot_idmap::prepare(&self.user);
        }
    }

    /// Enters the engine's user namespace, once. The process must have one thread.
    pub fn enter(&self) -> Result<&EngineNamespace> {
        self.enter_beside(None, None)
    }

    /// The same; where containers live already, in the namespace of theirs, of this one's first, or of those that are
    /// in the user namespace of a file or around it.
    pub fn enter_beside(&self, first: Option<&Record>, near: Option<&Path>) -> Result<&EngineNamespace> {
        if let Some(namespace) = self.namespace.get() {
            return Ok(namespace);
        }
        // (ids are other numbers from there on)
        self.dirs.events.who();
        let run_dir = self.dirs.run.join("containers");
        let others = std::fs::read_dir(run_dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok());
        let monitors = first
            .map(|r| r.id.clone())
            .into_iter()
            .chain(others)
            .filter(|_| self.user.is_rootless())
            .filter_map(|id| {
                Some(State::observe(&self.dirs, &id).ok()?.run.filter(|r| r.monitor.is_alive())?.monitor.pid)
            });
        let kept_first = self.dirs.userns.as_deref().filter(|_| first.is_none() && near.is_none());
        let namespace = match near.map(crate::userns::near) {
            None => unroot_idmap::enter(&self.user, kept_first, monitors),
            Some(near) => {
                let is_near = |pid: &u32| {
                    crate::userns::namespace_of_process(*pid).is_some_and(|inode| near.contains(&inode))
                };
                let mut monitors: Vec<u32> = monitors.collect();
                monitors.sort_by_key(|pid| !is_near(pid));
                unroot_idmap::enter(&self.user, kept_first, monitors)
            }
        };
        let namespace = namespace.map_err(|e| {
            let hint = e.hint().map(str::to_string);
            let error = Error::engine(e);
            hint.into_iter().fold(error, |error, hint| error.with_hint(hint))
        })?;
        make_dir(&self.dirs.containers())?;
        make_dir(&self.dirs.names())?;
        make_dir(&self.dirs.run.join("containers"))?;
        if let (Some(kept), true, None) = (kept_first, namespace.unkept, &namespace.single_id) {
            kept.parent().map(make_dir).transpose()?;
            unroot_idmap::kept::keep(kept, &namespace.maps);
        }
        Ok(self.namespace.get_or_init(|| namespace))
    }

    /// What was stored shortly before the system stopped is looked at before it is used.
    pub(crate) fn recover_store(&self) -> Result<()> {
        self.enter()?;
        for line in self.store.recover(&|what| crate::warn(format_args!("{what}"))).map_err(Error::engine)? {
            crate::warn(format_args!("{line}"));
        }
        Ok(())
    }

    /// Its user namespace, if this process has entered it.
    pub fn entered(&self) -> Option<&EngineNamespace> {
        self.namespace.get()
    }

    /// A container by name, id or the beginning of an id.
    pub fn find(&self, name: &str) -> Result<Record> {
        record::find(&self.dirs, name)
    }

    /// All containers, oldest first.
    pub fn containers(&self) -> Result<Vec<Record>> {
        record::all(&self.dirs)
    }
}
