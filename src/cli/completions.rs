//! `mc_ctl completions SHELL`, and that of `mc_arb`: what a shell completes a command line from. Called by the files of
//! `samples/completions`, when a shell needs it first, so that they never differ from the program.

use super::Ended;
use clap_complete::Shell;

/// `completions`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// bash, zsh or fish
    shell: Shell,
}

pub(super) fn run(name: &'static str, command: &clap::Command, args: &Args) -> Ended {
    let mut command = shown(name, command);
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut out);
    super::print(&String::from_utf8_lossy(&out));
    Ok(0)
}

/// The command without what is hidden: the generators show that too.
fn shown(name: &'static str, command: &clap::Command) -> clap::Command {
    let verbs: Vec<_> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let arguments: Vec<_> = command.get_arguments().cloned().collect();
    clap::Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(arguments)
        .subcommands(verbs)
}
