//! How long a client waits where an upstream says nothing.

use super::{chunks::chunked, *};

/// One that is silent until it is told to go on.
fn silent(bytes: &[u8]) -> (Answer, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let mut script = vec![Step::Wait(Arc::clone(&gate))];
    script.extend(sends(bytes));
    (steps(script), gate)
}

#[tokio::test]
async fn who_waits_for_an_upstream_that_gives_no_byte_is_told_so_and_the_fetch_goes_on() {
    for early in [false, true] {
        let rig = Rig::with(Settings { first_byte_max: Span::millis(500), ..settings() });
        let bytes = content(100_000);
        let (answer, gate) = silent(&bytes);
        rig.script.set(&url("a"), [answer]);
        let request = request(&bytes, &["a"]);
        let error = rig.delivery.obtain(&request, Want { early, ..Want::default() }).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Silent { .. }), "{error}");
        assert_eq!((error.fault(), error.reason()), (Fault::Unavailable, "silent"));
        assert_eq!(rig.delivery.retry_after(&error), Some(Duration::from_secs(5)));
        assert_eq!(rig.delivery.fetches(), 1);
        gate.notify_one();
        assert_eq!(verified(rig.obtain(&request).await).await, bytes);
        assert_eq!(rig.requests(), 1);
    }
}

#[tokio::test]
async fn who_waits_for_an_upstream_that_gave_a_few_bytes_waits_on_also_where_they_are_no_whole_chunk() {
    let bytes = content(100_000);
    for request in [request(&bytes, &["a"]), chunked(&bytes, &["a"])] {
        let rig = Rig::with(Settings { first_byte_max: Span::secs(1), wait_max: Span::millis(1_500), ..settings() });
        let (answer, _gate) = slow(&bytes, 7);
        rig.script.set(&url("a"), [answer]);
        let error = rig.obtain(&request).await.unwrap_err();
        assert!(matches!(error, DeliveryError::StillFetching { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_is_not_called_absent_because_another_source_has_nothing() {
    let bytes = content(1000);
    for hosts in [["hangs", "lacks"], ["lacks", "hangs"]] {
        let rig = Rig::with(Settings { stall_max: Span::millis(100), ..settings() });
        rig.script.set(&url("hangs"), [steps(vec![Step::Hang])]);
        rig.script.set(&url("lacks"), [Answer::NotFound]);
        let error = rig.obtain(&request(&bytes, &hosts)).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Stalled { .. }), "{hosts:?}: {error}");
        assert_eq!(rig.requests(), 2);
    }
}
