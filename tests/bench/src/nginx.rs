//! The second peer: nginx as a gRPC proxy with mutual TLS on both sides, in front of the bare server.

use std::{fs, path::Path, process::Child, process::Command, process::Stdio};

/// Starts nginx if it is installed; it listens on `port` and passes on to `upstream`.
pub(crate) fn start(dir: &Path, port: u16, upstream: u16) -> anyhow::Result<Option<Child>> {
    let program = Path::new("/usr/sbin/nginx");
    if !program.exists() {
        eprintln!("SKIPPED: nginx is not installed; `make bench` installs it on Debian");
        return Ok(None);
    }
    let at = dir.display();
    let config = format!(
        "daemon off;\nmaster_process on;\nworker_processes 2;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n access_log off;\n client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3;\n\
         uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;\n\
         upstream echo {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}\n\
         server {{\n  listen 127.0.0.1:{port} ssl http2;\n  keepalive_requests 100000000;\n\
         http2_max_concurrent_streams 1024;\n\
         ssl_certificate {at}/server.pem; ssl_certificate_key {at}/server.key; ssl_protocols TLSv1.3;\n\
         ssl_client_certificate {at}/ca.pem; ssl_verify_client on;\n\
         location / {{\n   grpc_pass grpcs://echo;\n   grpc_ssl_certificate {at}/cert.pem; grpc_ssl_certificate_key {at}/key.pem;\n\
         grpc_ssl_protocols TLSv1.3;\n   grpc_ssl_trusted_certificate {at}/ca.pem; grpc_ssl_verify on; grpc_ssl_name localhost;\n\
         grpc_ssl_server_name on;\n  }}\n }}\n}}\n"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config)?;
    let child = Command::new(program)
        .arg("-c")
        .arg(&path)
        .arg("-p")
        .arg(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Some(child))
}
