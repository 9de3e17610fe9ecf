//! What goes over the wire with default options and a healthy gateway.

mod programs;
mod simulator;

use programs::{can_listen, start};
use simulator::Gateway;

#[test]
fn a_healthy_gateway_is_sent_the_four_commands_each_after_the_reply_to_the_one_before() {
    let gateway = Gateway::start();
    let listener = start(&mut can_listen(["--target", &gateway.target()]));
    listener.wait_for_stderr("is started");
    gateway.wait_for_command("CAN 1 START\n");
    let expected = ["CAN 1 INIT STD 250\n", "CAN 1 FILTER CLEAR\n", "CAN 1 FILTER ADD STD 000 000\n", "CAN 1 START\n"];
    assert_eq!(gateway.commands(), expected);
}
