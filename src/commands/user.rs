//! `maskcast user add|list|remove|token`: the users file.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use md5::{Digest, Md5};

use super::Failure;
use crate::access::{self, REALM, password};
use crate::base::secret::Secret;
use crate::users::{Role, Token, User, Users, check_name, to_hex};

/// What the installed service reads.
const CONFIG: &str = "/etc/maskcast/maskcast.toml";

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; prompts for the password.
    #[command(after_help = "Examples:\n  sudo maskcast user add anna --role operator\n  \
        pass show cameras/wall | maskcast user add wall --password-stdin --config cameras.toml")]
    Add(AddArgs),
    /// List users and roles.
    #[command(after_help = "Example: sudo maskcast user list")]
    List {
        #[command(flatten)]
        place: UsersPath,
    },
    /// Remove a user or token.
    #[command(after_help = "Example: sudo maskcast user remove anna")]
    Remove {
        /// The user or token.
        name: String,
        #[command(flatten)]
        place: UsersPath,
    },
    /// Add a token for a program; prints it to standard output, once.
    #[command(after_help = "Example: sudo maskcast user token prometheus\n\n\
        Programs send it with every request: Authorization: Bearer TOKEN")]
    Token {
        /// Letters, digits and - _ . @
        name: String,
        /// Role.
        #[arg(long, value_enum, default_value = "viewer")]
        role: RoleArg,
        #[command(flatten)]
        place: UsersPath,
    },
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// Letters, digits and - _ . @
    name: String,
    /// Role.
    #[arg(long, value_enum, default_value = "viewer")]
    role: RoleArg,
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
    /// Also store an RTSP digest, for digest authentication without TLS. Anyone who reads the users file can watch by RTSP
    /// with it, and guess the password faster.
    #[arg(long)]
    rtsp_digest: bool,
    /// Replace password and role of an existing user.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    place: UsersPath,
}

/// Which users file.
#[derive(Debug, Args)]
pub struct UsersPath {
    /// The users file.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    users: Option<PathBuf>,
    /// The configuration that names the users file [default: /etc/maskcast/maskcast.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// May watch.
    Viewer,
    /// May also change streams, overlays and the model.
    Operator,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Viewer => Role::Viewer,
            RoleArg::Operator => Role::Operator,
        }
    }
}

impl UsersPath {
    fn path(&self) -> Result<PathBuf, Failure> {
        match (&self.users, &self.config) {
            (Some(users), _) => Ok(users.clone()),
            (None, Some(config)) => crate::config::users_file(config).map_err(Failure::config),
            (None, None) if Path::new(CONFIG).exists() => {
                crate::config::users_file(Path::new(CONFIG)).map_err(Failure::config)
            }
            (None, None) => Err(Failure::usage(format!(
                "there is no {CONFIG}: name a configuration with --config, or a users file with --users"
            ))),
        }
    }
}

/// Shows or changes the users file.
///
/// # Errors
/// A name or password that will not do, a file that cannot be read or written.
pub fn user(command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => add(&args),
        UserCommand::List { place } => list(&place.path()?),
        UserCommand::Remove { name, place } => {
            let path = place.path()?;
            edit(&path, |users| if users.remove(&name) { Ok(()) } else { Err(nobody(&path, &name)) })?;
            told(&path, &format!("{name} is removed"));
            Ok(())
        }
        UserCommand::Token { name, role, place } => token(&name, role.into(), &place.path()?),
    }
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let (name, role, path) = (&args.name, Role::from(args.role), args.place.path()?);
    check_name(name).map_err(Failure::usage)?;
    let may_add = |users: &Users| match (users.user(name).is_some(), users.knows(name)) {
        (true, _) if args.replace => Ok(()),
        (true, _) => {
            Err(format!("{}: there is a user {name} already; --replace sets another password and role", path.display()))
        }
        (false, true) => Err(format!("{}: there is a token {name} already", path.display())),
        (false, false) => Ok(()),
    };
    // Before somebody has typed a password twice for nothing.
    if path.exists() {
        let users = Users::load(&path).map_err(|problem| Failure::runtime(format!("{}: {problem}", path.display())))?;
        may_add(&users).map_err(Failure::runtime)?;
    }
    let text = read_password(args.password_stdin)?;
    password::check_new(text.expose(), name).map_err(Failure::runtime)?;
    let hash = password::hash(text.expose()).map_err(Failure::runtime)?;
    let digest = || Secret::new(to_hex(&Md5::digest(format!("{name}:{REALM}:{}", text.expose()))));
    let user = User { name: name.clone(), role, hash, rtsp_digest: args.rtsp_digest.then(digest) };
    edit(&path, |users| {
        may_add(users)?;
        users.remove(name);
        users.users.push(user);
        Ok(())
    })?;
    told(&path, &format!("{name} may log in as {}", role.name()));
    Ok(())
}

/// From a terminal, twice and unseen, or from standard input. Never from an argument: everybody can read those.
fn read_password(stdin: bool) -> Result<Secret, Failure> {
    if stdin {
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|error| Failure::runtime(format!("standard input: {error}")))?;
        return Ok(Secret::new(line.trim_end_matches(['\r', '\n'])));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no terminal to ask for the password; give it on standard input with --password-stdin",
        ));
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt)
            .map(Secret::new)
            .map_err(|error| Failure::runtime(format!("the password cannot be asked for: {error}")))
    };
    let (first, second) = (ask("Password: ")?, ask("Once more: ")?);
    if first == second { Ok(first) } else { Err(Failure::runtime("these were two different passwords")) }
}

fn token(name: &str, role: Role, path: &Path) -> Result<(), Failure> {
    check_name(name).map_err(Failure::usage)?;
    // The prefix lets scanners for leaked secrets find it.
    let text = format!("maskcast_{}", access::random_text().map_err(Failure::runtime)?);
    let token = Token { name: name.into(), role, sha256: access::digest(text.as_bytes()) };
    edit(path, |users| {
        if users.knows(name) {
            return Err(format!("{}: there is a user or token {name} already; remove it first", path.display()));
        }
        users.tokens.push(token);
        Ok(())
    })?;
    println!("{text}");
    told(path, &format!("{name} may come in with this token as {}; it is not shown again", role.name()));
    Ok(())
}

fn list(path: &Path) -> Result<(), Failure> {
    let users = if path.exists() { Users::load(path) } else { Ok(Users::default()) };
    let users = users.map_err(|problem| Failure::runtime(format!("{}: {problem}", path.display())))?;
    if users.is_empty() {
        eprintln!("{}: there is nobody", path.display());
    }
    for user in &users.users {
        let digest = if user.rtsp_digest.is_some() { ", with RTSP digest" } else { "" };
        println!("{}\t{}\tpassword{digest}", user.name, user.role.name());
    }
    for token in &users.tokens {
        println!("{}\t{}\ttoken", token.name, token.role.name());
    }
    Ok(())
}

fn edit<T>(path: &Path, change: impl FnOnce(&mut Users) -> Result<T, String>) -> Result<T, Failure> {
    Users::edit(path, change).map_err(Failure::runtime)
}

fn nobody(path: &Path, name: &str) -> String {
    format!("{}: there is no user or token {name}", path.display())
}

/// Beside the token on standard output, which programs take.
fn told(path: &Path, what: &str) {
    eprintln!("{}: {what}; a running service takes it up with SIGHUP (systemctl reload maskcast)", path.display());
}
