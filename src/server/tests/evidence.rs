//! What is recorded of answers that broke off after their head had gone out.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::{
    super::{Gate, body::Body},
    count, file,
    lab::{CONTENT, Lab, WHEEL},
};
use crate::{
    base::{Digest, Fault},
    delivery::DeliveryError,
    telemetry::{Record, Verdict},
    upstream::testserver::{Step, head, reply},
};

/// How much of the wheel comes before the upstream pauses.
const BEGINNING: usize = 12;

/// The upstream sends a beginning, and after a while what is given.
fn trickle(lab: &Lab, then: Vec<Step>) {
    let mut first = head(200, &[("content-length".to_owned(), CONTENT.len().to_string())]);
    first.extend_from_slice(&CONTENT[..BEGINNING]);
    let pause = Step::Wait(Duration::from_millis(500));
    lab.answer(&format!("/packages/{WHEEL}"), [vec![Step::Send(first), pause], then].concat());
}

async fn begun(gate: &Arc<Gate>) -> Response<Body> {
    let request = Request::get(file(WHEEL)).header("host", "gate.example").body(()).unwrap();
    let response = Arc::clone(gate).handle(request, [127, 0, 0, 1].into()).await;
    assert_eq!(response.status(), StatusCode::OK);
    response
}

/// Reads until the body fails.
async fn failed(response: Response<Body>) -> DeliveryError {
    response.into_body().collect().await.expect_err("a clean end")
}

/// The record says what became of the answer, and so do the metrics.
fn assert_told(gate: &Gate, error: &DeliveryError, verdict: Verdict) -> Record {
    let record = gate.last_record().unwrap();
    assert_eq!((record.verdict, record.reason.as_str()), (verdict, error.reason()));
    assert_eq!((record.status, record.finished, record.detail.as_str()), (200, false, error.to_string().as_str()));
    assert_eq!(record.target, Some(format!("demo/{WHEEL}")));
    assert_eq!(record.digest, Some(Digest::sha256(CONTENT).to_string()));
    for fault in [Fault::Refused, Fault::Unavailable, Fault::Local] {
        let series = format!("tufgate_answers_broken_off_total{{fault=\"{}\",mount=\"pypi\"}}", fault.as_str());
        assert_eq!(count(gate, &series), u64::from(fault == error.fault()), "{series}");
    }
    let refusals = format!("tufgate_refusals_total{{mount=\"pypi\",reason=\"{}\"}}", error.reason());
    assert_eq!(count(gate, &refusals), u64::from(verdict == Verdict::Refused));
    record
}

#[tokio::test]
async fn a_transfer_that_was_cut_because_its_bytes_were_others_is_recorded_and_counted_as_refused() {
    let lab = Lab::new().await;
    let gate = lab.hasty_gate();
    trickle(&lab, vec![Step::Send(vec![b'x'; CONTENT.len() - BEGINNING])]);
    let error = failed(begun(&gate).await).await;
    assert!(matches!(error, DeliveryError::Hash { .. }), "{error}");
    let record = assert_told(&gate, &error, Verdict::Refused);
    assert!(record.bytes <= (CONTENT.len() - 4) as u64, "the held-back end never left");
    assert!(record.detail.contains(&Digest::sha256(CONTENT).to_hex()[..8]), "{}", record.detail);
}

#[tokio::test]
async fn a_transfer_that_was_cut_because_the_upstream_broke_off_is_recorded_as_unavailable_and_no_refusal() {
    let lab = Lab::new().await;
    let gate = lab.hasty_gate();
    trickle(&lab, vec![Step::Close]);
    let error = failed(begun(&gate).await).await;
    assert!(matches!(error, DeliveryError::Upstream { .. }), "{error}");
    assert_eq!(error.reason(), "broken_off");
    assert_told(&gate, &error, Verdict::Unavailable);
}

#[tokio::test]
async fn a_transfer_out_of_the_cache_that_was_cut_because_its_file_changed_is_recorded_as_unavailable() {
    let lab = Lab::new().await;
    let gate = lab.hasty_gate();
    lab.answer(&format!("/packages/{WHEEL}"), reply(200, &[], CONTENT));
    assert_eq!(gate.get(&file(WHEEL), &[]).await.body, CONTENT);
    let response = begun(&gate).await;
    let hex = Digest::sha256(CONTENT).to_hex();
    let path = lab.folder.path().join("cache/blobs/sha256").join(&hex[..2]).join(&hex);
    std::fs::File::options().write(true).open(path).unwrap().set_len(5).unwrap();
    let error = failed(response).await;
    assert!(matches!(error, DeliveryError::ReadBack { .. }), "{error}");
    assert_told(&gate, &error, Verdict::Unavailable);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_is_no_trouble_of_ours() {
    let lab = Lab::new().await;
    let gate = lab.hasty_gate();
    trickle(&lab, vec![Step::Close]);
    let mut body = begun(&gate).await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    drop(body);
    let record = gate.last_record().unwrap();
    assert_eq!((record.verdict, record.reason.as_str(), record.finished), (Verdict::Allowed, "ok", false));
    let metrics = gate.metrics.render().unwrap();
    assert!(!metrics.lines().any(|line| line.starts_with("tufgate_answers_broken_off_total") && !line.ends_with(" 0")));
}
