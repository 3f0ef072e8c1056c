//! Session keys: typed, derived by `gateway` or `scheduler`, never believed from text. Segments are
//! percent-encoded (`:`, `%`, `/`), so that different parts never make the same key.

use std::fmt;

/// A context of the agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionKey {
    /// The owner's conversation with an agent.
    Main {
        /// The agent's id.
        agent: String,
    },
    /// A direct conversation on a channel.
    Direct {
        /// The agent's id.
        agent: String,
        /// The channel, for example `webchat`.
        channel: String,
        /// The channel's account.
        account: String,
        /// The immutable id of the other side.
        sender: String,
    },
    /// All direct conversations of one linked person.
    Person {
        /// The agent's id.
        agent: String,
        /// The person.
        person: String,
    },
    /// A group, or a thread of it.
    Group {
        /// The agent's id.
        agent: String,
        /// The channel.
        channel: String,
        /// The channel's account.
        account: String,
        /// The group's immutable id.
        group: String,
        /// The thread's immutable id.
        thread: Option<String>,
    },
    /// One run of a job, fresh and isolated.
    Run {
        /// The job's id.
        job: String,
        /// The run's id.
        run: String,
    },
}

/// The longest key, in bytes (a store key holds 1 KiB with its tag).
pub const MAX_BYTES: usize = 768;

/// A text that is no session key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a session key")]
pub struct NotASessionKey(String);

impl SessionKey {
    /// The owner's main session.
    #[must_use]
    pub fn main(agent: &str) -> Self {
        Self::Main {
            agent: agent.to_owned(),
        }
    }

    /// Reads a key; the inverse of `Display`.
    ///
    /// # Errors
    /// [`NotASessionKey`] for anything that `Display` would not have written.
    pub fn parse(text: &str) -> Result<Self, NotASessionKey> {
        let wrong = || NotASessionKey(crate::error::printable(text, 128));
        if text.len() > MAX_BYTES {
            return Err(wrong());
        }
        let parts = text
            .split(':')
            .map(decode)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(wrong)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let own = str::to_owned;
        let key = match parts.as_slice() {
            ["agent", agent, "main"] => Self::main(agent),
            ["agent", agent, "person", person] => Self::Person {
                agent: own(agent),
                person: own(person),
            },
            ["agent", agent, channel, account, "dm", sender] => Self::Direct {
                agent: own(agent),
                channel: own(channel),
                account: own(account),
                sender: own(sender),
            },
            ["agent", agent, channel, account, "group", group, rest @ ..] => Self::Group {
                agent: own(agent),
                channel: own(channel),
                account: own(account),
                group: own(group),
                thread: match rest {
                    [] => None,
                    ["thread", thread] => Some(own(thread)),
                    _ => return Err(wrong()),
                },
            },
            ["cron", job, "run", run] => Self::Run {
                job: own(job),
                run: own(run),
            },
            _ => return Err(wrong()),
        };
        // One text per key: what does not encode back to itself was never written by us.
        if key.to_string() == text && !parts.contains(&"") {
            Ok(key)
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main { agent } => write!(f, "agent:{}:main", encode(agent)),
            Self::Person { agent, person } => write!(f, "agent:{}:person:{}", encode(agent), encode(person)),
            Self::Direct {
                agent,
                channel,
                account,
                sender,
            } => {
                write!(
                    f,
                    "agent:{}:{}:{}:dm:{}",
                    encode(agent),
                    encode(channel),
                    encode(account),
                    encode(sender)
                )
            }
            Self::Group {
                agent,
                channel,
                account,
                group,
                thread,
            } => {
                let (agent, channel, account) = (encode(agent), encode(channel), encode(account));
                write!(f, "agent:{agent}:{channel}:{account}:group:{}", encode(group))?;
                thread
                    .as_ref()
                    .map_or(Ok(()), |thread| write!(f, ":thread:{}", encode(thread)))
            }
            Self::Run { job, run } => write!(f, "cron:{}:run:{}", encode(job), encode(run)),
        }
    }
}

fn encode(segment: &str) -> String {
    segment
        .replace('%', "%25")
        .replace(':', "%3A")
        .replace('/', "%2F")
}

fn decode(segment: &str) -> Option<String> {
    let mut out = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        out.push(match rest.get(at..at + 3)? {
            "%25" => '%',
            "%3A" => ':',
            "%2F" => '/',
            _ => return None,
        });
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Every word of up to two characters over the characters that matter, and the words of the grammar.
    fn words() -> Vec<String> {
        let letters = ["a", ":", "%", "/"];
        let mut words: Vec<String> = letters.iter().map(|&l| l.to_owned()).collect();
        words.extend(
            letters
                .iter()
                .flat_map(|a| letters.iter().map(move |b| format!("{a}{b}"))),
        );
        words.extend(["main", "dm", "group", "thread", "person", "run", "25", "3A"].map(str::to_owned));
        words
    }

    fn keys() -> Vec<SessionKey> {
        let words = words();
        let mut keys = Vec::new();
        for a in &words {
            keys.push(SessionKey::main(a));
            for b in &words {
                keys.push(SessionKey::Person {
                    agent: a.clone(),
                    person: b.clone(),
                });
                keys.push(SessionKey::Run {
                    job: a.clone(),
                    run: b.clone(),
                });
                for c in &words {
                    let (agent, channel, account) = ("m".to_owned(), a.clone(), b.clone());
                    keys.push(SessionKey::Direct {
                        agent: agent.clone(),
                        channel: channel.clone(),
                        account: account.clone(),
                        sender: c.clone(),
                    });
                    for thread in [None, Some(c.clone())] {
                        let (agent, channel, account) = (agent.clone(), channel.clone(), account.clone());
                        keys.push(SessionKey::Group {
                            agent,
                            channel,
                            account,
                            group: c.clone(),
                            thread,
                        });
                    }
                }
            }
        }
        keys
    }

    #[test]
    fn different_parts_make_different_keys_and_reading_is_the_inverse() {
        let mut seen = BTreeMap::new();
        for key in keys() {
            let text = key.to_string();
            assert_eq!(SessionKey::parse(&text).as_ref(), Ok(&key), "{text}");
            if let Some(other) = seen.insert(text, key.clone()) {
                assert_eq!(other, key);
            }
        }
    }

    #[test]
    fn texts_that_nobody_wrote_are_refused() {
        for bad in [
            "",
            "main",
            "agent::main",
            "agent:a:main:x",
            "agent:a%3a:main",
            "agent:a%2:main",
            "agent:a%41:main",
        ] {
            assert!(SessionKey::parse(bad).is_err(), "{bad}");
        }
        assert!(SessionKey::parse(&format!("agent:{}:main", "a".repeat(MAX_BYTES))).is_err());
    }
}
