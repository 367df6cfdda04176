import ObjectStorage
import TestSupport
import Testing

@Suite("How many calls at once a store sustains")
struct ConcurrencyControlTests {
    private let seeds: Range<UInt64> = 0..<20

    @Test(
        "From whatever beginning it comes near what the server sustains, and gets its best",
        arguments: [2, 5, 12, 24], [1, 4, 32])
    func converges(capacity: Int, start: Int) {
        for seed in seeds {
            var server = SimulatedServer(capacity: Double(capacity), seed: seed)
            var control = ConcurrencyControl(start: start, maximum: 48)
            server.serve(&control, calls: 1_500)
            #expect(Double(control.settled) >= Double(capacity) * 0.75, "seed \(seed)")
            #expect(control.settled <= max(6, capacity * 2), "seed \(seed)")
            let rate = server.rate(&control, over: 2_000)
            #expect(rate > 0.9 * server.bestRate, "seed \(seed)")
        }
    }

    @Test("The first calls already double it, as long as that moves more")
    func slowStart() {
        var server = SimulatedServer(capacity: 32, seed: 1)
        var control = ConcurrencyControl(start: 4, maximum: 64)
        // One round at 4, at 8, at 16 and at 32, and what was under way at each change.
        server.serve(&control, calls: 130)
        #expect(control.settled >= 32)
    }

    @Test("Calls whose times differ much do not lead it astray")
    func noise() {
        for seed in seeds {
            var server = SimulatedServer(capacity: 12, seed: seed)
            server.noise = 0.8
            var control = ConcurrencyControl(start: 4, maximum: 48)
            server.serve(&control, calls: 1_500)
            let rate = server.rate(&control, over: 3_000)
            #expect(rate > 0.6 * server.bestRate, "seed \(seed)")
        }
    }

    @Test("A long way to the server makes it use more calls, not fewer")
    func roundTrips() {
        for seed in seeds {
            var server = SimulatedServer(capacity: 12, seed: seed)
            server.work = 0.005
            server.roundTrip = 0.05
            var control = ConcurrencyControl(start: 4, maximum: 32)
            server.serve(&control, calls: 2_000)
            // The server would take 132 calls at once; the bound is what is left.
            #expect(control.settled >= 24, "seed \(seed)")
            let rate = server.rate(&control, over: 2_000)
            #expect(rate > 0.75 * 32 / 0.055, "seed \(seed)")
        }
    }

    @Test("A delay that comes later does not make it give up what it had")
    func addedDelay() {
        for seed in seeds {
            var server = SimulatedServer(capacity: 12, seed: seed)
            server.work = 0.02
            server.roundTrip = 0.001
            var control = ConcurrencyControl(start: 4, maximum: 32)
            server.serve(&control, calls: 1_500)
            server.roundTrip = 0.05
            server.serve(&control, calls: 500)
            #expect(control.settled >= 10, "seed \(seed)")
            server.serve(&control, calls: 1_500)
            #expect(control.settled >= 20, "seed \(seed)")
        }
    }

    @Test("It follows a server that becomes slower, and one that becomes faster")
    func changingServer() {
        for seed in seeds {
            var server = SimulatedServer(capacity: 24, seed: seed)
            var control = ConcurrencyControl(start: 4, maximum: 48)
            server.serve(&control, calls: 1_500)
            server.capacity = 6
            server.serve(&control, calls: 1_500)
            #expect(control.settled <= 12, "seed \(seed)")
            server.capacity = 24
            server.serve(&control, calls: 3_000)
            #expect(control.settled >= 18, "seed \(seed)")
        }
    }

    @Test("A storm of refusals brings it down to one call, and it comes back afterwards")
    func storm() {
        for seed in seeds {
            var server = SimulatedServer(capacity: 12, seed: seed)
            var control = ConcurrencyControl(start: 4, maximum: 48)
            server.serve(&control, calls: 1_000)
            server.isStorming = true
            server.serve(&control, calls: 200)
            #expect(control.limit == 1, "seed \(seed)")
            server.isStorming = false
            server.serve(&control, calls: 300)
            #expect(control.settled >= 8, "seed \(seed)")
            let rate = server.rate(&control, over: 2_000)
            #expect(rate > 0.85 * server.bestRate, "seed \(seed)")
        }
    }

    @Test("A server that refuses more than so many calls at once is seldom asked more")
    func refusingServer() {
        for seed in seeds {
            var server = SimulatedServer(capacity: 40, seed: seed)
            server.refusesAbove = 10
            var control = ConcurrencyControl(start: 4, maximum: 48)
            server.serve(&control, calls: 500)
            let before = server.refused
            server.serve(&control, calls: 5_000)
            #expect(server.refused - before < 100, "seed \(seed)")
            #expect((5...10).contains(control.settled), "seed \(seed)")
        }
    }

    @Test("All refusals of calls that were under way together halve it once")
    func oneCut() {
        var control = ConcurrencyControl(start: 16, maximum: 32)
        let epoch = control.epoch
        for _ in 0..<16 { control.overloaded(admittedIn: epoch) }
        #expect(control.limit == 8)
        control.overloaded(admittedIn: control.epoch)
        #expect(control.limit == 4)
        for _ in 0..<5 { control.overloaded(admittedIn: control.epoch) }
        #expect(control.limit == 1)
    }

    @Test("Where the caller asks less than is allowed, nothing is learned and nothing changes")
    func idleCaller() {
        var server = SimulatedServer(capacity: 12, seed: 3)
        var control = ConcurrencyControl(start: 6, maximum: 48)
        server.serve(&control, calls: 2_000, demand: 5)
        #expect(control.limit == 6)
        #expect(control.settled == 6)
    }

    @Test("What has not been proved is not handed to the next run")
    func settled() {
        var server = SimulatedServer(capacity: 40, seed: 4)
        var control = ConcurrencyControl(start: 8, maximum: 48)
        // Enough for a round at 8; the caller never fills the 16 that are tried next.
        server.serve(&control, calls: 200, demand: 10)
        #expect(control.limit == 16)
        #expect(control.settled == 8)
    }

    @Test("Failures that have nothing to do with load change nothing")
    func failures() {
        var server = SimulatedServer(capacity: 12, seed: 5)
        var control = ConcurrencyControl(start: 6, maximum: 48)
        server.isBroken = true
        server.serve(&control, calls: 1_000)
        #expect(control.limit == 6)
    }

    @Test("Small and large calls mixed at random are not taken for changes of the store's speed")
    func mixture() {
        for seed in seeds {
            var generator = SeededGenerator(seed: seed)
            var control = ConcurrencyControl(start: 8, maximum: 8)
            // Each size has a time of its own, always the same: the best limit is all there is.
            for _ in 0..<5_000 {
                let isLarge = Int.random(in: 0..<4, using: &generator) == 0
                control.succeeded(
                    .init(.down, bytes: isLarge ? 64 << 20 : 0),
                    nanoseconds: isLarge ? 2_000_000_000 : 30_000_000,
                    admittedIn: control.epoch, wasFull: true)
                #expect(control.settled == 8, "seed \(seed)")
            }
        }
    }

    @Test("It stays between one call and its bound", arguments: [1, 2, 3, 7])
    func bounds(maximum: Int) {
        var server = SimulatedServer(capacity: 100, seed: 6)
        var control = ConcurrencyControl(start: 50, maximum: maximum)
        #expect(control.limit == maximum)
        for _ in 0..<500 {
            server.serve(&control, calls: 1)
            #expect((1...maximum).contains(control.limit))
        }
        #expect(control.settled == maximum)
    }
}
