import TestSupport
import Testing

@testable import ObjectStorage

@Suite("What S3 says in XML")
struct S3MessageTests {
    // MARK: - XML

    @Test(
        "Every form of text and tag that XML allows is read",
        arguments: [
            ("<a/>", ["<a", "a>"]), ("<a></a>", ["<a", "a>"]),
            ("\u{feff}<?xml version='1.0'?>\n<a>x</a>\n", ["<a", "x", "a>"]),
            ("<x:a xmlns:x='y' b=\"1\" ><x:c d='>'/></x:a>", ["<a", "<c", "c>", "a>"]),
            (
                "<a>&lt;&amp;&gt;&quot;&apos;&#65;&#x42;&#128512;</a>",
                ["<a", "<&>\"'AB\u{1f600}", "a>"]
            ),
            ("<a>x<!-- <no> & -->y<![CDATA[<&]]>z</a>", ["<a", "xy<&z", "a>"]),
            ("<a> <b> </b></a>", ["<a", " ", "<b", " ", "b>", "a>"]),
            ("<a>\u{e9}\u{65e5}</a >", ["<a", "\u{e9}\u{65e5}", "a>"]),
        ])
    func wellFormed(document: String, events: [String]) throws {
        #expect(try S3MessageTests.events(Array(document.utf8)) == events)
    }

    @Test(
        "What is not well formed, or more than a service has to say, is refused",
        arguments: [
            "", " ", "x", "<a>", "<a", "<a></b>", "</a>", "<a/><b/>", "<a/>x", "<a>&nbsp;</a>",
            "<a>&#0;</a>", "<a>&#xD800;</a>", "<a>&#x110000;</a>", "<a>&#-1;</a>", "<a>&#;</a>",
            "<a>& </a>", "<a>&amp</a>", "<a b></a>", "<a b=1></a>", "<a b='1></a>", "<a b='<'/>",
            "<a b='1'c='2'/>", "<a/ >", "<>x</>", "< a/>", "<a><!-- </a>", "<a><![CDATA[x]]</a>",
            "<!DOCTYPE a><a/>", "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "<a>\u{1}</a>",
            "<![CDATA[x]]><a/>", "<a></a", "<a><b></a></b>",
        ])
    func malformed(document: String) {
        #expect(throws: XMLReader.Malformed.self) {
            try S3MessageTests.events(Array(document.utf8))
        }
    }

    @Test(
        "Bytes that are not UTF-8 are refused",
        arguments: [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80]])
    func notText(bytes: [UInt8]) {
        let document = Array("<a>".utf8) + bytes + Array("</a>".utf8)
        #expect(throws: XMLReader.Malformed.self) { try S3MessageTests.events(document) }
    }

    @Test("Nesting and names have an end")
    func bounds() throws {
        func nested(_ depth: Int) -> [UInt8] {
            Array(
                (String(repeating: "<a>", count: depth) + String(repeating: "</a>", count: depth))
                    .utf8)
        }
        #expect(try S3MessageTests.events(nested(XMLReader.maximumDepth)).count == 64)
        #expect(throws: XMLReader.Malformed.self) {
            try S3MessageTests.events(nested(XMLReader.maximumDepth + 1))
        }
        let name = String(repeating: "n", count: XMLReader.maximumNameBytes)
        #expect(try S3MessageTests.events(Array("<\(name)/>".utf8)).count == 2)
        #expect(throws: XMLReader.Malformed.self) {
            try S3MessageTests.events(Array("<\(name)n/>".utf8))
        }
    }

    @Test("Damaged documents are read or refused, and nothing else happens", arguments: 0..<8)
    func fuzz(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let scraps: [[UInt8]] = [
            "<", ">", "</", "/>", "<!--", "-->", "<![CDATA[", "]]>", "<?", "?>", "&", ";", "&#",
            "&#x",
            "=", "'", "\"", "<Contents>", "</Contents>", "<Key>", "\u{0}", "999999999999999999999",
        ].map { Array($0.utf8) }
        for _ in 0..<2_000 {
            var document = Array(S3MessageTests.page.utf8)
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                guard !document.isEmpty else { break }
                let position = Int.random(in: 0..<document.count, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: document[position] = UInt8.random(in: 0...255, using: &generator)
                case 1:
                    document.insert(
                        contentsOf: scraps.randomElement(using: &generator) ?? [], at: position)
                case 2:
                    let end = min(
                        document.count, position + Int.random(in: 1...40, using: &generator))
                    document.removeSubrange(position..<end)
                default: document.removeLast(document.count - max(1, position))
                }
            }
            // Whatever comes of it, it must come to an end, and within its bounds.
            let page = try? S3Messages.listPage(document)
            for object in page?.objects ?? [] { #expect(object.key.utf8.count <= document.count) }
            _ = S3Messages.failure(document)
            _ = try? S3Messages.deleteFailures(document)
            _ = try? S3Messages.isObjectLockEnabled(document)
        }
    }

    /// Tags as `<name` and `name>`, text as it is.
    private static func events(_ document: [UInt8]) throws(XMLReader.Malformed) -> [String] {
        var reader = XMLReader(document)
        var events: [String] = []
        while true {
            switch try reader.next() {
            case .start(let name): events.append("<" + name)
            case .end(let name): events.append(name + ">")
            case .text(let text): events.append(text)
            case .finish: return events
            }
        }
    }

    // MARK: - Messages

    private static let page = """
        <?xml version="1.0" encoding="UTF-8"?>
        <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
        <Prefix>a+b/</Prefix><KeyCount>2</KeyCount><EncodingType>url</EncodingType>
        <IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b=</NextContinuationToken>
        <Contents><Key>a+b/%C3%A9%2B</Key><LastModified>2026-11-26T19:32:36.123Z</LastModified>
        <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>0</Size>
        <Owner><ID>x</ID><DisplayName>y</DisplayName></Owner></Contents>
        <Contents><Key>a+b/c</Key><LastModified>2026-11-26T19:32:36Z</LastModified>
        <ETag>0123456789abcdef0123456789abcdef-2</ETag><Size>5368709120</Size></Contents>
        <CommonPrefixes><Prefix>z/</Prefix></CommonPrefixes></ListBucketResult>
        """

    @Test("A page of a listing is read, its keys decoded")
    func listPage() throws {
        let page = try S3Messages.listPage(Array(S3MessageTests.page.utf8))
        #expect(page.isTruncated)
        #expect(page.continuation == "a&b=")
        #expect(page.objects.map(\.key) == ["a b/\u{e9}+", "a b/c"])
        #expect(page.objects.map(\.length) == [0, 5_368_709_120])
        #expect(page.objects.map(\.modified) == [1_795_721_556, 1_795_721_556])
        #expect(
            S3Store.md5(eTag: page.objects[0].eTag)
                == [
                    0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec,
                    0xf8, 0x42,
                    0x7e,
                ])
        #expect(S3Store.md5(eTag: page.objects[1].eTag) == nil)
    }

    @Test("Keys that the service did not encode are taken as they are")
    func plainKeys() throws {
        let document =
            "<ListBucketResult><Contents><Key>a+b%20</Key><Size>1</Size></Contents></ListBucketResult>"
        let page = try S3Messages.listPage(Array(document.utf8))
        #expect(page.objects.map(\.key) == ["a+b%20"])
        #expect(!page.isTruncated)
    }

    @Test("An error is known by its root, whatever the status said")
    func failures() throws {
        let document =
            "<Error><Code>NoSuchBucket</Code><Message>a &lt;b&gt;</Message><Region>x</Region></Error>"
        let failure = S3Messages.failure(Array(document.utf8))
        #expect(failure?.code == "NoSuchBucket")
        #expect(failure?.message == "a <b>")
        #expect(failure?.details["Region"] == "x")
        #expect(S3Messages.failure(Array("<html><Code>x</Code></html>".utf8)) == nil)
        #expect(S3Messages.failure([]) == nil)
        #expect(throws: XMLReader.Malformed.self) {
            try S3Messages.listPage(Array(document.utf8))
        }
    }

    @Test("A request to delete names every key, whatever it holds")
    func deletion() throws {
        let keys = ["a", "<&>\"'", " \n\t", "\u{e9}"]
        var reader = XMLReader(S3Messages.deletion(of: keys))
        var read: [String] = []
        var isKey = false
        loop: while true {
            switch try reader.next() {
            case .start(let name): isKey = name == "Key"
            case .text(let text): if isKey { read.append(text) }
            case .end: isKey = false
            case .finish: break loop
            }
        }
        #expect(read == keys)
        let failures = try S3Messages.deleteFailures(
            Array(
                ("<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b&amp;</Key>"
                    + "<Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>").utf8)
        )
        #expect(failures.map(\.key) == ["b&"])
        #expect(failures.map(\.code) == ["AccessDenied"])
    }

    @Test("Text in addresses is encoded and decoded without loss", arguments: 0..<4)
    func percentEncoding(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<500 {
            let scalars = (0..<Int.random(in: 0..<20, using: &generator)).map { _ in
                Unicode.Scalar(UInt32.random(in: 0..<0xd800, using: &generator)) ?? "x"
            }
            let text = String(String.UnicodeScalarView(scalars))
            #expect(URLText.decoded(URLText.encoded(text)) == text)
            #expect(URLText.decoded(URLText.encoded(text, keepsSlash: true)) == text)
            #expect(URLText.encoded(text).utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != 0x2f })
        }
        #expect(URLText.decoded("a%2") == nil)
        #expect(URLText.decoded("a%zz") == nil)
        #expect(URLText.decoded("%ff") == nil)
        #expect(URLText.decoded("a+b%2B") == "a b+")
    }

    @Test("Times are read in the two forms that services use")
    func times() {
        #expect(StoreTime.seconds(iso8601: "1970-01-01T00:00:01Z") == 1)
        #expect(StoreTime.seconds(iso8601: "2026-11-26T19:32:36.987Z") == 1_795_721_556)
        #expect(StoreTime.seconds(iso8601: "2026-11-26T19:32:36+00:00") == 1_795_721_556)
        #expect(StoreTime.seconds(httpDate: "Thu, 26 Nov 2026 19:32:36 GMT") == 1_795_721_556)
        #expect(StoreTime.iso8601(1_795_721_556) == "2026-11-26T19:32:36Z")
        for text in ["", "2026-11-26", "2026-13-26T19:32:36Z", "2026-11-26T19:32:36", "x"] {
            #expect(StoreTime.seconds(iso8601: text) == nil, "\(text)")
        }
        for text in ["", "Thu, 26 Nov 2026 19:32:36", "Thu, 26 Foo 2026 19:32:36 GMT", "0"] {
            #expect(StoreTime.seconds(httpDate: text) == nil, "\(text)")
        }
    }
}
