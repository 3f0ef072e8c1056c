//! Measures what a run costs over a plain process. `bench ROUNDS`.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use creel_sandbox::{Child, ChildSpec, Command, Net, Profile, Spawner};

use super::anyhow_lite::Result;
use super::{me, runtime};

pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let rounds: usize = args.first().and_then(|a| a.to_str()?.parse().ok()).unwrap_or(500);
    let base = std::env::temp_dir().join(format!("creel-bench-{}", std::process::id()));
    for sub in ["workspace", "tmp", "protected"] {
        std::fs::create_dir_all(base.join(sub))?;
    }
    let profile = Profile::turn(&base.join("workspace"), &base.join("tmp")).protect([base.join("protected")]);
    let spawner = Spawner::start(&me())?;
    runtime()?.block_on(async {
        let mut plain = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            let child = Child::spawn(ChildSpec {
                exe: "/bin/true".into(),
                ..ChildSpec::default()
            })?;
            child.wait().await?;
            plain.push(start.elapsed());
        }
        report("posix_spawn, to exit", &mut plain);
        for (name, net) in [("net none", Net::None), ("net proxy", Net::Proxy { port: 9 })] {
            let (mut started, mut ended) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let start = Instant::now();
                let command = Command::new(
                    ["/bin/true"],
                    "/",
                    Profile {
                        net,
                        ..profile.clone()
                    },
                );
                let run = spawner.run(command).await?;
                started.push(start.elapsed());
                run.wait().await?;
                ended.push(start.elapsed());
            }
            report(&format!("sandboxed ({name}), to exec"), &mut started);
            report(
                &format!("sandboxed ({name}), to exit and nothing left"),
                &mut ended,
            );
        }
        let start = Instant::now();
        let mut waiting = Vec::new();
        for _ in 0..100 {
            waiting.push(
                spawner
                    .run(Command::new(["/bin/sleep", "0.2"], "/", profile.clone()))
                    .await?,
            );
        }
        let all = start.elapsed();
        for run in waiting {
            run.wait().await?;
        }
        println!("100 concurrent runs started in {all:?}");
        let mut resolve: Vec<_> = (0..rounds)
            .map(|_| {
                let start = Instant::now();
                let _ = profile.resolve();
                start.elapsed()
            })
            .collect();
        report("profile resolved", &mut resolve);
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    std::fs::remove_dir_all(base)?;
    Ok(())
}

fn report(what: &str, samples: &mut [Duration]) {
    samples.sort_unstable();
    let at = |part: usize| {
        samples
            .get(samples.len() * part / 100)
            .copied()
            .unwrap_or_default()
    };
    println!("{what}: p50 {:?} p99 {:?}", at(50), at(99));
}
