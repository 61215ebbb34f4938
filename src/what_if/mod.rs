//! What the pair would do if something failed now: the real decision cores, stepped in virtual time from the present state.
//!
//! Pure, as `fsm` is: called by the controller with copies of what it knows. Behind `mc_ctl what-if`.
