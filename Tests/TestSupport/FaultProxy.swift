/// A proxy of our own between a client and a server, which breaks what a script says.
package final class FaultProxy: Sendable {
    package let server: TestServer
    private let endpoint: String

    /// What it understands of the bytes that pass.
    package enum Layer: String, Sendable {
        /// Requests and answers: rules count requests.
        case http
        /// Nothing: rules count connections. For SSH, and for TLS that is not to be looked into.
        case tcp
    }

    /// - Parameter endpoint: Where the server is, such as the `S3_ENDPOINT` of a `TestServer`; or
    ///   `127.0.0.1:PORT`.
    /// - Parameter options: More options of `faultproxy.py`, such as `--tls`.
    package init(
        toward endpoint: String, _ layer: Layer = .http, _ options: [String] = [],
        rules: String...
    ) throws {
        server = try TestServer(
            .faultProxy,
            ["--toward", endpoint, "--layer", layer.rawValue] + options
                + rules.flatMap { ["--rule", $0] })
        self.endpoint = server["PROXY_ENDPOINT"]
    }

    /// Where clients have to go instead of the server, with the scheme of an S3 endpoint.
    package var url: String { endpoint }

    /// Its port on 127.0.0.1.
    package var port: String { server["PROXY_PORT"] }

    /// From now on these rules are in force, and no others; see `scripts/servers/faultproxy.py`.
    package func set(_ rules: String...) { server.tell(["rules"] + rules) }

    /// The same, with the rules in an array.
    package func set(_ rules: [String]) { server.tell(["rules"] + rules) }

    /// How often each rule in force has happened, in their order.
    package var fired: [Int] { counts(server.tell("fired")) }

    /// From now on connections are refused, and those that are open are cut; until `goOnline`.
    package func goOffline() { server.tell("offline") }

    package func goOnline() { server.tell("online") }

    /// New connections get this much slower in each direction.
    package func delay(milliseconds: Int) { server.tell("latency", String(milliseconds)) }
}
