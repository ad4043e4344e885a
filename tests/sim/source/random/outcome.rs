//! What has happened in random schedules.

/// How often things happened.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    pub kills: u64,
    pub freezes: u64,
    pub stops: u64,
    pub twins: u64,
    pub refusals: u64,
    /// Workers that have ended so that another one could publish.
    pub ended: u64,
    pub splits: u64,
    pub takes: u64,
    pub gaps: u64,
    pub published: u64,
    pub letters: u64,
    pub duplicates: u64,
    pub calls: u64,
    pub virtual_seconds: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        let Self {
            kills,
            freezes,
            stops,
            twins,
            refusals,
            ended,
            splits,
            takes,
            gaps,
            published,
            letters,
            duplicates,
            calls,
            virtual_seconds,
        } = other;
        self.kills += kills;
        self.freezes += freezes;
        self.stops += stops;
        self.twins += twins;
        self.refusals += refusals;
        self.ended += ended;
        self.splits += splits;
        self.takes += takes;
        self.gaps += gaps;
        self.published += published;
        self.letters += letters;
        self.duplicates += duplicates;
        self.calls += calls;
        self.virtual_seconds += virtual_seconds;
    }
}
