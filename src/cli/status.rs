//! `mc_ctl status`.

use super::args::{Format, Status as Args};
use super::{Ended, Exit, Failure, call, coloured, print, say};
use crate::config::Config;
use crate::status::Status;
use std::io::IsTerminal;
use std::time::Duration;

pub(super) fn run(args: &Args) -> Ended {
    if args.check {
        return Ok(check(args));
    }
    let config = args.common.client_config()?;
    let Some(seconds) = args.watch else {
        show(args, &config)?;
        return Ok(0);
    };
    loop {
        if std::io::stdout().is_terminal() {
            print("\x1b[H\x1b[2J");
        }
        if matches!(args.format, Format::Text) {
            print(&format!("{}\n", crate::messages::utc(std::time::SystemTime::now())));
        }
        if let Err(failure) = show(args, &config) {
            // It may be started meanwhile.
            say(&format!("mc_ctl: {}\n", failure.error));
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn show(args: &Args, config: &Config) -> Result<(), Failure> {
    let status = Status::new(&*call::status(config)?);
    match args.format {
        Format::Text => {
            print(&status.text(args.arbiter, coloured()));
            for advice in &status.advice {
                say(&format!("HINT: {advice}\n"));
            }
        }
        Format::Json => print(&status.json()),
        Format::Prometheus => print(&status.prometheus()),
    }
    Ok(())
}

/// The monitoring-plugin convention: whatever is wrong with the question itself is UNKNOWN, on the one line.
fn check(args: &Args) -> u8 {
    if rustix::process::geteuid().is_root() {
        print("MIRRORING UNKNOWN - mc_ctl cannot be run as root, but as the instance administrator user\n");
        return Exit::NotRunning as u8;
    }
    let status = args.common.client_config().and_then(|config| call::status(&config));
    match status {
        Ok(snapshot) => {
            let (line, code) = Status::new(&snapshot).check();
            print(&line);
            code
        }
        Err(failure) => {
            let text = failure.error.message.replace(['|', '\n'], " ");
            print(&format!("MIRRORING UNKNOWN - {text}\n"));
            Exit::NotRunning as u8
        }
    }
}
