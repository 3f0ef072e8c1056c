//! `creel people …`: who owns devices, and which chat senders speak for whom.

use creel_proto::identity::v1::{
    AddPersonRequest, LinkSenderRequest, ListPeopleRequest, Person, RemovePersonRequest, Sender,
    UnlinkSenderRequest,
};
use serde::Serialize;

use crate::{
    args::people::People,
    context::{Context, request_id},
    failure::Failure,
    stubs,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PersonView {
    person: String,
    display_name: Option<String>,
    senders: Vec<String>,
    devices: u32,
    created_at: Option<String>,
    created_at_ms: Option<i64>,
    etag: String,
}

impl From<&Person> for PersonView {
    fn from(person: &Person) -> Self {
        Self {
            person: person.person.clone(),
            display_name: crate::views::text(&person.display_name),
            senders: person.senders.iter().map(shown).collect(),
            devices: person.devices,
            created_at: crate::views::at(person.created_at.as_ref()),
            created_at_ms: crate::views::at_ms(person.created_at.as_ref()),
            etag: person.etag.clone(),
        }
    }
}

/// A sender as it is typed.
pub(super) fn shown(sender: &Sender) -> String {
    if sender.account.is_empty() || sender.account == "default" {
        format!("{}:{}", sender.channel, sender.platform_id)
    } else {
        format!("{}:{}:{}", sender.channel, sender.account, sender.platform_id)
    }
}

/// `CHANNEL:ID` or `CHANNEL:ACCOUNT:ID`.
pub(super) fn sender(text: &str) -> Result<Sender, Failure> {
    let mut parts = text.splitn(3, ':');
    let (channel, account, id) = match (parts.next(), parts.next(), parts.next()) {
        (Some(channel), Some(id), None) => (channel, "", id),
        (Some(channel), Some(account), Some(id)) => (channel, account, id),
        _ => {
            return Err(Failure::usage_hint(
                format!("`{}` is not a sender", creel_wire::error::printable(text, 128)),
                "CHANNEL:ID or CHANNEL:ACCOUNT:ID, for example telegram:123456",
            ));
        }
    };
    Ok(Sender {
        channel: channel.to_owned(),
        account: account.to_owned(),
        platform_id: id.to_owned(),
    })
}

pub(super) async fn run(context: &mut Context, command: People) -> Result<(), Failure> {
    let client = context.client().await?;
    let (person, dry_run, done) = match command {
        People::List => return list(context).await,
        People::Add {
            person,
            display_name,
            checked,
            repeatable,
        } => {
            let request = AddPersonRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                person,
                display_name,
            };
            let call = client.call(&request, |channel, request| async move {
                stubs::people(channel).add(request).await
            });
            (call.await?, checked.dry_run, "added")
        }
        People::Link {
            person,
            sender: text,
            checked,
            repeatable,
            versioned,
        } => {
            let request = LinkSenderRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                if_match: versioned.if_match.unwrap_or_default(),
                person,
                sender: Some(sender(&text)?),
            };
            let call = client.call(&request, |channel, request| async move {
                stubs::people(channel).link(request).await
            });
            (call.await?, checked.dry_run, "linked")
        }
        People::Unlink {
            person,
            sender: text,
            checked,
            repeatable,
            versioned,
        } => {
            let request = UnlinkSenderRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                if_match: versioned.if_match.unwrap_or_default(),
                person,
                sender: Some(sender(&text)?),
            };
            let call = client.call(&request, |channel, request| async move {
                stubs::people(channel).unlink(request).await
            });
            (call.await?, checked.dry_run, "unlinked")
        }
        People::Rm {
            person,
            checked,
            repeatable,
            versioned,
        } => {
            if !checked.dry_run {
                let question = format!("Remove `{person}`? Its senders speak for nobody then.");
                context.out.confirm(context.global.yes, &question)?;
            }
            let request = RemovePersonRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                if_match: versioned.if_match.unwrap_or_default(),
                person,
            };
            let call = client.call(&request, |channel, request| async move {
                stubs::people(channel).remove(request).await
            });
            (call.await?, checked.dry_run, "removed")
        }
    };
    let view = PersonView::from(&person);
    if context.out.is_json() {
        return context.out.json(&view);
    }
    let done = if dry_run {
        format!("would be {done} (dry run)")
    } else {
        done.to_owned()
    };
    context.out.line(&format!("{}: {done}", view.person))
}

async fn list(context: &mut Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let answer = client
        .call(&ListPeopleRequest {}, |channel, request| async move {
            stubs::people(channel).list(request).await
        })
        .await?;
    let people: Vec<PersonView> = answer.people.iter().map(PersonView::from).collect();
    if context.out.is_json() {
        return context.out.json(&people);
    }
    let rows: Vec<Vec<String>> = people
        .into_iter()
        .map(|one| {
            let name = one.display_name.unwrap_or_default();
            vec![one.person, name, one.devices.to_string(), one.senders.join(" ")]
        })
        .collect();
    context
        .out
        .table(&["PERSON", "NAME", "DEVICES", "SENDERS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_typed_as_they_are_shown() {
        for text in ["telegram:123", "telegram:work:123", "matrix:work:@a:b.org"] {
            assert_eq!(shown(&sender(text).unwrap()), text);
        }
        let one = Sender {
            account: "default".into(),
            ..sender("telegram:1").unwrap()
        };
        assert_eq!(shown(&one), "telegram:1");
        assert!(sender("telegram").is_err());
    }
}
