//! The command line: what was typed, and one file per verb that is more than a request to the controller.
