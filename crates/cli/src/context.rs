//! Which cluster is meant.

use crate::outcome::Stop;
use client::{Client, Context, Error, ErrorKind, Options};
use std::path::PathBuf;

/// The user's own context file: `$XDG_CONFIG_HOME/steradian/context.toml`, or `~/.config/steradian/context.toml`.
pub(crate) fn default_path() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(config.join("steradian").join("context.toml"))
}

/// The context that is meant: `named` (by `--context` or `SR_CONTEXT`), else the user's own file.
pub(crate) fn load(named: Option<PathBuf>) -> Result<Context, Stop> {
    if let Some(file) = named {
        return Ok(Context::load(&file)?);
    }
    let refuse = |file: String, cause: &str| {
        let advice = "start a cluster with `sr up`, or name a context file with --context FILE or SR_CONTEXT";
        Stop::Failed(Error::new(ErrorKind::Context, "use the context file", file, cause).advise(advice))
    };
    let Some(file) = default_path() else {
        return Err(refuse(String::new(), "no home directory is known (HOME is not set)"));
    };
    if !file.exists() {
        return Err(refuse(file.display().to_string(), "there is no such file"));
    }
    Ok(Context::load(&file)?)
}

/// How the clients of this process behave.
pub(crate) fn options() -> Result<Options, String> {
    Ok(Options { newest: crate::wire::newest()?, ..Options::default() })
}

/// Connects to the cluster that is meant.
pub(crate) async fn connect(named: Option<PathBuf>) -> Result<Client, Stop> {
    let context = load(named)?;
    Ok(Client::connect(&context, options().map_err(Stop::message)?).await?)
}
