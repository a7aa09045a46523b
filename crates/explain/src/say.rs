//! What is told, in the languages in which it is told.

use serde::Serialize;

/// A sentence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Say {
    /// In English.
    pub en: String,
    /// In Japanese.
    pub ja: String,
}

/// A language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Japanese.
    Ja,
}

impl Language {
    /// By the locale (locale(7)): LC_ALL, LC_MESSAGES, LANG.
    pub fn of_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        match set("LC_ALL").or_else(|| set("LC_MESSAGES")).or_else(|| set("LANG")) {
            Some(locale) if locale.starts_with("ja") => Self::Ja,
            _ => Self::En,
        }
    }
}

impl Say {
    /// In this language.
    pub fn text(&self, language: Language) -> &str {
        match language {
            Language::En => &self.en,
            Language::Ja => &self.ja,
        }
    }
}

/// Both languages of a sentence, with the same values in it.
macro_rules! say {
    ($en:literal, $ja:literal $(,)?) => {
        $crate::say::Say { en: format!($en), ja: format!($ja) }
    };
}
pub(crate) use say;
