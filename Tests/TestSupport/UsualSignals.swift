package import Glibc

/// How a program that a test starts treats signals: as one that a person starts does.
///
/// The threads on which tests run block signals, and a program inherits that. Whoever runs the tests
/// may ignore some, as a shell does for its jobs in the background and nohup for what it starts; the
/// command heeds that, and would then never end.
package func withUsualSignals<Value>(
    _ body: (UnsafePointer<posix_spawnattr_t>) throws -> Value
) rethrows -> Value {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    var usual = sigset_t()
    sigemptyset(&usual)
    for number in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE] { sigaddset(&usual, number) }
    posix_spawnattr_setsigdefault(&attributes, &usual)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    return try body(&attributes)
}
