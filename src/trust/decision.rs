//! Whether enough repositories of an entry agree on a target: one pure function.
//!
//! The rule, for an entry with threshold `t` (TAP 4, and decisions that go beyond it, see `docs/adr/0004-…`):
//! - Repositories agree when every two of them list the same bytes and share no key ([`Voice`]).
//! - `t` that agree suffice, whatever the others say or whether they say anything; but two groups of `t` that do not
//!   agree with one another leave open which is meant: nothing is decided by who was named or asked first.
//! - A repository that cannot be heard (expired, forged, not to be had) counts for nobody. Where its answer could make
//!   a difference the search ends there: only an authentic "not listed" leads on to the next entry.

/// What one repository says of a target.
#[derive(Clone, Debug)]
pub(super) enum Answer<V, E> {
    /// It has not answered yet.
    Unheard,
    /// It lists the target.
    Listed(V),
    /// It authentically does not list it.
    NotListed,
    /// Its metadata is not current, bad, or not to be had.
    Broken(E),
}

/// What a repository lists, as far as it is compared with what others list.
pub(super) trait Voice {
    /// Whether both list the same bytes.
    fn agrees(&self, other: &Self) -> bool;
    /// Whether no key can speak through both.
    fn is_independent(&self, other: &Self) -> bool;
}

/// What follows for an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Who has not answered yet can still make a difference.
    Open,
    /// These agree, in the entry's order; they are at least as many as the threshold.
    Agreed(Vec<usize>),
    /// Authentically too few list it: the next entry is asked.
    TooFew,
    /// Enough list it, and not the same.
    Disagreed,
    /// Enough list the same, and some of them share keys.
    KeysShared,
    /// Who cannot be heard could make a difference.
    Untold,
}

/// Decides on what the repositories of an entry say, in the entry's order.
pub(super) fn decide<V: Voice, E>(threshold: usize, answers: &[Answer<V, E>]) -> Decision {
    let listed: Vec<(usize, &V)> = answers
        .iter()
        .enumerate()
        .filter_map(|(n, answer)| if let Answer::Listed(voice) = answer { Some((n, voice)) } else { None })
        .collect();
    let count = |wanted: fn(&Answer<V, E>) -> bool| answers.iter().filter(|answer| wanted(answer)).count();
    let unheard = count(|answer| matches!(answer, Answer::Unheard));
    let broken = count(|answer| matches!(answer, Answer::Broken(_)));
    if listed.len() + broken + unheard < threshold {
        return Decision::TooFew;
    }
    let corroborate = |one: &V, other: &V| one.agrees(other) && one.is_independent(other);
    let group = largest(&listed, &corroborate);
    if group.len() >= threshold {
        let voices: Vec<&V> = listed.iter().map(|(_, voice)| *voice).collect();
        return match short_of_rivals(threshold, &voices, &mut Vec::new(), &mut Vec::new()) {
            0 => Decision::Disagreed,
            missing if missing <= unheard => Decision::Open,
            _ => Decision::Agreed(group),
        };
    }
    if unheard > 0 {
        return Decision::Open;
    }
    if broken > 0 && (group.len() + broken >= threshold || listed.len() < threshold) {
        return Decision::Untold;
    }
    match largest(&listed, &V::agrees).len() {
        same if same >= threshold => Decision::KeysShared,
        _ => Decision::Disagreed,
    }
}

/// How many more voices it takes at least until two groups of `threshold` stand against each other: each agrees within
/// itself, and nobody of the one agrees with anybody of the other. `one` and `other` are those groups so far.
///
/// It looks at up to 3ⁿ pairs: entries are short (`ENTRY_REPOSITORIES_MAX`).
fn short_of_rivals<'v, V: Voice>(
    threshold: usize,
    voices: &[&'v V],
    one: &mut Vec<&'v V>,
    other: &mut Vec<&'v V>,
) -> usize {
    let missing = threshold.saturating_sub(one.len()) + threshold.saturating_sub(other.len());
    let Some((voice, rest)) = voices.split_first() else { return missing };
    let mut least = short_of_rivals(threshold, rest, one, other);
    let joins = |group: &[&V]| group.iter().all(|member| member.agrees(voice) && member.is_independent(voice));
    let opposes = |group: &[&V]| !group.iter().any(|member| member.agrees(voice));
    if joins(one) && opposes(other) {
        one.push(voice);
        least = least.min(short_of_rivals(threshold, rest, one, other));
        one.pop();
    }
    // The first voice may as well be the one side's: sides have no names.
    if !one.is_empty() && joins(other) && opposes(one) {
        other.push(voice);
        least = least.min(short_of_rivals(threshold, rest, one, other));
        other.pop();
    }
    least
}

/// The most of `among` of which every two stand in the relation; of equally many those that come first.
///
/// It looks at up to 2ⁿ sets: entries are short (`ENTRY_REPOSITORIES_MAX`), and where all agree it looks at one.
pub(super) fn largest<V>(among: &[(usize, &V)], related: &dyn Fn(&V, &V) -> bool) -> Vec<usize> {
    let Some(((n, first), rest)) = among.split_first() else { return Vec::new() };
    let friends: Vec<(usize, &V)> = rest.iter().copied().filter(|(_, other)| related(first, other)).collect();
    let mut with = vec![*n];
    with.extend(largest(&friends, related));
    if friends.len() == rest.len() {
        return with;
    }
    let without = largest(rest, related);
    if without.len() > with.len() { without } else { with }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Answer::*, Decision::*, *};

    /// A digest of each of two algorithms, and a key.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Said {
        sha256: Option<u8>,
        sha512: Option<u8>,
        key: u8,
    }

    impl Voice for Said {
        fn agrees(&self, other: &Self) -> bool {
            let pairs = [(self.sha256, other.sha256), (self.sha512, other.sha512)];
            let common: Vec<_> = pairs.into_iter().filter_map(|(one, other)| one.zip(other)).collect();
            !common.is_empty() && common.iter().all(|(one, other)| one == other)
        }
        fn is_independent(&self, other: &Self) -> bool {
            self.key != other.key
        }
    }

    type Case = Answer<Said, ()>;

    /// Lists version `bytes`, with a key of its own.
    fn lists(key: u8, bytes: u8) -> Case {
        Listed(Said { sha256: Some(bytes), sha512: None, key })
    }

    const DOWN: Case = Broken(());
    const LATE: Case = Unheard;
    const NONE: Case = NotListed;

    #[test]
    fn two_of_three_suffice_whatever_the_third_is() {
        for third in [lists(3, 1), lists(3, 2), NONE, DOWN, LATE] {
            for place in 0..3 {
                let mut answers = vec![lists(1, 1), lists(2, 1)];
                answers.insert(place, third.clone());
                let Agreed(group) = decide(2, &answers) else { panic!("{answers:?}") };
                assert!(group.len() >= 2 && (0..3).filter(|n| *n != place).all(|n| group.contains(&n)), "{answers:?}");
            }
        }
    }

    #[test]
    fn what_can_no_longer_be_decided_ends_the_search_and_only_an_authentic_no_leads_on() {
        for (answers, expected) in [
            ([lists(1, 1), NONE, NONE], TooFew),
            ([lists(1, 1), DOWN, NONE], Untold),
            ([lists(1, 1), DOWN, DOWN], Untold),
            ([NONE, DOWN, NONE], TooFew),
            ([NONE, DOWN, DOWN], Untold),
            ([DOWN, DOWN, DOWN], Untold),
            ([NONE, NONE, NONE], TooFew),
            ([lists(1, 1), lists(2, 2), NONE], Disagreed),
            ([lists(1, 1), lists(2, 2), lists(3, 3)], Disagreed),
            ([lists(1, 1), lists(2, 2), DOWN], Untold),
            ([lists(1, 1), LATE, NONE], Open),
            ([LATE, NONE, NONE], TooFew),
            ([lists(1, 1), LATE, DOWN], Open),
        ] {
            assert_eq!(decide(2, &answers), expected, "{answers:?}");
        }
        // Whoever is down, three of four cannot agree; but whether enough list it hangs on it.
        assert_eq!(decide(3, &[lists(1, 1), lists(2, 2), NONE, DOWN]), Untold);
        assert_eq!(decide(3, &[lists(1, 1), lists(2, 2), lists(3, 3), DOWN]), Disagreed);
    }

    #[test]
    fn a_threshold_of_one_is_met_by_either_and_two_that_differ_are_not_settled_by_their_order() {
        for (answers, expected) in [
            ([lists(1, 1), NONE], Agreed(vec![0])),
            ([DOWN, lists(2, 1)], Agreed(vec![1])),
            ([lists(1, 1), lists(2, 1)], Agreed(vec![0, 1])),
            ([lists(1, 1), lists(2, 2)], Disagreed),
            ([lists(1, 1), LATE], Open),
            ([NONE, DOWN], Untold),
            ([NONE, NONE], TooFew),
        ] {
            assert_eq!(decide(1, &answers), expected, "{answers:?}");
        }
    }

    #[test]
    fn two_groups_that_both_reach_the_threshold_decide_nothing() {
        let two_and_two = [lists(1, 1), lists(2, 2), lists(3, 1), lists(4, 2)];
        assert_eq!(decide(2, &two_and_two), Disagreed);
        let four_and_two = [lists(1, 1), lists(2, 2), lists(3, 1), lists(4, 2), lists(5, 1), lists(6, 1)];
        assert_eq!(decide(2, &four_and_two), Disagreed);
        assert_eq!(decide(3, &four_and_two), Agreed(vec![0, 2, 4, 5]));
        assert_eq!(decide(2, &[lists(1, 1), lists(2, 1), LATE, LATE]), Open, "the late ones may differ together");
    }

    #[test]
    fn one_that_agrees_with_both_of_two_that_differ_settles_nothing() {
        let with = |key, sha512| Listed::<Said, ()>(Said { sha256: Some(1), sha512, key });
        let (vague, one, other) = (with(1, None), with(2, Some(1)), with(3, Some(2)));
        for answers in [[vague.clone(), one.clone(), other.clone()], [one, vague, other]] {
            assert_eq!(decide(1, &answers), Disagreed, "{answers:?}");
        }
    }

    #[test]
    fn without_a_common_algorithm_nobody_agrees() {
        let with = |key, sha256, sha512| Listed::<Said, ()>(Said { sha256, sha512, key });
        let (old, new, both) = (with(1, Some(1), None), with(2, None, Some(1)), with(3, Some(1), Some(1)));
        assert_eq!(decide(2, &[old.clone(), new.clone()]), Disagreed);
        assert_eq!(decide(2, &[old.clone(), new.clone(), both.clone()]), Agreed(vec![0, 2]));
        assert_eq!(decide(3, &[old.clone(), new.clone(), both]), Disagreed, "two of them cannot be compared");
        assert_eq!(decide(2, &[old, with(2, Some(1), Some(1)), with(3, Some(1), Some(2))]), Agreed(vec![0, 1]));
    }

    #[test]
    fn repositories_that_share_a_key_count_as_one() {
        assert_eq!(decide(2, &[lists(1, 1), lists(1, 1)]), KeysShared);
        assert_eq!(decide(2, &[lists(1, 1), lists(1, 1), DOWN]), Untold);
        assert_eq!(decide(1, &[lists(1, 1), lists(1, 1)]), Agreed(vec![0]), "one may speak for itself");
        // A liar that claims the key of an honest one takes nothing from the honest.
        assert_eq!(decide(2, &[lists(1, 1), lists(1, 1), lists(2, 1)]), Agreed(vec![0, 2]));
        assert_eq!(decide(2, &[lists(1, 2), lists(1, 1), lists(2, 1)]), Agreed(vec![1, 2]));
        assert_eq!(decide(2, &[lists(1, 1), lists(2, 1), lists(3, 2), lists(3, 2)]), Agreed(vec![0, 1]));
    }

    /// The rule of this file's head, word for word, over all sets of repositories.
    fn naive(threshold: usize, answers: &[Case]) -> Decision {
        let voice = |n: usize| if let Listed(said) = &answers[n] { Some(*said) } else { None };
        let sets: Vec<Vec<usize>> = (1_usize..1 << answers.len())
            .map(|mask| (0..answers.len()).filter(|n| mask & (1 << n) != 0).collect())
            .collect();
        let hold = |set: &[usize], keys: bool| {
            set.iter().all(|n| voice(*n).is_some())
                && set.iter().all(|a| {
                    set.iter().all(|b| {
                        let (one, other) = (voice(*a).unwrap(), voice(*b).unwrap());
                        a == b || (one.agrees(&other) && (!keys || one.is_independent(&other)))
                    })
                })
        };
        let reach: Vec<&Vec<usize>> = sets.iter().filter(|set| set.len() >= threshold && hold(set, true)).collect();
        let rival = |one: &[usize], other: &[usize]| {
            other.iter().all(|b| !one.iter().any(|a| voice(*a).unwrap().agrees(&voice(*b).unwrap())))
        };
        if let Some(most) = reach.iter().map(|set| set.len()).max() {
            let group = reach.iter().filter(|set| set.len() == most).min().unwrap();
            return match reach.iter().any(|one| reach.iter().any(|other| rival(one, other))) {
                true => Disagreed,
                false => Agreed((*group).clone()),
            };
        }
        let listed = answers.iter().filter(|answer| matches!(answer, Listed(_))).count();
        let broken = answers.iter().filter(|answer| matches!(answer, Broken(()))).count();
        let most = sets.iter().filter(|set| hold(set, true)).map(Vec::len).max().unwrap_or(0);
        let same = sets.iter().filter(|set| hold(set, false)).map(Vec::len).max().unwrap_or(0);
        match () {
            () if listed + broken < threshold => TooFew,
            () if broken > 0 && most + broken >= threshold => Untold,
            () if listed < threshold => Untold,
            () if same >= threshold => KeysShared,
            () => Disagreed,
        }
    }

    fn said() -> impl Strategy<Value = Case> {
        let digest = proptest::option::of(0_u8..2);
        let listed = (digest.clone(), digest, 0_u8..5)
            .prop_filter("it lists something", |(one, other, _)| one.is_some() || other.is_some())
            .prop_map(|(sha256, sha512, key)| Listed(Said { sha256, sha512, key }));
        prop_oneof![4 => listed, 1 => Just(NONE), 1 => Just(DOWN)]
    }

    proptest! {
        #[test]
        fn it_decides_as_the_rule_says(threshold in 1_usize..5, answers in proptest::collection::vec(said(), 1..7)) {
            prop_assume!(threshold <= answers.len());
            prop_assert_eq!(decide(threshold, &answers), naive(threshold, &answers));
        }

        #[test]
        fn what_is_decided_early_is_what_all_answers_would_have_decided(
            threshold in 1_usize..4,
            answers in proptest::collection::vec(said(), 1..6),
            late in proptest::collection::vec(any::<bool>(), 6),
        ) {
            prop_assume!(threshold <= answers.len());
            let early: Vec<Case> =
                answers.iter().zip(&late).map(|(answer, late)| if *late { LATE } else { answer.clone() }).collect();
            match (decide(threshold, &early), decide(threshold, &answers)) {
                (Open, _) => {}
                // Who comes late may join, and who is heard may then be counted by another key.
                (Agreed(_), whole) => prop_assert!(matches!(whole, Agreed(_)), "{:?}", whole),
                (early, whole) => prop_assert_eq!(early, whole),
            }
        }
    }
}
