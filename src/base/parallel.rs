//! Much of the same work, spread over the cores.

use std::{num::NonZeroUsize, panic, thread};

/// Items that a core works through before results are handed on: enough to be worth a thread, few enough to wait in memory.
const SHARE: usize = 64;

/// Does `work` for each item, on all cores, and hands the results to `take` in the order of the items. The first error
/// in that order ends it. At most 64 results of each core are held at once, whatever the number of items.
pub fn in_order<T: Send, R: Send, E: Send>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> Result<R, E> + Sync,
    mut take: impl FnMut(R),
) -> Result<(), E> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let mut shares: Vec<Vec<T>> = Vec::with_capacity(cores);
        while shares.len() < cores && items.peek().is_some() {
            shares.push(items.by_ref().take(SHARE).collect());
        }
        for result in do_shares(shares, &work) {
            take(result?);
        }
    }
    Ok(())
}

fn do_shares<T: Send, R: Send>(shares: Vec<Vec<T>>, work: &(impl Fn(T) -> R + Sync)) -> Vec<R> {
    let mut shares = shares.into_iter();
    let own = shares.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> =
            shares.map(|share| scope.spawn(move || share.into_iter().map(work).collect::<Vec<R>>())).collect();
        let mut results: Vec<R> = own.into_iter().map(work).collect();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items_and_each_once() {
        for count in [0, 1, SHARE, SHARE + 1, 1000] {
            let mut taken = Vec::new();
            let done: Result<(), ()> = in_order(0..count, |item| Ok(item * 2), |result| taken.push(result));
            assert!(done.is_ok());
            assert_eq!(taken, (0..count).map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_in_that_order_ends_it() {
        let mut taken = 0;
        let work = |item: usize| if item == 300 || item == 70 { Err(item) } else { Ok(()) };
        assert_eq!(in_order(0..1000, work, |()| taken += 1), Err(70));
        assert_eq!(taken, 70);
    }
}
