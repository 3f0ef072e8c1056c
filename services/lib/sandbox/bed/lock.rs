//! A service that locks itself and then tries what it gave up, and what it must still be able to do.

use std::ffi::OsString;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use creel_sandbox::{
    Command, Confinement, Io, LockSpec, Ports, Profile, Spawner, descends_from, is_spawner, lock_service,
    peer_credentials,
};

use super::anyhow_lite::{Result, err};
use super::{me, runtime};

/// `lock OWN_DIR FOREIGN_FILE PROFILE.json TCP_PORT`: prints one JSON object of findings.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let [own, foreign, profile, port] = args else {
        return err("lock OWN_DIR FOREIGN_FILE PROFILE.json TCP_PORT");
    };
    let own = Path::new(own);
    let port: u16 = port.to_str().and_then(|p| p.parse().ok()).ok_or("a port")?;
    let profile: Profile = serde_json::from_str(&fs::read_to_string(profile)?)?;

    let baseline = Confinement::of_self()?;
    let spawner = Spawner::start(&me())?;
    let free_child = std::thread::spawn(|| ()).join().is_ok();
    let report = lock_service(&LockSpec {
        write: vec![own.to_owned()],
        tcp_bind: Ports::Only(vec![0]),
        tcp_connect: Ports::Only(vec![port]),
        has_spawner: true,
        ..LockSpec::default()
    })?;

    let listener = UnixListener::bind(own.join("own.sock"))?;
    #[expect(clippy::disallowed_methods, reason = "this tries what must be refused")]
    let exec = std::process::Command::new("/bin/true").status();
    let connect =
        |port: u16| TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(2));
    let mut found = serde_json::json!({
        "level": report.level,
        "gaps": report.gaps,
        "had_threads_before": free_child,
        "own_write": fs::write(own.join("file"), "x").is_ok(),
        "own_connect": UnixStream::connect(own.join("own.sock")).is_ok(),
        "foreign_read": fs::read(foreign).is_ok(),
        "foreign_write": fs::write(foreign, "x").is_ok(),
        "exec": exec.is_ok(),
        "bind": TcpListener::bind("127.0.0.1:0").is_ok(),
        "connect_allowed": connect(port).is_ok(),
        "connect_other": !connect(port ^ 1).is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied),
        "thread": std::thread::Builder::new().spawn(|| ()).is_ok(),
        "dumpable": !matches!(
            rustix::process::dumpable_behavior()?, rustix::process::DumpableBehavior::NotDumpable
        ),
        "seen_by_ptrace": fs::read_link("/proc/self/exe").is_ok() && fs::read("/proc/self/mem").is_ok(),
    });
    drop(listener);

    // What identity does: judge peers and runs after the lock.
    runtime()?.block_on(async {
        let listener = tokio::net::UnixListener::bind(own.join("peer.sock"))?;
        let mut command = Command::new(["/bin/sleep", "1000"], "/", profile);
        command.stdout = Io::Null;
        let run = spawner.run(command).await?;
        let confined = Confinement::of(run.pid())?;
        found["run_confined"] = confined.is_more_confined_than(&baseline).into();
        found["run_descends"] = descends_from(run.pid(), is_spawner).into();
        println!("{}", serde_json::json!({ "socket": own.join("peer.sock") }));
        let (stream, _) = listener.accept().await?;
        let peer = peer_credentials(&stream)?;
        found["peer_pid"] = peer.pid.into();
        found["peer_has_pidfd"] = peer.pidfd.is_some().into();
        found["peer_confined"] = Confinement::of_peer(&peer)?
            .is_more_confined_than(&baseline)
            .into();
        found["peer_descends"] = descends_from(peer.pid, is_spawner).into();
        run.kill(Duration::ZERO);
        found["run_ended"] = run.wait().await.is_ok().into();
        spawner.shutdown().await;
        // Needs the right to signal and to see its children although it is locked.
        found["left"] = creel_sandbox::kill_descendants(Duration::ZERO)?.into();
        println!("{found}");
        Ok(())
    })
}
