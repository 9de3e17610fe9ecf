//! The programs together with other programs, in network namespaces, as a service and in a container.

#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/simulator/mod.rs"]
mod simulator;

mod namespaces;
mod recipes;
mod socketcan;
