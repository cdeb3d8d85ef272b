//! Signed listings: an upstream cannot hide, yank or restrict what the repository lists.

use crate::harness::{installers::Installer, wheel::Wheel, world::World, writer::Flavour};

/// Two signed versions with a signed listing.
fn listed(flavour: Flavour) -> (World, Wheel, Wheel) {
    let world = World::new(flavour);
    let (old, new) = (Wheel::new("demo", "1.0"), Wheel::new("demo", "1.1"));
    for wheel in [&old, &new] {
        world.upstream.offer(wheel);
        world.sign(wheel);
    }
    world.sign_listing("demo");
    world.repository.publish();
    (world, old, new)
}

#[test]
fn the_newest_signed_file_is_installed_though_the_upstream_hides_it() {
    for flavour in Flavour::ALL {
        let (world, _, new) = listed(flavour);
        world.upstream.page("demo", |page| page.hide(&new.filename));
        let gate = world.configuration_with_listings().start();
        world.assert_installs(&gate, "demo", "demo", "1.1");
        world.assert_audited(&gate, &new, "allowed", "ok");
        world.assert_cache_clean(&gate);
    }
}

#[test]
fn the_newest_signed_file_is_installed_though_the_upstream_yanks_it() {
    let (world, _, new) = listed(Flavour::Flat);
    world.upstream.page("demo", |page| page.file(&new.filename).yanked = Some("trust me".to_owned()));
    let gate = world.configuration_with_listings().start();
    world.assert_installs(&gate, "demo", "demo", "1.1");
}

#[test]
fn the_newest_signed_file_is_installed_though_the_upstream_says_it_needs_another_python() {
    let (world, _, new) = listed(Flavour::Flat);
    world.upstream.page("demo", |page| page.file(&new.filename).requires_python = Some("<3.0".to_owned()));
    let gate = world.configuration_with_listings().start();
    world.assert_installs(&gate, "demo", "demo", "1.1");
}

#[test]
fn a_project_that_the_upstream_forgot_is_installed_from_its_signed_listing() {
    let (world, old, new) = listed(Flavour::Flat);
    world.upstream.page("demo", |page| {
        page.hide(&old.filename);
        page.hide(&new.filename);
    });
    world.upstream.spoil("/simple/demo/", crate::harness::upstream::Fault::status(404));
    let gate = world.configuration_with_listings().start();
    for installer in Installer::BOTH {
        gate.install(installer, &["demo"]).assert_installed("demo", "1.1");
    }
}

#[test]
fn a_listing_that_is_not_the_signed_one_gives_no_page_since_names_without_its_yanks_would_be_a_downgrade() {
    let (world, _, new) = listed(Flavour::Flat);
    let folder = world.repository.targets().join("simple/demo");
    let kept: Vec<_> = crate::harness::folder::files_below(&folder)
        .into_iter()
        .map(|file| (std::fs::read(&file).unwrap(), file))
        .collect();
    for (bytes, file) in &kept {
        let lie = String::from_utf8_lossy(bytes).replace("1.1", "9.9");
        std::fs::write(file, lie).unwrap();
    }
    let gate = world.configuration_with_listings().start();
    let reply = gate.get("/simple/demo/");
    assert_eq!(reply.status, 451);
    assert!(!reply.text().contains(".whl\""), "files are named: {}", reply.text());
    assert!(gate.metric("tufgate_refusals_total", &[("mount", "pypi"), ("reason", "hash")]) > 0.0);
    for installer in Installer::BOTH {
        gate.install(installer, &["demo"]).assert_failed();
    }
    assert_eq!(gate.get(&crate::harness::world::gate_path(&new)).status, 200);
    for (bytes, file) in &kept {
        std::fs::write(file, bytes).unwrap();
    }
    crate::harness::folder::eventually("the page shows the newest file again", crate::harness::gate::PATIENCE, || {
        gate.get("/simple/demo/").text().contains(&new.filename).then_some(())
    });
    world.assert_installs(&gate, "demo", "demo", "1.1");
}
