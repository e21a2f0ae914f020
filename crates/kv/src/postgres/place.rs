//! Where a store is: `postgres://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?schema=NAME&sslmode=verify-full&sslrootcert=FILE&passfile=FILE`.

use percent_encoding::percent_decode_str;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// In which schema a store is when its place does not say.
const SCHEMA: &str = "steradian";
/// Of a PostgreSQL server.
const PORT: u16 = 5432;
/// The longest name that PostgreSQL does not cut short.
const NAME_MAX: usize = 63;

/// A store in a PostgreSQL database.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresPlace {
    /// Of them one takes writes at a time.
    pub hosts: Vec<PostgresHost>,
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    /// Which holds the store, and nothing else: several stores can be in one database.
    pub schema: String,
    /// Who signs the servers' certificates: PEM. `None`: in clear text.
    pub authorities: Option<Vec<u8>>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostgresHost {
    Tcp {
        host: String,
        port: u16,
    },
    /// The folder of its socket; the port is part of the socket's name.
    Unix {
        folder: PathBuf,
        port: u16,
    },
}

impl fmt::Display for PostgresHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PostgresHost::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            PostgresHost::Tcp { host, port } => write!(f, "{host}:{port}"),
            PostgresHost::Unix { folder, port } => write!(f, "{}:{port}", folder.display()),
        }
    }
}

impl fmt::Debug for PostgresPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the password.
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        let PostgresPlace { user, database, schema, .. } = self;
        write!(f, "postgres://{user}@{}/{database}?schema={schema}", hosts.join(","))
    }
}

/// What the options of a place say.
#[derive(Default)]
struct Options<'a> {
    schema: Option<String>,
    /// `sslmode=verify-full` or `disable`.
    encrypted: Option<bool>,
    authorities: Option<&'a str>,
    password: Option<&'a str>,
    insecure: bool,
}

impl PostgresPlace {
    /// Whether a place begins as those in PostgreSQL do.
    pub fn is_one(place: &str) -> bool {
        after_scheme(place).is_some()
    }

    /// Reads a place, and the files that it names.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead; never the place itself, for it may hold a password. In clear text only servers
    /// on this host are spoken to, unless it says `insecure=true`.
    pub fn parse(place: &str) -> Result<PostgresPlace, String> {
        let form = "write postgres://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?schema=NAME";
        let rest = after_scheme(place).ok_or_else(|| format!("no place in PostgreSQL; {form}"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (who, rest) = rest.rsplit_once('@').ok_or_else(|| format!("the place names no user; {form}"))?;
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (user, Some(decoded(password)?)),
            None => (who, None),
        };
        let (user, database) = (decoded(user)?, decoded(database)?);
        if user.is_empty() || database.is_empty() {
            return Err(format!("the place names no user or no database; {form}"));
        }
        let hosts = hosts.split(',').map(host).collect::<Result<Vec<_>, _>>()?;
        let options = options(query)?;
        let schema = options.schema.unwrap_or_else(|| SCHEMA.to_owned());
        if !is_name(&schema) {
            return Err(format!(
                "{schema:?} is no name for a schema: lower-case letters, digits and _, {NAME_MAX} at most"
            ));
        }
        let password = match options.password {
            Some(file) => Some(read_password(file)?),
            None => password,
        };
        let authorities = match (options.encrypted, options.authorities) {
            (None | Some(true), Some(file)) => {
                Some(std::fs::read(file).map_err(|error| format!("cannot read {file}: {error}"))?)
            }
            (Some(true), None) => {
                return Err(
                    "sslmode=verify-full needs sslrootcert=FILE: who signs the servers' certificates"
                        .to_owned(),
                );
            }
            (Some(false), Some(_)) => return Err("sslrootcert is of no use with sslmode=disable".to_owned()),
            (None | Some(false), None) => {
                if let Some(other) = hosts.iter().find(|host| !is_here(host))
                    && !options.insecure
                {
                    return Err(format!(
                        "{other} would be spoken to in clear text; give sslrootcert=FILE, or insecure=true if nobody else is on that network"
                    ));
                }
                None
            }
        };
        Ok(PostgresPlace { hosts, user, password, database, schema, authorities })
    }
}

fn after_scheme(place: &str) -> Option<&str> {
    place.strip_prefix("postgres://").or_else(|| place.strip_prefix("postgresql://"))
}

fn options(query: &str) -> Result<Options<'_>, String> {
    let mut options = Options::default();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("schema", name)) => options.schema = Some(decoded(name)?),
            Some(("sslmode", "verify-full")) => options.encrypted = Some(true),
            Some(("sslmode", "disable")) => options.encrypted = Some(false),
            Some(("sslmode", mode)) => {
                return Err(format!(
                    "sslmode is verify-full or disable, not {mode}: what is between them does not say who answers"
                ));
            }
            Some(("sslrootcert", file)) => options.authorities = Some(file),
            Some(("passfile", file)) => options.password = Some(file),
            Some(("insecure", "true")) => options.insecure = true,
            _ => {
                let name = option.split('=').next().unwrap_or_default();
                return Err(format!(
                    "the place has an option that is not known: {name}; those are schema, sslmode, sslrootcert, passfile, insecure=true"
                ));
            }
        }
    }
    Ok(options)
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(String::from).map_err(|_| "the place has bytes that are no text".to_owned())
}

fn host(text: &str) -> Result<PostgresHost, String> {
    let is_port = |(host, _): &(&str, &str)| !host.contains(':') || host.ends_with(']');
    let (host, port) = match text.rsplit_once(':').filter(is_port) {
        // What is wrong may be a piece of the password.
        Some((host, port)) => (host, port.parse().map_err(|_| "the place has a port that is no number")?),
        None => (text, PORT),
    };
    let host = decoded(host.trim_matches(['[', ']']))?;
    match host {
        host if host.is_empty() => Err("the place names no host, or an empty one".to_owned()),
        folder if folder.starts_with('/') => Ok(PostgresHost::Unix { folder: folder.into(), port }),
        host => Ok(PostgresHost::Tcp { host, port }),
    }
}

fn read_password(file: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn is_name(schema: &str) -> bool {
    let begins = |first: char| first.is_ascii_lowercase() || first == '_';
    schema.starts_with(begins)
        && schema.len() <= NAME_MAX
        && schema.chars().all(|letter| begins(letter) || letter.is_ascii_digit())
        && !schema.starts_with("pg_")
}

fn is_here(host: &PostgresHost) -> bool {
    match host {
        PostgresHost::Unix { .. } => true,
        PostgresHost::Tcp { host, .. } => {
            host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(place: &str) -> String {
        let error = PostgresPlace::parse(place).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
        error
    }

    fn shown(place: &str) -> String {
        format!("{:?}", PostgresPlace::parse(place).unwrap())
    }

    #[test]
    fn a_place_names_servers_a_database_and_how_they_are_spoken_to() {
        let place =
            PostgresPlace::parse("postgres://u:se%3Acr%40et@127.0.0.1:1,localhost,[::1]:7/d?schema=a_1")
                .unwrap();
        assert_eq!(place.password.as_deref(), Some("se:cr@et"));
        assert_eq!(format!("{place:?}"), "postgres://u@127.0.0.1:1,localhost:5432,[::1]:7/d?schema=a_1");
        assert_eq!(place.authorities, None);
        assert_eq!(shown("postgresql://u@[::1]/d"), "postgres://u@[::1]:5432/d?schema=steradian");
        assert_eq!(shown("postgres://u@%2Frun%2Fpg:6/d"), "postgres://u@/run/pg:6/d?schema=steradian");
        assert_eq!(
            shown("postgres://u@192.0.2.1/d?insecure=true"),
            "postgres://u@192.0.2.1:5432/d?schema=steradian"
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "x\n").unwrap();
        let file = file.display();
        for options in ["", "sslmode=verify-full&"] {
            let place = format!("postgres://u:p@192.0.2.1/d?{options}sslrootcert={file}&passfile={file}");
            let place = PostgresPlace::parse(&place).unwrap();
            assert_eq!(place.authorities.as_deref(), Some(&b"x\n"[..]));
            assert_eq!(place.password.as_deref(), Some("x"));
        }
    }

    #[test]
    fn what_is_wrong_with_a_place_is_said_and_the_password_is_not() {
        assert!(
            fails("postgres://u:secret@192.0.2.1/d")
                .contains("192.0.2.1:5432 would be spoken to in clear text")
        );
        assert!(fails("postgres://u:secret@localhost,db.test/d?sslmode=disable").contains("clear text"));
        assert!(fails("postgres://u:secret@127.0.0.1.test/d").contains("clear text"));
        assert!(fails("postgres://u:secret@/d").contains("no host"));
        assert!(fails("postgres://u:secret@a,,b/d").contains("no host"));
        assert!(fails("postgres://u:secret@localhost").contains("no database"));
        assert!(fails("postgres://localhost/d").contains("no user"));
        assert!(fails("postgres://u:pass/secret@localhost:x/d").contains("no number"));
        assert!(fails("postgres://u@localhost/d?sslmode=require").contains("verify-full"));
        assert!(fails("postgres://u@localhost/d?sslmode=verify-full").contains("sslrootcert"));
        assert!(fails("postgres://u@localhost/d?sslmode=disable&sslrootcert=/none").contains("no use"));
        assert!(fails("postgres://u@localhost/d?sslrootcert=/none").contains("cannot read /none"));
        assert!(fails("postgres://u@localhost/d?passfile=/none").contains("cannot read /none"));
        assert!(fails("postgres://u@localhost/d?password=secret").contains("not known: password"));
        assert!(fails("etcd://localhost/d").contains("no place in PostgreSQL"));
        for schema in ["", "A", "1a", "pg_a", "a-b", "a\"b", &"a".repeat(64)] {
            assert!(
                fails(&format!("postgres://u@localhost/d?schema={schema}")).contains("no name"),
                "{schema}"
            );
        }
    }
}
