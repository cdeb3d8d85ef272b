//! Clients that come, wait, read a little and leave at random, over an upstream that breaks off at random: promise 7.

use super::*;

/// A small generator, so that a run can be repeated from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn roll_usize(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll(sides as u64)).unwrap()
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
enum Client {
    /// Waits for the whole.
    Whole,
    /// Asks for a part, or by HEAD: waits for the whole.
    Part,
    /// Takes what leaves early, to the end.
    Early,
    /// Takes some of what leaves early, then leaves.
    EarlyAndLeaves,
    /// Leaves after a moment, whatever there is by then.
    Leaves,
}

async fn run(client: Client, delivery: Delivery, request: Request, bytes: Arc<Vec<u8>>, moment: Duration) {
    let early = matches!(client, Client::Early | Client::EarlyAndLeaves | Client::Leaves);
    let range = if matches!(client, Client::Part) { Range::Other } else { Range::Whole };
    let asking = delivery.obtain(&request, Want { early, range, ..Want::default() });
    if matches!(client, Client::Leaves) {
        let _ = tokio::time::timeout(moment, asking).await;
        return;
    }
    let delivered = asking.await.unwrap();
    let mut got = Vec::new();
    match delivered.body {
        Body::Verified(blob) => got.extend_from_slice(&blob.read_all().await.unwrap()),
        Body::Early(mut body) => {
            while let Some(chunk) = body.chunk().await.unwrap() {
                got.extend_from_slice(&chunk);
                if matches!(client, Client::EarlyAndLeaves) {
                    assert_eq!(got, bytes[..got.len()]);
                    return;
                }
                tokio::time::sleep(moment / 8).await;
            }
        }
    }
    assert_eq!(got, *bytes, "{client:?}");
}

/// A body that breaks off some times, is slow in places, and always obeys ranges.
fn stumbling(bytes: &[u8], dice: &mut Dice) -> Vec<Answer> {
    let mut answers: Vec<Answer> = (0..dice.roll(4))
        .map(|_| {
            // Between the n-th byte and wherever the next one begins.
            let mut script = sends(bytes);
            script.insert(dice.roll_usize(script.len()), Step::Sleep(Duration::from_millis(dice.roll(30))));
            script.insert(dice.roll_usize(script.len()), Step::BreakOff);
            Answer::Body { declared: Some(bytes.len() as u64), obeys_range: true, steps: script }
        })
        .collect();
    answers.push(whole(bytes));
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_clients_do_each_object_is_fetched_once_and_everybody_who_stays_gets_it() {
    for seed in [1, 0x9e37_79b9_7f4a_7c15, 4_711, 20_261_125] {
        let mut dice = Dice(seed);
        let rig = Rig::with(Settings { hold_for: Span::millis(20), resumes_max: 20, ..settings() });
        let mut clients = Vec::new();
        let mut objects = Vec::new();
        for n in 0..6_u32 {
            let bytes = Arc::new(content(150_000 + 10_000 * n));
            let host = format!("h{n}");
            rig.script.set(&url(&host), stumbling(&bytes, &mut dice));
            let request = match dice.roll(2) {
                0 => request(&bytes, &[&host]),
                _ => chunks::chunked(&bytes, &[&host]),
            };
            objects.push((host, request, bytes));
        }
        for _ in 0..90 {
            let (_, request, bytes) = &objects[dice.roll_usize(objects.len())];
            let kinds = [Client::Whole, Client::Part, Client::Early, Client::EarlyAndLeaves, Client::Leaves];
            let client = kinds[dice.roll_usize(kinds.len())];
            let moment = Duration::from_millis(dice.roll(40));
            let (delivery, request, bytes) = (rig.delivery.clone(), request.clone(), Arc::clone(bytes));
            clients.push(tokio::spawn(run(client, delivery, request, bytes, moment)));
            if dice.roll(4) == 0 {
                tokio::time::sleep(Duration::from_millis(dice.roll(15))).await;
            }
        }
        for client in clients {
            client.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        while rig.delivery.fetches() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let asked = rig.script.asked();
        for (host, request, bytes) in &objects {
            // One fetch: each request goes on where the one before broke off, and nothing is asked for twice.
            let from: Vec<u64> =
                asked.iter().filter(|(at, ..)| *at == url(host).to_string()).map(|(_, from, _)| *from).collect();
            assert!(from.is_sorted() && from.iter().filter(|from| **from == 0).count() <= 1 + 3, "{seed}: {from:?}");
            if !from.is_empty() {
                assert_eq!(verified(rig.obtain(request).await).await, **bytes);
            }
        }
        let fetched = objects.iter().filter(|(host, ..)| asked.iter().any(|(at, ..)| *at == url(host).to_string()));
        assert_eq!(rig.seen.fetches.load(Ordering::Relaxed), fetched.count() as u64, "seed {seed}: one fetch each");
        assert_eq!(rig.requests(), asked.len(), "seed {seed}: what was fetched is cached");
        assert!(rig.seen.failures.lock().unwrap().is_empty());
    }
}
