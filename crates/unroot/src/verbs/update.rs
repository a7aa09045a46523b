//! `update`

use unroot_engine::health::Health;
use unroot_engine::spec::{ContainerSpec, Limits, Restart};

use crate::Global;
use crate::cli::{Args, CliError, Flag, Outcome};
use crate::output;
use crate::run_flags;
use crate::selection::{LATEST, one};
use crate::verbs::Verb;

/// Flags of `run` that are limits.
pub const LIMITS: [&str; 19] = [
    "blkio-weight",
    "blkio-weight-device",
    "cpu-period",
    "cpu-quota",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cpu-shares",
    "cpus",
    "cpuset-cpus",
    "cpuset-mems",
    "device-read-bps",
    "device-read-iops",
    "device-write-bps",
    "device-write-iops",
    "memory",
    "memory-reservation",
    "memory-swap",
    "memory-swappiness",
    "pids-limit",
];

/// What else can be changed later.
const CHANGEABLE: [&str; 4] = ["env", "restart", "ulimit", "unsetenv"];

pub const VERB: Verb = Verb {
    names: &["update", "container update"],
    usage: "[options] CONTAINER",
    about: "Change limits, restart policy, health checks and environment of a container",
    flags: || {
        let changeable =
            |f: &Flag| LIMITS.contains(&f.long) || CHANGEABLE.contains(&f.long) || f.long.contains("health");
        let mut flags: Vec<Flag> = run_flags::all().into_iter().filter(changeable).collect();
        flags.push(LATEST);
        flags
    },
    interspersed: true,
    count: (0, 1),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if args.rest.is_empty() && !args.is("latest") {
        return Err(CliError::new(format!(
            "\"{} update\" requires a name, id, or the \"--latest\" flag",
            unroot_engine::program()
        )));
    }
    let record = one(&engine, args)?;
    let mut asked = ContainerSpec::default();
    run_flags::fill_limits(&mut asked, args)?;
    let ulimits = run_flags::ulimits(args)?;
    let env = run_flags::environment(args)?;
    let restart: Option<Restart> =
        args.value("restart").map(|t| t.parse().map_err(CliError::new)).transpose()?;
    if record.spec.remove && restart.is_some_and(|r| r != Restart::No) {
        return Err(CliError::new("cannot set restart policy: the container is removed when it ends (--rm)"));
    }
    let mut health = record.spec.health.clone();
    change_health(&mut health, args)?;
    let updated = engine.update(&record, |spec| {
        merge(&mut spec.limits, asked.limits);
        if ulimits.iter().any(|l| l.name == "host") {
            spec.process.ulimits.clear();
        } else if !ulimits.is_empty() {
            spec.process
                .ulimits
                .retain(|old| old.name != "host" && ulimits.iter().all(|new| new.name != old.name));
        }
        spec.process.ulimits.extend(ulimits);
        for (name, value) in env {
            spec.process.env.retain(|(known, _)| *known != name);
            spec.process.unset_env.retain(|known| *known != name);
            spec.process.env.push((name, value));
        }
        for name in args.all("unsetenv") {
            spec.process.env.retain(|(known, _)| known != name);
            spec.process.unset_env.push(name.clone());
        }
        spec.life.restart = restart.unwrap_or(spec.life.restart);
        spec.health = health;
        Ok(())
    })?;
    output::line(updated.id);
    Ok(0)
}

fn change_health(health: &mut Health, args: &Args) -> Result<(), CliError> {
    let of_check = ["interval", "retries", "timeout", "start-period"];
    let of_startup = ["interval", "retries", "success", "timeout"];
    let given = |prefix: &str, names: &[&'static str]| {
        names.iter().map(|n| format!("{prefix}{n}")).find(|n| args.value(n).is_some())
    };
    let missing = |flag: String| Err(CliError::new(format!("--{flag}: healthcheck command is not set")));
    if health.check.is_none()
        && args.value("health-cmd").is_none()
        && let Some(flag) = given("health-", &of_check)
    {
        return missing(flag);
    }
    if health.startup.is_none()
        && args.value("health-startup-cmd").is_none()
        && let Some(flag) = given("health-startup-", &of_startup)
    {
        return missing(flag);
    }
    crate::health_flags::fill(health, args)?;
    health.settle(None).map_err(CliError::new)
}

/// What was asked for over what there was.
pub fn merge(limits: &mut Limits, asked: Limits) {
    if asked.cpus.is_some() {
        (limits.cpu_period, limits.cpu_quota) = (None, None);
    }
    if asked.cpu_quota.is_some() || asked.cpu_period.is_some() {
        limits.cpus = None;
    }
    macro_rules! options {
        ($($field:ident)*) => { $(if asked.$field.is_some() { limits.$field = asked.$field; })* };
    }
    macro_rules! lists {
        ($($field:ident)*) => { $(if !asked.$field.is_empty() { limits.$field = asked.$field; })* };
    }
    options!(memory memory_reservation memory_swap memory_swappiness cpus cpu_period cpu_quota cpu_rt_period cpu_rt_runtime);
    options!(cpu_shares cpuset_cpus cpuset_mems pids blkio_weight);
    lists!(blkio_weight_device device_read_bps device_write_bps device_read_iops device_write_iops);
}
