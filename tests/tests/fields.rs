//! Field numbers and enum values never change their meaning: each is written down, and lines may only
//! be added.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, fs, path::Path};

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

fn of_enum(scope: &str, one: &EnumDescriptorProto, out: &mut BTreeSet<String>) {
    for value in &one.value {
        out.insert(format!(
            "{scope}.{} {} = {}",
            one.name(),
            value.name(),
            value.number()
        ));
    }
}

fn of_message(scope: &str, one: &DescriptorProto, out: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", one.name());
    for field in &one.field {
        let kind = if field.type_name().is_empty() {
            format!("{:?}", field.r#type())
        } else {
            field.type_name().to_owned()
        };
        out.insert(format!(
            "{name} {} {kind} {:?} = {}",
            field.name(),
            field.label(),
            field.number()
        ));
    }
    one.nested_type
        .iter()
        .for_each(|nested| of_message(&name, nested, out));
    one.enum_type
        .iter()
        .for_each(|nested| of_enum(&name, nested, out));
}

#[test]
fn no_field_changes_its_number_type_or_name() {
    let set = FileDescriptorSet::decode(creel_proto::DESCRIPTOR_SET).unwrap();
    let mut now = BTreeSet::new();
    for file in set
        .file
        .iter()
        .filter(|file| file.package().starts_with("creel."))
    {
        file.message_type
            .iter()
            .for_each(|one| of_message(file.package(), one, &mut now));
        file.enum_type
            .iter()
            .for_each(|one| of_enum(file.package(), one, &mut now));
        for service in &file.service {
            for method in &service.method {
                let line = format!(
                    "{}.{}/{} {} -> {}",
                    file.package(),
                    service.name(),
                    method.name(),
                    method.input_type(),
                    method.output_type()
                );
                now.insert(line);
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fields.txt");
    if std::env::var_os("CREEL_UPDATE").is_some() {
        let text: String = now.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, text).unwrap();
    }
    let agreed = fs::read_to_string(&path).unwrap_or_default();
    let agreed: BTreeSet<String> = agreed.lines().map(str::to_owned).collect();
    let gone: Vec<_> = agreed.difference(&now).collect();
    let new: Vec<_> = now.difference(&agreed).collect();
    assert!(
        gone.is_empty(),
        "these must stay as they were (reserve, never reuse): {gone:#?}"
    );
    assert!(
        new.is_empty(),
        "new, so write them down: CREEL_UPDATE=1 cargo test -p creel-tests --test fields: {new:#?}"
    );
}
