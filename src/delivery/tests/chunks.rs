//! What signed digests of chunks allow, and what they do not.

use super::*;
use crate::base::ChunkHasher;

const KIB: usize = 1 << 10;
const CHUNK: usize = 16 * KIB;

fn chunks_of(bytes: &[u8]) -> Arc<ChunkDigests> {
    let mut hasher = ChunkHasher::new(ByteSize(CHUNK as u64)).unwrap();
    hasher.update(bytes);
    Arc::new(hasher.finish().unwrap())
}

/// A request for bytes whose chunks are signed too.
pub(super) fn chunked(bytes: &[u8], hosts: &[&str]) -> Request {
    Request { chunks: Some(chunks_of(bytes)), ..request(bytes, hosts) }
}

/// Nothing leaves for another reason than that it is verified.
fn patient() -> Settings {
    Settings { hold_for: Span::secs(60), ..settings() }
}

pub(super) async fn rest(body: &mut EarlyBody, mut got: Vec<u8>) -> Result<Vec<u8>, DeliveryError> {
    while let Some(chunk) = body.chunk().await? {
        got.extend_from_slice(&chunk);
    }
    Ok(got)
}

#[tokio::test]
async fn a_chunk_leaves_as_soon_as_it_is_verified_and_the_last_one_with_the_whole() {
    let rig = Rig::with(patient());
    let bytes = content(5 * 16_384 + 1000);
    // Two chunks and a half, then all but the last byte.
    let (first, second) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut script = sends(&bytes[..40 * KIB]);
    script.push(Step::Wait(Arc::clone(&first)));
    script.extend(sends(&bytes[40 * KIB..bytes.len() - 1]));
    script.push(Step::Wait(Arc::clone(&second)));
    script.extend(sends(&bytes[bytes.len() - 1..]));
    rig.script.set(&url("a"), [steps(script)]);
    let mut body = is_early(rig.early(&chunked(&bytes, &["a"])).await);
    assert!(body.is_verified());
    let got = read_until_it_waits(&mut body).await;
    assert_eq!(got, bytes[..2 * CHUNK], "what is there of the third is not verified");
    first.notify_one();
    let more = read_until_it_waits(&mut body).await;
    assert_eq!(more, bytes[2 * CHUNK..5 * CHUNK], "the last one waits for length and digest");
    second.notify_one();
    assert_eq!(rest(&mut body, [got, more].concat()).await.unwrap(), bytes);
    assert_eq!(rig.requests(), 1);
}

#[tokio::test]
async fn a_bad_chunk_never_leaves_and_the_refusal_says_which_one_and_heals() {
    let bytes = content(5 * 16_384);
    for evil in 0..5_usize {
        let rig = Rig::with(patient());
        let mut changed = bytes.clone();
        changed[evil * CHUNK + 7] ^= 1;
        let (answer, gate) = slow(&changed, evil * CHUNK);
        rig.script.set(&url("a"), [answer, whole(&bytes)]);
        let request = chunked(&bytes, &["a"]);
        let error = if evil == 0 {
            gate.notify_one();
            rig.early(&request).await.unwrap_err()
        } else {
            let mut body = is_early(rig.early(&request).await);
            let got = read_until_it_waits(&mut body).await;
            assert_eq!(got, bytes[..evil.min(4) * CHUNK], "{evil}");
            gate.notify_one();
            let mut more = 0;
            let error = loop {
                match body.chunk().await {
                    Ok(chunk) => more += chunk.expect("a clean end").len(),
                    Err(error) => break error,
                }
            };
            assert_eq!(more, 0, "{evil}: something left behind the good chunks");
            error
        };
        assert_eq!((error.fault(), error.reason()), (Fault::Refused, "chunk"));
        let DeliveryError::Chunk { end, expected, actual, .. } = &error else { panic!("{error}") };
        let chunk = evil * CHUNK..(evil + 1) * CHUNK;
        assert_eq!(*end, chunk.end as u64);
        assert_eq!((expected, actual), (&Digest::sha256(&bytes[chunk.clone()]), &Digest::sha256(&changed[chunk])));
        assert_eq!(rig.early(&request).await.unwrap_err().reason(), "chunk", "the verdict is remembered");
        assert_eq!((rig.requests(), rig.seen.failures.lock().unwrap().clone()), (1, vec!["chunk"]));
        rig.holds_nothing().await;
        tokio::time::sleep(Duration::from_millis(320)).await;
        assert_eq!(verified(rig.obtain(&request).await).await, bytes);
    }
}

#[tokio::test]
async fn good_chunks_of_another_whole_do_not_complete() {
    let rig = Rig::with(patient());
    let (signed, served) = (content(80_000), content(80_001)[1..].to_vec());
    rig.script.set(&url("a"), [whole(&served)]);
    // A signer that contradicts himself: digests of the chunks of one file, digest and length of another.
    let request = Request { chunks: Some(chunks_of(&served)), ..request(&signed, &["a"]) };
    let error = match rig.early(&request).await {
        Err(error) => error,
        Ok(delivered) => {
            let mut body = is_early(Ok(delivered));
            let mut got = 0;
            while let Ok(chunk) = body.chunk().await {
                got += chunk.expect("a clean end").len();
            }
            assert!(got <= 4 * CHUNK);
            body.chunk().await.unwrap_err()
        }
    };
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "hash"));
    rig.holds_nothing().await;
}

#[tokio::test]
async fn a_body_of_another_length_is_refused_though_its_chunks_are_good() {
    let bytes = content(5 * 16_384);
    for served in [bytes[..4 * CHUNK].to_vec(), [&bytes[..], b"x"].concat()] {
        let rig = Rig::with(patient());
        rig.script.set(&url("a"), [steps(sends(&served))]);
        let error = rig.obtain(&chunked(&bytes, &["a"])).await.unwrap_err();
        let DeliveryError::Length { actual, .. } = error else { panic!("{error}") };
        assert_eq!(actual, served.len() as u64);
        rig.holds_nothing().await;
    }
}

/// A body that breaks off within the third chunk, at a moment of one's choice.
fn breaks_off(bytes: &[u8]) -> (Answer, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let mut script = sends(&bytes[..40 * KIB]);
    script.extend([Step::Wait(Arc::clone(&gate)), Step::BreakOff]);
    (steps(script), gate)
}

#[tokio::test]
async fn a_resume_goes_on_within_a_chunk_and_the_client_notices_nothing() {
    let rig = Rig::with(patient());
    let bytes = content(100_000);
    let (answer, gate) = breaks_off(&bytes);
    rig.script.set(&url("a"), [answer, whole(&bytes)]);
    let mut body = is_early(rig.early(&chunked(&bytes, &["a"])).await);
    let got = read_until_it_waits(&mut body).await;
    gate.notify_one();
    assert_eq!(rest(&mut body, got).await.unwrap(), bytes);
    let asked = rig.script.asked();
    assert_eq!((asked[1].1, asked[1].2.as_deref()), (40 * KIB as u64, Some("\"v1\"")));
}

#[tokio::test]
async fn an_upstream_that_begins_anew_is_read_past_the_chunks_that_are_verified() {
    let rig = Rig::with(patient());
    let bytes = content(100_000);
    let (answer, gate) = breaks_off(&bytes);
    // What stands in the place of verified chunks matters to nobody.
    let mut other = bytes.clone();
    other[5] ^= 1;
    let deaf = Answer::Body { declared: Some(100_000), obeys_range: false, steps: sends(&other) };
    rig.script.set(&url("a"), [answer, deaf]);
    let mut body = is_early(rig.early(&chunked(&bytes, &["a"])).await);
    let got = read_until_it_waits(&mut body).await;
    gate.notify_one();
    assert_eq!(rest(&mut body, got).await.unwrap(), bytes);
    assert_eq!(rig.requests(), 2);
}

#[tokio::test]
async fn another_source_goes_on_behind_the_last_verified_chunk() {
    let rig = Rig::with(Settings { resumes_max: 0, ..patient() });
    let bytes = content(100_000);
    let (answer, gate) = breaks_off(&bytes);
    rig.script.set(&url("a"), [answer]);
    rig.script.set(&url("b"), [whole(&bytes)]);
    let mut body = is_early(rig.early(&chunked(&bytes, &["a", "b"])).await);
    let got = read_until_it_waits(&mut body).await;
    gate.notify_one();
    assert_eq!(rest(&mut body, got).await.unwrap(), bytes);
    let asked = rig.script.asked();
    assert_eq!(asked[1], (url("b").to_string(), 2 * CHUNK as u64, None), "no tag of another place");
}

#[tokio::test]
async fn only_who_asks_for_the_whole_gets_chunks_at_once() {
    let bytes = content(300_000);
    let short = Settings { wait_max: Span::millis(150), ..patient() };
    let early = Want { early: true, ..Want::default() };
    for want in [Want::default(), Want { range: Range::Other, ..early.clone() }] {
        let rig = Rig::with(short.clone());
        let (answer, _gate) = slow(&bytes, 200_000);
        rig.script.set(&url("a"), [answer]);
        let error = rig.delivery.obtain(&chunked(&bytes, &["a"]), want.clone()).await.unwrap_err();
        assert!(matches!(error, DeliveryError::StillFetching { .. }), "{want:?}: {error}");
    }
    let rig = Rig::with(Settings { release: Release::VerifiedOnly, ..short });
    let (answer, _gate) = slow(&bytes, 200_000);
    rig.script.set(&url("a"), [answer]);
    let error = rig.delivery.obtain(&chunked(&bytes, &["a"]), early).await.unwrap_err();
    assert!(matches!(error, DeliveryError::StillFetching { .. }), "{error}");
}

#[tokio::test]
async fn who_resumes_waits_for_the_whole_so_that_the_rest_suffices() {
    let rig = Rig::with(patient());
    let bytes = content(300_000);
    let (answer, gate) = slow(&bytes, 200_000);
    rig.script.set(&url("a"), [answer]);
    let request = chunked(&bytes, &["a"]);
    let mut first = is_early(rig.early(&request).await);
    assert!(!read_until_it_waits(&mut first).await.is_empty());
    let resuming = tokio::spawn({
        let (delivery, request) = (rig.delivery.clone(), request.clone());
        let want = Want { early: true, range: Range::From(100_000), ..Want::default() };
        async move { delivery.obtain(&request, want).await }
    });
    while rig.seen.lookups.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    gate.notify_one();
    assert_eq!(verified(resuming.await.unwrap()).await, bytes);
    assert_eq!(rig.requests(), 1);
}

#[tokio::test]
async fn trust_is_asked_again_before_the_last_chunk() {
    let rig = Rig::with(patient());
    let bytes = content(100_000);
    let (answer, gate) = slow(&bytes, 90_000);
    rig.script.set(&url("a"), [answer]);
    let reauthorise: Reauthorise = Arc::new(|| async { Err("it was revoked".to_owned()) }.boxed());
    let want = Want { early: true, reauthorise: Some(reauthorise), ..Want::default() };
    let mut body = is_early(rig.delivery.obtain(&chunked(&bytes, &["a"]), want).await);
    let got = read_until_it_waits(&mut body).await;
    assert_eq!(got.len(), 5 * CHUNK);
    gate.notify_one();
    let error = rest(&mut body, got).await.unwrap_err();
    assert_eq!((error.fault(), error.reason()), (Fault::Refused, "revoked"));
}
