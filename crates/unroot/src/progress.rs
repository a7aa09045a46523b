//! How a pull goes: bars on a terminal, lines elsewhere, nothing if quiet.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use unroot_engine::images::Progress;

/// On standard error, as it is.
pub struct Shown {
    quiet: bool,
    bars: Option<MultiProgress>,
    layers: Mutex<HashMap<usize, (ProgressBar, String)>>,
}

impl Shown {
    /// For this caller.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        Self { quiet, bars: terminal.then(MultiProgress::new), layers: Mutex::default() }
    }
}

/// A line of a layer, with this after the bar.
fn style(rest: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(&format!("Copying blob {{prefix}} [{{bar:38}}] {rest}"));
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

fn short(digest: &str) -> &str {
    let hex = digest.trim_start_matches("sha256:");
    &hex[..hex.len().min(12)]
}

impl Progress for Shown {
    fn say(&self, line: &str) {
        match (&self.bars, self.quiet) {
            (_, true) => {}
            (Some(bars), _) => drop(bars.println(line)),
            (None, _) => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }

    fn begin(&self, layer: usize, digest: &str, size: u64) {
        let bar = match &self.bars {
            Some(bars) => bars.add(ProgressBar::new(size)),
            None => ProgressBar::hidden(),
        };
        bar.set_style(style("{bytes} / {total_bytes} | {bytes_per_sec}, {eta} left"));
        bar.set_prefix(short(digest).to_string());
        if self.bars.is_none() {
            self.say(&format!("Copying blob {digest}"));
        }
        if let Ok(mut layers) = self.layers.lock() {
            layers.insert(layer, (bar, digest.to_string()));
        }
    }

    fn advance(&self, layer: usize, bytes: u64) {
        if self.bars.is_some()
            && let Ok(layers) = self.layers.lock()
            && let Some((bar, _)) = layers.get(&layer)
        {
            bar.inc(bytes);
        }
    }

    fn end(&self, layer: usize, already: bool) {
        if let Ok(layers) = self.layers.lock()
            && let Some((bar, _)) = layers.get(&layer)
        {
            bar.set_style(style("{bytes} | {msg}"));
            bar.finish_with_message(if already { "already here" } else { "done" });
        }
    }
}
