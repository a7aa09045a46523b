//! Images without a name that another image was made of: what a commit under the same name leaves below.

use std::collections::HashSet;

use unroot_store::Image;

use crate::engine::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// Images without a name that this one was made of, the nearest first.
    pub fn nameless_ancestors(&self, image: &Image) -> Result<Vec<Image>> {
        let named: HashSet<String> = self.store.names().into_iter().map(|(_, id)| id).collect();
        let mut all = Vec::new();
        for id in self.store.ids_with_prefix("").into_iter().filter(|id| !named.contains(id)) {
            let found = self.store.image_by_id(&id).map_err(Error::engine)?;
            all.extend(found.filter(|other| is_made_of(image, other)));
        }
        all.sort_by_key(|other| std::cmp::Reverse(other.config.history.len()));
        Ok(all)
    }

    /// Another image was made of this one.
    pub fn has_children(&self, image: &Image) -> bool {
        self.store.all_images().0.iter().any(|other| is_made_of(other, image))
    }
}

/// The layers and the history of `child` begin with all of `parent`'s.
fn is_made_of(child: &Image, parent: &Image) -> bool {
    let (steps, first) = (&child.config.history, &parent.config.history);
    !parent.is_list
        && child.id != parent.id
        && child.layers.starts_with(&parent.layers)
        && steps.len() > first.len()
        && steps.iter().zip(first).all(|(a, b)| {
            (&a.created, &a.created_by, a.empty_layer) == (&b.created, &b.created_by, b.empty_layer)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use unroot_store::{History, ImageConfig};

    fn image(id: &str, layers: &[&str], steps: &[&str]) -> Image {
        let step = |text: &&str| History { created_by: Some((*text).into()), ..History::default() };
        Image {
            id: id.into(),
            digest: String::new(),
            config: ImageConfig { history: steps.iter().map(step).collect(), ..ImageConfig::default() },
            layers: layers.iter().map(|l| (*l).into()).collect(),
            size: 0,
            stored: 0,
            digests: Vec::new(),
            is_list: false,
            max_ids: (0, 0),
            ids: None,
        }
    }

    #[test]
    fn layers_and_steps_both_begin_so() {
        let child = image("c", &["1", "2"], &["a", "b"]);
        assert!(is_made_of(&child, &image("p", &["1"], &["a"])));
        assert!(is_made_of(&child, &image("p", &["1", "2"], &["a"])), "a step without a layer");
        assert!(!is_made_of(&child, &image("p", &["1"], &["x"])), "another history");
        assert!(!is_made_of(&child, &image("p", &["2"], &["a"])), "other layers");
        assert!(!is_made_of(&child, &image("p", &["1", "2"], &["a", "b"])), "as old");
        assert!(!is_made_of(&child, &child));
    }
}
