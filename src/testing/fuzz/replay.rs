//! The committed inputs, run through the bodies: what the fuzzer found worth keeping, and what once failed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn replay(target: &str) {
    let body = TARGETS.iter().find(|known| known.name == target).unwrap().body;
    let mut inputs = 0;
    for folder in ["corpus", "regressions"] {
        let Ok(entries) = fs::read_dir(fuzz().join(folder).join(target)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| body(&input)).is_err() {
                panic!("{target} fails on {}", path.display());
            }
            inputs += 1;
        }
    }
    assert!(inputs > 0, "no input of {target} is committed");
    // What every parser has to bear.
    let nothing: [&[u8]; 4] = [b"", b"\0", b"\xff", b"{"];
    nothing.into_iter().for_each(body);
}

macro_rules! replays {
    ($($name:ident => $target:ident),* $(,)?) => {
        $(#[test] fn $name() { replay(stringify!($target)); })*

        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
    };
}

replays! {
    canonical_json_agrees_with_a_second_encoder => canonical,
    metadata_read_is_metadata_signed => metadata,
    no_mutation_and_no_second_name_reaches_a_threshold => signatures,
    the_search_through_delegations_is_the_specifications => delegations,
    no_name_leaves_its_folder_and_patterns_agree_with_naive_ones => names,
    headers_are_read_as_the_rfcs_say => headers,
    a_json_page_has_no_more_than_its_text => page_json,
    an_html_page_has_no_more_than_its_text => page_html,
    a_lock_pins_with_digests_alone => lockfiles,
    a_configuration_is_good_or_its_error_has_a_line => configuration,
    no_damage_of_the_rollback_record_lowers_it => state,
    a_map_can_be_satisfied_and_reads_back => maps,
    a_wheel_has_one_reading => wheels,
    an_sdist_has_one_reading => sdists,
}

#[test]
fn every_body_is_replayed_and_is_a_target_of_the_fuzzer() {
    let bodies: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(bodies, REPLAYED.iter().copied().collect());
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for target in &bodies {
        let wrapper = fs::read_to_string(fuzz().join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(wrapper.contains(&format!("tufgate::testing::fuzz::{target}(data)")), "{target}: {wrapper}");
        assert!(manifest.contains(&format!("name = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"")), "{target}");
    }
    let wrappers = fs::read_dir(fuzz().join("fuzz_targets")).unwrap().count();
    assert_eq!(wrappers, bodies.len(), "a target without a body");
}
