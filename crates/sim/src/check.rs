//! What must hold of a run, asked of what it left.

pub mod replicas;
