//! Promise: what only a network between hosts can show is explained and survived. Network namespaces stand for the hosts. Needs
//! root, iproute2 and util-linux: `cargo test --test interop network -- --ignored`.

use std::process::Command;

use crate::namespaces::{CAN_LISTEN, CAN_STOP, Namespace, in_the_gateways_namespace, ip, within};
use crate::programs::{TempDir, only_line, run, start};
use crate::simulator::Gateway;

#[test]
#[ignore = "needs root, to make network namespaces"]
fn router_that_refuses_is_called_a_firewall() {
    let (listeners, router) = (Namespace::new(), Namespace::new());
    let peer = ["type", "veth", "peer", "name", "veth0", "netns", &router.0];
    ip(&[&["-n", &listeners.0, "link", "add", "veth0"], &peer[..]].concat());
    listeners.set_up_link("10.8.0.1/24");
    router.set_up_link("10.8.0.2/24");
    for (host, family) in [(&listeners, "2001:db8:8::1/64"), (&router, "2001:db8:8::2/64")] {
        ip(&["-n", &host.0, "address", "add", family, "dev", "veth0", "nodad"]);
    }
    // Linux routers refuse once a second; here, every attempt is refused.
    let settings = "cd /proc/sys/net && echo 1 > ipv4/ip_forward && echo 1 > ipv6/conf/all/forwarding && \
                    echo 0 > ipv4/icmp_ratelimit && echo 0 > ipv6/icmp/ratelimit";
    assert!(run(within(&router.0, "sh").args(["-c", settings])).status.success());
    for (network, via) in [("10.9.0.0/24", "10.8.0.2"), ("2001:db8:9::/64", "2001:db8:8::2")] {
        ip(&["-n", &listeners.0, "route", "add", network, "via", via]);
        ip(&["-n", &router.0, "route", "add", "prohibit", network]);
    }
    for target in ["10.9.0.1:5000", "[2001:db8:9::1]:5000"] {
        for (program, name) in [(CAN_LISTEN, "can-listen"), (CAN_STOP, "can-stop")] {
            let mut command = within(&listeners.0, program);
            command.args(["--target", target, "--timeout", "0.2"]).args((name == "can-stop").then_some("--confirm"));
            let finished = run(&mut command);
            assert_eq!(finished.code(), Some(1), "{finished:?}");
            let line = only_line(&finished, name);
            assert!(line.contains("a router or firewall on the way") && line.contains(target), "{line}");
            assert!(!line.contains("VPN"), "{line}");
        }
    }
}

#[test]
#[ignore = "needs root, to make network namespaces"]
fn first_address_of_a_name_that_has_a_route_is_used() {
    in_the_gateways_namespace("network::first_address_of_a_name_that_has_a_route_is_used", |listeners| {
        let folder = TempDir::new("hosts");
        let hosts = folder.write("hosts", "2001:db8::109 gateway.test\n10.8.0.109 gateway.test\n");
        let stop = || {
            let mut command = within(listeners, "unshare");
            let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
            command.args(["--mount", "sh", "-c", script]).arg(&hosts);
            command.args([CAN_STOP, "--confirm", "--target", "gateway.test:5000"]);
            let finished = run(&mut command);
            assert_eq!(finished.code(), Some(0), "{finished:?}");
        };
        let ipv4 = Gateway::builder().bind("10.8.0.109:5000").running(true).start();
        stop();
        assert!(!ipv4.commands().is_empty());

        let status = Command::new("ip").args(["address", "add", "2001:db8::109/64", "dev", "veth0", "nodad"]).status();
        assert!(status.expect("iproute2 is installed").success());
        ip(&["-n", listeners, "address", "add", "2001:db8::1/64", "dev", "veth0", "nodad"]);
        let ipv6 = Gateway::builder().bind("[2001:db8::109]:5000").running(true).start();
        let before = ipv4.commands().len();
        stop();
        assert!(!ipv6.commands().is_empty());
        assert_eq!(ipv4.commands().len(), before);
    });
}

#[test]
#[ignore = "needs root, to make network namespaces"]
fn lost_local_address_ends_the_session_and_stop_is_unconfirmed() {
    in_the_gateways_namespace("network::lost_local_address_ends_the_session_and_stop_is_unconfirmed", |listeners| {
        let gateway = Gateway::builder().bind("10.8.0.109:5000").frames_per_second(100.0).start();
        let mut command = within(listeners, CAN_LISTEN);
        let listener = start(command.args(["--stop-on-exit", "--status-after", "0.5", "--timeout", "0.2"]));
        gateway.wait_until_streamed(50);
        ip(&["-n", listeners, "address", "delete", "10.8.0.1/24", "dev", "veth0"]);
        ip(&["-n", listeners, "address", "add", "10.8.0.7/24", "dev", "veth0"]);
        let finished = listener.wait();
        assert_eq!(finished.code(), Some(1), "{finished:?}");
        for text in [
            "no longer has the local address 10.8.0.1",
            "the bus may still run, stop it with:",
            "no reply to CAN 1 STOP",
        ] {
            assert!(finished.stderr.contains(text), "no {text:?}: {finished:?}");
        }
        assert!(gateway.is_running());
        // The command line that it prints works from the new address.
        let line =
            finished.stderr.lines().find(|line| line.starts_with("can-stop --confirm ")).expect("a command line");
        let stopped = run(within(listeners, CAN_STOP).args(line.split(' ').skip(1)));
        assert_eq!(stopped.code(), Some(0), "{stopped:?}");
        assert_eq!(gateway.wait_for_command("CAN 1 STOP\n").from.ip().to_string(), "10.8.0.7");
        assert!(!gateway.is_running());
    });
}
