//! Contexts: the stacks of other machines that this one joined. Each is a directory of its own in
//! `contexts/` of the profile: key, certificate, root, address. `contexts/current` names the one in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use creel_kit::{
    Profile,
    profile::{private_dir, write_private},
};
use creel_wire::{Code, Error};

use crate::{credentials::Files, failure::Failure, reach::Endpoint};

/// The stack of this machine: no context.
pub(crate) const LOCAL: &str = "local";

/// A joined stack.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) name: String,
    pub(crate) files: Files,
    dir: PathBuf,
}

impl Joined {
    /// The context of a name, there or not.
    pub(crate) fn named(profile: &Profile, name: &str) -> Result<Self, Failure> {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let good = name.len() <= 64
            && name.chars().all(word)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !good || name == LOCAL || name == "current" {
            let message = format!(
                "`{}` can't be the name of a context",
                creel_wire::error::printable(name, 64)
            );
            return Err(Failure::usage_hint(
                message,
                "letters, digits, `-`, `_`, `.`; not `local`, not `current`",
            ));
        }
        let dir = root(profile).join(name);
        Ok(Self {
            name: name.to_owned(),
            files: Files::of_context(&dir),
            dir,
        })
    }

    pub(crate) fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// Where its edge is.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Failure> {
        let path = self.dir.join("endpoint");
        let text = fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, &error))?;
        Endpoint::parse(text.trim())
    }

    pub(crate) fn keep_endpoint(&self, endpoint: &Endpoint) -> Result<(), Failure> {
        private_dir(&root_of(&self.dir))?;
        private_dir(&self.dir)?;
        let path = self.dir.join("endpoint");
        write_private(&path, format!("{endpoint}\n").as_bytes())
            .map_err(|error| Failure::file("write", &path, &error))
    }

    /// Takes back what a join that did not succeed has written.
    pub(crate) fn discard(&self) {
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            // The next join of this name says that it is there.
        }
    }
}

fn root(profile: &Profile) -> PathBuf {
    profile.root().join("contexts")
}

fn root_of(dir: &Path) -> PathBuf {
    dir.parent().unwrap_or(dir).to_owned()
}

/// The context in use; `None`: the stack of this machine.
pub(crate) fn current(profile: &Profile) -> Result<Option<Joined>, Failure> {
    let path = root(profile).join("current");
    let name = match fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(Failure::file("read", &path, &error)),
    };
    if name.is_empty() || name == LOCAL {
        return Ok(None);
    }
    let joined = Joined::named(profile, &name)?;
    if joined.exists() {
        Ok(Some(joined))
    } else {
        Err(unknown(&name))
    }
}

/// The context of a name, which must be there.
pub(crate) fn known(profile: &Profile, name: &str) -> Result<Joined, Failure> {
    let joined = Joined::named(profile, name)?;
    if joined.exists() {
        Ok(joined)
    } else {
        Err(unknown(name))
    }
}

/// Deletes a context with its key. Where it was the one in use, the stack of this machine is from now on.
pub(crate) fn forget(profile: &Profile, joined: &Joined) -> Result<(), Failure> {
    // First the mark: a mark that points nowhere would make every call fail.
    if current(profile)?.is_some_and(|current| current.name == joined.name) {
        switch(profile, LOCAL)?;
    }
    fs::remove_dir_all(&joined.dir).map_err(|error| Failure::file("remove", &joined.dir, &error))
}

/// Uses a context from now on.
pub(crate) fn switch(profile: &Profile, name: &str) -> Result<(), Failure> {
    if name != LOCAL {
        known(profile, name)?;
    }
    let dir = root(profile);
    private_dir(&dir)?;
    let path = dir.join("current");
    write_private(&path, format!("{name}\n").as_bytes())
        .map_err(|error| Failure::file("write", &path, &error))
}

/// All of them, in order of name.
pub(crate) fn all(profile: &Profile) -> Result<Vec<Joined>, Failure> {
    let dir = root(profile);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::file("read", &dir, &error)),
    };
    let mut list: Vec<Joined> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| Joined::named(profile, &entry.file_name().to_string_lossy()).ok())
        .collect();
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

fn unknown(name: &str) -> Failure {
    let message = format!("no context `{}`", creel_wire::error::printable(name, 64));
    Error::new(Code::NotFound, "context_unknown", message)
        .hint("creel contexts; creel use local is this machine's own stack")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_used_until_another_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        assert!(current(&profile).unwrap().is_none() && all(&profile).unwrap().is_empty());
        assert_eq!(switch(&profile, "box").unwrap_err().code(), Some(Code::NotFound));
        let joined = Joined::named(&profile, "box").unwrap();
        joined
            .keep_endpoint(&Endpoint::parse("box.example.net:7").unwrap())
            .unwrap();
        switch(&profile, "box").unwrap();
        let found = current(&profile).unwrap().unwrap();
        assert_eq!(
            (
                found.name.as_str(),
                found.endpoint().unwrap().to_string().as_str()
            ),
            ("box", "box.example.net:7")
        );
        assert_eq!(all(&profile).unwrap().len(), 1, "the mark is none");
        switch(&profile, LOCAL).unwrap();
        assert!(current(&profile).unwrap().is_none());
        switch(&profile, "box").unwrap();
        joined.discard();
        assert_eq!(current(&profile).unwrap_err().code(), Some(Code::NotFound));
    }

    #[test]
    fn what_is_forgotten_is_not_in_use_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        for name in ["box", "attic"] {
            let joined = Joined::named(&profile, name).unwrap();
            joined.keep_endpoint(&Endpoint::parse("box:7").unwrap()).unwrap();
        }
        switch(&profile, "box").unwrap();
        forget(&profile, &known(&profile, "attic").unwrap()).unwrap();
        assert_eq!(
            current(&profile).unwrap().unwrap().name,
            "box",
            "another one stays in use"
        );
        forget(&profile, &known(&profile, "box").unwrap()).unwrap();
        assert!(current(&profile).unwrap().is_none() && all(&profile).unwrap().is_empty());
        assert_eq!(known(&profile, "box").unwrap_err().code(), Some(Code::NotFound));
    }

    #[test]
    fn a_name_never_leaves_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        for bad in [
            "",
            "..",
            "../x",
            "a/b",
            ".hidden",
            "local",
            "current",
            &"a".repeat(65),
        ] {
            assert!(Joined::named(&profile, bad).is_err(), "{bad}");
        }
    }
}
