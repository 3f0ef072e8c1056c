//! The ports of the edge. A loopback port that is taken gives way to the next free one; any other
//! address must be free, since others were told of it.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
};

use anyhow::{Context as _, bail};

/// So many ports are tried after the one that was asked for.
const TRIES: u16 = 20;

/// The bound listeners.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) edge: TcpListener,
    pub(crate) admin: TcpListener,
}

pub(crate) fn bind(config: &creel_kit::config::Gateway) -> anyhow::Result<Bound> {
    let edge = bind_one(config.listen, "gateway.listen", config.admin_listen)?;
    let admin = bind_one(config.admin_listen, "gateway.admin_listen", config.listen)?;
    Ok(Bound { edge, admin })
}

#[expect(
    clippy::print_stderr,
    reason = "the supervisor shows it: logs are not open yet"
)]
fn bind_one(wanted: SocketAddr, key: &str, other: SocketAddr) -> anyhow::Result<TcpListener> {
    let first = match listen(wanted) {
        Ok(listener) => return Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        Err(error) => {
            return Err(error).with_context(|| format!("can't listen on {wanted} ({key} in creel.toml)"));
        }
    };
    let holder = holder(wanted).map_or_else(
        || "another process".to_owned(),
        |(name, pid)| format!("{name} (pid {pid})"),
    );
    if !wanted.ip().is_loopback() {
        return Err(first).with_context(|| {
            format!("{wanted} is held by {holder}; stop it, or set {key} in creel.toml to another port")
        });
    }
    for port in (1..=TRIES).filter_map(|step| wanted.port().checked_add(step)) {
        let next = SocketAddr::new(wanted.ip(), port);
        // The other listener's own port is not free, only not taken yet.
        if next != other
            && let Ok(listener) = listen(next)
        {
            eprintln!("gateway: {wanted} is held by {holder}; listening on {next} instead");
            return Ok(listener);
        }
    }
    bail!(
        "{wanted} is held by {holder}, and the {TRIES} ports after it are taken too; set {key} in creel.toml"
    )
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Who listens on an address, from `/proc`: name and process id.
fn holder(address: SocketAddr) -> Option<(String, u32)> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| inode_of(&fs::read_to_string(table).ok()?, address))?;
    let link = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = descriptors
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link.as_str()));
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((name.trim().to_owned(), pid));
        }
    }
    None
}

/// The inode of the listening socket (state 0A) with this port, from a table of `/proc/net`.
fn inode_of(table: &str, address: SocketAddr) -> Option<String> {
    let port = format!(":{:04X}", address.port());
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == "0A";
        listens
            .then(|| fields.get(9).map(|inode| (*inode).to_owned()))
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_loopback_port_gives_way_and_its_holder_is_known() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(holder(address).unwrap().1, std::process::id());
        let reserved = SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap());
        let other = bind_one(address, "gateway.listen", reserved).unwrap();
        let got = other.local_addr().unwrap();
        assert!(got != address && got != reserved, "{got}");
    }

    #[test]
    fn a_taken_public_port_is_an_error_that_names_the_holder() {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let error = bind_one(
            taken.local_addr().unwrap(),
            "gateway.listen",
            taken.local_addr().unwrap(),
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("pid {}", std::process::id())) && text.contains("gateway.listen"),
            "{text}"
        );
    }
}
