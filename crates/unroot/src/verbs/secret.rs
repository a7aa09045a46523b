//! `secret create`, `ls`, `inspect`, `rm`, `exists`

use std::io::Read as _;

use serde_json::{Value, json};
use unroot_engine::secrets::{Driver, IfThere, Secret};
use unroot_engine::{Engine, ErrorKind};
use unroot_monitor::log::{format_nanos, now};

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{self, ago, formatted};
use crate::verbs::{ANY, Verb, each};

pub const CREATE: Verb = Verb {
    names: &["secret create"],
    usage: "[options] NAME FILE|-",
    about: "Create a secret from a file, standard input or a variable",
    flags: || {
        vec![
            flag("driver", 'd', Kind::Value, "Who keeps the data: file, pass, shell (default file)"),
            flag("driver-opts", ' ', Kind::List, "Options of the driver, KEY=VALUE"),
            flag("env", ' ', Kind::Bool, "FILE is the name of a variable"),
            flag("ignore", ' ', Kind::Bool, "One that is there already is no error"),
            flag("label", 'l', Kind::Repeat, "Add a label KEY=VALUE"),
            flag("replace", ' ', Kind::Bool, "Replace one that is there already"),
        ]
    },
    interspersed: true,
    count: (2, 2),
    run: create,
};

pub const LIST: Verb = Verb {
    names: &["secret ls", "secret list"],
    usage: "[options]",
    about: "List secrets",
    flags: || {
        vec![
            flag("filter", 'f', Kind::Repeat, "Those for which this holds: name=, id="),
            flag("format", ' ', Kind::Value, "json, or a Go template"),
            flag("noheading", 'n', Kind::Bool, "No headings"),
            flag("quiet", 'q', Kind::Bool, "Ids alone"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run: list,
};

pub const INSPECT: Verb = Verb {
    names: &["secret inspect"],
    usage: "[options] SECRET [SECRET...]",
    about: "Show all about secrets, but not their data",
    flags: || {
        vec![
            flag("format", 'f', Kind::Value, "json, or a Go template"),
            flag("pretty", ' ', Kind::Bool, "For people"),
            flag("showsecret", ' ', Kind::Bool, "The data, too"),
        ]
    },
    interspersed: true,
    count: (1, ANY),
    run: inspect,
};

pub const REMOVE: Verb = Verb {
    names: &["secret rm", "secret remove"],
    usage: "[options] SECRET [SECRET...]",
    about: "Remove secrets",
    flags: || {
        vec![
            flag("all", 'a', Kind::Bool, "All secrets"),
            flag("ignore", 'i', Kind::Bool, "One that is not there is no error"),
        ]
    },
    interspersed: true,
    count: (0, ANY),
    run: remove,
};

pub const EXISTS: Verb = Verb {
    names: &["secret exists"],
    usage: "SECRET",
    about: "Say by the exit code whether there is such a secret",
    flags: Vec::new,
    interspersed: true,
    count: (1, 1),
    run: |global, args| match global.engine()?.dirs.secrets().find(&args.rest[0]) {
        Ok(_) => Ok(0),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(1),
        Err(e) => Err(e.into()),
    },
};

fn create(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let [name, source] = &args.rest[..] else { return Err(CliError::new("a name and a file")) };
    let conf = global.conf()?;
    let pairs = |texts: &[String]| {
        let split =
            |t: &String| t.split_once('=').map_or((t.clone(), String::new()), |(k, v)| (k.into(), v.into()));
        texts.iter().map(split).collect::<std::collections::BTreeMap<String, String>>()
    };
    let configured = conf.text("secrets", "driver")?;
    let driver = args.value("driver").map(str::to_string).or(configured).unwrap_or_else(|| "file".into());
    let mut options = pairs(&conf.texts("secrets", "opts")?);
    options.extend(pairs(args.all("driver-opts")));
    let secrets = engine.dirs.secrets();
    let if_there = match (args.is("replace"), args.is("ignore")) {
        (true, true) => return Err(CliError::new("--ignore and --replace cannot be used together")),
        (true, false) => IfThere::Replace,
        (false, true) => IfThere::Keep,
        (false, false) => IfThere::Fail,
    };
    let driver = Driver::new(&driver, options, &secrets.dir())?;
    let data = data(source, args.is("env"))?;
    output::line(secrets.create(name, &data, pairs(args.all("label")), driver, if_there)?);
    Ok(0)
}

fn data(source: &str, is_variable: bool) -> Result<Vec<u8>, CliError> {
    if is_variable {
        let value = std::env::var_os(source);
        return value.map(std::os::unix::ffi::OsStringExt::into_vec).ok_or_else(|| {
            CliError::new(format!(
                "cannot create store secret data: environment variable {source} is not set"
            ))
        });
    }
    let mut data = Vec::new();
    let failed =
        |e: std::io::Error| CliError::new(format!("open {source}: {}", unroot_engine::plan::reason(&e)));
    let mut source_file: Box<dyn std::io::Read> = match source {
        "-" | "/dev/stdin" => {
            use std::io::IsTerminal as _;
            if std::io::stdin().is_terminal() {
                return Err(CliError::new("if `-` is used, data must be passed into stdin"));
            }
            Box::new(std::io::stdin())
        }
        path => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    // (more than a secret may hold is refused, not read)
    source_file.by_ref().take(1 << 20).read_to_end(&mut data).map_err(failed)?;
    Ok(data)
}

fn matches(secret: &Secret, filters: &[String]) -> Result<bool, CliError> {
    let mut keys = std::collections::BTreeMap::<&str, bool>::new();
    for filter in filters {
        let (key, value) = filter.split_once('=').unwrap_or((filter, ""));
        let holds = match key {
            "id" => secret.id.starts_with(value),
            "name" => crate::filters::pattern(value)?.is_match(&secret.name),
            _ => return Err(CliError::new(format!("invalid filter \"{key}\""))),
        };
        *keys.entry(key).or_default() |= holds;
    }
    Ok(keys.values().all(|holds| *holds))
}

fn list(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let mut rows = Vec::new();
    for secret in engine.dirs.secrets().list()? {
        if matches(&secret, args.all("filter"))? {
            let since = format!("{} ago", ago((now() - secret.created) / 1_000_000_000));
            rows.push(json!({
                "ID": secret.id, "Name": secret.name, "Driver": secret.driver.name,
                "CreatedAt": since, "UpdatedAt": since,
            }));
        }
    }
    if args.is("quiet") {
        rows.iter().for_each(|r| output::line(r["ID"].as_str().unwrap_or_default()));
        return Ok(0);
    }
    let headings = [
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("CreatedAt", "CREATED"),
        ("UpdatedAt", "UPDATED"),
    ];
    let format = args
        .value("format")
        .unwrap_or("table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}");
    formatted(format, &rows, &headings, args.is("noheading"))?;
    Ok(0)
}

fn view(engine: &Engine, secret: &Secret, with_data: bool) -> Result<Value, CliError> {
    let time = format_nanos(secret.created).replace("+00:00", "Z");
    let mut view = json!({
        "ID": secret.id, "CreatedAt": time, "UpdatedAt": time,
        "Spec": {
            "Name": secret.name,
            "Driver": {"Name": secret.driver.name, "Options": secret.driver.options},
            "Labels": secret.labels,
        },
    });
    if with_data {
        let data = engine.dirs.secrets().data(secret)?;
        view["SecretData"] = String::from_utf8_lossy(&data).into();
    }
    Ok(view)
}

fn pretty(secret: &Secret) -> String {
    let labels: String = secret.labels.iter().map(|(k, v)| format!("\n - {k}={v}")).collect();
    let time = format_nanos(secret.created).replace('T', " ").replace("+00:00", " +0000 UTC");
    format!(
        "ID:              {}\nName:              {}\nLabels:{labels}\nDriver:            {}\nCreated at:        {time}\nUpdated at:        {time}",
        secret.id, secret.name, secret.driver.name
    )
}

fn inspect(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    if args.is("pretty") && args.value("format").is_some() {
        return Err(CliError::new("--format and --pretty cannot be used together"));
    }
    let (mut found, mut code) = (Vec::new(), 0);
    for word in &args.rest {
        match engine.dirs.secrets().find(word) {
            Ok(secret) if args.is("pretty") => output::line(pretty(&secret)),
            Ok(secret) => found.push(view(&engine, &secret, args.is("showsecret"))?),
            Err(e) => code = crate::report(&CliError::new(format!("inspecting secret: {e}"))),
        }
    }
    match args.value("format") {
        _ if args.is("pretty") => {}
        Some(format) if format != "json" => formatted(format, &found, &[], false)?,
        _ => output::line(serde_json::to_string_pretty(&found).map_err(CliError::new)?),
    }
    Ok(code)
}

fn remove(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let secrets = engine.dirs.secrets();
    if args.rest.is_empty() != args.is("all") {
        return Err(CliError::new(
            "`podman secret rm` requires one argument, or the --all flag"
                .replace("podman", unroot_engine::program()),
        ));
    }
    let all = match args.is("all") {
        true => secrets.list()?.into_iter().map(Ok).collect(),
        false => args.rest.iter().map(|word| secrets.find(word)).collect::<Vec<_>>(),
    };
    let wanted = all
        .into_iter()
        .filter(|s| !(args.is("ignore") && s.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound)));
    each(wanted.map(|s| s.map_err(CliError::from)).collect(), |secret| {
        secrets.remove(&secret)?;
        Ok(Some(secret.id))
    })
}
