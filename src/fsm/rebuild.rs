//! The rebuild: when a data directory may be made the other server's copy again (R10), and where that stands.

use super::event::Rebuild;
use super::node::Node;
use super::report::Rebuilding;

impl Node {
    pub(super) fn rebuilding(&self) -> Rebuilding {
        Rebuilding::Idle
    }

    pub(super) fn rebuild_from(&self) -> Result<Rebuild, String> {
        Err("not yet supported".to_owned())
    }
}
