//! `image tree`

use unroot_engine::Engine;
use unroot_store::Image;

use crate::Global;
use crate::cli::{Args, CliError, Kind, Outcome, flag};
use crate::output::{human, line};
use crate::verbs::Verb;

pub const VERB: Verb = Verb {
    names: &["image tree"],
    usage: "[options] IMAGE",
    about: "Show the layers of an image",
    flags: || vec![flag("whatrequires", ' ', Kind::Bool, "Show the layers and images that build on it")],
    interspersed: true,
    count: (1, 1),
    run,
};

fn run(global: &Global, args: &Args) -> Outcome {
    let engine = global.engine()?;
    let named = engine.image(&args.rest[0])?;
    let image = &named.image;
    line(format!("Image ID: {}", &image.id[..12]));
    line(format!("Tags:     [{}]", engine.names_of(&image.id).join(" ")));
    line(format!("Size:     {}", human(image.size, 4)));
    if image.layers.is_empty() {
        line("No Image Layers");
        return Ok(0);
    }
    line("Image Layers");
    let all = engine.store.images().map_err(CliError::new)?;
    let lines: Vec<(usize, String)> = match args.is("whatrequires") {
        false => (1..=image.layers.len()).map(|n| (0, layer(&engine, &all, &image.layers[..n]))).collect(),
        true => requiring(&engine, &all, &image.layers, 0),
    };
    for (n, (depth, text)) in lines.iter().enumerate() {
        let is_last = lines[n + 1..].iter().take_while(|(d, _)| d >= depth).all(|(d, _)| d > depth);
        line(format!("{}{} {text}", "│   ".repeat(*depth), if is_last { "└──" } else { "├──" }));
    }
    Ok(0)
}

/// A layer, by all that are below it and itself.
fn layer(engine: &Engine, all: &[Image], chain: &[String]) -> String {
    let own = chain.last().cloned().unwrap_or_default();
    let size = engine.store.layer(&own).map_or(0, |l| l.size);
    let tops = all.iter().filter(|image| image.layers == chain).flat_map(|image| engine.names_of(&image.id));
    let names: Vec<String> = tops.collect();
    let top = if names.is_empty() { String::new() } else { format!(" Top Layer of: [{}]", names.join(" ")) };
    let id = own.trim_start_matches("sha256:");
    format!("ID: {} Size: {:>7}{top}", &id[..id.len().min(12)], human(size, 4))
}

/// The layer and what is above it in any image, deeper where there are several.
fn requiring(engine: &Engine, all: &[Image], chain: &[String], depth: usize) -> Vec<(usize, String)> {
    let mut lines = vec![(depth, layer(engine, all, chain))];
    let mut above: Vec<&String> = all
        .iter()
        .filter(|i| i.layers.starts_with(chain))
        .filter_map(|i| i.layers.get(chain.len()))
        .collect();
    above.sort();
    above.dedup();
    let deeper = depth + usize::from(above.len() > 1);
    for next in above {
        let longer: Vec<String> = chain.iter().chain([next]).cloned().collect();
        lines.extend(requiring(engine, all, &longer, deeper));
    }
    lines
}
