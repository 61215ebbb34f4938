//! `mc_ctl`: the command and the controller.
fn main() {}
