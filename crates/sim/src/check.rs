//! What must hold of a run, asked of what it left.

pub mod names;
pub mod registers;
pub mod replicas;
