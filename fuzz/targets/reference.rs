//! Names of images: what is read is whole, and means the same when it is written and read again, in full or as people write
//! it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::image_reference::Reference;

fuzz_target!(|text: &[u8]| {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let reference: Reference = match text.parse() {
        Ok(reference) => reference,
        Err(error) => {
            let _ = error.hint();
            return;
        }
    };
    assert!(reference.tag().is_some() || reference.digest().is_some());
    assert!(!reference.registry().is_empty() && !reference.repository().is_empty());
    for written in [reference.to_string(), reference.familiar()] {
        let again: Reference = written.parse().unwrap_or_else(|error| panic!("{text:?}: {written:?}: {error}"));
        assert_eq!(again, reference, "{text:?}: {written:?}");
    }
});
