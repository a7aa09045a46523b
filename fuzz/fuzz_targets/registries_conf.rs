//! registries.conf, and where images are looked for by it.
#![no_main]

use unroot_registry::{Name, RegistriesConf};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(conf) = RegistriesConf::parse(text) else { return };
    if let Ok(Name::Short(short)) = Name::parse("image") {
        let _ = conf.resolve_short(&short);
    }
    let _ = conf.credential_helpers();
});
