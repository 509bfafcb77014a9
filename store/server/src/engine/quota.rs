//! Space: what a member has no room for is refused where it comes in, and told to all.
//!
//! Every member measures by itself, against a setting of its own; that is no reason to refuse anything
//! that is in the log already. So a member above its quota raises an alarm, and the alarm, which is
//! state, refuses. Until it is applied, what is on its way may go beyond the quota: by no more than
//! raft lets wait for commit.
//! Source: etcd `server/etcdserver/api/v3rpc/quota.go`, `server/storage/quota.go`.

use store_core::alarms::cost;
use store_core::auth::Asker;
use store_core::errors::RequestError;
use store_core::wire::alarm_request::AlarmAction;
use store_core::wire::command::Request;
use store_core::wire::{AlarmRequest, AlarmType, Command};
use tokio::sync::oneshot;

use super::{Engine, Input};

impl Engine {
    /// Bytes that may be live here, and that are.
    fn room(&self) -> Option<(u64, u64)> {
        Some((self.quota?, self.state.live_bytes()))
    }

    fn no_space(&self) -> Command {
        let (action, alarm) = (AlarmAction::Activate as i32, AlarmType::Nospace as i32);
        let request = Request::Alarm(AlarmRequest { action, member_id: self.id, alarm });
        Command { request: Some(request), by_member: true, ..Command::default() }
    }

    /// Refuses a request that this member has no room for, and raises the alarm.
    pub(super) async fn check_space(&self, request: &Request) -> Result<(), RequestError> {
        let cost = cost(request);
        let Some((quota, live)) = self.room().filter(|(quota, live)| cost > 0 && live.saturating_add(cost) >= *quota)
        else {
            return Ok(());
        };
        // Whoever comes while it is being raised needn't raise it as well.
        if let Ok(_alone) = self.raising.try_acquire()
            && !self.state.alarms().is_raised_for(self.id, AlarmType::Nospace)
        {
            tracing::warn!(live, quota, "no room for a request; raising the alarm NOSPACE");
            if let Err(error) = self.commit(&Asker::Member, self.no_space()).await {
                tracing::warn!(%error, "the alarm NOSPACE may not be raised; the next request tries again");
            }
        }
        Err(RequestError::NoSpace)
    }

    /// Raises the alarm if what others let in went beyond this member's quota.
    pub(super) fn watch_space(&self) {
        use prost::Message as _;
        let is_over = self.room().is_some_and(|(quota, live)| live >= quota);
        if is_over && !self.state.alarms().is_raised_for(self.id, AlarmType::Nospace) {
            // Whether it went into the log is seen after the next entries.
            let (dropped, _) = oneshot::channel();
            self.send(Input::Propose { command: self.no_space().encode_to_vec().into(), dropped });
        }
    }
}
