//! What a backend's program can't do, tried by a program in a turn.

mod common;

use common::{House, MAIN};
use creel_proto::agent::v1::TurnState;

/// Answers with one line per act: its name and `ok` or the error's name.
const PROBE: &str = r#"
import json, os, socket, sys
turn = json.loads(sys.stdin.readline())
paths = json.loads(turn["text"])
out = []

def act(name, what):
    try:
        what()
        out.append(name + " ok")
    except OSError as error:
        out.append(name + " refused")

def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect(address)

def write(path):
    with open(path, "w") as file:
        file.write("x")

act("own file", lambda: write("mine"))
act("temporary file", lambda: write(os.environ["TMPDIR"] + "/mine"))
act("read secret", lambda: open(paths["secret"]).read())
act("list profile", lambda: os.listdir(paths["root"]))
act("list run", lambda: os.listdir(paths["root"] + "/run"))
act("list other", lambda: os.listdir(paths["other"]))
act("write other", lambda: write(paths["other"] + "/x"))
act("read transcript", lambda: os.listdir(paths["root"] + "/state/agent-runner"))
act("unix socket", lambda: connect(socket.AF_UNIX, paths["socket"]))
act("network", lambda: connect(socket.AF_INET, ("127.0.0.1", paths["port"])))
act("signal parent", lambda: os.kill(paths["pid"], 0))
act("read parent", lambda: open("/proc/%d/environ" % paths["pid"]).read())
print(json.dumps({"type": "final", "text": "\n".join(out)}), flush=True)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_sees_its_workspace_and_nothing_else() {
    let house = House::with_program("python3", PROBE, "").await;
    let root = house.profile.root().to_owned();
    let secret = house
        .profile
        .state(creel_wire::ServiceName::Identity)
        .join("key.pem");
    std::fs::write(&secret, "secret").unwrap();
    // Another context's files.
    house.run("agent:other:main", "hello", "echo").await;
    let other = std::fs::read_dir(house.profile.workspace())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let socket = root.join("run/identity.sock");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = serde_json::json!({
        "root": root, "secret": secret, "other": other, "socket": socket,
        "port": tcp.local_addr().unwrap().port(), "pid": std::process::id(),
    });
    let turn = house.run(MAIN, &text.to_string(), "x").await;
    assert_eq!(turn.state(), TurnState::Succeeded, "{turn:?}");
    let lines: Vec<_> = turn.reply.lines().collect();
    assert_eq!(lines[..2], ["own file ok", "temporary file ok"]);
    assert_eq!(lines.len(), 12);
    for line in &lines[2..] {
        assert!(line.ends_with(" refused"), "{line}");
    }
    assert!(
        house.profile.workspace().join("main/mine").exists(),
        "its files stay in its workspace"
    );
    house.quiet().await;
    assert_eq!(
        std::fs::read_dir(root.join("run/turns")).unwrap().count(),
        0,
        "its temporary files don't"
    );
}

/// Leaves the session and the process group, twice over, and sleeps.
const ESCAPE: &str = r#"
import json, os, sys, time
sys.stdin.readline()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.close(0); os.close(1); os.close(2)
        with open("pid.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename("pid.new", "pid")
        time.sleep(1000)
    os._exit(0)
while not os.path.exists("pid"):
    time.sleep(0.001)
print(json.dumps({"type": "final", "text": open("pid").read()}), flush=True)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_its_turn() {
    let house = House::with_program("python3", ESCAPE, "").await;
    let turn = house.run(MAIN, "x", "x").await;
    assert_eq!(turn.state(), TurnState::Succeeded, "{turn:?}");
    let pid: i32 = turn.reply.parse().unwrap();
    house.quiet().await;
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "process {pid} lives"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_limited() {
    let program = r#"
import json, sys
sys.stdin.readline()
try:
    x = bytearray(512 << 20)
    text = "got it"
except MemoryError:
    text = "refused"
print(json.dumps({"type": "final", "text": text}), flush=True)
"#;
    let house = House::with_program("python3", program, "[agent]\nturn_memory_mib = 128\n").await;
    assert_eq!(house.run(MAIN, "x", "x").await.reply, "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_may_not_read_the_profile_even_if_the_config_says_so() {
    let house = House::with("[backends.x]\nkind = \"command\"\nargv = [\"sh\"]\nread = [\"/\"]\n").await;
    let turn = house.run(MAIN, "x", "x").await;
    assert_eq!(turn.state(), TurnState::Failed);
    assert_eq!(turn.error.unwrap().reason, "sandbox_profile");
}
