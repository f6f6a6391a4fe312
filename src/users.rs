//! The users file: who there is, what they may do, and the hashes that their passwords and tokens are told by.
//!
//! It is written by `maskcast user` and read with the configuration. It holds no password, but what it holds helps to guess
//! weak ones: it is refused when everybody on the machine can read it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use argon2::password_hash::PasswordHash;
use serde::{Deserialize, Serialize};

use crate::base::atomic_file::{AtomicFile, folder_of, inherit_owner};
use crate::base::secret::Secret;

/// What somebody may do; the greater one includes the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look: every stream, recording and number.
    Viewer,
    /// Change streams, overlays and the model as well, and delete recordings.
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

/// Somebody with a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub role: Role,
    /// Argon2 in PHC's string form.
    pub hash: Secret,
    /// MD5 of `name:realm:password` in hex, for RTSP's digest; only of users who asked for it.
    pub rtsp_digest: Option<Secret>,
}

/// A program with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub role: Role,
    /// SHA-256 of the token. It is random and long: no slow hash is needed to keep it from being guessed.
    pub sha256: [u8; 32],
}

/// All who have credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    pub users: Vec<User>,
    pub tokens: Vec<Token>,
}

/// The longest name of a user or token, in characters.
pub const LONGEST_NAME: usize = 64;

/// The file as it is written.
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
    "# Who may watch and who may change what. Written by `maskcast user`; roles are viewer and operator.\n\n";

/// Whether this can be a user's or token's name: HTTP's and RTSP's Basic know no colon in it, a log no line break.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    match name.chars().count() {
        0 => Err("a name must not be empty".into()),
        1..=LONGEST_NAME if name.chars().all(fits) => Ok(()),
        1..=LONGEST_NAME => Err("a name has letters, digits and - _ . @ only".into()),
        count => Err(format!("a name has {LONGEST_NAME} characters at most, not {count}")),
    }
}

impl Users {
    /// Whether nobody has credentials.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.tokens.is_empty()
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// Whether a user or a token has this name.
    pub fn knows(&self, name: &str) -> bool {
        self.user(name).is_some() || self.tokens.iter().any(|token| token.name == name)
    }

    /// Takes out the user or token of this name; false when there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.users.len() + self.tokens.len();
        self.users.retain(|user| user.name != name);
        self.tokens.retain(|token| token.name != name);
        self.users.len() + self.tokens.len() < before
    }

    /// Reads the text of a users file.
    ///
    /// # Errors
    /// What is wrong with it, and where; never what is written there as a password or hash.
    pub fn parse(text: &str) -> Result<Users, String> {
        let document: UsersDocument = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            // As in "invalid type: string "…", expected a sequence": what stands there may be a password.
            let message = match error.message().rsplit_once(", expected ") {
                Some((found, wanted))
                    if found.starts_with("invalid type: ") || found.starts_with("invalid value: ") =>
                {
                    format!("expected {wanted}")
                }
                _ => error.message().replace('\n', ", "),
            };
            format!("line {line}: {message}")
        })?;
        let mut read = Users::default();
        for entry in document.user {
            let place = |problem: String| format!("user {:?}: {problem}", entry.name);
            read.check_new(&entry.name).map_err(place)?;
            let role = role(&entry.role).map_err(place)?;
            let known = |hash: &PasswordHash<'_>| hash.algorithm.as_str().starts_with("argon2") && hash.hash.is_some();
            if !PasswordHash::new(&entry.password).is_ok_and(|hash| known(&hash)) {
                return Err(place("password is no Argon2 hash; passwords are set with `maskcast user add`".into()));
            }
            if entry.rtsp_digest.as_ref().is_some_and(|digest| hex::<16>(digest).is_none()) {
                return Err(place(
                    "rtsp_digest is no MD5 in hex; it is set with `maskcast user add --rtsp-digest`".into(),
                ));
            }
            let hash = Secret::new(entry.password);
            let rtsp_digest = entry.rtsp_digest.map(|digest| Secret::new(digest.to_ascii_lowercase()));
            read.users.push(User { name: entry.name, role, hash, rtsp_digest });
        }
        for entry in document.token {
            let place = |problem: String| format!("token {:?}: {problem}", entry.name);
            read.check_new(&entry.name).map_err(place)?;
            let role = role(&entry.role).map_err(place)?;
            let sha256 = hex(&entry.sha256).ok_or_else(|| {
                place("sha256 is no SHA-256 in hex; tokens are made with `maskcast user token`".into())
            })?;
            read.tokens.push(Token { name: entry.name, role, sha256 });
        }
        Ok(read)
    }

    fn check_new(&self, name: &str) -> Result<(), String> {
        check_name(name)?;
        if self.knows(name) { Err("the name is given twice".into()) } else { Ok(()) }
    }

    /// The text of the file.
    fn text(&self) -> Result<String, String> {
        let user = |user: &User| UserEntry {
            name: user.name.clone(),
            role: user.role.name().into(),
            password: user.hash.expose().into(),
            rtsp_digest: user.rtsp_digest.as_ref().map(|digest| digest.expose().into()),
        };
        let token = |token: &Token| TokenEntry {
            name: token.name.clone(),
            role: token.role.name().into(),
            sha256: to_hex(&token.sha256),
        };
        let document = UsersDocument {
            user: self.users.iter().map(user).collect(),
            token: self.tokens.iter().map(token).collect(),
        };
        toml::to_string(&document).map(|text| HEADING.to_owned() + &text).map_err(|error| error.to_string())
    }

    /// Reads a users file.
    ///
    /// # Errors
    /// What is wrong with it. A file that everybody on the machine can read or write is refused.
    pub fn load(path: &Path) -> Result<Users, String> {
        let read = || {
            let mut file = File::open(path)?;
            let mut text = String::new();
            std::io::Read::read_to_string(&mut file, &mut text)?;
            Ok((file.metadata()?.mode(), text))
        };
        let (mode, text) = read().map_err(|error: std::io::Error| format!("cannot be read: {error}"))?;
        if mode & 0o007 != 0 {
            return Err(format!(
                "is open to everybody on this machine (mode {:03o}); chmod o= {}",
                mode & 0o777,
                path.display()
            ));
        }
        Users::parse(&text)
    }

    /// Reads the file if there is one, lets `change` change it, and puts it in the place of the old one: readers see one or
    /// the other, and two writers wait for each other.
    ///
    /// The owner and the mode of an existing file stay. A new one is for its owner alone; made by root in a folder that a
    /// group shares (as /etc/maskcast is with the service), that group may read it.
    ///
    /// # Errors
    /// Those of [`Users::load`], of `change`, and of writing.
    pub fn edit<T>(path: &Path, change: impl FnOnce(&mut Users) -> Result<T, String>) -> Result<T, String> {
        let located = |error: std::io::Error| format!("{}: {error}", path.display());
        let folder = folder_of(path);
        let lock = File::open(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        lock.lock().map_err(located)?;
        let before = match path.metadata() {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(located(error)),
        };
        let mut users = match &before {
            Some(_) => Users::load(path).map_err(|problem| format!("{}: {problem}", path.display()))?,
            None => Users::default(),
        };
        let done = change(&mut users)?;
        let text = users.text()?;
        let write = || {
            let mut file = AtomicFile::create(path, 0o600)?;
            file.write_all(text.as_bytes())?;
            inherit_owner(file.file(), before.as_ref(), &folder.metadata()?)?;
            file.commit()
        };
        write().map_err(located)?;
        Ok(done)
    }
}

fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| format!("role {name:?} is neither \"viewer\" nor \"operator\""))
}

/// Bytes in hex, in lower case.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly `N` bytes.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // Numbers may have a sign, as in "+f".
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
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
    fn what_is_written_is_read_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let token = Token { name: "prometheus".into(), role: Role::Viewer, sha256: [0xa5; 32] };
        let digest = Some(Secret::new("0123456789abcdef0123456789abcdef"));
        let all = Users { users: vec![User { rtsp_digest: digest, ..anna() }], tokens: vec![token] };
        Users::edit(&path, |users| {
            *users = all.clone();
            Ok(())
        })
        .unwrap();
        assert_eq!(Users::load(&path).unwrap(), all);
        assert_eq!(mode(&path), 0o600);
        // The mode that somebody gave it stays.
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(Users::edit(&path, |users| Ok(users.remove("prometheus"))).unwrap());
        assert_eq!((mode(&path), Users::load(&path).unwrap().tokens.len()), (0o640, 0));
        // A change that fails changes nothing, and nothing is left over.
        assert_eq!(Users::edit(&path, |_| Err::<(), _>("no".into())), Err("no".into()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(Users::load(&path).unwrap_err().contains("is open to everybody on this machine (mode 644)"));
    }

    #[test]
    fn what_is_wrong_is_named_without_secrets() {
        for (text, problem) in [
            (
                "[[user]]\nname = \"a\"\nrole = \"admin\"\npassword = \"hunter2\"",
                "user \"a\": role \"admin\" is neither",
            ),
            (
                "[[user]]\nname = \"a\"\nrole = \"viewer\"\npassword = \"hunter2\"",
                "user \"a\": password is no Argon2 hash",
            ),
            ("[[user]]\nname = \"a:b\"\nrole = \"viewer\"\npassword = \"hunter2\"", "user \"a:b\": a name has letters"),
            ("[[user]]\nname = \"a\"\nrole = \"viewer\"", "line 1: missing field `password`"),
            ("[[token]]\nname = \"t\"\nrole = \"viewer\"\nsha256 = \"hunter2\"", "token \"t\": sha256 is no SHA-256"),
            ("[[user]\n", "line 1: "),
            ("user = \"hunter2\"", "line 1: expected a sequence"),
            (
                "[[token]]\nname = \"t\"\nrole = \"viewer\"\nsha256 = \"+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f+f\"",
                "token \"t\": sha256 is no SHA-256",
            ),
            ("[[user]]\nname = \"a\"\nrole = \"viewer\"\npass = \"hunter2\"", "line 4: unknown field `pass`"),
        ] {
            let error = Users::parse(text).unwrap_err();
            assert!(error.starts_with(problem), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let twice = Users { users: vec![anna(), anna()], tokens: Vec::new() }.text().unwrap();
        assert_eq!(Users::parse(&twice).unwrap_err(), "user \"anna\": the name is given twice");
        assert!(!format!("{:?}", anna()).contains("argon2"));
    }
}
