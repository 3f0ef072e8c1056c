//! Which run is meant: its whole id, or eight digits or more of either end of it.

use std::collections::BTreeSet;

use creel_kit::failure::store_error;
use creel_store::Page;
use creel_wire::{Caller, Error};

use super::{Api, person};
use crate::{
    id::{RunEnd, RunId},
    store::{self, Kind, RunRef},
};

/// Of the runs that are over, so many of the newest are looked at for one whose id ends so, a page at a time.
const MAX_LOOKED_AT: usize = 2_000;
const PAGE: usize = 500;
/// Runs found with such an end; more are not told apart.
const MAX_FOUND: usize = 4;

impl Api {
    /// The run of the caller's that a text names.
    pub(super) async fn named_run(&self, caller: &Caller, text: &str) -> Result<RunId, Error> {
        if let Ok(run) = text.parse() {
            return Ok(run);
        }
        let end: RunEnd = text.parse().map_err(|_| {
            Error::invalid(
                "run_id",
                "a run's id has 32 hex digits; 8 or more of either end of it name it, too",
            )
            .hint("creel cron runs")
        })?;
        let mut found = self.runs_with(person(caller)?, end).await?.into_iter();
        match (found.next(), found.next()) {
            (Some(run), None) => Ok(run),
            (None, _) => Err(Error::not_found("run", text)
                .field("run_id")
                .hint("creel cron runs")),
            (Some(one), Some(other)) => Err(Error::invalid("run_id", "this fits more than one run")
                .hint(format!("give more of it: {one}, {other}, …"))),
        }
    }

    async fn runs_with(&self, owner: &str, end: RunEnd) -> Result<BTreeSet<RunId>, Error> {
        let whose = owner.to_owned();
        // Those that are not over may have no record of their own yet.
        let live = self
            .engine
            .ask(move |ledger, _| ledger.live_with(&whose, end, MAX_FOUND))
            .await?;
        let mut found: BTreeSet<RunId> = live.into_iter().collect();
        for run in self.stored_with(end).await? {
            if found.len() < MAX_FOUND
                && let Some(record) = store::run(&self.store, run).await.map_err(store_error)?
                && record.owner == owner
            {
                found.insert(run);
            }
        }
        Ok(found)
    }

    /// Anybody's.
    async fn stored_with(&self, end: RunEnd) -> Result<Vec<RunId>, Error> {
        let (first, last) = end.beginnings();
        let key = |run: RunId| Kind::RunById.key([run.bytes()]);
        let beginning = Kind::RunById
            .range()
            .starting_at(key(first))
            .ending_at(key(last).successor());
        let page = self
            .store
            .scan(beginning, Page::first(PAGE))
            .await
            .map_err(store_error)?;
        let mut runs: Vec<_> = page
            .entries
            .iter()
            .filter_map(|entry| store::run_of_key(&entry.key))
            .collect();
        let (mut rest, mut looked_at) = (Some(Kind::Run.range()), 0);
        while let Some(range) = rest.take_if(|_| looked_at < MAX_LOOKED_AT) {
            let page = self
                .store
                .scan(range, Page::last(PAGE))
                .await
                .map_err(store_error)?;
            looked_at += page.entries.len();
            rest = page.next;
            let ids = page.entries.iter().filter_map(|entry| RunRef::of_key(&entry.key));
            runs.extend(ids.map(|at| at.run).filter(|run| end.is_of(*run)));
        }
        Ok(runs)
    }
}
