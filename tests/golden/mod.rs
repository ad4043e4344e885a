//! The Java connector's messages, byte for byte.
