//! The specification alone, bytes in memory: refresh, look-up, and their parts.

use std::{collections::HashMap, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp as Time;
use tufgate::tuf::{DelegatedTargets, Floors, RoleKey, RootStage, Step, TargetPath, TrustedSet, canonical};
use tufgate_benches::{BinRepository, Delegation, Shape};

type Files = HashMap<String, bytes::Bytes>;

fn files(repository: &BinRepository) -> Files {
    let read = |entry: std::fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap().into())
    };
    std::fs::read_dir(repository.folder().join("metadata")).unwrap().map(|entry| read(entry.unwrap())).collect()
}

fn refresh(files: &Files, floors: &Floors, now: Time) -> TrustedSet {
    let stage = RootStage::start(files["1.root.json"].clone()).unwrap().finish(now).unwrap();
    let stage = stage.accept(files["timestamp.json"].clone(), floors, now).unwrap();
    let snapshot = files[&stage.request().file_name].clone();
    let stage = stage.accept(snapshot, now).unwrap();
    let targets = files[&stage.request().file_name].clone();
    stage.accept(targets, now).unwrap()
}

fn look_up(
    set: &TrustedSet,
    files: &Files,
    roles: &mut HashMap<RoleKey, Arc<DelegatedTargets>>,
    path: &TargetPath,
    now: Time,
) {
    let mut walk = set.walk(path);
    loop {
        match walk.step(roles, now).unwrap() {
            Step::Found(target) => return drop(black_box(target)),
            Step::NotListed => panic!("not listed"),
            Step::Need(request) => {
                let role = request.accept(files[&request.file.file_name].clone(), now).unwrap();
                roles.insert(role.key().clone(), role);
            }
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let now: Time = "2026-06-01T00:00:00Z".parse().unwrap();
    for (name, digests, delegation) in [
        ("succinct", false, Delegation::Succinct),
        ("succinct-digests", true, Delegation::Succinct),
        ("prefixes", false, Delegation::Prefixes),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape { digests, delegation, ..Shape::default() };
        let repository = BinRepository::make(folder.path(), shape).unwrap();
        let files = files(&repository);
        let path = repository.targets().next().unwrap().clone();
        let mut group = criterion.benchmark_group(name);
        group.bench_function("refresh", |bench| bench.iter(|| refresh(&files, &Floors::new(), now)));
        let set = refresh(&files, &Floors::new(), now);
        group.bench_function("look-up cold", |bench| {
            bench.iter(|| look_up(&set, &files, &mut HashMap::new(), &path, now))
        });
        let mut roles = HashMap::new();
        group.bench_function("look-up warm", |bench| bench.iter(|| look_up(&set, &files, &mut roles, &path, now)));
        group.bench_function("refresh and look-up", |bench| {
            bench.iter(|| look_up(&refresh(&files, &Floors::new(), now), &files, &mut HashMap::new(), &path, now));
        });
        let snapshot = files["1.snapshot.json"].clone();
        group.bench_function("canonical form of snapshot", |bench| {
            bench.iter(|| canonical::canonicalize(&snapshot).unwrap())
        });
        eprintln!(
            "{name}: snapshot {} bytes, bin {} bytes",
            snapshot.len(),
            files.iter().find(|(n, _)| n.contains("bins-")).unwrap().1.len()
        );
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
