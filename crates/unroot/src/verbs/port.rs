//! `port`

use crate::cli::{CliError, Kind, Outcome, flag};
use crate::output;
use crate::selection::{LATEST, one};
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["port", "container port"],
    usage: "[options] CONTAINER [PORT[/PROTOCOL]]",
    about: "List a container's published ports",
    flags: || vec![flag("all", 'a', Kind::Bool, "Of all containers"), LATEST],
    interspersed: true,
    count: (0, 2),
    run: |global, args| -> Outcome {
        let engine = global.engine()?;
        let records = if args.is("all") { engine.containers()? } else { vec![one(&engine, args)?] };
        let wanted = args.rest.get(1).map(|p| if p.contains('/') { p.clone() } else { format!("{p}/tcp") });
        let mut found = false;
        for record in records {
            let owner = engine.network_owner(&record);
            for port in owner.published() {
                let inside = format!("{}/{}", port.container, port.protocol);
                let outside = format!(
                    "{}:{}",
                    port.host_ip.map_or("0.0.0.0".to_string(), |ip| ip.to_string()),
                    port.host
                );
                match &wanted {
                    Some(wanted) if *wanted == inside => output::line(outside),
                    Some(_) => continue,
                    None => output::line(format!("{inside} -> {outside}")),
                }
                found = true;
            }
        }
        match (wanted, found) {
            (Some(wanted), false) => {
                Err(CliError::new(format!("failed to find published port \"{wanted}\"")))
            }
            _ => Ok(0),
        }
    },
};
