//! `creel cron grant`: conversations whose agents may make jobs that need no approval.

use creel_proto::scheduler::v1::{AgentGrant, GrantAgentRequest, ListAgentGrantsRequest};
use serde::Serialize;

use crate::{context::Context, failure::Failure, stubs, times::Local, views::at_ms};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GrantView {
    session: String,
    granted_by: String,
    granted_at_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GrantedView {
    grant: GrantView,
    granted: bool,
    unchanged: bool,
    jobs: u32,
}

impl From<&AgentGrant> for GrantView {
    fn from(grant: &AgentGrant) -> Self {
        Self {
            session: grant.session.clone(),
            granted_by: grant.granted_by.clone(),
            granted_at_ms: at_ms(grant.granted_at.as_ref()),
        }
    }
}

pub(super) async fn list(context: &mut Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let answer = client
        .call(&ListAgentGrantsRequest {}, |channel, request| async move {
            stubs::scheduler(channel).list_agent_grants(request).await
        })
        .await?;
    let grants: Vec<GrantView> = answer.grants.iter().map(GrantView::from).collect();
    if context.out.is_json() {
        return context.out.json(&grants);
    }
    if grants.is_empty() {
        context
            .out
            .note("jobs that agents make wait for approval everywhere; next: creel cron grant SESSION");
        return Ok(());
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = grants.iter().map(|grant| row(grant, &local)).collect();
    context.out.table(&["SESSION", "SINCE", "BY"], &rows)
}

fn row(grant: &GrantView, local: &Local) -> Vec<String> {
    vec![
        grant.session.clone(),
        local.show_opt(grant.granted_at_ms),
        grant.granted_by.clone(),
    ]
}

pub(super) async fn set(context: &mut Context, request: GrantAgentRequest) -> Result<(), Failure> {
    let client = context.client().await?;
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::scheduler(channel).grant_agent(request).await
        })
        .await?;
    let view = GrantedView {
        grant: GrantView::from(&answer.grant.unwrap_or_default()),
        granted: !request.revoke,
        unchanged: answer.unchanged,
        jobs: answer.jobs,
    };
    if context.out.is_json() {
        return context.out.json(&view);
    }
    if request.validate_only {
        context.out.note("dry run: nothing was written");
    }
    context.out.line(&told(&view))
}

fn told(view: &GrantedView) -> String {
    let session = &view.grant.session;
    match (view.granted, view.unchanged, view.jobs) {
        (true, true, _) => format!("{session}: granted before; jobs that its agents make run at once"),
        (true, false, _) => format!("{session}: jobs that its agents make run at once from now on"),
        (false, _, 0) => format!("{session}: revoked; jobs that its agents make wait for approval"),
        (false, _, jobs) => format!(
            "{session}: revoked; jobs that its agents make wait for approval. {jobs} made before go on: creel cron list"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_revocation_leaves_is_said() {
        let view = |granted, unchanged, jobs| GrantedView {
            grant: GrantView::from(&AgentGrant {
                session: "agent:default:main".into(),
                ..AgentGrant::default()
            }),
            granted,
            unchanged,
            jobs,
        };
        assert!(told(&view(false, false, 3)).ends_with("3 made before go on: creel cron list"));
        assert!(told(&view(false, false, 0)).ends_with("wait for approval"));
        assert!(told(&view(true, true, 3)).contains("granted before"));
    }
}
