//! `pull`

use unroot_engine::Engine;
use unroot_engine::images::{PullOptions, registry_error};
use unroot_registry::Reference;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output;
use crate::progress::Shown;
use crate::run_flags::pull_options;
use crate::verbs::{ANY, Verb};

pub const VERB: Verb = Verb {
    names: &["pull", "image pull"],
    usage: "[options] IMAGE [IMAGE...]",
    about: "Pull images from registries",
    flags: || {
        vec![
            flag("all-tags", 'a', Kind::Bool, "All tags of the repository"),
            flag("arch", ' ', Kind::Value, "For this architecture"),
            flag("authfile", ' ', Kind::Value, "File with credentials"),
            flag("cert-dir", ' ', Kind::Value, "Directory with certificates"),
            flag("creds", ' ', Kind::Value, "USER:PASSWORD"),
            flag("os", ' ', Kind::Value, "For this operating system"),
            flag("platform", ' ', Kind::Value, "For OS/ARCH[/VARIANT]"),
            flag("policy", ' ', Kind::Value, "When to pull: always, missing, never, newer"),
            flag("quiet", 'q', Kind::Bool, "Do not show how it goes"),
            flag("retry", ' ', Kind::Value, "How often to try again when performing pull (default 3)"),
            flag("retry-delay", ' ', Kind::Value, "Pause between tries after pull failures"),
            flag("tls-verify", ' ', Kind::Bool, "Require HTTPS and verify certificates"),
            flag(
                "userns",
                ' ',
                Kind::Value,
                "Make it ready for containers with this user namespace: keep-id, nomap, auto",
            ),
            flag("variant", ' ', Kind::Value, "For this variant of the architecture"),
        ]
    },
    interspersed: true,
    count: (1, ANY),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    use unroot_engine::spec::{ContainerSpec, PullPolicy, Root};
    let args = &global.conf()?.fill(args)?;
    let engine = global.engine()?;
    let options = pull_options(args)?;
    let policy = match args.value("policy").unwrap_or("always").to_ascii_lowercase().as_str() {
        "always" => PullPolicy::Always,
        "missing" | "ifnotpresent" => PullPolicy::Missing,
        "never" => PullPolicy::Never,
        "newer" => PullPolicy::Newer,
        other => return Err(CliError::new(format!("unsupported pull policy \"{other}\""))),
    };
    for word in &args.rest {
        if let Some(loaded) = super::load::from_transport(&engine, word, &Shown::new(args.is("quiet")))? {
            loaded.into_iter().for_each(|(_, id)| output::line(id));
            continue;
        }
        if args.is("all-tags") {
            for tagged in all_tags(&engine, word, &options)? {
                let progress = Shown::new(args.is("quiet"));
                output::line(engine.image_or_pull(&tagged, policy, &options, &progress)?.image.id);
            }
            continue;
        }
        let named = engine.image_or_pull(word, policy, &options, &Shown::new(args.is("quiet")))?;
        if let Some(mode) = args.value("userns") {
            let mut spec =
                ContainerSpec { root: Root::Image(named.name.clone()), ..ContainerSpec::default() };
            spec.namespaces.user = Some(mode.into());
            engine.prepare_userns(&named, &spec)?;
        }
        output::line(named.image.id);
    }
    Ok(0)
}

/// The names of all that a repository has.
fn all_tags(engine: &Engine, name: &str, options: &PullOptions) -> Result<Vec<String>, CliError> {
    let text = name.strip_prefix("docker://").unwrap_or(name);
    let reference = Reference::parse_normalized(text).map_err(CliError::new)?;
    if reference.tag().is_some() || reference.digest().is_some() {
        return Err(CliError::new(format!("{name}: --all-tags needs a name without tag and digest")));
    }
    let tags = engine.client(options)?.tags(&reference).map_err(registry_error)?;
    Ok(tags.iter().map(|tag| format!("{}:{tag}", reference.name())).collect())
}
