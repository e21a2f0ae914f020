//! Text for people: names, sizes, dates and modes, to and from what they look like.

pub(crate) mod date;
pub(crate) mod escape;
pub(crate) mod mode;
pub(crate) mod size;
pub(crate) mod span;
