//! Judges a session by its log: is every sentence true at that moment, is none missing? Written from the README and from the
//! design's claims, whose numbers are in the texts; never from the code.

mod conversation;
mod ends;
mod figures;
mod guesses;
mod queries;
mod silences;
mod verdicts;
mod view;

use super::log::{Fact, Log, Time};
use super::plan::Plan;
use super::sentences;
use view::View;

/// A claim that does not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The number of the claim and what is wrong, the same for all violations of a kind.
    pub claim: &'static str,
    pub at: Time,
    pub detail: String,
}

/// What was found so far.
#[derive(Default)]
pub struct Findings(Vec<Violation>);

impl Findings {
    pub fn add(&mut self, at: Time, claim: &'static str, detail: impl Into<String>) {
        // One of a kind is enough to know.
        if self.0.iter().all(|known| known.claim != claim) {
            self.0.push(Violation { claim, at, detail: detail.into() });
        }
    }

    pub fn check(&mut self, holds: bool, at: Time, claim: &'static str, detail: impl Fn() -> String) {
        if !holds {
            self.add(at, claim, detail());
        }
    }
}

/// The claims of one area.
trait Area {
    /// A fact; the view includes it.
    fn on_fact(&mut self, view: &View<'_>, fact: &Fact, found: &mut Findings);
    /// A line on stderr, without the program's name.
    fn on_line(&mut self, view: &View<'_>, line: &str, found: &mut Findings);
    /// The session is over.
    fn on_end(&mut self, view: &View<'_>, found: &mut Findings);
}

/// All violations of a session.
pub fn judge(plan: &Plan, log: &Log, wild: bool) -> Vec<Violation> {
    let mut found = Findings::default();
    let mut view = View::new(plan, log, wild);
    let mut areas: Vec<Box<dyn Area>> = vec![
        Box::<silences::Silences>::default(),
        Box::<queries::Queries>::default(),
        Box::<conversation::Conversation>::default(),
        Box::<verdicts::Verdicts>::default(),
        Box::<figures::Figures>::default(),
        Box::<guesses::Guesses>::default(),
        Box::<ends::Ends>::default(),
    ];
    for (at, fact) in &log.facts {
        view.update(*at, fact);
        for area in &mut areas {
            area.on_fact(&view, fact, &mut found);
        }
        if let Fact::Said(message, _) = fact {
            for line in sentences::lines(message) {
                for area in &mut areas {
                    area.on_line(&view, line, &mut found);
                }
            }
            view.after_message(message);
        }
    }
    for area in &mut areas {
        area.on_end(&view, &mut found);
    }
    found.0
}
