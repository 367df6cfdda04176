/// Puts the wrappers around a store in the one order that is right.
///
/// From the outside in:
/// 1. `RetryingStore`, so that a call which waits to be made again holds nothing;
/// 2. `ThrottledStore`, so that waiting for the rate is not taken for slowness of the store, and
///    what flows twice is counted twice;
/// 3. `AdaptiveStore`, which sees each attempt and each refusal;
/// 4. `TimingStore`, which measures the attempt alone;
/// 5. `CountingStore`, where the store does not count by itself;
/// 6. `ReadOnlyStore`, next to the store, so that nothing passes it.
package enum StoreStack {
    package static func wrap(
        _ store: any ObjectStore, _ settings: StoreSettings
    ) -> (store: any ObjectStore, controls: StoreControls) {
        let surroundings = settings.surroundings
        var store = store
        if let readOnly = settings.readOnly {
            store = ReadOnlyStore(store, reason: readOnly.reason, remedy: readOnly.remedy)
        }
        if settings.countsCalls { store = CountingStore(store, counter: settings.counter) }
        store = TimingStore(store, counter: settings.counter, now: surroundings.now)
        var adaptive: AdaptiveStore?
        if let concurrency = settings.concurrency {
            let made = AdaptiveStore(
                store, start: concurrency.start, maximum: concurrency.maximum,
                surroundings: surroundings)
            adaptive = made
            store = made
        }
        func bucket(_ timetable: RateTimetable?) -> TokenBucket? {
            timetable.map {
                TokenBucket(
                    $0, secondOfWeek: settings.secondOfWeek, now: surroundings.now)
            }
        }
        let isLimited = settings.uploadLimit != nil || settings.downloadLimit != nil
        if isLimited {
            store = ThrottledStore(
                store, upload: bucket(settings.uploadLimit),
                download: bucket(settings.downloadLimit), surroundings: surroundings)
        }
        store = RetryingStore(
            store, policy: settings.retry, surroundings: surroundings, counter: settings.counter)
        return (
            store,
            StoreControls(counter: settings.counter, adaptive: adaptive, isLimited: isLimited)
        )
    }
}

/// What is to be put around a store, and with which bounds.
package struct StoreSettings: Sendable {
    /// Calls at once.
    package struct Concurrency: Sendable, Equatable {
        /// To begin with: where the last run settled.
        package var start: Int
        /// Never exceeded, but for two small calls.
        package var maximum: Int

        package init(start: Int?, maximum: Int) {
            self.maximum = max(1, maximum)
            self.start = start ?? Self.defaultStart
        }

        /// Enough for a fast line to show what it can, few enough for a home's.
        private static let defaultStart = 4
    }

    package var retry = RetryPolicy()
    /// How fast bytes may leave and come; nil for as fast as they can.
    package var uploadLimit: RateTimetable?
    package var downloadLimit: RateTimetable?
    /// Seconds since Monday's midnight by the local clock on the wall, for the timetables.
    package var secondOfWeek: @Sendable () -> Int
    /// Nil for a store that needs no bound, such as a directory of this host.
    package var concurrency: Concurrency?
    /// Counts what the calls cost; the store itself counts its requests in the same one.
    package let counter: TrafficCounter
    /// Whether calls are counted here, because the store does not count by itself.
    package var countsCalls = false
    /// Why nothing may be written, as the end of a sentence, and what to do to have it written.
    package var readOnly: (reason: String, remedy: String)?
    package var surroundings: StoreSurroundings

    package init(
        counter: TrafficCounter, surroundings: StoreSurroundings,
        secondOfWeek: @escaping @Sendable () -> Int
    ) {
        self.counter = counter
        self.surroundings = surroundings
        self.secondOfWeek = secondOfWeek
    }
}

/// What can be read from the wrappers around a store while it is used and afterwards.
package struct StoreControls: Sendable {
    package let counter: TrafficCounter
    private let adaptive: AdaptiveStore?
    private let isLimited: Bool

    fileprivate init(counter: TrafficCounter, adaptive: AdaptiveStore?, isLimited: Bool) {
        self.counter = counter
        self.adaptive = adaptive
        self.isLimited = isLimited
    }

    /// Calls at once that are admitted now; nil where there is no bound.
    package var concurrency: Int? { adaptive?.limit }

    /// Calls at once with which the next run should begin; nil where nothing was learned, or under
    /// a limit that hides what the store could do.
    package var settledConcurrency: Int? { isLimited ? nil : adaptive?.settled }
}
