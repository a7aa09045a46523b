//! `--health-*` of `run`, `create` and `update`.

use unroot_engine::health::{Check, EVENTS_LOGGER, Health, LOCAL, OnFailure, Startup, test_of};

use crate::cli::{Args, CliError, Flag, Kind, flag};
use crate::moment::duration;

use Kind::{Bool, Value};

/// The flags.
pub const FLAGS: [Flag; 15] = [
    flag(
        "health-cmd",
        ' ',
        Value,
        "Command that tells by its exit code whether the container is well; none for none",
    ),
    flag("health-interval", ' ', Value, "Time between two checks, or disable (default 30s)"),
    flag(
        "health-log-destination",
        ' ',
        Value,
        "Where checks are recorded: local, a directory, events_logger",
    ),
    flag("health-max-log-count", ' ', Value, "So many checks are recorded; 0 for all (default 5)"),
    flag("health-max-log-size", ' ', Value, "Letters of output that are recorded; 0 for all (default 500)"),
    flag("health-on-failure", ' ', Value, "What an unhealthy container gets: none, kill, restart, stop"),
    flag("health-retries", ' ', Value, "So many failures in a row are unhealthy (default 3)"),
    flag("health-start-period", ' ', Value, "Time after the start in which failures do not count"),
    flag("health-startup-cmd", ' ', Value, "Command that is run until the container has started up"),
    flag("health-startup-interval", ' ', Value, "Time between two startup checks, or disable (default 30s)"),
    flag("health-startup-retries", ' ', Value, "So many failed startup checks restart the container"),
    flag("health-startup-success", ' ', Value, "So often the startup check has to pass"),
    flag("health-startup-timeout", ' ', Value, "A startup check that takes longer has failed (default 30s)"),
    flag("health-timeout", ' ', Value, "A check that takes longer has failed (default 30s)"),
    flag("no-healthcheck", ' ', Bool, "No health checks, the image's neither"),
];

/// A time of a flag, nanoseconds.
fn time(args: &Args, name: &str) -> Result<Option<u64>, CliError> {
    let Some(text) = args.value(&format!("health-{name}")) else { return Ok(None) };
    if text == "disable" && name.ends_with("interval") {
        return Ok(Some(0));
    }
    let nanos = duration(text).ok_or_else(|| {
        CliError::new(format!("invalid healthcheck-{name}: time: invalid duration \"{text}\""))
    })?;
    match u64::try_from(nanos) {
        Ok(nanos) => Ok(Some(nanos)),
        Err(_) => Err(CliError::new(format!("healthcheck-{name} must be 0 seconds or greater"))),
    }
}

/// What was asked for, over what there was.
pub fn fill(health: &mut Health, args: &Args) -> Result<(), CliError> {
    // (an empty one is none, as a variable of a script may be)
    let command = |name: &str| {
        let text = args.value(name).filter(|text| !text.is_empty());
        text.map(|text| test_of(text).map_err(CliError::new)).transpose()
    };
    let number = |name: &str| args.number::<u32>(name);
    if args.is("no-healthcheck") {
        if let Some(other) = FLAGS.iter().find(|f| f.long.ends_with("cmd") && args.value(f.long).is_some()) {
            return Err(CliError::new(format!("cannot specify both --no-healthcheck and --{}", other.long)));
        }
        health.disabled = true;
        health.check = None;
        health.startup = None;
    }
    health.given.interval = time(args, "interval")?;
    health.given.timeout = time(args, "timeout")?;
    health.given.start_period = time(args, "start-period")?;
    health.given.retries = number("health-retries")?;
    if health.given.retries == Some(0) {
        return Err(CliError::new("healthcheck-retries must be greater than 0"));
    }
    if let Some(test) = command("health-cmd")? {
        health.disabled = test == ["NONE"];
        health.check = Some(Check { test, ..health.check.take().unwrap_or_default() });
    }
    if let Some(check) = &mut health.check {
        health.given.apply(check);
    }
    fill_startup(health, args, command("health-startup-cmd")?)?;
    if let Some(action) = args.value("health-on-failure") {
        health.on_failure = action.parse::<OnFailure>().map_err(CliError::new)?;
    }
    if let Some(place) = args.value("health-log-destination") {
        health.log_destination = destination(place)?;
    }
    health.max_log_count = number("health-max-log-count")?.unwrap_or(health.max_log_count);
    health.max_log_size = args.number("health-max-log-size")?.unwrap_or(health.max_log_size);
    Ok(())
}

fn fill_startup(health: &mut Health, args: &Args, test: Option<Vec<String>>) -> Result<(), CliError> {
    if let Some(test) = test {
        let check = Check { retries: 0, ..Check::default() };
        let old = health.startup.take().unwrap_or(Startup { check, successes: 0 });
        health.startup = Some(Startup { check: Check { test, ..old.check }, ..old });
    }
    let (interval, timeout) = (time(args, "startup-interval")?, time(args, "startup-timeout")?);
    let (retries, successes) =
        (args.number("health-startup-retries")?, args.number("health-startup-success")?);
    if let Some(startup) = &mut health.startup {
        startup.check.interval = interval.unwrap_or(startup.check.interval);
        startup.check.timeout = timeout.unwrap_or(startup.check.timeout);
        startup.check.retries = retries.unwrap_or(startup.check.retries);
        startup.successes = successes.unwrap_or(startup.successes);
    }
    Ok(())
}

fn destination(place: &str) -> Result<String, CliError> {
    if matches!(place, LOCAL | EVENTS_LOGGER) {
        return Ok(place.into());
    }
    let path = std::path::absolute(place).map_err(CliError::new)?;
    let wrong =
        |reason: &str| CliError::new(format!("HealthCheck Log '{place}' destination error: {reason}"));
    match std::fs::metadata(&path) {
        Ok(meta) if meta.is_dir() => Ok(path.to_string_lossy().into_owned()),
        Ok(_) => Err(wrong("it is a file: it is local, events_logger or a directory")),
        Err(e) => Err(wrong(&format!("stat {}: {}", path.display(), unroot_engine::plan::reason(&e)))),
    }
}

/// A Go duration, as templates show it: `30s`, `1m30s`, `100ms`.
pub fn shown(nanos: u64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000_000_000 {
        let (value, unit) = [(1_000_000, "ms"), (1_000, "µs"), (1, "ns")]
            .into_iter()
            .find(|(factor, _)| nanos >= *factor)
            .map_or((0.0, "ns"), |(factor, unit)| (nanos as f64 / factor as f64, unit));
        return format!("{value}{unit}");
    }
    let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
    let seconds = (nanos % 60_000_000_000) as f64 / 1e9;
    let mut text = String::new();
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if hours > 0 || minutes > 0 {
        text += &format!("{minutes}m");
    }
    text + &format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    #[test]
    fn go_durations() {
        for (nanos, text) in [
            (0, "0s"),
            (30_000_000_000, "30s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (100_000_000, "100ms"),
            (1_500, "1.5µs"),
        ] {
            assert_eq!(super::shown(nanos), text);
        }
    }
}
