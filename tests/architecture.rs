//! The import rules of `docs/architecture.md`.
