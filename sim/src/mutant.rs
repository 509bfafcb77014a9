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
}
