//! How often and when to try again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::thread;
use std::time::Duration;

use super::Options;
use crate::error::{Error, Retry};

/// The longest pause, and the longest that a server may ask for.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The tries left for one operation.
pub(super) struct Backoff {
    left: u32,
    total: u32,
    fixed: Option<Duration>,
    what: String,
}

impl Backoff {
    pub(super) fn new(options: &Options) -> Self {
        Self { left: options.retry, total: options.retry, fixed: options.retry_delay, what: String::new() }
    }

    /// What is tried, for those who wait.
    pub(super) fn of(mut self, what: String) -> Self {
        self.what = what;
        self
    }

    /// At most one retry: for a place that has others to fall back to.
    pub(super) fn brief(options: &Options) -> Self {
        let total = options.retry.min(1);
        Self { left: total, total, fixed: options.retry_delay, what: String::new() }
    }

    /// Waits if the error may pass; gives it back if it will not, or not in time.
    pub(super) fn pause(&mut self, error: Error) -> Result<(), Error> {
        let pause = match error.retry() {
            Retry::Never => return Err(error),
            _ if self.left == 0 => return Err(error),
            Retry::After(asked) if asked > PAUSE_MAX => return Err(error),
            Retry::After(asked) => asked,
            Retry::Backoff => self.fixed.unwrap_or_else(|| self.growing()),
        };
        self.left -= 1;
        let tried = self.total - self.left;
        log::warn!("Failed, retrying in {pause:?} ... ({tried}/{}). Error: {}{error}", self.total, self.what);
        thread::sleep(pause);
        Ok(())
    }

    /// Doubles from one second, plus up to a quarter, so that many clients do not come back at once.
    fn growing(&self) -> Duration {
        let round = (self.total - self.left).min(6);
        let base = (FIRST_PAUSE * (1 << round)).min(PAUSE_MAX);
        base + base.mul_f64(random_fraction() / 4.0)
    }

    /// All tries again, after real progress.
    pub(super) fn reset(&mut self) {
        self.left = self.total;
    }

    /// Runs `attempt` until it succeeds or the tries are used up.
    pub(super) fn run<T>(mut self, mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => self.pause(error)?,
            }
        }
    }
}

/// From 0 to 1, seeded by the system's randomness; enough for jitter.
fn random_fraction() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn flaky() -> Error {
        Error::new(ErrorKind::Network, "flaky").retrying(Retry::Backoff)
    }

    fn options(retry: u32) -> Options {
        Options { retry, retry_delay: Some(Duration::ZERO), ..Options::default() }
    }

    #[test]
    fn counts_tries() {
        let mut tries = 0;
        let result: Result<(), _> = Backoff::new(&options(3)).run(|| {
            tries += 1;
            Err(flaky())
        });
        assert!(result.is_err());
        assert_eq!(tries, 4);
    }

    #[test]
    fn gives_up_at_once_where_waiting_is_pointless() {
        let mut backoff = Backoff::new(&options(3));
        assert!(backoff.pause(Error::new(ErrorKind::NotFound, "no")).is_err());
        let hours = Retry::After(Duration::from_secs(7200));
        assert!(backoff.pause(Error::new(ErrorKind::RateLimited, "later").retrying(hours)).is_err());
        assert!(backoff.pause(flaky()).is_ok());
    }

    #[test]
    fn grows_and_is_bounded() {
        let mut backoff = Backoff::new(&Options { retry: 40, ..Options::default() });
        assert!(backoff.growing() >= FIRST_PAUSE);
        backoff.left = 38;
        assert!(backoff.growing() >= 4 * FIRST_PAUSE);
        backoff.left = 0;
        assert!(backoff.growing() <= PAUSE_MAX.mul_f64(1.25));
    }
}
