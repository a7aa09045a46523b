//! Names of images: what is read is written as something that is read as the same.
#![no_main]

use unroot_registry::{Name, Reference};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse_normalized(text) {
        assert_eq!(Reference::parse_normalized(&reference.to_string()).unwrap(), reference);
    }
    if let Ok(Name::Full(reference)) = Name::parse(text) {
        let written = reference.to_string();
        assert!(matches!(Name::parse(&written), Ok(Name::Full(again)) if again == reference), "{written:?}");
    }
});
