//! `network.conf`, `ID.conf` and `mc.key`, read and checked into one configuration.
