//! Makes a scenario shorter as long as the same claim is violated.

use super::log::Time;
use super::plan::{Copy, Fate, Item, Plan};

/// The shortest plan found that still `fails`, within so many attempts.
pub fn shrink(plan: &Plan, attempts: u32, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut left = attempts;
    let mut accept = |candidate: Plan, best: &mut Plan| {
        if left == 0 || candidate == *best {
            return false;
        }
        left -= 1;
        let holds = fails(&candidate);
        if holds {
            *best = candidate;
        }
        holds
    };
    loop {
        let before = best.clone();
        // Halves, quarters, single items.
        let mut size = (best.0.len() / 2).max(1);
        loop {
            let mut at = 0;
            while at < best.0.len() {
                let end = (at + size).min(best.0.len());
                let mut shorter = best.clone();
                // Without an end a session may go on for long.
                let removed: Vec<Item> = shorter.0.drain(at..end).collect();
                shorter.0.extend(removed.into_iter().filter(|item| matches!(item, Item::End(_) | Item::CanStop)));
                if !accept(shorter, &mut best) {
                    at += size;
                }
            }
            if size == 1 {
                break;
            }
            size /= 2;
        }
        for index in 0..best.0.len() {
            for simpler in simpler(&best.0[index]) {
                let mut candidate = best.clone();
                candidate.0[index] = simpler;
                accept(candidate, &mut best);
            }
        }
        if best == before {
            return best;
        }
    }
}

/// To fewer digits.
fn rounded(time: Time) -> Vec<Time> {
    [1_000_000, 100_000, 10_000, 1_000]
        .into_iter()
        .map(|unit| time / unit * unit)
        .filter(|&simpler| simpler != time)
        .collect()
}

fn simpler(item: &Item) -> Vec<Item> {
    match item {
        Item::At(at, happening) => rounded(*at).into_iter().map(|at| Item::At(at, happening.clone())).collect(),
        Item::End(at) => {
            let mut times = vec![at / 2, at / 4 * 3, at.saturating_sub(10_000_000)];
            times.extend(rounded(*at));
            times.into_iter().filter(|&at| at > 0).map(Item::End).collect()
        }
        Item::Pause(call, time) => rounded(*time).into_iter().map(|time| Item::Pause(*call, time)).collect(),
        Item::Delay(time) => rounded(*time).into_iter().map(Item::Delay).collect(),
        Item::Stream { from, to, every, pack, kind } => {
            let with = |from, to, every, pack| Item::Stream { from, to, every, pack, kind: *kind };
            let mut items = vec![with(*from, *to, *every, 1), with(*from, (from + to) / 2, *every, *pack)];
            items.push(with(*from, *from, *every, *pack));
            items.push(with(*from, *to, (every * 2).min(100_000_000), *pack));
            items.extend(rounded(*from).into_iter().map(|from| with(from, *to, *every, *pack)));
            items.extend(rounded(*to).into_iter().map(|to| with(*from, to, *every, *pack)));
            items.extend(
                rounded(*every).into_iter().filter(|&every| every > 0).map(|every| with(*from, *to, every, *pack)),
            );
            items
        }
        Item::Fault(index, Fate::Copies(copies)) => {
            let mut simpler = vec![Vec::new()];
            simpler.extend((0..copies.len()).map(|at| {
                let mut fewer = copies.clone();
                fewer.remove(at);
                fewer
            }));
            for unit in [100_000, 10_000, 1_000] {
                let round = |time: &Time| (time / unit * unit).max(1_000);
                simpler.push(
                    copies
                        .iter()
                        .map(|copy| Copy {
                            carried_out: round(&copy.carried_out),
                            answers: copy.answers.iter().map(round).collect(),
                        })
                        .collect(),
                );
            }
            simpler
                .into_iter()
                .filter(|fewer| fewer != copies)
                .map(|copies| Item::Fault(*index, Fate::Copies(copies)))
                .collect()
        }
        _ => Vec::new(),
    }
}
