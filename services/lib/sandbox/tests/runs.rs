//! What a run is from a service's point of view: streams, environment, ends, limits, refusals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use common::{DEADLINE, Place, Watched};
use creel_sandbox::{Captured, Cause, Command, Finished, Io, Level, Net, RunError, Spawner, Status};

struct Service {
    place: Place,
    spawner: Spawner,
}

impl Service {
    fn new() -> Self {
        let place = Place::new();
        let spawner = Spawner::start(&place.bed()).unwrap();
        Self { place, spawner }
    }

    fn sh(&self, script: &str) -> Command {
        let mut command = Command::new(
            ["/bin/sh", "-c", script],
            self.place.path("workspace"),
            self.place.profile(),
        );
        command.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
        command.stdout = Io::Capture { max_bytes: 64 * 1024 };
        command.stderr = Io::Capture { max_bytes: 64 * 1024 };
        command
    }

    async fn run(&self, command: Command) -> Finished {
        let run = self.spawner.run(command).await.unwrap();
        tokio::time::timeout(DEADLINE, run.wait())
            .await
            .expect("the run ends")
            .unwrap()
    }

    /// Runs a script that must succeed; its standard output.
    async fn out(&self, command: Command) -> String {
        let finished = self.run(command).await;
        let text = |c: &Captured| String::from_utf8_lossy(&c.bytes).into_owned();
        assert_eq!(
            finished.exit.status,
            Status::Code(0),
            "{}",
            text(&finished.stderr)
        );
        text(&finished.stdout)
    }
}

#[tokio::test]
async fn the_end_is_reported_with_what_stood() {
    let s = Service::new();
    let f = s.run(s.sh("exit 7")).await;
    assert_eq!(
        (f.exit.status, f.exit.cause, f.exit.left),
        (Status::Code(7), Cause::Ended, 0)
    );
    assert_eq!(f.enforced.level(), Level::Full, "{:?}", f.enforced);
    let f = s.run(s.sh("kill -SEGV $$")).await;
    assert_eq!(
        (f.exit.status, f.exit.shell_code()),
        (Status::Signal(libc::SIGSEGV), 139)
    );
    assert!(f.exit.max_rss_bytes > 0);
}

#[tokio::test]
async fn the_program_gets_exactly_what_the_command_says() {
    let s = Service::new();
    let mut c = s.sh("echo $0; pwd; env | sort; umask; ls /proc/self/fd 2>/dev/null | wc -l");
    c.argv0 = Some("called".into());
    c.env = vec![
        ("PATH".into(), "/usr/bin:/bin".into()),
        ("A".into(), "b=c".into()),
    ];
    c.argv.push("script-name".into());
    let out = s.out(c).await;
    let pwd = s.place.path("workspace").display().to_string();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "script-name");
    assert!(
        lines.contains(&pwd.as_str()) && lines.contains(&"A=b=c") && lines.contains(&"0077"),
        "{out}"
    );
    assert!(!out.contains("HOME="), "nothing is inherited: {out}");

    // argv[0], and no descriptor but the three: the shell's own view, without another process.
    let mut c = s.sh("");
    c.argv = [
        "/bin/sh",
        "-c",
        r#"for fd in 3 4 5 6 7 8 9; do (: <&$fd) 2>/dev/null && echo "$fd is open"; done; exit 0"#,
    ]
    .map(Into::into)
    .into();
    assert_eq!(s.out(c).await, "");
    let mut c = Command::new(["/usr/bin/printf"], "/", s.place.profile());
    c.argv0 = Some("other-name".into());
    c.stderr = Io::Capture { max_bytes: 1024 };
    let f = s.run(c).await;
    assert!(
        String::from_utf8_lossy(&f.stderr.bytes).contains("other-name"),
        "{:?}",
        f.stderr
    );
}

#[tokio::test]
async fn one_socket_pair_carries_both_directions() {
    let s = Service::new();
    let (mut ours, theirs) = common::socketpair();
    let mut c = s.sh("read a; echo got $a; read b; echo got $b");
    c.stdin = Io::Fd(theirs.try_clone().unwrap());
    c.stdout = Io::Fd(theirs);
    let run = s.spawner.run(c).await.unwrap();
    ours.write_all(b"one\ntwo\n").unwrap();
    run.wait().await.unwrap();
    let mut text = String::new();
    // The end of file arrives although this process started the run: no copy of the other end stayed here.
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(text, "got one\ngot two\n");
}

#[tokio::test]
async fn captured_output_is_bounded_and_counted() {
    let s = Service::new();
    let mut c = s.sh("head -c 300000 /dev/zero; echo err >&2");
    c.stdout = Io::Capture { max_bytes: 1000 };
    let f = s.run(c).await;
    assert_eq!((f.stdout.bytes.len(), f.stdout.dropped), (1000, 299_000));
    assert_eq!(f.stderr.bytes, b"err\n");
}

#[tokio::test]
async fn an_opened_program_is_run_whatever_its_path_has_become() {
    let s = Service::new();
    let path = s.place.path("bin/tool");
    fs::copy("/bin/echo", &path).unwrap();
    let image = fs::File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::copy("/bin/false", &path).unwrap();
    let mut c = s.sh("");
    c.argv = vec![path.into(), "first".into()];
    c.image = Some(image.into());
    assert_eq!(s.out(c).await, "first\n");
}

#[tokio::test]
async fn ordinary_programs_work_in_the_workspace() {
    let s = Service::new();
    let script = r"
        set -e
        echo text > a; cp -p a b; chmod 755 a; chmod u=rw,go= b; touch -d '2001-02-03 04:05:06 UTC' b
        mkdir -p d/e; ln -s ../a d/l; mv b d/e/c; ln a hard; mkfifo p; chown $(id -u):$(id -g) a d
        tar cf t.tar d a; mkdir x; tar xpf t.tar -C x; cmp a x/a
        stat -c '%a %Y' x/d/e/c a
        cat < a | (cat; echo end) | sort > sorted; diff -q a hard; rm -r x d
        find . -name 'a' -exec cat {} \; | head -n 1 > /dev/null
        exec 3< a; chmod 600 /proc/self/fd/3 && stat -c %a a
    ";
    let out = s.out(s.sh(script)).await;
    assert_eq!(
        out,
        format!(
            "600 981173106\n755 {}\n600\n",
            mtime(&s.place.path("workspace/a"))
        )
    );
}

fn mtime(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).unwrap().mtime().to_string()
}

#[tokio::test]
async fn a_run_that_is_told_to_end_gets_term_then_kill() {
    let s = Service::new();
    // TERM is enough for one that listens.
    let mut c = s.sh("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    let (mut ours, theirs) = common::socketpair();
    c.stdout = Io::Fd(theirs);
    let run = s.spawner.run(c).await.unwrap();
    ours.read_exact(&mut [0; 6]).unwrap();
    run.kill(Duration::from_secs(5));
    let f = run.wait().await.unwrap();
    assert_eq!((f.exit.status, f.exit.cause), (Status::Code(3), Cause::Killed));
    // One that does not is killed, and so is what it started, in other sessions, too.
    let mut c = s.sh("trap '' TERM; setsid sh -c 'echo $$; exec sleep 1000' & setsid setsid sh -c 'echo $$; exec sleep 1000' & wait; sleep 1000");
    let (ours, theirs) = common::socketpair();
    c.stdout = Io::Fd(theirs);
    let run = s.spawner.run(c).await.unwrap();
    let strays = pids(ours, 2);
    run.kill(Duration::from_millis(50));
    let f = run.wait().await.unwrap();
    assert_eq!((f.exit.status, f.exit.left), (Status::Signal(libc::SIGKILL), 0));
    strays.iter().for_each(|stray| stray.wait_gone(Duration::ZERO));
}

/// Reads that many lines with a pid each.
fn pids(from: std::os::unix::net::UnixStream, n: usize) -> Vec<Watched> {
    use std::io::BufRead as _;
    let lines = std::io::BufReader::new(from).lines();
    lines
        .take(n)
        .map(|line| Watched::new(line.unwrap().trim().parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn what_the_main_program_leaves_ends_with_it() {
    let s = Service::new();
    let mut c = s.sh("trap '' TERM; (setsid sh -c 'echo $$; exec sleep 1000' &); (setsid sh -c 'echo $$; sh -c \"echo \\$\\$; exec sleep 1000\"; :' &); read x");
    let (ours, theirs) = common::socketpair();
    c.stdin = Io::Fd(theirs.try_clone().unwrap());
    c.stdout = Io::Fd(theirs);
    let run = s.spawner.run(c).await.unwrap();
    let mut go_on = ours.try_clone().unwrap();
    let strays = pids(ours, 3);
    go_on.write_all(b"\n").unwrap();
    let f = run.wait().await.unwrap();
    assert_eq!(
        (f.exit.status, f.exit.cause, f.exit.left),
        (Status::Code(0), Cause::Ended, 0)
    );
    assert!(f.exit.strays >= 2, "{:?}", f.exit);
    strays.iter().for_each(|stray| stray.wait_gone(Duration::ZERO));
}

#[tokio::test]
async fn a_timeout_ends_a_run_without_its_service() {
    let s = Service::new();
    let mut c = s.sh("sleep 1000");
    c.timeout = Some(Duration::from_millis(100));
    let f = s.run(c).await;
    assert_eq!(
        (f.exit.cause, f.exit.status),
        (Cause::TimedOut, Status::Signal(libc::SIGTERM))
    );
}

#[tokio::test]
async fn dropping_a_run_or_its_start_kills_it() {
    let s = Service::new();
    let run = s.spawner.run(s.sh("sleep 1000")).await.unwrap();
    let main = Watched::new(run.pid());
    drop(run);
    main.wait_gone(DEADLINE);

    let (ours, theirs) = common::socketpair();
    let mut c = s.sh("echo $$; exec sleep 1000");
    c.stdout = Io::Fd(theirs);
    {
        // Sent in the first poll, given up before the answer.
        let start = s.spawner.run(c);
        tokio::pin!(start);
        assert!(
            futures_poll_once(start.as_mut()).await.is_none(),
            "the answer takes a round trip"
        );
    }
    let mut rest = String::new();
    // The end of the stream is the end of the run.
    std::io::BufReader::new(ours).read_to_string(&mut rest).unwrap();
}

async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
            std::task::Poll::Ready(out) => Some(out),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn limits_hold_for_the_whole_run() {
    let s = Service::new();
    // Shared memory, which no rlimit counts, is measured.
    let mut c = s.sh("");
    c.argv = vec![
        s.place.bed().into(),
        "hog".into(),
        (200usize << 20).to_string().into(),
    ];
    c.profile.limits.memory_bytes = 64 << 20;
    let f = s.run(c).await;
    assert_eq!(
        (f.exit.cause, f.exit.status),
        (Cause::Memory, Status::Signal(libc::SIGKILL))
    );

    // CPU, file size, descriptors: per process, by the kernel.
    let mut c = s.sh("while :; do :; done");
    c.profile.limits.cpu_seconds = 1;
    assert_eq!(s.run(c).await.exit.status, Status::Signal(libc::SIGXCPU));
    let mut c =
        s.sh("ulimit -n; ulimit -f; ulimit -c; head -c 100000 /dev/zero > big; ls -l big | cut -d' ' -f5");
    c.profile.limits.open_files = 20;
    c.profile.limits.file_bytes = 10_240;
    assert_eq!(s.out(c).await, "20\n20\n0\n10240\n");
}

#[tokio::test]
async fn processes_that_run_away_do_not_outrun_their_end() {
    let s = Service::new();
    // Not many processes, but ever new ones: each generation makes the next and is gone. Every one of them holds the
    // stream open, so its end is the end of the last.
    let runners = || {
        let (ours, theirs) = common::socketpair();
        let mut c = s.sh("run() { run & }; for i in 1 2 3 4 5 6; do (run &); done; echo x; sleep 1000");
        c.stdout = Io::Fd(theirs);
        c.stderr = Io::Null;
        (c, ours)
    };
    // Told to end, in the midst of it.
    let (c, mut ours) = runners();
    let run = s.spawner.run(c).await.unwrap();
    ours.read_exact(&mut [0]).unwrap();
    run.kill(Duration::ZERO);
    let f = tokio::time::timeout(DEADLINE, run.wait()).await.unwrap().unwrap();
    assert_eq!((f.exit.cause, f.exit.left), (Cause::Killed, 0));
    ours.read_to_end(&mut Vec::new()).unwrap();

    // Its init killed: the spawner inherits them.
    let (c, mut ours) = runners();
    let run = s.spawner.run(c).await.unwrap();
    ours.read_exact(&mut [0]).unwrap();
    Watched::new(run.init_pid()).kill();
    let f = tokio::time::timeout(DEADLINE, run.wait()).await.unwrap().unwrap();
    assert_eq!(f.exit.status, Status::Lost);
    ours.read_to_end(&mut Vec::new()).unwrap();
}

#[tokio::test]
async fn refusals_are_typed_and_nothing_runs() {
    let s = Service::new();
    let refused = |c: Command| async {
        match s.spawner.run(c).await {
            Err(RunError::Refused(refusal)) => refusal.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let mut c = s.sh("");
    c.argv[0] = "/usr/bin/there-is-no-such-program".into();
    assert!(refused(c).await.contains("No such file"));
    let mut c = s.sh("");
    c.cwd = "/there/is/no/such/directory".into();
    assert!(refused(c).await.contains("working directory"));
    let script = s.place.path("workspace/script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut c = s.sh("");
    c.argv[0] = script.into();
    assert!(
        refused(c).await.contains("Permission denied"),
        "writable, so not executable"
    );

    let mut c = s.sh("");
    c.profile.read.push(s.place.path("protected"));
    assert!(matches!(s.spawner.run(c).await, Err(RunError::Profile(_))));
    let mut c = s.sh("");
    c.argv.push("x".repeat(200_000).into());
    assert!(matches!(s.spawner.run(c).await, Err(RunError::Command(_))));
}

#[tokio::test]
async fn a_path_that_became_a_link_after_the_check_is_refused() {
    let s = Service::new();
    let granted = s.place.path("granted");
    fs::create_dir(&granted).unwrap();
    let mut c = s.sh("cat granted/secret");
    c.profile.read_only.push(granted.clone());
    // The profile resolves while the directory is one; a racing writer swaps it before the walls are built. The
    // swap here is sure to win: paths are opened by the helper, and the helper is stopped meanwhile.
    let helper = rustix::process::Pid::from_raw(s.spawner.pid()).unwrap();
    rustix::process::kill_process(helper, rustix::process::Signal::STOP).unwrap();
    let start = s.spawner.run(c);
    tokio::pin!(start);
    assert!(futures_poll_once(start.as_mut()).await.is_none());
    fs::remove_dir(&granted).unwrap();
    std::os::unix::fs::symlink(s.place.path("protected"), &granted).unwrap();
    rustix::process::kill_process(helper, rustix::process::Signal::CONT).unwrap();
    match start.await {
        Err(RunError::Refused(refusal)) => assert!(refusal.to_string().contains("granted"), "{refusal}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_proxied_program_reaches_the_proxy_whatever_it_asks_for() {
    let s = Service::new();
    if !Path::new("/bin/bash").exists() {
        println!("SKIPPED: /bin/bash is not installed");
        return;
    }
    let targets = common::Targets::new(&s.place);
    for address in ["127.0.0.1/1", "192.0.2.7/443"] {
        let script = format!("exec 3<>/dev/tcp/{address}; printf x >&3; head -c 6 <&3");
        let mut c = s.sh("");
        c.argv = vec!["/bin/bash".into(), "-c".into(), script.into()];
        c.profile.net = Net::Proxy { port: targets.proxy };
        assert_eq!(s.out(c).await, "proxy!");
    }
    // Many at once, and sockets end with their descriptors.
    let mut c = s.sh("");
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do (exec 3<>/dev/tcp/192.0.2.7/80; printf x >&3; head -c 6 <&3) & done; wait";
    c.argv = vec!["/bin/bash".into(), "-c".into(), script.into()];
    c.profile.net = Net::Proxy { port: targets.proxy };
    assert_eq!(s.out(c).await, "proxy!".repeat(10));
}

#[tokio::test]
async fn hundreds_of_runs_share_one_spawner() {
    let s = Service::new();
    let mut waiting = Vec::new();
    for i in 0..256 {
        let (ours, theirs) = common::socketpair();
        let mut c = s.sh(&format!("read x; exit {}", i % 100));
        c.stdin = Io::Fd(theirs);
        c.stdout = Io::Null;
        c.stderr = Io::Null;
        waiting.push((i, ours, s.spawner.run(c).await.unwrap()));
    }
    for (i, mut ours, run) in waiting.into_iter().rev() {
        ours.write_all(b"\n").unwrap();
        assert_eq!(run.wait().await.unwrap().exit.status, Status::Code(i % 100));
    }
    assert_eq!(s.out(s.sh("echo still here")).await, "still here\n");
}

#[tokio::test]
async fn shutdown_ends_everything_and_later_runs_say_so() {
    let s = Service::new();
    let run = s.spawner.run(s.sh("trap '' TERM; sleep 1000")).await.unwrap();
    let watched = [
        Watched::new(s.spawner.pid()),
        Watched::new(run.init_pid()),
        Watched::new(run.pid()),
    ];
    assert!(s.spawner.support().await.unwrap().seccomp);
    s.spawner.shutdown().await;
    watched.iter().for_each(|process| process.wait_gone(DEADLINE));
    assert_eq!(run.wait().await.unwrap().exit.cause, Cause::OwnerLost);
    assert!(matches!(
        s.spawner.run(s.sh("true")).await,
        Err(RunError::SpawnerLost)
    ));
}
