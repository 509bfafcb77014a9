//! Seeded bugs of the shell: what the simulator must find.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutant {
    /// Answers leave before what they promise is on disk.
    ReplyBeforeSync,
    /// The vote is left out of what is written.
    LoseVote,
    /// A leader answers reads without asking whether it still leads.
    ReadAlone,
    /// Entries that replace others aren't written.
    KeepReplaced,
    /// A member that starts again gives its reads the contexts of earlier ones.
    SameBoot,
    /// A watcher isn't given the last event of a slice, now and then.
    SkipEvent,
    /// A client that resumes a watch begins with the present.
    ResumeNow,
    /// The ring goes on after a snapshot replaced the state.
    KeepRing,
    /// Progress is told of what is published, whatever was given.
    ProgressNow,
    /// Leases end a second and a half before their time.
    ExpireEarly,
    /// A renewal is answered from memory.
    RenewAtOnce,
    /// Nobody looks whether the same reign goes on.
    ForgetReign,
    /// A leader answers for leases before it has applied all that was committed.
    LeadLeasesEarly,
    /// A member that starts again knows the founders alone, not who came and went since.
    OldMembers,
    /// A start cuts a log off where it is damaged, as if it were torn there.
    DropDamaged,
    /// A start believes what has a wrong checksum.
    BelieveDamaged,
    /// A copy of the state is sent to a peer without being read.
    SendUnread,
    /// Of pods: an apiserver binds without asking the node's fence.
    NoFence,
    /// Of pods: what was decided is written over what another wrote meanwhile.
    KeepDecision,
    /// Of pods: a watcher that lags is skipped ahead.
    SkipLagging,
    /// Of pods: a process whose watch can't go on watches from the present without listing anew.
    SkipRelist,
    /// Of pods: a controller forgets what it made.
    ForgetExpectations,
    /// Of pods: an object is deleted by its name, whatever its UID.
    DeleteWithoutUid,
    /// Of pods: a status goes to whatever pod has the name.
    StatusWithoutUid,
    /// Of pods: a status is written over whatever version of its pod is there.
    StatusWithoutVersion,
    /// Of pods: an agent stops unknown pods before the API's list is known.
    AdoptEarly,
    /// Of pods: a scheduler takes a binding that wasn't answered for one that failed.
    ForgetUnanswered,
    /// Of pods: an agent uses an observation though an action ended since.
    StaleLook,
    /// Of pods: an agent takes a pod that nobody has looked for yet for one that was looked for.
    LookedAlready,
    /// Of pods: a controller tells keys of a listing before its cache shows it, and not what the listing lacks.
    ForgetVanished,
    /// Of pods: what was made and isn't shown is never asked for.
    NeverDoubt,
    /// Of pods: pods of nodes that are gone keep their grace.
    KeepOrphans,
    /// Of pods: a creation that got no answer is sent again as it is.
    SameUid,
    /// Of pods: a pod that nobody controls any more concerns no ReplicaSet.
    ForgetOrphans,
    /// Of pods: the collector begins before all kinds are listed.
    CollectEarly,
}
