//! The control socket: how mc_ctl talks to the controller of this host.
