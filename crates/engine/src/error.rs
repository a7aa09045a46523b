//! What can go wrong in a command: one type, whose kind decides the exit code.

use std::fmt;

/// What kind of failure; the binary maps it to an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The engine could not do it: 125.
    Engine,
    /// No such container, image or volume: 125, and "not found" for `exists`.
    NotFound,
    /// The object is in a state that forbids it: 125.
    State,
    /// Its monitor was killed: 125.
    Lost,
    /// Something of this name exists, or is in use: 125 (2 for `rmi`, as Podman).
    InUse,
    /// The command was found but cannot be executed: 126.
    NotExecutable,
    /// The command was not found: 127.
    CommandNotFound,
}

/// A failed command: what failed, with its arguments and why, and the command that cures it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    text: String,
    hint: Option<String>,
}

/// Results of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, text: impl fmt::Display) -> Self {
        Self { kind, text: text.to_string(), hint: None }
    }

    /// The engine could not do it.
    pub fn engine(text: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Engine, text)
    }

    /// No such object.
    pub fn not_found(text: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, text)
    }

    /// The object's state forbids it.
    pub fn state(text: impl fmt::Display) -> Self {
        Self::new(ErrorKind::State, text)
    }

    /// The same with the command that cures it.
    pub fn with_hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// What kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The command or file that cures it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The exit code of the engine's own failures, as Podman's.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::NotExecutable => 126,
            ErrorKind::CommandNotFound => 127,
            _ => 125,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// Adds what was being done to an error of a lower floor.
pub trait Context<T> {
    /// `what: error`.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::engine(format_args!("{}: {e}", what())))
    }
}
