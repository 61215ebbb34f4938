//! `mc_std start|stop installDir mcdir [mc_ctl options]`: what a unit or an rc script of the guide's section 3.9 calls.
//!
//! Checks what was typed, then becomes `mc_ctl start` or `mc_ctl stop` of the installation directory with the management
//! directory, so that the exit code and all that is said are those of `mc_ctl`. Decides nothing. Called by `bin/mc_std.rs`.

use super::args::{Cli as McCtl, Verb};
use super::{Ended, Exit, Failure, parse_and_run};
use crate::error::Error;
use clap::{CommandFactory, Parser, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Starts or stops Mirroring Controller for a service manager.
#[derive(Parser, Debug)]
#[command(name = "mc_std", version)]
#[command(
    after_help = "The options must not contain -M, nor -a of a stop: a host that shuts down must not stop the other \
                  server.\nExit status: as mc_ctl. See mc_std(8)."
)]
pub struct Cli {
    /// Start or stop the controller and the instance
    what: What,
    /// Directory whose subdirectory bin (or sbin) contains mc_ctl
    #[arg(value_name = "installDir")]
    install: PathBuf,
    /// Management directory
    #[arg(value_name = "mcdir")]
    directory: PathBuf,
    /// Options of mc_ctl start or mc_ctl stop
    #[arg(value_name = "mc_ctl options", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// The whole command line, for tests that compare it with the manual.
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum What {
    Start,
    Stop,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            What::Start => "start",
            What::Stop => "stop",
        }
    }
}

/// `mc_std`, whole: does not come back where `mc_ctl` could be run.
pub fn main() -> ExitCode {
    parse_and_run("mc_std", |cli: Cli| run(&cli))
}

fn run(cli: &Cli) -> Ended {
    check(cli.what, &cli.options)?;
    let program = find(&cli.install)?;
    let mut command = Command::new(&program);
    command.arg(cli.what.word()).args(&cli.options).arg("-M").arg(&cli.directory);
    let cause = command.exec();
    Err(Failure::failed(Error::io("run program", &program, cause)))
}

/// As `mc_ctl` would read them, so that nothing hides in a cluster of letters.
fn check(what: What, options: &[OsString]) -> Result<(), Failure> {
    let line = ["mc_ctl", what.word()].into_iter().map(OsStr::new).chain(options.iter().map(OsString::as_os_str));
    let typed = McCtl::try_parse_from(line).map_err(|told| {
        Failure::new(Exit::Usage, format!("mc_ctl {}: {}", what.word(), told.to_string().trim_end()))
    })?;
    let (directory, all) = match &typed.verb {
        Verb::Start(args) => (&args.common.directory, false),
        Verb::Stop(args) => (&args.common.directory, args.all),
        _ => (&None, false),
    };
    if directory.is_some() {
        return Err(Failure::new(Exit::Usage, "-M is not allowed among the options of mc_ctl")
            .hint("The management directory is the third argument."));
    }
    if all {
        return Err(Failure::new(Exit::Usage, "-a is not allowed: it would stop the other server too")
            .hint("To stop both servers, run \"mc_ctl stop -a\"."));
    }
    Ok(())
}

/// `mc_ctl` of the installation, else the one beside this program.
fn find(install: &Path) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("mc_ctl")));
    let of_it = ["bin", "sbin"].map(|directory| install.join(directory).join("mc_ctl"));
    let found = of_it.iter().chain(&beside).find(|path| path.is_file());
    found.cloned().ok_or_else(|| {
        Failure::new(Exit::Usage, format!("there is no program \"{}\"", of_it[0].display())).hint(
            "The second argument is the directory whose subdirectory bin contains mc_ctl, such as /usr or /usr/local.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(what: What, options: &[&str]) -> Option<String> {
        let options: Vec<OsString> = options.iter().map(Into::into).collect();
        check(what, &options).err().map(|failure| failure.error.message)
    }

    #[test]
    fn options_of_mc_ctl() {
        for good in [&["-W", "-f", "--async-connect-arbiter"][..], &[], &["--mc-only", "--local-server", "nd1"]] {
            assert_eq!(refused(What::Start, good), None, "{good:?}");
        }
        for good in [&["-e"][..], &["--mc-only"], &["-t", "30"]] {
            assert_eq!(refused(What::Stop, good), None, "{good:?}");
        }
        for bad in [&["-M", "/x"][..], &["-M/x"], &["-fM", "/x"], &["-fM/x"]] {
            assert!(refused(What::Start, bad).unwrap().starts_with("-M is not allowed"), "{bad:?}");
        }
        assert!(refused(What::Stop, &["-M/x"]).unwrap().starts_with("-M is not allowed"));
        for bad in [&["-a"][..], &["-at30"], &["--mc-only", "-a"]] {
            assert!(refused(What::Stop, bad).unwrap().starts_with("-a is not allowed"), "{bad:?}");
        }
        assert!(refused(What::Start, &["-a"]).unwrap().contains("unexpected argument '-a'"));
        assert!(refused(What::Stop, &["-f"]).unwrap().contains("unexpected argument '-f'"));
    }
}
