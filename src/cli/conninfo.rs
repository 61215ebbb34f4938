//! `mc_ctl conninfo`: how clients connect with whichever server is the primary.

use super::{Ended, not_yet};
use clap::Args as Arguments;

#[derive(Arguments, Debug)]
pub(super) struct Args {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<String>,
}

pub(super) fn run(_args: &Args) -> Ended {
    Err(not_yet("conninfo"))
}
