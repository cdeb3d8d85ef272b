//! What leaves before the whole is verified, and what never does.

use super::*;

/// The file of the only fill: nameless ones are found among the open files of this process.
fn growing_file(folder: &Path) -> std::path::PathBuf {
    let named = files_below(&folder.join("cache/tmp"));
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().map(|entry| entry.unwrap().path());
    let within =
        |path: &std::path::PathBuf| fs::read_link(path).is_ok_and(|to| to.starts_with(folder.join("cache/tmp")));
    named.into_iter().chain(open.filter(within)).next().unwrap()
}

#[tokio::test]
async fn a_growing_file_that_somebody_else_changed_never_completes() {
    let rig = Rig::new();
    let bytes = content(300_000);
    let (answer, gate) = slow(&bytes, 200_000);
    rig.script.set(&url("a"), [answer]);
    let mut body = is_early(rig.early(&request(&bytes, &["a"])).await);
    let file = fs::OpenOptions::new().write(true).open(growing_file(rig.folder.path())).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"evil", 1000).unwrap();
    gate.notify_one();
    let error = loop {
        match body.chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "a clean end"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.fault(), error.reason()), (Fault::Local, "read_back"));
}

#[tokio::test]
async fn a_fetch_that_begins_anew_breaks_an_early_body_off() {
    let rig = Rig::new();
    let bytes = content(300_000);
    let gate = Arc::new(Notify::new());
    let mut broken = sends(&bytes[..200_000]);
    broken.extend([Step::Wait(Arc::clone(&gate)), Step::BreakOff]);
    let deaf = Answer::Body { declared: None, obeys_range: false, steps: sends(&bytes) };
    rig.script.set(&url("a"), [steps(broken), deaf]);
    let request = request(&bytes, &["a"]);
    let mut body = is_early(rig.early(&request).await);
    read_until_it_waits(&mut body).await;
    gate.notify_one();
    let error = body.chunk().await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "began_anew"));
    assert_eq!(verified(rig.obtain(&request).await).await, bytes);
}

#[tokio::test]
async fn an_early_body_whose_source_breaks_off_says_so_though_another_source_is_tried_next() {
    let rig = Rig::with(Settings { resumes_max: 0, ..settings() });
    let bytes = content(300_000);
    let gate = Arc::new(Notify::new());
    let mut broken = sends(&bytes[..200_000]);
    broken.extend([Step::Wait(Arc::clone(&gate)), Step::BreakOff]);
    rig.script.set(&url("a"), [steps(broken)]);
    rig.script.set(&url("b"), [steps(vec![Step::Hang])]);
    let mut body = is_early(rig.early(&request(&bytes, &["a", "b"])).await);
    read_until_it_waits(&mut body).await;
    gate.notify_one();
    let error = body.chunk().await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "broken_off"), "{error}");
}

#[tokio::test]
async fn an_early_body_goes_on_over_a_resume_and_over_a_failing_disk() {
    for disk_fails in [false, true] {
        let rig = Rig::new();
        let bytes = content(300_000);
        let gate = Arc::new(Notify::new());
        let mut broken = sends(&bytes[..200_000]);
        broken.extend([Step::Wait(Arc::clone(&gate)), Step::BreakOff]);
        rig.script.set(&url("a"), [steps(broken), whole(&bytes)]);
        let mut body = is_early(rig.early(&request(&bytes, &["a"])).await);
        let mut got = read_until_it_waits(&mut body).await;
        if disk_fails {
            rig.faults.fail(rustix::io::Errno::NOSPC, Some("write"), 0, u64::MAX);
        }
        gate.notify_one();
        while let Some(chunk) = body.chunk().await.unwrap() {
            got.extend_from_slice(&chunk);
        }
        assert_eq!(got, bytes);
        assert_eq!(rig.script.asked()[1].1, 200_000);
    }
}

#[tokio::test]
async fn only_whole_and_open_ranges_of_large_files_with_a_signed_sha256_are_released_early() {
    let short = Settings { wait_max: Span::millis(150), ..settings() };
    let bytes = content(300_000);
    let small = content(60_000);
    let sha512 = {
        let mut hasher = crate::base::Hasher::new([Algorithm::Sha512]);
        hasher.update(&bytes);
        Digests::new(hasher.finish()).unwrap()
    };
    let mut without_sha256 = request(&bytes, &["a"]);
    without_sha256.expected.digests = sha512;
    let early = Want { early: true, ..Want::default() };
    let cases = [
        ("not allowed by the mount", request(&bytes, &["a"]), Want::default(), short.clone()),
        ("another range", request(&bytes, &["a"]), Want { range: Range::Other, ..early.clone() }, short.clone()),
        ("no sha256", without_sha256, early.clone(), short.clone()),
        ("small", request(&small, &["a"]), early.clone(), short.clone()),
        (
            "verified-only",
            request(&bytes, &["a"]),
            early.clone(),
            Settings { release: Release::VerifiedOnly, ..short.clone() },
        ),
    ];
    for (case, request, want, settings) in cases {
        let rig = Rig::with(settings);
        let (answer, _gate) = slow(&bytes, 50_000);
        rig.script.set(&url("a"), [answer]);
        let error = rig.delivery.obtain(&request, want).await.unwrap_err();
        assert!(matches!(error, DeliveryError::StillFetching { .. }), "{case}: {error}");
    }
    let rig = Rig::with(short);
    let (answer, _gate) = slow(&bytes, 50_000);
    rig.script.set(&url("a"), [answer]);
    let want = Want { range: Range::From(100), ..early };
    is_early(rig.delivery.obtain(&request(&bytes, &["a"]), want).await);
}
