//! The users file: users and tokens with their roles and the hashes of their passwords.
//!
//! `maskcast user` writes it, and it is read with the configuration. It contains no passwords, but its hashes help to guess
//! weak ones, so it is refused if every local user can read it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use argon2::password_hash::PasswordHash;
use serde::{Deserialize, Serialize};

use crate::base::atomic_file::{AtomicFile, folder_of, inherit_owner};
use crate::base::secret::Secret;

/// The role of a user or token; the greater role includes the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May read: all streams, recordings and metrics.
    Viewer,
    /// May also change streams, overlays and the model, and delete recordings.
    Operator,
}

impl Role {
    pub const ALL: [Role; 2] = [Role::Viewer, Role::Operator];

    /// The name in the users file, the API and the log.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A person with a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub role: Role,
    /// Argon2 hash in the PHC string format.
    pub hash: Secret,
    /// MD5 of `name:realm:password` in hex, for RTSP digest authentication; only for users added with `--rtsp-digest`.
    pub rtsp_digest: Option<Secret>,
}

/// A program with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub role: Role,
    /// SHA-256 of the token. A token is long and random, so no slow hash is needed.
    pub sha256: [u8; 32],
}

/// All users and tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    pub users: Vec<User>,
    pub tokens: Vec<Token>,
}

/// Maximum length of a name in characters.
pub const MAX_NAME: usize = 64;

/// The content of the file.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct UsersDocument {
    #[serde(default)]
    user: Vec<UserEntry>,
    #[serde(default)]
    token: Vec<TokenEntry>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct UserEntry {
    name: String,
    role: String,
    password: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtsp_digest: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    name: String,
    role: String,
    sha256: String,
}

const HEADING: &str =
    "# Users and tokens of Maskcast. Written by `maskcast user`; the roles are viewer and operator.\n\n";

/// Why a name cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name must not be empty")]
    Empty,
    #[error("a name may only have letters, digits and - _ . @")]
    InvalidCharacter,
    #[error("a name may have at most {MAX_NAME} characters, not {characters}")]
    TooLong { characters: usize },
}

/// Why a users file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// Other local users can read or write it.
    #[error("is open to every local user (mode {mode:03o}); chmod o= {}", path.display())]
    Permissions { mode: u32, path: PathBuf },
    #[error("line {line}: {message}")]
    Syntax { line: usize, message: String },
    #[error("user {name:?}: {problem}")]
    User { name: String, problem: EntryError },
    #[error("token {name:?}: {problem}")]
    Token { name: String, problem: EntryError },
    #[error("cannot be written: {0}")]
    Write(io::Error),
    #[error("cannot be written: {0}")]
    Serialize(#[from] toml::ser::Error),
}

/// The error of a user or token. The messages never contain the password or hash of the entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("the name is used twice")]
    Repeated,
    #[error("role {0:?} is neither \"viewer\" nor \"operator\"")]
    Role(String),
    #[error("password is not an Argon2 hash; set passwords with `maskcast user add`")]
    Password,
    #[error("rtsp_digest is not an MD5 hash in hex; set it with `maskcast user add --rtsp-digest`")]
    RtspDigest,
    #[error("sha256 is not a SHA-256 hash in hex; create tokens with `maskcast user token`")]
    Sha256,
}

/// An error of the users file at `path`.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct UsersFileError {
    pub path: PathBuf,
    pub source: UsersError,
}

/// Checks the name of a user or token. It must not contain a colon, which ends the user in Basic authentication, or a line
/// break, which would forge log lines.
///
/// # Errors
/// The name is empty, too long, or has other characters.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let is_allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    match name.chars().count() {
        0 => Err(NameError::Empty),
        1..=MAX_NAME if name.chars().all(is_allowed) => Ok(()),
        1..=MAX_NAME => Err(NameError::InvalidCharacter),
        characters => Err(NameError::TooLong { characters }),
    }
}

impl Users {
    /// Whether there are neither users nor tokens.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.tokens.is_empty()
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// Whether a user or token has this name.
    pub fn has_name(&self, name: &str) -> bool {
        self.user(name).is_some() || self.tokens.iter().any(|token| token.name == name)
    }

    /// Removes the user or token of this name; returns false if there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.users.len() + self.tokens.len();
        self.users.retain(|user| user.name != name);
        self.tokens.retain(|token| token.name != name);
        self.users.len() + self.tokens.len() < before
    }

    /// Parses the text of a users file.
    ///
    /// # Errors
    /// A syntax error or an invalid entry. The message never contains a password or hash.
    pub fn parse(text: &str) -> Result<Users, UsersError> {
        let document: UsersDocument = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            // As in "invalid type: string "…", expected a sequence": the value may be a password.
            let message = match error.message().rsplit_once(", expected ") {
                Some((found, expected))
                    if found.starts_with("invalid type: ") || found.starts_with("invalid value: ") =>
                {
                    format!("expected {expected}")
                }
                _ => error.message().replace('\n', ", "),
            };
            UsersError::Syntax { line, message }
        })?;
        let mut users = Users::default();
        for entry in document.user {
            let located = |problem: EntryError| UsersError::User { name: entry.name.clone(), problem };
            let role = users.check_entry(&entry.name, &entry.role).map_err(located)?;
            let is_argon2 =
                |hash: &PasswordHash<'_>| hash.algorithm.as_str().starts_with("argon2") && hash.hash.is_some();
            if !PasswordHash::new(&entry.password).is_ok_and(|hash| is_argon2(&hash)) {
                return Err(located(EntryError::Password));
            }
            let is_md5 = |digest: &String| hex::decode_to_slice(digest, &mut [0; 16]).is_ok();
            if !entry.rtsp_digest.as_ref().is_none_or(is_md5) {
                return Err(located(EntryError::RtspDigest));
            }
            let hash = Secret::new(entry.password);
            let rtsp_digest = entry.rtsp_digest.map(|digest| Secret::new(digest.to_ascii_lowercase()));
            users.users.push(User { name: entry.name, role, hash, rtsp_digest });
        }
        for entry in document.token {
            let located = |problem: EntryError| UsersError::Token { name: entry.name.clone(), problem };
            let role = users.check_entry(&entry.name, &entry.role).map_err(located)?;
            let mut sha256 = [0; 32];
            hex::decode_to_slice(&entry.sha256, &mut sha256).map_err(|_| located(EntryError::Sha256))?;
            users.tokens.push(Token { name: entry.name, role, sha256 });
        }
        Ok(users)
    }

    /// Checks that a new entry's name is valid and unused, and returns its role.
    fn check_entry(&self, name: &str, role: &str) -> Result<Role, EntryError> {
        check_name(name)?;
        if self.has_name(name) {
            return Err(EntryError::Repeated);
        }
        Role::from_name(role).ok_or_else(|| EntryError::Role(role.to_owned()))
    }

    /// The text of the file.
    fn text(&self) -> Result<String, toml::ser::Error> {
        let user = |user: &User| UserEntry {
            name: user.name.clone(),
            role: user.role.name().into(),
            password: user.hash.expose().into(),
            rtsp_digest: user.rtsp_digest.as_ref().map(|digest| digest.expose().into()),
        };
        let token = |token: &Token| TokenEntry {
            name: token.name.clone(),
            role: token.role.name().into(),
            sha256: hex::encode(token.sha256),
        };
        let document = UsersDocument {
            user: self.users.iter().map(user).collect(),
            token: self.tokens.iter().map(token).collect(),
        };
        toml::to_string(&document).map(|text| HEADING.to_owned() + &text)
    }

    /// Reads a users file.
    ///
    /// # Errors
    /// The file cannot be read, is invalid, or is accessible to other local users.
    pub fn load(path: &Path) -> Result<Users, UsersError> {
        let read = || {
            let mut file = File::open(path)?;
            let mut text = String::new();
            io::Read::read_to_string(&mut file, &mut text)?;
            Ok((file.metadata()?.mode(), text))
        };
        let (mode, text) = read().map_err(UsersError::Read)?;
        if mode & 0o007 != 0 {
            return Err(UsersError::Permissions { mode: mode & 0o777, path: path.to_path_buf() });
        }
        Users::parse(&text)
    }

    /// Reads the file if it exists, applies `change`, and replaces the file atomically. Concurrent writers wait for each
    /// other.
    ///
    /// An existing file keeps its owner and mode. A new file is accessible only to its owner; if root creates it in a folder
    /// of a group (as /etc/maskcast is the service's), that group may read it.
    ///
    /// # Errors
    /// Those of [`Users::load`], of `change`, and of writing.
    pub fn edit<T, E: From<UsersFileError>>(
        path: &Path,
        change: impl FnOnce(&mut Users) -> Result<T, E>,
    ) -> Result<T, E> {
        let located = |source: UsersError| UsersFileError { path: path.to_path_buf(), source };
        let folder = folder_of(path);
        let lock = File::open(folder)
            .map_err(|error| UsersFileError { path: folder.to_path_buf(), source: UsersError::Read(error) })?;
        lock.lock().map_err(|error| located(UsersError::Write(error)))?;
        let before = match path.metadata() {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(located(UsersError::Read(error)).into()),
        };
        let mut users = match &before {
            Some(_) => Users::load(path).map_err(located)?,
            None => Users::default(),
        };
        let done = change(&mut users)?;
        let text = users.text().map_err(|error| located(error.into()))?;
        let write = || {
            let mut file = AtomicFile::create(path, 0o600)?;
            file.write_all(text.as_bytes())?;
            inherit_owner(file.file(), before.as_ref(), &folder.metadata()?)?;
            file.commit()
        };
        write().map_err(|error: io::Error| located(UsersError::Write(error)))?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::access::password;

    fn anna() -> User {
        User {
            name: "anna".into(),
            role: Role::Operator,
            hash: password::hash("correct horse").unwrap(),
            rtsp_digest: None,
        }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn a_written_file_is_read_back_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let token = Token { name: "prometheus".into(), role: Role::Viewer, sha256: [0xa5; 32] };
        let digest = Some(Secret::new("0123456789abcdef0123456789abcdef"));
        let all = Users { users: vec![User { rtsp_digest: digest, ..anna() }], tokens: vec![token] };
        Users::edit(&path, |users| {
            *users = all.clone();
            Ok::<_, UsersFileError>(())
        })
        .unwrap();
        assert_eq!(Users::load(&path).unwrap(), all);
        assert_eq!(mode(&path), 0o600);
        // An existing file keeps its mode.
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let removed = Users::edit(&path, |users| Ok::<_, UsersFileError>(users.remove("prometheus")));
        assert!(removed.unwrap());
        assert_eq!((mode(&path), Users::load(&path).unwrap().tokens.len()), (0o640, 0));
        // A change that fails leaves the file as it is, and no temporary file.
        let failed = Users::edit(&path, |_| {
            Err::<(), _>(UsersFileError {
                path: path.clone(),
                source: UsersError::User { name: "anna".into(), problem: EntryError::Repeated },
            })
        });
        assert!(matches!(failed.unwrap_err().source, UsersError::User { .. }));
        assert_eq!(Users::load(&path).unwrap().users.len(), 1);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = Users::load(&path).unwrap_err();
        assert!(matches!(error, UsersError::Permissions { mode: 0o644, .. }), "{error:?}");
        let missing = Users::load(&folder.path().join("none")).unwrap_err();
        assert!(
            matches!(missing, UsersError::Read(ref error) if error.kind() == io::ErrorKind::NotFound),
            "{missing:?}"
        );
    }

    #[test]
    fn errors_name_the_entry_but_no_secrets() {
        let hash = password::hash("correct horse").unwrap();
        let entry = |name: &str, role: &str, password: &str| {
            Users::parse(&format!("[[user]]\nname = {name:?}\nrole = {role:?}\n{password}")).unwrap_err()
        };
        let user = |name: &str, role: &str, password: &str| match entry(name, role, password) {
            UsersError::User { name: named, problem } if named == name => problem,
            error => panic!("{error:?}"),
        };
        let secret = "password = \"hunter2\"";
        let digest = format!("password = {:?}\nrtsp_digest = \"hunter2\"", hash.expose());
        assert_eq!(user("a", "admin", secret), EntryError::Role("admin".into()));
        assert_eq!(user("a", "viewer", secret), EntryError::Password);
        assert_eq!(user("a", "viewer", &digest), EntryError::RtspDigest);
        assert_eq!(user("a:b", "viewer", secret), EntryError::Name(NameError::InvalidCharacter));
        assert_eq!(user("", "viewer", secret), EntryError::Name(NameError::Empty));
        assert_eq!(user(&"a".repeat(65), "viewer", secret), EntryError::Name(NameError::TooLong { characters: 65 }));
        for sha256 in ["hunter2", &"+f".repeat(32)] {
            let error =
                Users::parse(&format!("[[token]]\nname = \"t\"\nrole = \"viewer\"\nsha256 = {sha256:?}")).unwrap_err();
            assert!(matches!(error, UsersError::Token { problem: EntryError::Sha256, .. }), "{error:?}");
            assert!(!error.to_string().contains(sha256), "{error}");
        }
        for (text, at) in [
            ("[[user]]\nname = \"a\"\nrole = \"viewer\"", "line 1: missing field `password`"),
            ("[[user]\n", "line 1: "),
            ("user = \"hunter2\"", "line 1: expected a sequence"),
            ("[[user]]\nname = \"a\"\nrole = \"viewer\"\npass = \"hunter2\"", "line 4: unknown field `pass`"),
        ] {
            let error = Users::parse(text).unwrap_err();
            assert!(
                matches!(error, UsersError::Syntax { .. }) && error.to_string().starts_with(at),
                "{text}: {error:?}"
            );
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for error in [entry("a", "admin", secret), entry("a", "viewer", secret), entry("a", "viewer", &digest)] {
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let twice = Users { users: vec![anna(), anna()], tokens: Vec::new() }.text().unwrap();
        let error = Users::parse(&twice).unwrap_err();
        assert!(matches!(error, UsersError::User { problem: EntryError::Repeated, .. }), "{error:?}");
        assert!(!format!("{:?}", anna()).contains("argon2"));
    }
}
