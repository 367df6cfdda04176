import Glibc
import TestSupport
import Testing

/// What the built command does on an SFTP server beside backups.
@Suite("The built command and an SFTP server")
struct SFTPCommandTests {
    @Test("store check leaves nothing behind where there was nothing")
    func storeCheck() throws {
        guard let binary = BuiltCommand.path else {
            try Test.cancel("the command is not built: make test builds it")
        }
        let place = try StorePlace(.openSSH, ownServer: true)
        let server = try #require(place.server)
        let name = try #require(place.location.split(separator: "/").last)
        let host = TestHost("examiner")
        defer { withExtendedLifetime(host) {} }
        let environment = place.environment.merging(host.environment) { $1 }
        let outcome = BuiltCommand.output([binary, "store", "check"] + place.words, environment)
        #expect(outcome.code == 0, "\(outcome.said)")
        #expect(access("\(server["SFTP_DATA_DIR"])/\(name)", F_OK) != 0)
    }
}
