//! A process's start: from empty shards to open doors, by itself or in the place of another one.
//! Until it is over control hears events as ever, but whatever ends it ends the process. Called by
//! `control`, once.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use weir_core::time::clock;

use super::control::Control;
use super::life::End;
use super::reload;
use super::scarce_ports;
use super::upgrade::Inherited;

/// A shard that has not reported after this long will not.
const START_LIMIT: Duration = Duration::from_secs(10);

impl Control {
    /// From empty shards to open doors. `Some` when a signal or a lost shard ended it before.
    pub(super) async fn start(&mut self, inherited: Option<Inherited>) -> Result<Option<End>> {
        let count = self.fleet.count();
        if let Some(end) = self.until("start", START_LIMIT, |c| c.running == count).await? {
            return Ok(Some(end));
        }
        // A reload that somebody asks for now comes after the start.
        self.reloading = reload::Reloading::begun(clock::mono());
        let (mut stock, health, waiting) = match inherited {
            Some(Inherited { stock, health, waiting }) => (stock, health, Some(waiting)),
            None => Default::default(),
        };
        let staged = self.stage_start(&health);
        // An address that can't be had is told before anybody waits.
        let mut moves = self.doors.plan(&staged.next, clock::mono(), &mut stock)?;
        // Sockets that this configuration doesn't want.
        drop(stock);
        let scarce = scarce_ports(&staged.next, self.config.runtime.max_connections);
        for warning in moves.warnings.iter().chain(&scarce) {
            tracing::warn!("{warning}");
        }
        let logs = self.writers.open(&staged.next)?;
        self.writers.follow(logs)?;
        self.staged = Some(staged);
        while self.is_waiting(clock::mono()) || self.is_draining() {
            if let Some(end) = self.turn().await {
                return Ok(Some(end));
            }
        }
        let takes_over = waiting.is_some();
        if let Some(waiting) = waiting
            && let Some(end) = self.inherit(waiting, &mut moves).await?
        {
            return Ok(Some(end));
        }
        // Only now is it certain that they are served.
        moves.listen()?;
        // The last ones may have been found while another event was handled.
        self.take_verdicts();
        self.shares_doors = takes_over;
        if let Some(staged) = self.staged.take() {
            self.put_into_effect(staged.next, moves);
        }
        self.begin_certificates();
        self.check_what_is_served();
        let end = self.until_effective().await;
        if takes_over && !matches!(end, Ok(None)) {
            self.give_back().await;
        }
        // From now on the other process leaves its doors to this one.
        self.shares_doors = false;
        end
    }

    /// Until all shards serve. All or nothing: a listener that nobody serves is no start, and who
    /// is told to end before it has taken another process' place leaves it to that one.
    async fn until_effective(&mut self) -> Result<Option<End>> {
        let version = self.fleet.state().version();
        let is_over = |c: &Control| c.fleet.effective() >= version || c.is_told_to_leave();
        let end = self.until("take over its listeners", START_LIMIT, is_over).await?;
        if end.is_none() && self.is_told_to_leave() {
            bail!("ended by a signal before it served");
        }
        match self.unopened.first() {
            Some(text) if end.is_none() => Err(anyhow!("can't serve: {text}")),
            _ => Ok(end),
        }
    }

    /// Was it told to end while another process would still serve in its place?
    fn is_told_to_leave(&self) -> bool {
        self.shares_doors && self.is_draining()
    }

    /// Handles events until `done`; `Some` when one of them ended the process.
    async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        done: impl Fn(&Control) -> bool,
    ) -> Result<Option<End>> {
        let until = clock::mono().plus(limit);
        while !done(self) {
            let left = until.since(clock::mono());
            if left.is_zero() {
                bail!("a shard did not {what} within {} s", limit.as_secs());
            }
            if let Ok(Some(event)) = self.event(left).await
                && let Some(end) = self.handle(event)
            {
                return match end {
                    End::Lost(shard) => Err(anyhow!("shard {shard} ended while it started")),
                    end => Ok(Some(end)),
                };
            }
        }
        Ok(None)
    }
}
