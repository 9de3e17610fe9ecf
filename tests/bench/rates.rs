//! What a datagram costs at the rates of real buses: one row for each load.

use std::time::Duration;

use crate::compare::{Outcome, Rounds, mib, thousands};
use crate::load::Load;
use crate::programs::Program;

/// Raw and candump of this build, and of the other build if there is one; the plain loop, which they are compared with.
pub struct Contest {
    programs: Vec<Program>,
    /// What a column compares: heading, program, with which program.
    columns: Vec<(&'static str, usize, usize)>,
}

impl Contest {
    pub fn new(can_listen: &Program, before: Option<&Program>, plain_loop: &Program) -> Contest {
        let mut programs = formats(can_listen, ["raw", "candump"]).to_vec();
        programs.extend(before.into_iter().flat_map(|before| formats(before, ["raw before", "candump before"])));
        programs.push(plain_loop.clone());
        let baseline = programs.len() - 1;
        let mut columns = vec![("raw, of that", 0, baseline), ("candump, of that", 1, baseline)];
        if before.is_some() {
            columns.extend([("raw, of raw before", 0, 2), ("candump, of candump before", 1, 3)]);
        }
        Contest { programs, columns }
    }

    /// Prints a table; `measure` is given the span for the load.
    pub fn table(
        &self,
        rounds: usize,
        usual_span: Duration,
        loads: &[Load],
        measure: impl Fn(&Program, &Load, Duration) -> Outcome,
    ) {
        let baseline = self.programs.len() - 1;
        let heads: Vec<&str> = self.columns.iter().map(|&(head, ..)| head).collect();
        println!("| load | {}: CPU per datagram | {} |", self.programs[baseline].name, heads.join(" | "));
        println!("| --- | ---: {}|", "| ---: ".repeat(heads.len()));
        let mut remarks = Vec::new();
        for load in loads {
            let span = load.span(usual_span);
            let rounds = Rounds::measure(rounds, &self.programs, load, |program| measure(program, load, span));
            let cpu_us = rounds.median(baseline, Outcome::cpu_us);
            let ratios: Vec<String> = self.columns.iter().map(|&(_, of, to)| rounds.ratio(of, to)).collect();
            println!("| {} | {cpu_us:.1} µs | {} |", load.name, ratios.join(" | "));
            remarks.extend(rounds.remark());
            remarks.push(self.remark(load, &rounds));
        }
        println!("\n{}\n", remarks.join("\n"));
    }

    /// What each program lost, its start-up (which is not in the ratios) and its memory.
    fn remark(&self, load: &Load, rounds: &Rounds<'_>) -> String {
        let of_each = self.programs.iter().enumerate().map(|(column, program)| {
            let lost: u64 = rounds.outcomes(column).map(|outcome| outcome.sent.saturating_sub(outcome.received)).sum();
            let startup = rounds.median(column, |outcome| outcome.cost.startup.as_secs_f64() * 1e3);
            let memory = rounds.median(column, |outcome| outcome.cost.memory_kib as f64);
            let lost = thousands(lost as f64);
            format!("{} lost {lost}, start-up {startup:.1} ms, memory {}", program.name, mib(memory as u64))
        });
        format!("* {}: {}", load.name, of_each.collect::<Vec<String>>().join("; "))
    }
}

fn formats(program: &Program, names: [&'static str; 2]) -> [Program; 2] {
    [Program { name: names[0], ..program.clone() }, Program { name: names[1], ..program.with(&["--format=candump"]) }]
}
