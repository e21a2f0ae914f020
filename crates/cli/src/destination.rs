//! Where copies end up: the rules of `cp`, for any mix of local and remote sides.

/// What is at the destination as the user named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum There {
    Nothing,
    Directory,
    /// A file, or anything else that is no directory.
    File,
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Directory,
    File,
}

/// The destination of a command.
#[derive(Clone, Debug)]
pub(crate) struct Destination<'a> {
    /// As the user named it.
    pub(crate) path: &'a str,
    pub(crate) there: There,
    /// Several things go there, so it must be a directory.
    pub(crate) several: bool,
}

/// Why something cannot go to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// Several things, or a file with a `/` at its end, need a directory that is there.
    NotDirectory,
    /// A directory cannot take the place of a file.
    OverFile,
}

impl Misfit {
    /// The reason in words.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Misfit::NotDirectory => "the destination is no directory; make it with mkdir first",
            Misfit::OverFile => "a directory cannot replace the file at the destination",
        }
    }
}

impl Destination<'_> {
    /// Where `what`, called `name`, goes: `None` is the destination itself, `Some(name)` that name in it. A source without
    /// a name (`.`, `/`) gives its contents to a directory that is there.
    pub(crate) fn place<'n>(&self, name: &'n str, what: What) -> Result<Option<&'n str>, Misfit> {
        let wants_directory = self.several || self.path.ends_with('/');
        match (self.there, what) {
            (There::Directory, _) => Ok(Some(name).filter(|name| !name.is_empty())),
            (There::File, What::Directory) if !self.several => Err(Misfit::OverFile),
            (There::Nothing, What::Directory) if !self.several => Ok(None),
            (There::File | There::Nothing, _) if wants_directory => Err(Misfit::NotDirectory),
            (There::File | There::Nothing, _) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
