//! Two gates that share a bucket of a real S3 server: as the tier behind their caches, and for their rollback floors.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::harness::{
    folder::{copy, eventually},
    gate::{Configuration, Gate, PATIENCE},
    http,
    installers::Installer,
    storage::{Storage, Trouble},
    wheel::Wheel,
    world::{World, gate_path},
    writer::Flavour,
};

/// A configuration of its own folders that shares the storage's bucket, as the tier behind the cache.
fn replica(world: &World, storage: &Storage, name: &str) -> Configuration {
    let folder = folder_of(world, name);
    let table = storage.table(&folder, "cache");
    world.configuration().moved_to(&folder).set("cache.bucket", table)
}

/// One that shares its floors, and whose state is new.
fn sidecar(world: &World, storage: &Storage, name: &str, required: bool) -> Configuration {
    let folder = folder_of(world, name);
    let mut table = storage.table(&folder, "state");
    table.insert("floor_required".to_owned(), required.into());
    world.configuration().moved_to(&folder).set("state.shared", table)
}

fn folder_of(world: &World, name: &str) -> PathBuf {
    let folder = world.path().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn looked_up(gate: &Gate, result: &str) -> f64 {
    gate.metric("tufgate_bucket_lookups_total", &[("result", result)])
}

fn await_put(gate: &Gate, result: &str, count: f64) {
    eventually(&format!("{count} puts are {result}"), PATIENCE, || {
        (gate.metric("tufgate_bucket_puts_total", &[("result", result)]) >= count).then_some(())
    });
}

fn assert_serves(gate: &Gate, wheel: &Wheel) {
    let reply = gate.get(&gate_path(wheel));
    let right = reply.status == 200 && reply.whole && reply.body == wheel.bytes;
    assert!(right, "{} {}\n{}", reply.status, reply.phrase, gate.log().join("\n"));
}

#[test]
fn a_second_replica_serves_what_the_first_fetched_without_asking_the_upstream_for_a_file() {
    let (small, large) = (Wheel::new("demo", "1.0"), Wheel::large("large", "1.0", 12_000_000));
    let (world, storage) = (World::with_signed(&[&small, &large]), Storage::start());
    let one = replica(&world, &storage, "one").start();
    for wheel in [&small, &large] {
        assert_serves(&one, wheel);
        let key = storage.await_object(&wheel.sha256());
        assert!(key.starts_with("cache/blobs/sha256/") && storage.object(&key) == wheel.bytes, "{key}");
    }
    await_put(&one, "stored", 2.0);
    world.upstream.forget();
    let other = replica(&world, &storage, "other").start();
    for installer in Installer::BOTH {
        other.install(installer, &["demo"]).assert_installed("demo", "1.0");
        other.install(installer, &["large"]).assert_installed("large", "1.0");
    }
    assert_eq!(world.upstream.file_requests(), 0);
    assert!(looked_up(&other, "hit") >= 2.0);
    assert!(other.metric("tufgate_bucket_bytes_total", &[("direction", "read")]) >= 12_000_000.0);
    world.assert_cached(&other, &small);
    let asked = storage.asked().len();
    assert_serves(&other, &large);
    assert_eq!(storage.asked().len(), asked, "warm: the bucket is not asked");
    assert!(storage.asked().iter().all(|asked| !asked.starts_with("DELETE")), "nothing is ever deleted");
}

#[test]
fn whatever_the_bucket_does_the_right_bytes_come_from_the_upstream_and_it_heals() {
    for trouble in Trouble::of_reads() {
        let wheels = ["1.0", "2.0", "3.0", "4.0"].map(|version| Wheel::large("demo", version, 300_000));
        let (world, storage) = (World::with_signed(&wheels.iter().collect::<Vec<_>>()), Storage::start());
        let one = replica(&world, &storage, "one").start();
        wheels.iter().for_each(|wheel| assert_serves(&one, wheel));
        await_put(&one, "stored", 4.0);
        drop(one);
        let other = replica(&world, &storage, "other").set("cache.memory_max", "0B").start();
        storage.suffer(trouble.clone());
        world.upstream.forget();
        wheels[..3].iter().for_each(|wheel| assert_serves(&other, wheel));
        assert_eq!(world.upstream.file_requests(), 3, "{trouble:?}");
        assert_eq!(looked_up(&other, "hit"), 0.0, "{trouble:?}");
        let wanted = if trouble == Trouble::WrongByte { "corrupt" } else { "error" };
        assert_eq!(looked_up(&other, wanted), 3.0, "{trouble:?}");
        let up = || other.metric("tufgate_bucket_up", &[("of", "cache")]);
        // A 403 is an answer, and comes at once; everything else is worth a rest.
        assert_eq!(up() < 1.0, trouble != Trouble::Error(403, "AccessDenied"), "{trouble:?}");
        storage.heal();
        eventually("the bucket is asked again", PATIENCE, || {
            fs::remove_dir_all(other.cache().join("blobs")).ok();
            assert_serves(&other, &wheels[3]);
            (looked_up(&other, "hit") >= 1.0).then_some(())
        });
        assert_eq!(up(), 1.0, "{trouble:?}");
    }
}

#[test]
fn a_poisoned_object_reaches_nobody_and_is_replaced_and_a_deleted_one_comes_back() {
    let (small, large) = (Wheel::new("demo", "1.0"), Wheel::large("large", "1.0", 9_000_000));
    let (world, storage) = (World::with_signed(&[&small, &large]), Storage::start());
    let one = replica(&world, &storage, "one").start();
    let keys = [&small, &large].map(|wheel| {
        assert_serves(&one, wheel);
        (wheel, storage.await_object(&wheel.sha256()))
    });
    await_put(&one, "stored", 2.0);
    drop(one);
    for (n, (wheel, key)) in keys.iter().enumerate() {
        let poisons = [wheel.with_changed_byte(), wheel.bytes[..wheel.bytes.len() - 1].to_vec(), b"poison".to_vec()];
        for (m, poison) in poisons.iter().enumerate() {
            storage.plant(key, poison);
            let gate = replica(&world, &storage, &format!("{n}-{m}")).start();
            assert_serves(&gate, wheel);
            assert_eq!((looked_up(&gate, "corrupt"), looked_up(&gate, "hit")), (1.0, 0.0));
            await_put(&gate, "stored", 1.0);
            assert!(storage.object(key) == wheel.bytes, "it was not replaced");
            assert_eq!(gate.metric("tufgate_verification_failures_total", &[]), 0.0, "the upstream did nothing wrong");
        }
        storage.delete(key);
        let gate = replica(&world, &storage, &format!("{n}-deleted")).start();
        assert_serves(&gate, wheel);
        await_put(&gate, "stored", 1.0);
        assert!(storage.object(key) == wheel.bytes);
    }
}

#[test]
fn a_replica_that_is_killed_in_an_upload_leaves_no_object_and_starts_clean() {
    let wheel = Wheel::large("demo", "1.0", 20_000_000);
    let (world, storage) = (World::with_signed(&[&wheel]), Storage::start());
    storage.suffer(Trouble::HangAtSecondPart);
    let mut one = replica(&world, &storage, "one").set("cache.bucket.answer_max", "30s").start();
    assert_serves(&one, &wheel);
    eventually("the second part is under way", PATIENCE, || {
        storage.asked().iter().any(|asked| asked.contains("partNumber=2")).then_some(())
    });
    one.kill();
    storage.heal();
    assert_eq!((storage.keys(), storage.unfinished()), (vec![], 1), "parts are for the bucket's own rules");
    let other = replica(&world, &storage, "other").start();
    world.upstream.forget();
    assert_serves(&other, &wheel);
    assert_eq!(world.upstream.file_requests(), 1);
    await_put(&other, "stored", 1.0);
    assert!(storage.object(&storage.await_object(&wheel.sha256())) == wheel.bytes);
    one.start_again();
    one.await_ready();
    assert_serves(&one, &wheel);
    world.assert_cache_clean(&one);
    assert_eq!(world.upstream.file_requests(), 1);
}

/// Its folders begun anew, as those of a container are.
fn forget(gate: &mut Gate) {
    assert!(gate.stop().is_some());
    for folder in ["cache", "state"] {
        fs::remove_dir_all(gate.folder().join(folder)).unwrap();
    }
}

fn floor_of(storage: &Storage) -> u64 {
    let record: Value = serde_json::from_slice(&storage.object(FLOOR)).unwrap();
    let timestamp: Value = serde_json::from_str(record["timestamp"].as_str().unwrap()).unwrap();
    timestamp["signed"]["version"].as_u64().unwrap()
}

const FLOOR: &str = "state/floors/approved.json";

fn event(gate: &Gate, event: &str) -> f64 {
    gate.metric("tufgate_shared_floor_total", &[("repository", "approved"), ("event", event)])
}

fn await_event(gate: &Gate, name: &str) {
    eventually(&format!("the floor is {name}"), PATIENCE, || (event(gate, name) >= 1.0).then_some(()));
}

#[test]
fn a_sidecar_without_state_refuses_a_rollback_that_another_has_seen_past() {
    let revoked = Wheel::new("demo", "1.0");
    let (world, storage) = (World::with_signed(&[&revoked]), Storage::start());
    let old = world.repository.keep_metadata();
    let one = sidecar(&world, &storage, "one", false).start();
    assert_serves(&one, &revoked);
    world.repository.remove(&revoked.target());
    let versions = world.publish_to(&one);
    eventually("the floor is shared", PATIENCE, || (floor_of(&storage) == versions["timestamp"]).then_some(()));
    world.upstream.serve_folder("/metadata/", old.path().to_owned());
    for required in [false, true] {
        let mut other = sidecar(&world, &storage, "other", required).start_untrusting();
        eventually("the rollback is seen", PATIENCE, || {
            let counted = other.metric("tufgate_verification_failures_total", &[("reason", "rollback")]);
            (counted >= 1.0).then_some(())
        });
        world.assert_refused(&other, &revoked, "rollback", &["demo"]);
        assert_eq!(floor_of(&storage), versions["timestamp"]);
        forget(&mut other);
    }
    // Who does not ask is blind.
    let blind = folder_of(&world, "blind");
    let blind = world.configuration().moved_to(&blind).start();
    assert_serves(&blind, &revoked);
    // The one that has trusted the newer version itself refuses the older one as soon as it is shown it.
    eventually("the rollback is seen", PATIENCE, || (http::get(one.admin, "/readyz").status == 503).then_some(()));
    assert_eq!(one.get(&gate_path(&revoked)).status, 403);
    world.upstream.serve_folder("/metadata/", world.repository.metadata());
    world.sign(&revoked);
    world.publish_to(&one);
    let other = sidecar(&world, &storage, "other", true).start();
    world.assert_installs(&other, "demo", "demo", "1.0");
}

#[test]
fn a_floor_that_is_tampered_with_replaced_deleted_or_away_denies_where_it_is_required_and_else_is_said() {
    let wheel = Wheel::new("demo", "1.0");
    let (world, storage) = (World::with_signed(&[&wheel]), Storage::start());
    drop(sidecar(&world, &storage, "first", false).start());
    let good = storage.object(FLOOR);
    let mut tampered = good.clone();
    let field = b"\"timestamp\":\"";
    let at = good.windows(field.len()).position(|window| window == field).unwrap() + 60;
    tampered[at] = tampered[at].wrapping_add(1);
    let theirs = World::new(Flavour::Flat);
    (0..3).for_each(|_| drop(theirs.repository.publish()));
    let elsewhere = Storage::start();
    drop(sidecar(&theirs, &elsewhere, "theirs", false).start());
    let theirs = elsewhere.object(FLOOR);
    let cases = [
        ("tampered", "invalid"),
        ("another repository's", "invalid"),
        ("deleted", "absent"),
        ("away", "unavailable"),
        ("denied", "unavailable"),
    ];
    for (n, (what, wanted)) in cases.into_iter().enumerate() {
        match what {
            "tampered" => storage.plant(FLOOR, &tampered),
            "another repository's" => storage.plant(FLOOR, &theirs),
            "deleted" => storage.delete(FLOOR),
            "away" => storage.suffer(Trouble::Down),
            _ => storage.suffer(Trouble::Error(403, "AccessDenied")),
        }
        let strict = sidecar(&world, &storage, &format!("strict-{n}"), true).start_untrusting();
        await_event(&strict, wanted);
        let said = world.assert_refusal_form(&strict, &gate_path(&wheel), &["shared rollback floor"]);
        assert!(said.contains("approved"), "{what}: {said}");
        let lenient = sidecar(&world, &storage, &format!("lenient-{n}"), false).start();
        await_event(&lenient, wanted);
        assert_serves(&lenient, &wheel);
        assert!(lenient.log().iter().any(|line| line.contains("shared rollback floor")), "{what}: a warning");
        storage.heal();
        // The lenient one writes what is right, and that lets the strict one begin.
        strict.await_ready();
        assert_serves(&strict, &wheel);
        assert_eq!(storage.object(FLOOR), good, "{what}");
    }
}

#[test]
fn of_replicas_that_refresh_at_once_while_versions_follow_one_another_none_moves_the_floor_back() {
    let wheel = Wheel::new("demo", "1.0");
    let (world, storage) = (World::with_signed(&[&wheel]), Storage::start());
    let first = sidecar(&world, &storage, "first", false).start();
    let gates: Vec<Gate> =
        (0..3).map(|n| sidecar(&world, &storage, &format!("gate-{n}"), n % 2 == 0).start()).collect();
    let mut highest = floor_of(&storage);
    for _ in 0..5 {
        let version = world.repository.publish()["timestamp"];
        eventually("the floor has risen", PATIENCE, || {
            let floor = floor_of(&storage);
            assert!(floor >= highest, "{floor} after {highest}");
            highest = floor;
            (floor == version).then_some(())
        });
    }
    gates.iter().chain([&first]).for_each(|gate| gate.await_version("timestamp", highest));
    // State that comes out of an old backup is found out by it.
    let old = world.repository.keep_metadata();
    let backup = world.path().join("backup");
    drop(gates);
    copy(&world.path().join("gate-0"), &backup);
    world.publish_to(&first);
    eventually("the floor has risen", PATIENCE, || (floor_of(&storage) > highest).then_some(()));
    world.upstream.serve_folder("/metadata/", old.path().to_owned());
    let restored = sidecar(&world, &storage, "backup", false).start_untrusting();
    eventually("the old backup is found out", PATIENCE, || {
        (restored.get(&gate_path(&wheel)).status == 403).then_some(())
    });
}
