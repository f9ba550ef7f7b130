//! Tests over the workspace itself.

mod layers;
mod sources;
