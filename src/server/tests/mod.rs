mod evidence;
pub(crate) mod lab;

use http::{Method, StatusCode};
use jiff::SignedDuration;
use lab::{CONTENT, Lab, NEWER, WHEEL};

use crate::{base::Digest, telemetry::Verdict, upstream::testserver::reply};

const JSON: (&str, &str) = ("accept", "application/vnd.pypi.simple.v1+json");
const LISTING: &str = "listing_path = \"simple/{project}/index.json\"\n";

fn file(name: &str) -> String {
    format!("/pypi/packages/{name}")
}

fn later(lab: &Lab) {
    lab.clock.advance(SignedDuration::from_hours(48));
}

// ---- shapes ----

#[tokio::test]
async fn what_is_no_request_for_a_name_is_a_clean_4xx_and_reaches_no_upstream() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    let long = format!("/pypi/packages/{}", "a".repeat(10_000));
    for (method, target, status) in [
        (Method::POST, "/pypi/simple/demo/", 405),
        (Method::CONNECT, "/", 405),
        (Method::GET, "http://evil.example/pypi/simple/demo/", 400),
        (Method::GET, "/pypi/packages/../simple/demo/", 400),
        (Method::GET, "/pypi/packages/a%2Fb.whl", 400),
        (Method::GET, "/pypi/packages/a%00.whl", 400),
        (Method::GET, "/pypi/packages/a.whl?x", 400),
        (Method::GET, &long, 414),
        (Method::GET, "/pypi/nothing", 410),
        (Method::GET, "/elsewhere", 410),
        (Method::GET, "/-/tuf/other/timestamp.json", 404),
    ] {
        let answer = gate.ask(method.clone(), target, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {target:.60}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        assert_eq!(answer.header("allow"), if status == 405 { "GET, HEAD" } else { "" });
    }
    assert_eq!(lab.upstream.targets(), [""; 0]);
    assert!(gate.last_record().is_none(), "no decision on an artifact");
    let metrics = gate.metrics.render().unwrap();
    assert!(metrics.contains("code=\"405\",method=\"other\",mount=\"-\""), "{metrics}");
}

#[tokio::test]
async fn a_request_that_has_passed_this_gate_before_goes_no_further() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    let via = format!("1.1 proxy, 1.1 {}", gate.instance);
    let answer = gate.get(&file(WHEEL), &[("via", "1.1 other"), ("via", &via)]).await;
    assert_eq!(answer.status, StatusCode::LOOP_DETECTED);
    assert_eq!(lab.upstream.targets(), [""; 0]);
}

// ---- pages ----

#[tokio::test]
async fn a_page_is_json_or_html_with_an_etag_for_each_form_and_304_and_head_say_the_same() {
    let lab = Lab::new().await;
    let gate = lab.gate("max_age = \"1h\"");
    let (json, html) = (gate.get("/pypi/simple/demo/", &[JSON]).await, gate.get("/pypi/simple/demo/", &[]).await);
    assert_eq!(json.json()["name"], "demo");
    assert!(html.header("content-type").starts_with("text/html") && html.text().contains("<a "));
    assert_ne!(json.header("etag"), html.header("etag"));
    let etag = json.header("etag");
    let unchanged = gate.get("/pypi/simple/demo/", &[JSON, ("if-none-match", etag)]).await;
    let head = gate.ask(Method::HEAD, "/pypi/simple/demo/", &[JSON]).await;
    assert_eq!((unchanged.status, head.status), (StatusCode::NOT_MODIFIED, StatusCode::OK));
    for name in ["etag", "vary", "cache-control"] {
        assert_eq!(unchanged.header(name), json.header(name));
        assert_eq!(head.header(name), json.header(name));
    }
    assert_eq!((json.header("vary"), json.header("cache-control")), ("Accept, Accept-Encoding", "max-age=3600"));
    assert_eq!(head.header("content-length"), json.body.len().to_string());
    assert!(head.body.is_empty() && unchanged.body.is_empty());
    let refused = gate.get("/pypi/simple/demo/", &[("accept", "image/png")]).await;
    assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn the_name_of_a_project_has_one_url() {
    let lab = Lab::new().await;
    let answer = lab.gate("").get("/pypi/simple/Demo", &[]).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::MOVED_PERMANENTLY, "/pypi/simple/demo/"));
    assert_eq!(answer.header("content-length"), "0");
}

#[tokio::test]
async fn what_nobody_signed_is_listed_yanked_and_what_is_signed_has_its_digest() {
    let lab = Lab::new().await;
    let page = lab.gate("").get("/pypi/simple/demo/", &[JSON]).await.json();
    let files = page["files"].as_array().unwrap();
    let find = |name: &str| files.iter().find(|file| file["filename"] == name).unwrap();
    assert_eq!(find(WHEEL)["hashes"]["sha256"], Digest::sha256(CONTENT).to_hex());
    assert_eq!(find(NEWER)["yanked"], "not signed in repository \"approved\"");
}

#[tokio::test]
async fn an_unknown_project_is_gone_which_is_no_refusal() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    let answer = gate.get("/pypi/simple/nobody/", &[]).await;
    assert_eq!(answer.status, StatusCode::GONE);
    assert_eq!(answer.json()["type"], "urn:tufgate:not_found:unknown_project");
    assert_eq!(gate.last_record().unwrap().verdict, Verdict::Absent);
}

#[tokio::test]
async fn an_index_that_is_down_is_trouble_and_no_refusal() {
    let lab = Lab::new().await;
    lab.fail("/simple/");
    let answer = lab.gate("").get("/pypi/simple/demo/", &[]).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn while_trust_is_expired_a_page_names_files_alone_and_each_file_is_refused_with_the_reason() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    assert_eq!(gate.get(&file(WHEEL), &[]).await.status, StatusCode::OK);
    later(&lab);
    let page = gate.get("/pypi/simple/demo/", &[JSON]).await;
    assert_eq!((page.status, page.header("cache-control")), (StatusCode::OK, "no-store"));
    for entry in page.json()["files"].as_array().unwrap() {
        assert_eq!((&entry["hashes"], &entry["yanked"]), (&serde_json::json!({}), &serde_json::json!(false)));
    }
    let refused = gate.get(&file(WHEEL), &[]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "though it is cached");
    assert!(refused.phrase.contains("of repository \"approved\" expired 2026-06-02T00:00:00Z"), "{}", refused.phrase);
    let record = gate.last_record().unwrap();
    assert_eq!((record.verdict, record.reason.as_str()), (Verdict::Refused, "expired"));
    let metrics = gate.metrics.render().unwrap();
    assert!(metrics.contains("tufgate_refusals_total{mount=\"pypi\",reason=\"expired\"} 1"));
}

#[tokio::test]
async fn while_trust_is_expired_a_page_without_any_list_is_451() {
    let lab = Lab::new().await;
    later(&lab);
    lab.fail("/simple/");
    let answer = lab.gate("").get("/pypi/simple/demo/", &[]).await;
    assert_eq!(answer.status, StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS);
    assert!(answer.json()["type"].as_str().unwrap().starts_with("urn:tufgate:refused:"));
}

#[tokio::test]
async fn while_trust_is_expired_a_listing_that_was_signed_before_still_names_its_files() {
    let mut lab = Lab::new().await;
    lab.sign_listing();
    let gate = lab.gate(LISTING);
    lab.fail("/simple/");
    assert_eq!(gate.get("/pypi/simple/demo/", &[JSON]).await.header("cache-control"), "no-cache");
    later(&lab);
    let page = gate.get("/pypi/simple/demo/", &[JSON]).await;
    assert_eq!((page.status, page.header("cache-control")), (StatusCode::OK, "no-store"));
    assert_eq!(page.json()["files"][0]["filename"], WHEEL);
}

#[tokio::test]
async fn a_forged_listing_gives_no_page_and_the_refusal_is_counted() {
    let mut lab = Lab::new().await;
    let path = lab.sign_listing();
    let forged =
        vec![b' '; lab.signer.targets.targets.values().map(|file| file.length).max().unwrap().try_into().unwrap()];
    lab.serve(&path, "", &forged);
    let gate = lab.gate(LISTING);
    let page = gate.get("/pypi/simple/demo/", &[JSON]).await;
    assert_eq!((page.status, page.header("cache-control")), (StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, "no-store"));
    assert!(page.json()["type"].as_str().unwrap().starts_with("urn:tufgate:refused:"));
    assert!(gate.metrics.render().unwrap().contains("tufgate_refusals_total{mount=\"pypi\",reason=\"hash\"} 1"));
}

#[tokio::test]
async fn a_signed_listing_needs_no_index_and_shows_what_the_index_hides() {
    let mut lab = Lab::new().await;
    lab.sign_listing();
    lab.answer("/simple/demo/", reply(404, &[], b""));
    let page = lab.gate(LISTING).get("/pypi/simple/demo/", &[JSON]).await.json();
    assert_eq!(page["files"][0]["hashes"]["sha256"], Digest::sha256(CONTENT).to_hex());
}

#[tokio::test]
async fn a_role_that_was_missing_for_a_moment_does_not_leave_its_files_unjudged() {
    let mut lab = Lab::new().await;
    lab.signer.targets.targets.clear();
    lab.signer.delegate("targets", "team", &["demo/*"]);
    lab.signer.add_target("team", &format!("demo/{WHEEL}"), CONTENT);
    lab.signer.publish_next();
    lab.publish();
    let role = lab.signer.files.keys().find(|name| name.ends_with("team.json")).unwrap().clone();
    lab.fail(&format!("/metadata/{role}"));
    let gate = lab.gate("");
    let digest = async || gate.get("/pypi/simple/demo/", &[JSON]).await.json()["files"][0]["hashes"]["sha256"].clone();
    assert!(digest().await.is_null());
    lab.publish();
    assert_eq!(digest().await, Digest::sha256(CONTENT).to_hex());
}

// ---- files ----

#[tokio::test]
async fn a_signed_file_is_answered_whole_in_part_by_head_and_by_304() {
    let lab = Lab::new().await;
    let (gate, wheel) = (lab.gate(""), file(WHEEL));
    let etag = format!("\"{}\"", Digest::sha256(CONTENT).to_hex());
    let whole = gate.get(&wheel, &[]).await;
    assert_eq!((whole.status, &whole.body[..], whole.header("etag")), (StatusCode::OK, CONTENT, etag.as_str()));
    assert_eq!(
        (whole.header("accept-ranges"), whole.header("cache-control")),
        ("bytes", "max-age=31536000, immutable")
    );
    let head = gate.ask(Method::HEAD, &wheel, &[]).await;
    assert_eq!((head.header("content-length"), head.body.len()), (CONTENT.len().to_string().as_str(), 0));
    let part = gate.get(&wheel, &[("range", "bytes=4-8"), ("if-range", &etag)]).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &CONTENT[4..9]));
    assert_eq!(part.header("content-range"), format!("bytes 4-8/{}", CONTENT.len()));
    let other = gate.get(&wheel, &[("range", "bytes=4-8"), ("if-range", "\"early-1\"")]).await;
    assert_eq!((other.status, &other.body[..]), (StatusCode::OK, CONTENT));
    let beyond = gate.get(&wheel, &[("range", "bytes=999-")]).await;
    assert_eq!((beyond.status, beyond.header("cache-control")), (StatusCode::RANGE_NOT_SATISFIABLE, "no-store"));
    let unchanged = gate.get(&wheel, &[("if-none-match", &etag)]).await;
    assert_eq!((unchanged.status, unchanged.header("etag")), (StatusCode::NOT_MODIFIED, etag.as_str()));
    assert_eq!(lab.asked("/packages/").len(), 1, "one fetch for all of them");
}

#[tokio::test]
async fn what_nobody_signed_is_refused_without_asking_the_upstream_for_it() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    for method in [Method::GET, Method::HEAD] {
        let answer = gate.ask(method, &file(NEWER), &[("range", "bytes=0-"), ("if-none-match", "*")]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(
            answer.phrase.starts_with(&format!("{NEWER}: not signed in repository \"approved\"")),
            "{}",
            answer.phrase
        );
    }
    assert_eq!(lab.asked("/packages/"), [""; 0]);
    let record = gate.last_record().unwrap();
    assert_eq!(
        (record.reason.as_str(), record.target.as_deref()),
        ("unsigned", Some(format!("demo/{NEWER}").as_str()))
    );
    assert_eq!((record.method.as_str(), record.finished, record.status), ("HEAD", true, 403));
}

#[tokio::test]
async fn other_bytes_than_the_signed_ones_are_refused_and_the_next_good_state_heals() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    lab.serve(&format!("/packages/{WHEEL}"), "", &CONTENT.to_ascii_uppercase());
    let refused = gate.get(&file(WHEEL), &[]).await;
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (StatusCode::FORBIDDEN, Some("urn:tufgate:refused:hash"))
    );
    let record = gate.last_record().unwrap();
    assert_eq!(record.digest, Some(Digest::sha256(CONTENT).to_string()));
    assert_eq!(record.chain[0].role, "targets");
    lab.serve(&format!("/packages/{WHEEL}"), "", CONTENT);
    assert_eq!(lab.gate("").get(&file(WHEEL), &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_upstream_cannot_send_an_installer_to_sleep() {
    let lab = Lab::new().await;
    lab.answer(&format!("/packages/{WHEEL}"), reply(503, &[("retry-after", "999999")], b""));
    let answer = lab.gate("").get(&file(WHEEL), &[]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::BAD_GATEWAY, "12"));
}

#[tokio::test]
async fn what_is_signed_and_absent_upstream_is_trouble_and_no_refusal() {
    let lab = Lab::new().await;
    lab.answer(&format!("/packages/{WHEEL}"), reply(404, &[], b""));
    let answer = lab.gate("").get(&file(WHEEL), &[]).await;
    assert_eq!(
        (answer.status, answer.json()["type"].as_str()),
        (StatusCode::BAD_GATEWAY, Some("urn:tufgate:unavailable:absent_upstream"))
    );
}

/// Only the listing is signed, and not the file that it has.
fn sign_listing_alone(lab: &mut Lab) {
    lab.sign_listing();
    lab.signer.targets.targets.retain(|path, _| path.as_str().starts_with("simple/"));
    lab.signer.publish_next();
    lab.publish();
}

#[tokio::test]
async fn a_listing_that_authorises_and_cannot_be_had_is_trouble_and_no_refusal() {
    let mut lab = Lab::new().await;
    sign_listing_alone(&mut lab);
    let gate = lab.gate(&format!("{LISTING}listing = \"authorises\""));
    lab.fail("/targets/");
    assert_eq!(gate.get(&file(WHEEL), &[]).await.status, StatusCode::BAD_GATEWAY);
    sign_listing_alone(&mut lab);
    assert_eq!(gate.get(&file(WHEEL), &[]).await.status, StatusCode::OK);
    assert_eq!(gate.get(&file(NEWER), &[]).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_listing_that_only_lists_authorises_no_file() {
    let mut lab = Lab::new().await;
    sign_listing_alone(&mut lab);
    assert_eq!(lab.gate(LISTING).get(&file(WHEEL), &[]).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn in_a_tree_what_clients_probe_for_is_absent_and_everything_else_unsigned_is_refused() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    let probe = gate.get("/tree/dists/a.diff/Index", &[]).await;
    assert_eq!(probe.status, StatusCode::NOT_FOUND);
    assert_eq!(gate.last_record().unwrap().verdict, Verdict::Absent);
    assert_eq!(gate.get("/tree/pool/a.deb", &[]).await.status, StatusCode::FORBIDDEN);
    later(&lab);
    assert_eq!(
        gate.get("/tree/dists/a.diff/Index", &[]).await.status,
        StatusCode::FORBIDDEN,
        "nothing is authentic now"
    );
    assert_eq!(lab.asked("/tree/"), [""; 0]);
}

// ---- answers that are given again ----

/// How often a series was counted.
fn count(gate: &super::Gate, series: &str) -> u64 {
    let text = gate.metrics.render().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn what_is_given_again_is_counted_and_recorded_as_what_goes_the_whole_way() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(gate.get(&file(WHEEL), &[]).await);
        gate.get("/pypi/simple/demo/", &[JSON]).await;
    }
    let first = &answers[0];
    for again in &answers[1..] {
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.header("cache-status"), "tufgate; hit");
        for name in ["etag", "content-type", "content-length", "cache-control", "accept-ranges", "server"] {
            assert_eq!(again.header(name), first.header(name), "{name}");
        }
    }
    let of = |route: &str| {
        let labels = format!("{{code=\"200\",method=\"GET\",mount=\"pypi\",route=\"{route}\"}}");
        count(&gate, &format!("tufgate_http_requests_total{labels}"))
    };
    assert_eq!((of("file"), of("page")), (3, 3));
    assert_eq!(count(&gate, "tufgate_http_requests_in_flight"), 0);
    let records = gate.audit.recent(9, |_| true);
    assert_eq!(records.len(), 3, "a page that is answered is no decision");
    for record in &records {
        assert_eq!((record.target.as_deref(), record.bytes), (Some(format!("demo/{WHEEL}").as_str()), 22));
        assert_eq!((record.path.as_str(), record.status, record.finished), (file(WHEEL).as_str(), 200, true));
        assert_eq!(record.chain, records[2].chain);
    }
    assert_ne!(records[0].request, records[1].request);
}

#[tokio::test]
async fn what_is_signed_no_longer_is_refused_at_once_though_its_answer_is_kept() {
    let mut lab = Lab::new().await;
    let gate = lab.gate("");
    for _ in 0..2 {
        assert_eq!(gate.get(&file(WHEEL), &[]).await.status, StatusCode::OK);
        assert_eq!(digest_on_page(&gate).await, Digest::sha256(CONTENT).to_hex());
    }
    lab.signer.targets.targets.clear();
    lab.signer.add_target("targets", "demo/other-1.0-py3-none-any.whl", b"something");
    lab.signer.publish_next();
    lab.publish();
    gate.repositories[0].refresh().await.unwrap();
    let refused = gate.get(&file(WHEEL), &[]).await;
    assert_eq!((refused.status, gate.last_record().unwrap().reason.as_str()), (StatusCode::FORBIDDEN, "unsigned"));
    assert!(digest_on_page(&gate).await.is_null());
}

async fn digest_on_page(gate: &std::sync::Arc<super::Gate>) -> serde_json::Value {
    gate.get("/pypi/simple/demo/", &[JSON]).await.json()["files"][0]["hashes"]["sha256"].clone()
}

#[tokio::test]
async fn what_is_kept_ends_with_trust_and_with_the_hint_that_it_was_made_from() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    for _ in 0..2 {
        gate.get("/pypi/simple/demo/", &[JSON]).await;
    }
    assert_eq!(lab.asked("/simple/").len(), 1);
    lab.clock.advance(SignedDuration::from_mins(6));
    gate.get("/pypi/simple/demo/", &[JSON]).await;
    let asked_again = async {
        while lab.asked("/simple/").len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), asked_again).await.unwrap();
    later(&lab);
    assert_eq!(gate.get("/pypi/simple/demo/", &[JSON]).await.header("cache-control"), "no-store");
}

#[tokio::test]
async fn each_coding_of_a_page_has_an_etag_of_its_own_whoever_asked_before() {
    let lab = Lab::new().await;
    let names: Vec<String> = (0..200).map(|n| format!("demo-1.{n}-py3-none-any.whl")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    lab.serve("/simple/demo/", "application/vnd.pypi.simple.v1+json", &lab.index(&names));
    let gate = lab.gate("");
    let plain = gate.get("/pypi/simple/demo/", &[JSON]).await;
    // Twice: by the whole way, and given again.
    for _ in 0..2 {
        let mut etags = vec![plain.header("etag").to_owned()];
        for (accept, coding) in [("gzip, deflate", "gzip"), ("zstd, br, gzip, deflate", "zstd"), ("gzip;q=0", "")] {
            let asked = [JSON, ("accept-encoding", accept)];
            let answer = gate.get("/pypi/simple/demo/", &asked).await;
            assert_eq!((answer.status, answer.header("content-encoding")), (StatusCode::OK, coding));
            assert_eq!(answer.header("vary"), "Accept, Accept-Encoding");
            assert_eq!(answer.header("content-length"), answer.body.len().to_string());
            let etag = answer.header("etag");
            assert_eq!(coding.is_empty(), etag == plain.header("etag"));
            let unchanged = gate.get("/pypi/simple/demo/", &[JSON, asked[1], ("if-none-match", etag)]).await;
            assert_eq!((unchanged.status, unchanged.body.len()), (StatusCode::NOT_MODIFIED, 0));
            for name in ["etag", "vary", "cache-control", "content-encoding"] {
                assert_eq!(unchanged.header(name), answer.header(name), "{name}");
            }
            etags.push(etag.to_owned());
        }
        let of_gzip = [JSON, ("accept-encoding", "zstd"), ("if-none-match", etags[1].as_str())];
        assert_eq!(gate.get("/pypi/simple/demo/", &of_gzip).await.status, StatusCode::OK, "another coding's tag");
        let lines = [JSON, ("accept-encoding", "br"), ("accept-encoding", "zstd")];
        assert_eq!(gate.get("/pypi/simple/demo/", &lines).await.header("content-encoding"), "zstd", "of two lines");
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_is_counted_and_recorded() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    let request = http::Request::get(file(WHEEL)).header("host", "gate.example").body(()).unwrap();
    let answering = std::sync::Arc::clone(&gate).handle(request, [127, 0, 0, 1].into());
    assert!(futures_util::FutureExt::now_or_never(answering).is_none(), "it waits for the upstream");
    let record = gate.last_record().unwrap();
    assert_eq!((record.verdict, record.reason.as_str()), (Verdict::Unavailable, "left"));
    assert_eq!(record.target, Some(format!("demo/{WHEEL}")), "what it asked for");
    assert_eq!((record.path.as_str(), record.status, record.finished), (file(WHEEL).as_str(), 499, false));
    let labels = "{code=\"499\",method=\"GET\",mount=\"pypi\",route=\"other\"}";
    assert_eq!(count(&gate, &format!("tufgate_http_requests_total{labels}")), 1);
    assert_eq!(count(&gate, "tufgate_http_requests_in_flight"), 0);
}

// ---- chained gates ----

#[tokio::test]
async fn metadata_passes_byte_for_byte_and_a_refusal_stays_one_down_the_chain() {
    let lab = Lab::new().await;
    let gate = lab.gate("");
    let answer = gate.get("/-/tuf/approved/timestamp.json", &[]).await;
    assert_eq!((answer.status, &answer.body), (StatusCode::OK, &lab.signer.files["timestamp.json"]));
    let absent = gate.get("/-/tuf/approved/2.root.json", &[]).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND, "no newer root");
    later(&lab);
    let refused = gate.get("/-/tuf/approved/timestamp.json", &[]).await;
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (StatusCode::FORBIDDEN, Some("urn:tufgate:refused:expired"))
    );
}
