//! `system connection`: names for other machines.

use serde_json::json;

use crate::cli::{CliError, Kind, flag};
use crate::output;
use crate::remote::{Connections, Destination, parse};
use crate::verbs::Verb;

pub const ADD: Verb = Verb {
    names: &["system connection add"],
    usage: "[options] NAME ssh://[USER@]HOST[:PORT][/PATH/TO/PROGRAM]",
    about: "Name another machine",
    flags: || {
        vec![
            flag("default", 'd', Kind::Bool, "Use it when --remote says no more"),
            flag("identity", ' ', Kind::Value, "Private key for ssh"),
            flag("port", 'p', Kind::Value, "Port of ssh there"),
        ]
    },
    interspersed: true,
    count: (2, 2),
    run: |_, args| {
        let [name, uri] = &args.rest[..] else { return Ok(125) };
        let mut uri = match uri.contains("://") {
            true => uri.clone(),
            false => format!("ssh://{uri}"),
        };
        let (place, port, program) = parse(&uri)?;
        if let Some(given) = args.number::<u16>("port")? {
            if port.is_some_and(|port| port != given) {
                return Err(CliError::new(format!("--port {given} and {uri} name two ports")));
            }
            uri = format!("ssh://{place}:{given}/{}", program.trim_start_matches('/'));
        }
        let mut connections = Connections::load()?;
        if connections.all.contains_key(name) {
            return Err(CliError::new(format!("connection \"{name}\" is there already"))
                .with_hint(format!("{} system connection remove {name}", unroot_engine::program())));
        }
        let identity = args.value("identity").unwrap_or_default().to_string();
        connections.all.insert(name.clone(), Destination { uri, identity });
        if args.is("default") || connections.default.is_none() {
            connections.default = Some(name.clone());
        }
        connections.save()?;
        Ok(0)
    },
};

pub const LIST: Verb = Verb {
    names: &["system connection list", "system connection ls"],
    usage: "[options]",
    about: "List the machines that have names",
    flags: || {
        vec![
            flag("format", 'f', Kind::Value, "json, or a Go template"),
            flag("quiet", 'q', Kind::Bool, "Names alone"),
        ]
    },
    interspersed: true,
    count: (0, 0),
    run: |_, args| {
        let connections = Connections::load()?;
        let rows: Vec<_> = connections
            .all
            .iter()
            .map(|(name, destination)| {
                json!({"Name": name, "URI": destination.uri, "Identity": destination.identity,
                    "Default": connections.default.as_ref() == Some(name), "ReadWrite": true})
            })
            .collect();
        let headings = [
            ("Name", "Name"),
            ("URI", "URI"),
            ("Identity", "Identity"),
            ("Default", "Default"),
            ("ReadWrite", "ReadWrite"),
        ];
        let format = match args.is("quiet") {
            true => "{{.Name}}",
            false => args.value("format").unwrap_or("table {{.Name}}\t{{.URI}}\t{{.Identity}}\t{{.Default}}"),
        };
        output::formatted(format, &rows, &headings, false)?;
        Ok(0)
    },
};

pub const REMOVE: Verb = Verb {
    names: &["system connection remove", "system connection rm"],
    usage: "[options] [NAME]",
    about: "Forget the name of a machine",
    flags: || vec![flag("all", 'a', Kind::Bool, "All")],
    interspersed: true,
    count: (0, 1),
    run: |_, args| {
        let mut connections = Connections::load()?;
        match (args.is("all"), args.rest.first()) {
            (true, None) => connections = Connections::default(),
            (false, Some(name)) => {
                if connections.all.remove(name).is_none() {
                    return Err(CliError::new(format!("connection \"{name}\" not found")));
                }
                connections.default = connections.default.filter(|default| default != name);
            }
            _ => return Err(CliError::new("either a name or --all must be given")),
        }
        connections.save()?;
        Ok(0)
    },
};

pub const DEFAULT: Verb = Verb {
    names: &["system connection default"],
    usage: "NAME",
    about: "Choose the machine that --remote means",
    flags: Vec::new,
    interspersed: true,
    count: (1, 1),
    run: |_, args| {
        let mut connections = Connections::load()?;
        let name = &args.rest[0];
        if !connections.all.contains_key(name) {
            return Err(CliError::new(format!("connection \"{name}\" not found")));
        }
        connections.default = Some(name.clone());
        connections.save()?;
        Ok(0)
    },
};

pub const RENAME: Verb = Verb {
    names: &["system connection rename", "system connection mv"],
    usage: "OLD NEW",
    about: "Rename a machine",
    flags: Vec::new,
    interspersed: true,
    count: (2, 2),
    run: |_, args| {
        let mut connections = Connections::load()?;
        let [old, new] = &args.rest[..] else { return Ok(125) };
        if connections.all.contains_key(new) {
            return Err(CliError::new(format!("connection \"{new}\" is there already")));
        }
        let destination = connections
            .all
            .remove(old)
            .ok_or_else(|| CliError::new(format!("connection \"{old}\" not found")))?;
        connections.all.insert(new.clone(), destination);
        if connections.default.as_ref() == Some(old) {
            connections.default = Some(new.clone());
        }
        connections.save()?;
        Ok(0)
    },
};
