//! `maskcast user add|list|remove|token`: the users file.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use md5::{Digest, Md5};

use super::Failure;
use crate::access::{self, REALM, password};
use crate::base::secret::Secret;
use crate::users::{Role, Token, User, Users, UsersFileError, check_name};

/// The configuration of the installed service.
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
/// An invalid name or password, or a file that cannot be read or written.
pub fn user(command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => add(&args),
        UserCommand::List { place } => list(&place.path()?),
        UserCommand::Remove { name, place } => {
            let path = place.path()?;
            Users::edit(&path, |users| if users.remove(&name) { Ok(()) } else { Err(unknown_name(&path, &name)) })?;
            report(&path, &format!("removed {name}"));
            Ok(())
        }
        UserCommand::Token { name, role, place } => token(&name, role.into(), &place.path()?),
    }
}

fn add(args: &AddArgs) -> Result<(), Failure> {
    let (name, role, path) = (&args.name, Role::from(args.role), args.place.path()?);
    check_name(name).map_err(Failure::usage)?;
    let check_unused = |users: &Users| match (users.user(name).is_some(), users.has_name(name)) {
        (true, _) if args.replace => Ok(()),
        (true, _) => Err(Failure::runtime(format!(
            "{}: there is already a user {name}; --replace sets another password and role",
            path.display()
        ))),
        (false, true) => Err(Failure::runtime(format!("{}: there is already a token {name}", path.display()))),
        (false, false) => Ok(()),
    };
    // Checked before the prompt, so that no password is typed in vain.
    if path.exists() {
        check_unused(&load(&path)?)?;
    }
    let text = read_password(args.password_stdin)?;
    password::check_new(text.expose(), name).map_err(Failure::runtime)?;
    let hash = password::hash(text.expose()).map_err(Failure::runtime)?;
    let digest = || Secret::new(hex::encode(Md5::digest(format!("{name}:{REALM}:{}", text.expose()))));
    let user = User { name: name.clone(), role, hash, rtsp_digest: args.rtsp_digest.then(digest) };
    Users::edit(&path, |users| {
        check_unused(users)?;
        users.remove(name);
        users.users.push(user);
        Ok::<_, Failure>(())
    })?;
    report(&path, &format!("{name} may log in as {}", role.name()));
    Ok(())
}

/// Reads a password twice from a terminal without echo, or from standard input. Never from an argument, which other local
/// users can see.
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
            "no terminal to prompt for the password; pass it on standard input with --password-stdin",
        ));
    }
    let prompt = |prompt: &str| {
        rpassword::prompt_password(prompt)
            .map(Secret::new)
            .map_err(|error| Failure::runtime(format!("the password cannot be read from the terminal: {error}")))
    };
    let (first, second) = (prompt("Password: ")?, prompt("Repeat password: ")?);
    if first == second { Ok(first) } else { Err(Failure::runtime("the two passwords differ")) }
}

fn token(name: &str, role: Role, path: &Path) -> Result<(), Failure> {
    check_name(name).map_err(Failure::usage)?;
    // The prefix is for scanners that search for leaked secrets.
    let text = format!("maskcast_{}", access::random_text().map_err(Failure::runtime)?);
    let token = Token { name: name.into(), role, sha256: access::digest(text.as_bytes()) };
    Users::edit(path, |users| {
        if users.has_name(name) {
            return Err(Failure::runtime(format!(
                "{}: there is already a user or token {name}; remove it first",
                path.display()
            )));
        }
        users.tokens.push(token);
        Ok(())
    })?;
    println!("{text}");
    report(path, &format!("token for {name} with the role {}; it is not shown again", role.name()));
    Ok(())
}

fn list(path: &Path) -> Result<(), Failure> {
    let users = if path.exists() { load(path)? } else { Users::default() };
    if users.is_empty() {
        eprintln!("{}: no users or tokens", path.display());
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

fn load(path: &Path) -> Result<Users, Failure> {
    Users::load(path).map_err(|source| UsersFileError { path: path.to_path_buf(), source }.into())
}

impl From<UsersFileError> for Failure {
    fn from(error: UsersFileError) -> Self {
        Failure::runtime(error)
    }
}

fn unknown_name(path: &Path, name: &str) -> Failure {
    Failure::runtime(format!("{}: there is no user or token {name}", path.display()))
}

/// Prints to standard error: a token on standard output may be read by a program.
fn report(path: &Path, what: &str) {
    eprintln!("{}: {what}; reload a running service with SIGHUP (systemctl reload maskcast)", path.display());
}
