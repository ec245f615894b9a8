//! Files of Kubernetes: whatever the YAML says becomes a plan, or a refusal that says where.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match model::kube::plan(text, "shop") {
        Ok(plan) => {
            // The same text gives the same plan.
            let again = model::kube::plan(text, "shop").expect("it was read before");
            assert_eq!(format!("{plan:?}"), format!("{again:?}"));
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
});
