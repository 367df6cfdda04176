import Glibc
import TestSupport
import Testing

/// What the Swift side of the servers of our own says to them, and hears.
@Suite("Servers of our own, from Swift")
struct FaultProxyTests {
    @Test("Rules reach the proxy, and their counts come back")
    func rules() throws {
        let origin = try available { try StrictS3() }
        let proxy = try FaultProxy(
            toward: origin["S3_ENDPOINT"], rules: "nth=2,status=503:SlowDown")
        #expect(ask(proxy.port) == "HTTP/1.1 403 Forbidden")
        #expect(proxy.fired == [0])
        #expect(ask(proxy.port) == "HTTP/1.1 503 Fault")
        #expect(proxy.fired == [1])
        proxy.set("refuse=1", "status=500")
        #expect(ask(proxy.port) == nil)
        #expect(proxy.fired == [1, 0])
        proxy.set()
        proxy.goOffline()
        #expect(ask(proxy.port) == nil)
        proxy.goOnline()
        #expect(ask(proxy.port) == "HTTP/1.1 403 Forbidden")
    }

    @Test("The strict server's log tells what was asked, and a rule what it did")
    func log() throws {
        let server = try available { try StrictS3(["--region", "eu-west-3"], bucket: "b1") }
        #expect(server["S3_REGION"] == "eu-west-3")
        let port = String(server["S3_ENDPOINT"].split(separator: ":").last ?? "")
        server.fail("path=/b1/k%20,status=500")
        #expect(ask(port, "/b1/k%20?versionId=1") == "HTTP/1.1 500 Internal Server Error")
        #expect(ask(port, "/b1/other") == "HTTP/1.1 403 Forbidden")
        #expect(server.fired() == [1])
        let requests = server.log()
        #expect(requests.map(\.operation) == ["GetObject", "GetObject"])
        #expect(requests.map(\.key) == ["k%20", "other"])
        #expect(requests.map(\.query) == ["versionId=1", "-"])
        #expect(requests.map(\.status) == [500, 403])
        #expect(requests.map(\.code) == ["InternalError", "AccessDenied"])
        #expect(requests[0].headers == ["range": "bytes=1-2"])
        #expect(requests[0].connection != requests[1].connection)
        server.reset()
        #expect(server.log().isEmpty)
    }

    /// The first line of the answer to an anonymous request, nil where there is none.
    private func ask(_ port: String, _ path: String = "/") -> String? {
        let connection = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(connection) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = (UInt16(port) ?? 0).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(connection, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard connected == 0 else { return nil }
        let request = Array(
            "GET \(path) HTTP/1.1\r\nHost: here\r\nRange: bytes=1-2\r\n\r\n".utf8)
        guard send(connection, request, request.count, Int32(MSG_NOSIGNAL)) > 0 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(connection, &buffer, buffer.count, 0)
        guard count > 0 else { return nil }
        let answer = String(decoding: buffer[..<count], as: UTF8.self)
        return answer.split(separator: "\r\n").first.map(String.init)
    }
}
