//! Compiles `creel/**/*.proto` without protoc, and turns the authorization options, which prost
//! drops, into a static table. A method without a rule, or with a rule that names an unknown
//! principal, service or scope, fails the build.

use std::{collections::BTreeSet, env, error::Error, fmt::Write as _, fs, path::Path, path::PathBuf};

use prost::Message as _;
use prost_reflect::{DescriptorPool, MethodDescriptor, Value};

/// Who serves a package.
const OWNERS: &[(&str, &str)] = &[
    ("creel.identity.v1", "identity"),
    ("creel.agent.v1", "agent-runner"),
    ("creel.scheduler.v1", "scheduler"),
    ("creel.gateway.v1", "gateway"),
    ("creel.kit.v1", "every service"),
];

const SERVICES: &[&str] = &[
    "gateway",
    "identity",
    "scheduler",
    "agent-runner",
    "exec-approver",
    "fetch-proxy",
    "plugin-runner",
    "auditor",
    "supervisor",
];

const SCOPES: &[&str] = &[
    "operator.read",
    "operator.write",
    "operator.admin",
    "operator.approvals",
    "operator.pairing",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", root.join("creel").display());

    let mut files = BTreeSet::new();
    collect(&root.join("creel"), &mut files)?;
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true);
    compiler.include_source_info(true);
    compiler.open_files(&files)?;
    let encoded = compiler.encode_file_descriptor_set();
    let pool = compiler.descriptor_pool();

    fs::write(out.join("rules.rs"), rules(&pool)?)?;

    let mut set = prost_types::FileDescriptorSet::decode(encoded.as_slice())?;
    tonic_prost_build::configure().compile_fds(set.clone())?;

    // Comments make two thirds of the set; reflection does without them.
    for file in &mut set.file {
        file.source_code_info = None;
    }
    fs::write(out.join("all.bin"), set.encode_to_vec())?;
    let edge = edge_paths(&pool)?;
    for file in &mut set.file {
        let package = file.package().to_owned();
        for service in &mut file.service {
            let name = format!("{package}.{}", service.name());
            service
                .method
                .retain(|method| edge.contains(&format!("/{name}/{}", method.name())));
        }
        file.service.retain(|service| !service.method.is_empty());
    }
    fs::write(out.join("edge.bin"), set.encode_to_vec())?;
    Ok(())
}

fn collect(dir: &Path, into: &mut BTreeSet<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            into.insert(path);
        }
    }
    Ok(())
}

fn edge_paths(pool: &DescriptorPool) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let extension = pool
        .get_extension_by_name("creel.authz.v1.edge")
        .ok_or("no edge extension")?;
    Ok(pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .filter(|method| method.options().get_extension(&extension).as_bool() == Some(true))
        .map(|method| path_of(&method))
        .collect())
}

fn path_of(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// The source of the static table, sorted by path.
fn rules(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let rule = pool
        .get_extension_by_name("creel.authz.v1.rule")
        .ok_or("no rule extension")?;
    let edge = edge_paths(pool)?;
    let mut methods: Vec<_> = pool
        .services()
        .flat_map(|s| s.methods().collect::<Vec<_>>())
        .collect();
    methods.sort_by_key(path_of);

    let mut out = String::from("/// Every method, sorted by path.\npub static METHODS: &[Method] = &[\n");
    for method in methods {
        let path = path_of(&method);
        let package = method.parent_service().package_name().to_owned();
        let owner = OWNERS
            .iter()
            .find(|(name, _)| *name == package)
            .ok_or_else(|| {
                format!("{path}: no service owns package {package}; add it to OWNERS in build.rs")
            })?
            .1;
        let options = method.options();
        let value = options.get_extension(&rule);
        let listed = value.as_list().unwrap_or_default();
        if listed.is_empty() {
            return Err(format!(
                "{path} has no rule; add `option (creel.authz.v1.rule) = {{ principal: … }};`"
            )
            .into());
        }
        let mut text = String::new();
        for item in listed {
            write!(text, "{}, ", one_rule(&path, item)?)?;
        }
        writeln!(
            out,
            "    Method {{ path: {path:?}, owner: {owner:?}, edge: {}, client_streaming: {}, \
             server_streaming: {}, rules: &[{text}] }},",
            edge.contains(&path),
            method.is_client_streaming(),
            method.is_server_streaming(),
        )?;
    }
    out.push_str("];\n");
    Ok(out)
}

fn one_rule(path: &str, item: &Value) -> Result<String, Box<dyn Error>> {
    let message = item.as_message().ok_or("a rule is a message")?;
    let text = |name: &str| {
        message
            .get_field_by_name(name)
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let principal = message
        .get_field_by_name("principal")
        .and_then(|v| v.as_enum_number())
        .unwrap_or(0);
    let (scope, service) = (text("scope"), text("service"));
    let known = match principal {
        1 => "Admits::Anonymous".to_owned(),
        2 => "Admits::Local".to_owned(),
        3 if scope.is_empty() => "Admits::Operator(None)".to_owned(),
        3 if SCOPES.contains(&scope.as_str()) => format!("Admits::Operator(Some({scope:?}))"),
        3 => return Err(format!("{path}: unknown scope {scope:?}").into()),
        4 => "Admits::Node".to_owned(),
        5 if service.is_empty() => "Admits::Service(None)".to_owned(),
        5 if SERVICES.contains(&service.as_str()) => format!("Admits::Service(Some({service:?}))"),
        5 => return Err(format!("{path}: unknown service {service:?}").into()),
        6 => "Admits::AgentTurn".to_owned(),
        7 => "Admits::Job".to_owned(),
        8 => "Admits::Plugin".to_owned(),
        9 => "Admits::Sender".to_owned(),
        other => return Err(format!("{path}: unknown principal {other}").into()),
    };
    if principal != 3 && !scope.is_empty() || principal != 5 && !service.is_empty() {
        return Err(format!("{path}: scope is for OPERATOR, service for SERVICE").into());
    }
    Ok(known)
}
