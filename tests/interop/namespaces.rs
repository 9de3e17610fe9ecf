//! Promise: without arguments both programs use the documented target and port, and a missing route is named. Network
//! namespaces stand for two hosts. Needs root and iproute2: `cargo test --test interop namespaces -- --ignored`.

use std::env;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::programs::{only_line, run, start};
use crate::simulator::Gateway;
use nix::sys::signal::Signal;

/// Set in the part of a test that runs in the gateway's namespace: the name of the other one.
const LISTENERS: &str = "CAN_UDP_TEST_LISTENERS_NAMESPACE";

/// A network namespace that is deleted when this is dropped.
pub struct Namespace(pub String);

impl Namespace {
    pub fn new() -> Namespace {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let namespace = Namespace(format!("can-udp-test-{}-{}", process::id(), MADE.fetch_add(1, Relaxed)));
        ip(&["netns", "add", &namespace.0]);
        ip(&["-n", &namespace.0, "link", "set", "lo", "up"]);
        namespace
    }

    /// Gives it an address on a link that leads to another one.
    pub fn set_up_link(&self, address: &str) {
        ip(&["-n", &self.0, "address", "add", address, "dev", "veth0"]);
        ip(&["-n", &self.0, "link", "set", "veth0", "up"]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[track_caller]
pub fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {}: {status}; this needs root", arguments.join(" "));
}

/// A program in a namespace. It has the process ID of the command: `ip netns exec` executes it in its place.
pub fn within(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]).env_remove("CAN_TARGET").env_remove("CAN_BIND");
    command
}

pub const CAN_LISTEN: &str = env!("CARGO_BIN_EXE_can-listen");
pub const CAN_STOP: &str = env!("CARGO_BIN_EXE_can-stop");

/// Runs `test`, the body of the test of that name (with its module), in the gateway's namespace, at 10.8.0.109, with the name of the
/// listeners' namespace, at 10.8.0.1, as its argument. A link connects the two. The test's own program is executed again
/// in the namespace, since a process is in one only.
#[track_caller]
pub fn in_the_gateways_namespace(name: &str, test: fn(&str)) {
    if let Ok(listeners) = env::var(LISTENERS) {
        return test(&listeners);
    }
    let (gateways, listeners) = (Namespace::new(), Namespace::new());
    let peer = ["type", "veth", "peer", "name", "veth0", "netns", &listeners.0];
    ip(&[&["-n", &gateways.0, "link", "add", "veth0"], &peer[..]].concat());
    gateways.set_up_link("10.8.0.109/24");
    listeners.set_up_link("10.8.0.1/24");
    let this = env::current_exe().expect("the test's own program");
    let mut again = within(&gateways.0, this.to_str().expect("a path in UTF-8"));
    again.args(["--ignored", "--exact", name, "--nocapture"]).env(LISTENERS, &listeners.0);
    let output = again.output().expect("ip can be run");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // A name that matches no test would pass.
    assert!(output.status.success() && text.contains("1 passed"), "the test failed in its namespace: {text}");
}

#[test]
#[ignore = "needs root, to make network namespaces"]
fn default_arguments_reach_the_gateway_and_lose_nothing() {
    in_the_gateways_namespace("namespaces::default_arguments_reach_the_gateway_and_lose_nothing", |listeners| {
        let gateway = Gateway::builder().bind("10.8.0.109:5000").frames_per_second(1000.0).start();
        let listener = start(&mut within(listeners, CAN_LISTEN));
        gateway.wait_until_streamed(500);
        listener.wait_for_stderr("START sent to 10.8.0.109:5000");

        let stopped = run(&mut within(listeners, CAN_STOP));
        assert_eq!((stopped.code(), stopped.text().as_str()), (Some(0), ""), "{}", stopped.stderr);
        assert!(only_line(&stopped, "can-stop").contains("sent CAN 1 STOP to 10.8.0.109:5000"), "{}", stopped.stderr);
        gateway.wait_for_command("CAN 1 STOP\n");
        let frames = gateway.frames_sent();
        // The answers to START and STOP are lines too.
        listener.wait_for_lines(frames as usize + 2);
        listener.signal(Signal::SIGINT);
        let ended = listener.wait();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert_eq!(ended.text().lines().filter(|line| line.starts_with("M 1 CSD ")).count() as u64, frames);
        assert_eq!(
            gateway.commands(),
            [
                "CAN 1 INIT STD 250\n",
                "CAN 1 FILTER CLEAR\n",
                "CAN 1 FILTER ADD STD 000 000\n",
                "CAN 1 START\n",
                "CAN 1 STOP\n",
            ]
        );
        let received = gateway.received();
        assert!(received.iter().all(|datagram| datagram.from.to_string() == "10.8.0.1:5000"), "{received:?}");
    });
}

#[test]
#[ignore = "needs root, to make network namespaces"]
fn missing_route_is_named_by_both_programs() {
    let namespace = Namespace::new();
    for (path, program) in [(CAN_LISTEN, "can-listen"), (CAN_STOP, "can-stop")] {
        let finished = run(&mut within(&namespace.0, path));
        assert_eq!((finished.code(), finished.text().as_str()), (Some(1), ""), "{}", finished.stderr);
        let line = only_line(&finished, program);
        for part in ["no route to 10.8.0.109:5000", "VPN", "ip route get 10.8.0.109"] {
            assert!(line.contains(part), "no {part:?} in {line:?}");
        }
    }
}
