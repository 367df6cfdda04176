#pragma once

// The Linux system calls that Swift's Glibc module does not import, as plain typed functions.
// Every function returns what the call returns, or the negated errno: no global errno, so that a
// caller on any thread reads its own error. Structures are our own, since a second `struct statx`
// or `S_IFREG` beside Glibc's would make those names ambiguous in Swift.

#include <stddef.h>
#include <stdint.h>

/// What batchsync wants to know of a file. Times are seconds since 1970 and nanoseconds.
typedef struct {
    uint64_t inode;
    uint64_t size;
    uint64_t blocks;            // of 512 bytes
    int64_t mtime_sec;
    int64_t ctime_sec;
    int64_t btime_sec;          // 0 where has_btime is 0
    uint32_t mtime_nsec;
    uint32_t ctime_nsec;
    uint32_t btime_nsec;
    uint32_t mode;              // type and permission bits
    uint32_t uid;
    uint32_t gid;
    uint32_t links;
    uint32_t device_major;
    uint32_t device_minor;
    uint32_t rdev_major;
    uint32_t rdev_minor;
    uint32_t has_btime;
} csys_stat;

// Kinds of file: csys_kind(mode) gives one of these.
#define CSYS_FILE 1
#define CSYS_DIRECTORY 2
#define CSYS_SYMLINK 3
#define CSYS_FIFO 4
#define CSYS_SOCKET 5
#define CSYS_CHARDEV 6
#define CSYS_BLOCKDEV 7
static inline int csys_kind(uint32_t mode) {
    switch (mode & 0170000u) {
    case 0100000u: return CSYS_FILE;
    case 0040000u: return CSYS_DIRECTORY;
    case 0120000u: return CSYS_SYMLINK;
    case 0010000u: return CSYS_FIFO;
    case 0140000u: return CSYS_SOCKET;
    case 0020000u: return CSYS_CHARDEV;
    case 0060000u: return CSYS_BLOCKDEV;
    default: return 0;
    }
}

/// fstatat without following a symlink; birth time stays 0. The cheapest status there is.
int csys_lstatat(int dirfd, const char *name, csys_stat *out);
/// fstat.
int csys_fstat(int fd, csys_stat *out);
/// statx with birth time; `name` may be "" to mean `dirfd` itself. Does not follow a symlink.
int csys_statx(int dirfd, const char *name, csys_stat *out);

/// getdents64 into `buffer`; returns bytes, 0 at the end. Records are struct linux_dirent64.
long csys_getdents(int fd, void *buffer, size_t size);

int csys_open(const char *path, int flags, uint32_t mode);
int csys_openat(int dirfd, const char *name, int flags, uint32_t mode);
/// openat2 with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS; on a kernel without it -ENOSYS.
int csys_open_beneath(int dirfd, const char *path, int flags, uint32_t mode);
/// Open flags that Swift does not import, combined by the caller.
extern const int CSYS_O_PATH, CSYS_O_NOATIME, CSYS_O_TMPFILE, CSYS_O_DIRECTORY, CSYS_O_NOFOLLOW,
    CSYS_O_CLOEXEC, CSYS_O_NONBLOCK;

long csys_pread(int fd, void *buffer, size_t size, int64_t offset);
long csys_pwrite(int fd, const void *buffer, size_t size, int64_t offset);
int csys_close(int fd);
/// The next offset >= `offset` that holds data, or is a hole; -ENXIO past the end.
int64_t csys_seek_data(int fd, int64_t offset);
int64_t csys_seek_hole(int fd, int64_t offset);
int csys_ftruncate(int fd, int64_t size);
int csys_fallocate_punch_hole(int fd, int64_t offset, int64_t length);
int csys_fsync(int fd);
int csys_fdatasync(int fd);
int csys_syncfs(int fd);
/// Starts writing a range to disk without waiting for it.
int csys_start_writeback(int fd, int64_t offset, int64_t length);
int csys_fadvise_sequential(int fd);
int csys_fadvise_dontneed(int fd, int64_t offset, int64_t length);
int csys_reflink(int destination, int source);
int csys_reflink_range(int destination, int64_t destination_offset, int source, int64_t source_offset, int64_t length);

/// Extended attributes of an open file; for names relative to a directory see the _at forms, which go through
/// /proc/self/fd and never follow a final symlink.
long csys_flistxattr(int fd, char *buffer, size_t size);
long csys_fgetxattr(int fd, const char *name, void *buffer, size_t size);
int csys_fsetxattr(int fd, const char *name, const void *value, size_t size);
int csys_fremovexattr(int fd, const char *name);
long csys_listxattr_at(int dirfd, const char *name, char *buffer, size_t size);
long csys_getxattr_at(int dirfd, const char *name, const char *attribute, void *buffer, size_t size);
int csys_setxattr_at(int dirfd, const char *name, const char *attribute, const void *value, size_t size);
int csys_removexattr_at(int dirfd, const char *name, const char *attribute);

/// Inode flags (FS_IOC_GETFLAGS / FS_IOC_SETFLAGS), the FS_*_FL bits.
int csys_getflags(int fd, uint32_t *flags);
int csys_setflags(int fd, uint32_t flags);

long csys_readlinkat(int dirfd, const char *name, char *buffer, size_t size);
int csys_mkdirat(int dirfd, const char *name, uint32_t mode);
int csys_symlinkat(const char *target, int dirfd, const char *name);
int csys_linkat(int fromdir, const char *from, int todir, const char *to);
/// Links an open O_TMPFILE or other descriptor to a name, through /proc/self/fd.
int csys_link_descriptor(int fd, int todir, const char *to);
/// mknodat; `mode` carries the kind.
int csys_mknodat(int dirfd, const char *name, uint32_t mode, uint32_t major, uint32_t minor);
int csys_unlinkat(int dirfd, const char *name, int remove_directory);
int csys_renameat(int fromdir, const char *from, int todir, const char *to);
/// renameat2(RENAME_NOREPLACE).
int csys_renameat_noreplace(int fromdir, const char *from, int todir, const char *to);
int csys_fchmod(int fd, uint32_t mode);
/// fchmodat; follows a final symlink where the kernel has no fchmodat2, so never call it on a symlink.
int csys_fchmodat(int dirfd, const char *name, uint32_t mode);
int csys_fchown(int fd, uint32_t uid, uint32_t gid);
/// lchownat: changes a symlink itself.
int csys_lchownat(int dirfd, const char *name, uint32_t uid, uint32_t gid);
/// Sets mtime (and atime to the same); the _at form changes a symlink itself.
int csys_futimens(int fd, int64_t mtime_sec, uint32_t mtime_nsec);
int csys_lutimensat(int dirfd, const char *name, int64_t mtime_sec, uint32_t mtime_nsec);

/// File system type magic, size and room.
typedef struct {
    uint64_t type_magic;
    uint64_t block_bytes;
    uint64_t blocks_total;
    uint64_t blocks_available;
    uint64_t files_available;
} csys_filesystem;
int csys_fstatfs(int fd, csys_filesystem *out);

/// Advisory whole-file lock (flock), exclusive, without waiting.
int csys_try_lock(int fd);
/// The same, and waits for whoever holds it.
int csys_lock(int fd);

/// CLOCK_REALTIME and CLOCK_BOOTTIME in nanoseconds. The second runs through suspend.
int64_t csys_realtime_ns(void);
int64_t csys_boottime_ns(void);
/// Fills `buffer` with random bytes from the kernel.
int csys_random(void *buffer, size_t size);
/// Raises the soft limit of open files to the hard limit; returns the limit in force.
long csys_raise_open_files(void);
/// Peak resident set of this process in bytes.
long csys_peak_memory(void);
/// 1 where the file descriptor is a terminal; columns is its width, or 0.
int csys_terminal(int fd, int *columns);
/// Switches echo on a terminal; returns the former state (1 on, 0 off).
int csys_terminal_echo(int fd, int on);

/// chmod of one name in a directory, which never follows a symlink (-ELOOP or -EOPNOTSUPP for one).
int csys_chmod_nofollow(int dirfd, const char *name, uint32_t mode);
/// copy_file_range: bytes copied inside the kernel, shared where the file system can; 0 at the source's end.
long csys_copy_range(int destination, int64_t destination_offset, int source, int64_t source_offset, size_t size);

/// A file in memory that has no name but `/proc/self/fd/N`; `name` is for whoever looks there.
int csys_memory_file(const char *name);

/// A pipe whose ends are closed in programs that are started.
int csys_pipe(int ends[2]);

/// Tells the allocator, before there are threads, to let them share their reserves and to give large buffers back to
/// the kernel. Left alone it keeps a reserve for each thread, and in each the largest that it ever held.
void csys_spare_memory(void);
