//! Answers as installers need them: forms of a page, names, ranges, conditions, and the operator's side of it.

use serde_json::json;

use crate::harness::{
    gate::Gate,
    http::{self, Reply},
    wheel::Wheel,
    world::{World, gate_path},
};

const JSON: &str = "application/vnd.pypi.simple.v1+json";
const HTML: &str = "application/vnd.pypi.simple.v1+html";

fn ready(project: &str) -> (World, Wheel, Gate) {
    let wheel = Wheel::large(project, "1.0", 100_000);
    let world = World::with_signed(&[&wheel]);
    let gate = world.gate();
    (world, wheel, gate)
}

fn page(gate: &Gate, accept: &str) -> Reply {
    http::request(gate.address, "GET", "/simple/demo/", &[("Accept", accept)])
}

#[test]
fn a_page_comes_in_the_form_that_the_client_prefers() {
    let (_world, wheel, gate) = ready("demo");
    for (accept, kind) in [
        (JSON, JSON),
        (HTML, HTML),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("text/html", "text/html"),
        ("*/*", "text/html"),
        ("application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01", JSON),
        ("application/vnd.pypi.simple.v1+json;q=0.2, text/html;q=0.9", "text/html"),
    ] {
        let reply = page(&gate, accept);
        assert_eq!(reply.status, 200, "{accept}");
        let found = reply.header("content-type").unwrap_or_default();
        assert!(found.split(';').next() == Some(kind), "{accept}: {found}");
        assert!(reply.header("vary").is_some_and(|vary| vary.to_lowercase().contains("accept")), "{accept}");
        assert!(reply.header("content-length").is_some() && reply.header("etag").is_some(), "{accept}");
    }
    let json = page(&gate, JSON).json();
    let file = &json["files"][0];
    assert_eq!(json["name"], json!("demo"));
    assert_eq!(file["hashes"], json!({ "sha256": wheel.sha256() }), "exactly the signed sha256: {file}");
    assert_eq!(file["size"], json!(wheel.bytes.len()));
    assert!(file["url"].as_str().is_some_and(|url| url.ends_with(&gate_path(&wheel))), "{file}");
    assert_eq!(page(&gate, "image/png").status, 406);
}

#[test]
fn a_page_that_did_not_change_is_a_304() {
    let (_world, _wheel, gate) = ready("demo");
    let tag = page(&gate, JSON).header("etag").unwrap().to_owned();
    let headers = [("Accept", JSON), ("If-None-Match", tag.as_str())];
    let reply = http::request(gate.address, "GET", "/simple/demo/", &headers);
    assert_eq!((reply.status, reply.body.len()), (304, 0));
    let other = http::request(gate.address, "GET", "/simple/demo/", &[("Accept", HTML), ("If-None-Match", &tag)]);
    assert_eq!(other.status, 200, "the tag is of one form of the page");
}

#[test]
fn other_spellings_of_a_name_are_sent_to_the_canonical_one() {
    let (_world, _wheel, gate) = ready("demo-dep");
    for path in ["/simple/Demo.Dep/", "/simple/demo_dep/", "/simple/demo--dep/", "/simple/demo-dep", "/simple/DEMO-DEP"]
    {
        let reply = gate.get(path);
        assert_eq!(reply.status, 301, "{path}");
        assert!(reply.header("location").is_some_and(|to| to.ends_with("/simple/demo-dep/")), "{:?}", reply.headers);
    }
}

#[test]
fn files_obey_head_ranges_and_conditions_by_the_signed_digest() {
    let (_world, wheel, gate) = ready("demo");
    let path = gate_path(&wheel);
    let ask = |method: &str, headers: &[(&str, &str)]| http::request(gate.address, method, &path, headers);
    let whole = ask("GET", &[]);
    assert!(whole.status == 200 && whole.body == wheel.bytes);
    let tag = whole.header("etag").unwrap().to_owned();
    assert!(tag.contains(&wheel.sha256()), "{tag}");
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert!(whole.header("content-encoding").is_none());
    assert!(whole.header("cache-control").is_some_and(|value| value.contains("immutable")));
    let head = ask("HEAD", &[]);
    assert_eq!(head.header("content-length"), Some(wheel.bytes.len().to_string().as_str()));
    assert_eq!((head.status, head.header("etag")), (200, Some(tag.as_str())));
    let start = wheel.bytes.len() - 16_384;
    let tail = ask("GET", &[("Range", &format!("bytes={start}-")), ("If-Range", &tag)]);
    assert!(tail.status == 206 && tail.body == wheel.bytes[start..]);
    let total = wheel.bytes.len();
    let range = format!("bytes {start}-{}/{total}", total - 1);
    assert_eq!(tail.header("content-range"), Some(range.as_str()));
    assert_eq!(ask("GET", &[("Range", "bytes=5-9")]).body, wheel.bytes[5..10]);
    assert_eq!(ask("GET", &[("Range", "bytes=-7")]).body, wheel.bytes[total - 7..]);
    assert_eq!(ask("GET", &[("Range", "bytes=5-9"), ("If-Range", "\"other\"")]).status, 200);
    assert_eq!(ask("GET", &[("Range", &format!("bytes={total}-"))]).status, 416);
    assert_eq!(ask("GET", &[("If-None-Match", &tag)]).status, 304);
}

#[test]
fn a_range_of_a_cold_file_comes_from_the_verified_whole() {
    let (world, wheel, gate) = ready("demo");
    let path = gate_path(&wheel);
    let reply = http::request(gate.address, "GET", &path, &[("Range", "bytes=10-19")]);
    assert!(reply.status == 206 && reply.body == wheel.bytes[10..20], "{} {}", reply.status, reply.phrase);
    let asked = world.upstream.asked_below("/files/");
    assert!(asked.len() == 1 && asked[0].method == "GET" && asked[0].header("range").is_none(), "{asked:?}");
    world.assert_cached(&gate, &wheel);
}

#[test]
fn head_and_range_pass_the_same_gate_as_get() {
    let (world, _wheel, gate) = ready("demo");
    let unsigned = Wheel::new("demo", "2.0");
    world.upstream.offer(&unsigned);
    let path = gate_path(&unsigned);
    assert_eq!(http::request(gate.address, "HEAD", &path, &[]).status, 403);
    assert_eq!(http::request(gate.address, "GET", &path, &[("Range", "bytes=0-1")]).status, 403);
    let tag = format!("\"{}\"", unsigned.sha256());
    assert_eq!(http::request(gate.address, "GET", &path, &[("If-None-Match", &tag)]).status, 403);
    assert_eq!(world.upstream.file_requests(), 0);
}

#[test]
fn metadata_is_passed_on_byte_for_byte_for_chained_gates() {
    let (world, _wheel, gate) = ready("demo");
    for name in ["timestamp.json", "1.root.json", "2.snapshot.json"] {
        let reply = gate.get(&format!("/-/tuf/approved/{name}"));
        let published = std::fs::read(world.repository.metadata().join(name)).unwrap();
        assert!(reply.status == 200 && reply.body == published, "{name}: {} {}", reply.status, reply.phrase);
    }
}

#[test]
fn the_operator_reads_why_a_file_was_refused() {
    let (world, _wheel, gate) = ready("demo");
    let unsigned = Wheel::new("demo", "2.0");
    world.upstream.offer(&unsigned);
    assert_eq!(gate.get(&gate_path(&unsigned)).status, 403);
    world.assert_audited(&gate, &unsigned, "refused", "unsigned");
    world.upstream.forget();
    let why = http::get(gate.admin, &format!("/why/pypi{}", gate_path(&unsigned)));
    assert!(why.status == 200 && why.text().contains("unsigned"), "{} {}", why.status, why.text());
    assert_eq!(world.upstream.file_requests(), 0, "/why never fetches");
    for (path, word) in [("/livez", ""), ("/readyz", ""), ("/metrics", "tufgate_build_info"), ("/", "demo")] {
        let reply = http::get(gate.admin, path);
        assert!(reply.status == 200 && reply.text().contains(word), "{path}: {}", reply.text());
    }
    assert!((400..500).contains(&gate.get("/metrics").status), "never on the public listener");
}

#[test]
fn a_second_mount_serves_a_file_tree() {
    let (world, _wheel, gate) = ready("demo");
    drop(gate);
    world.sign_bytes("dists/a/Release", b"signed release");
    world.repository.publish();
    world.upstream.put("/tree/dists/a/Release", b"signed release");
    world.upstream.put("/tree/dists/a/Other", b"unsigned");
    let text = std::fs::read_to_string(world.configuration().write()).unwrap();
    let mount = format!(
        "{text}\n[[mount]]\nname = \"tree\"\npath = \"/tree\"\nfront = \"tree\"\nrepository = \"approved\"\n\
         files_url = {:?}\ntarget_path = \"{{path}}\"\n",
        world.upstream.url("/tree/")
    );
    let gate = crate::harness::gate::Configuration::parse(&world.gate_folder(), &mount).start();
    let reply = gate.get("/tree/dists/a/Release");
    assert!(reply.status == 200 && reply.body == b"signed release", "{} {}", reply.status, reply.phrase);
    assert_eq!(gate.get("/tree/dists/a/Other").status, 403);
    assert!(world.upstream.asked_below("/tree/dists/a/Other").is_empty());
}
