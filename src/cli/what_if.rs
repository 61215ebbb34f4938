//! `mc_ctl what-if`: what the pair would do if something failed now.

use super::{Ended, not_yet};
use clap::Args as Arguments;

#[derive(Arguments, Debug)]
pub(super) struct Args {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<String>,
}

pub(super) fn run(_args: &Args) -> Ended {
    Err(not_yet("what-if"))
}
