//! The same with the real client over HTTP and from a file.

use super::*;

#[tokio::test]
async fn over_http_and_from_a_file_url_a_broken_off_body_is_resumed_and_a_wrong_length_refused() {
    use crate::upstream::{
        Client, Environment,
        testserver::{self, TestServer, head},
    };
    let bytes = content(200_000);
    let served = bytes.clone();
    let server = TestServer::start(move |received, before| {
        let length = |n: usize| ("content-length".to_owned(), n.to_string());
        let etag = ("etag".to_owned(), "\"v1\"".to_owned());
        match (received.target.as_str(), before) {
            ("/short.whl", _) => testserver::reply(200, &[], &served[..199_999]),
            (_, 0) => {
                let mut half = head(200, &[length(200_000), etag]);
                half.extend_from_slice(&served[..120_000]);
                vec![testserver::Step::Send(half), testserver::Step::Close]
            }
            _ => {
                let range = received.header("range").unwrap();
                let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
                assert_eq!(received.header("if-range"), Some("\"v1\""));
                let content_range = ("content-range".to_owned(), format!("bytes {from}-199999/200000"));
                let mut rest = head(206, &[length(200_000 - from), content_range, etag]);
                rest.extend_from_slice(&served[from..]);
                vec![testserver::Step::Send(rest)]
            }
        }
    })
    .await;
    let rig = Rig::new();
    let client = Client::new(&upstream::Settings::default(), &Environment::new([])).unwrap();
    let observer = Arc::clone(&rig.seen) as Arc<dyn Observer>;
    let delivery = Delivery::new(rig.delivery.cache().clone(), Arc::new(client), settings(), observer);
    let at =
        |url: Url, bytes: &[u8]| Request { allowed: Origins::of([&url]), sources: vec![url], ..request(bytes, &[]) };

    let resumed = at(server.url("f.whl"), &bytes);
    assert_eq!(verified(delivery.obtain(&resumed, Want::default()).await).await, bytes);
    assert_eq!(server.requests().len(), 2);

    let file = rig.folder.path().join("local.whl");
    fs::write(&file, &bytes[1..]).unwrap();
    let local = at(Url::from_file_path(&file).unwrap(), &bytes[1..]);
    assert_eq!(verified(delivery.obtain(&local, Want::default()).await).await, bytes[1..]);

    let other = content(200_000).into_iter().rev().collect::<Vec<u8>>();
    let short = at(server.url("short.whl"), &other);
    assert_eq!(delivery.obtain(&short, Want::default()).await.unwrap_err().reason(), "length");
}
