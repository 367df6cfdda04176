import CSystem

/// File systems that hold no files: what is in them the kernel makes up as it is read.
///
/// A walk that comes upon one keeps the directory it is mounted on and nothing below. Their content
/// cannot be restored, reading some of it never ends (`/proc/kcore` claims 128 TiB), and some of it
/// does something when it is read. A file system in memory, such as tmpfs, is not one of them: what
/// is in it somebody has put there.
enum KernelFileSystem {
    /// Numbers as statfs(2) gives them.
    private static let types: Set<UInt64> = [
        0x9FA0,  // proc
        0x6265_6572,  // sysfs
        0x1CD1,  // devpts
        0x0027_E0EB,  // cgroup
        0x6367_7270,  // cgroup2
        0x6462_6720,  // debugfs
        0x7472_6163,  // tracefs
        0x7363_6673,  // securityfs
        0xF97C_FF8C,  // selinuxfs
        0x4341_5D53,  // smackfs
        0x6165_676C,  // pstore
        0xDE5E_81E4,  // efivarfs
        0x6265_6570,  // configfs
        0xCAFE_4A11,  // bpf
        0x6573_5543,  // fusectl
        0x1980_0202,  // mqueue
        0x4249_4E4D,  // binfmt_misc
        0x6759_6969,  // rpc_pipefs
        0x6E66_7364,  // nfsd
        0x6E73_6673,  // nsfs
        0x0765_5821,  // resctrl
        0x9FA1,  // openprom
        0xABBA_1974,  // xenfs
    ]

    /// Whether an open directory lies in one.
    static func holds(_ descriptor: Int32) -> Bool {
        var status = csys_filesystem()
        return csys_fstatfs(descriptor, &status) == 0 && types.contains(status.type_magic)
    }
}
